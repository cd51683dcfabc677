"""The folder of a study: its files, and whether it may be gone on with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from scanlearn.config.folder import (
    CONFIG_FILE,
    differences,
    open_folder,
    read_kept,
    replace_kept,
)
from scanlearn.config.reading import read_json
from scanlearn.errors import ScanlearnError
from scanlearn.files import make_folder, remove_torn, write_atomically
from scanlearn.locks import BusyError, beside, held
from scantune.learners.table import LEARNERS
from scantune.study.plan import CompareConfig
from scantune.study.results import FIGURES, RESULTS_FILE, EarlierAnswer

# These change where a study is and what is seen of it, not what comes out; the content of the
# archives is compared by hash.
PRESENTATION = frozenset(
    {
        "unlabeled",
        "labels",
        "output",
        "leaks",
        "evaluation.test",
        "pack.summary",
        "pack.workers",
        "pack.wait",
        "pretrain.device",
        "pretrain.checkpoint_minutes",
        "pretrain.checkpoint_steps",
        "pretrain.logging",
        "pretrain.progress",
        "wait",
        "jobs",
        "launcher",
        "cluster",
    }
)

# These say which pieces there are and what is made of them; no piece of the study depends on them.
# Of tune and arms those depend on which there are pieces of.
_GROWING = frozenset(
    {
        "title",
        "tasks",
        "arms",
        "seeds",
        "max_seeds",
        "primary",
        "margin",
        "label_free",
        *(f"evaluation.{key}" for key in ("learners", "budgets", "label_seeds", "replicates")),
    }
)
# What chose the canvas of scans that the study packed, beside the hashes of its archives.
_CANVAS = "canvas chosen by"
_MOMENT_S = 0.05
# Of the results under an earlier plan, beside that plan.
_ANSWER = ".answer.json"


@dataclass(frozen=True)
class StudyFolder:
    """Where a study keeps what it has done."""

    path: Path

    @property
    def archives(self) -> Path:
        """Hashes of the archives the study was started on."""
        return self.path / "archives.json"

    @property
    def resolved(self) -> Path:
        """What was resolved once for the runs of all arms and seeds, and on which machine."""
        return self.path / "resolved.json"

    @property
    def logs(self) -> Path:
        """What jobs beside the first one print."""
        return self.path / "logs"

    @property
    def looks(self) -> Path:
        """Numbers of seeds at which the newest plan was looked at, and nothing was settled."""
        return self.path / "looks.json"

    def unsettled(self, config: CompareConfig) -> tuple[int, ...]:
        """Returns the looks of a plan after which it goes on; empty where another plan is newer.

        What was silently wrong: a command that came later looked at fewer seeds again, and replaced
        the results that another had by then.
        """
        if not self.looks.is_file() or differences(self.path, config, PRESENTATION | {"seeds"}):
            return ()
        return self._unsettled()

    def add_unsettled(self, num_seeds: int) -> None:
        """Records that the newest plan settled nothing at that number of seeds."""
        looks = sorted({*self._unsettled(), num_seeds})
        write_atomically(self.looks, json.dumps(looks) + "\n")

    def _unsettled(self) -> tuple[int, ...]:
        if not self.looks.is_file():
            return ()
        return read_json(
            self.looks,
            tuple[int, ...],
            what="does not list numbers of seeds",
            remedy="delete it to have the study looked at from the first look on",
        )

    @property
    def is_begun(self) -> bool:
        """Whether a network was begun, scored or measured; also where no start recorded itself."""
        pieces = (f"arms/*/*/{CONFIG_FILE}", "scores/*/*", "label-free/*")
        is_recorded = self.archives.is_file()
        return not is_recorded or any(any(self.path.glob(each)) for each in pieces)

    @property
    def leaks(self) -> Path:
        """What the leak audit found."""
        return self.path / "leaks"

    @property
    def leaking(self) -> Path:
        """Ids of the unlabeled scans of which a test may see the patient or a copy."""
        return self.leaks / "leaking.txt"

    @property
    def leaking_before(self) -> Path:
        """The same under the plan before, until the scans are audited again."""
        return self.leaks / "leaking.before.txt"

    @property
    def figures(self) -> Path:
        """Pictures for the report."""
        return self.path / FIGURES

    def run(self, arm: str, seed: int) -> Path:
        """Run folder of one arm at one pretraining seed."""
        return self.path / "arms" / arm / f"seed-{seed}"

    def scores(self, task: str, network: str) -> Path:
        """Out-of-fold scores of one network on one task."""
        # A column name may hold what a file name cannot.
        safe = "".join(c if c.isalnum() or c in "-_" else f"%{ord(c):x}" for c in task)
        return self.path / "scores" / safe / f"{network}.npz"

    def label_free(self, network: str) -> Path:
        """What was measured of one network without labels."""
        return self.path / "label-free" / f"{network}.json"

    @property
    def plans(self) -> tuple[Path, ...]:
        """The plans of the study, the first one first, and the newest, ``config.yaml``, last."""
        earlier = sorted((self.path / "plans").glob("*.yaml"))
        return (*earlier, self.path / CONFIG_FILE)

    @property
    def wandb_group(self) -> str:
        """What wandb calls the study: its title, and a hash of the plan with which it was begun."""
        first = self.plans[0]
        number = hashlib.sha256(first.read_bytes()).hexdigest()[:8]
        return f"{_read_plan(first).get('title', 'study')} ({number})"

    def begun(self, config: CompareConfig) -> CompareConfig:
        """Returns the plan with which the study was begun; the one given if there was none."""
        first = self.plans[0]
        return CompareConfig.model_validate(_read_plan(first)) if first.is_file() else config

    @property
    def answered(self) -> Iterator[tuple[CompareConfig, EarlierAnswer]]:
        """Plans before the newest that results were written of, each with its answer.

        Raises:
            ScanlearnError: A file of the study is damaged.
        """
        for path in self.plans[:-1]:
            answer = path.with_suffix(_ANSWER)
            if answer.is_file():
                plan = CompareConfig.model_validate(_read_plan(path))
                yield plan, _read_answer(answer)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the time spent inside to a stage's total, over all commands on the study."""
        began = monotonic()
        yield
        took, path = monotonic() - began, self.path / "timing.json"
        while True:
            try:
                with held(beside(path), path):
                    spent = self.timing()
                    spent[stage] = spent.get(stage, 0.0) + took
                    write_atomically(path, json.dumps(spent, indent=1) + "\n")
            except BusyError:
                sleep(_MOMENT_S)  # Another command on the study adds its own.
            else:
                return

    def timing(self) -> dict[str, float]:
        """Seconds spent in each stage."""
        path = self.path / "timing.json"
        if not path.is_file():
            return {}
        return read_json(
            path,
            dict[str, float],
            what="does not hold the seconds of each stage",
            remedy="delete it to go on without the times so far",
        )


def open_study(config: CompareConfig, *, is_shared: bool = False) -> StudyFolder:
    """Creates the study's folder, or opens it again, also with a plan of more or fewer pieces.

    A study of which nothing is made yet, such as one that its leaks stopped, takes any plan.
    The newest plan is ``config.yaml``, those before it are kept in ``plans``.

    Args:
        is_shared: Whether another command is at work on it.

    Raises:
        BusyError: Another command is at work on it with another plan.
        ScanlearnError: See `open_folder`; or the plan changes what pieces of the study were made
            with.
    """
    folder = StudyFolder(Path(config.output).expanduser())
    ignored = PRESENTATION | _GROWING
    newest = folder.path / CONFIG_FILE
    if newest.is_file():
        ignored |= _unread(config, folder)
    is_begun = is_shared or folder.is_begun
    if open_folder(folder.path, config, kind="study", ignored=ignored, is_begun=is_begun):
        # No piece was made under those settings, and the scans may be others.
        prepared = (folder.archives, folder.resolved, folder.looks, folder.leaking)
        for path in (*prepared, folder.leaking_before, *folder.plans[:-1]):
            path.unlink(missing_ok=True)
    if not is_shared:
        remove_torn(folder.path)
    changed = differences(folder.path, config, PRESENTATION)
    if changed and is_shared:
        raise BusyError(
            f"{folder.path}: another command is at work on it with another plan ({changed[0]}); let"
            " it end, start this one with the same plan to share its work, or give wait=true"
        )
    if changed:
        _check_arms(config, folder)
        if not all(text.startswith("seeds ") for text in changed):
            folder.looks.unlink(missing_ok=True)
        if any(text.startswith("tasks ") for text in changed) and folder.leaking.is_file():
            # Another task may test other scans: they are audited again.
            folder.leaking.rename(folder.leaking_before)
        number = len(folder.plans)
        kept = folder.path / "plans" / f"{number:03d}.yaml"
        make_folder(kept.parent)
        if (folder.path / RESULTS_FILE).is_file():
            answer = _read_answer(folder.path / RESULTS_FILE)
            # Where the plan was changed before it was answered, the answer is another plan's.
            if all(answer.created != earlier.created for _, earlier in folder.answered):
                write_atomically(kept.with_suffix(_ANSWER), answer.model_dump_json(indent=1) + "\n")
        write_atomically(kept, newest.read_bytes())
        replace_kept(folder.path, config)
    return folder


def _unread(config: CompareConfig, folder: StudyFolder) -> frozenset[str]:
    """Returns the keys of ``tune`` that no learner reads of which there are scores."""
    before = _read_plan(folder.plans[-1])
    learners = before.get("evaluation", {}).get("learners", ())
    if not any((folder.path / "scores").glob("*/*.npz")):
        learners = ()
    read = {key for name in learners if name in LEARNERS for key in LEARNERS[name].reads}
    tune = config.evaluation.tune.model_dump()
    return frozenset(f"evaluation.tune.{key}" for key in tune if key not in read)


def _check_arms(config: CompareConfig, folder: StudyFolder) -> None:
    """Refuses an arm that another plan of the study made otherwise.

    Raises:
        ScanlearnError: There is one.
    """
    now = config.model_dump(mode="json")["arms"]
    plans = [_read_plan(path).get("arms", {}) for path in folder.plans]
    for name, settings in now.items():
        made = [*folder.path.glob(f"arms/{name}/*/{CONFIG_FILE}")]
        for network in (name, f"{name}-seed-*"):
            made += folder.path.glob(f"scores/*/{network}.npz")
        before = next((plan[name] for plan in reversed(plans) if name in plan), settings)
        if config.arms[name].backbone_path is not None:
            # It may have moved: whether its weights are the same is told by the hash of its scores.
            before = {**before, "backbone": settings["backbone"]}
        if made and before != settings:
            keys = {**before, **settings}
            key = next(key for key in keys if before.get(key) != settings.get(key))
            raise ScanlearnError(
                f"{folder.path} holds networks of arm {name} whose {key} was {before.get(key)}, and"
                f" is {settings.get(key)} in the plan: give that arm another name, or restore it"
            )


def _read_answer(path: Path) -> EarlierAnswer:
    return read_json(
        path,
        EarlierAnswer,
        what="holds no answer of a study",
        remedy="delete it to have the study answered again",
    )


def _read_plan(path: Path) -> dict[str, Any]:
    plan = read_kept(path, CompareConfig)
    return plan if isinstance(plan, dict) else {}


def check_archives(folder: StudyFolder, hashes: Mapping[str, str]) -> None:
    """Records the archives of a new study; refuses others on a later start.

    Raises:
        ScanlearnError: The study was started on scans of other content.
    """
    if not folder.archives.is_file():
        known = {**hashes, _CANVAS: "area and aspect of the smallest crop"}
        write_atomically(folder.archives, json.dumps(known, indent=1) + "\n")
        return
    before = _archives(folder)
    for key in ({**before, **hashes}).keys() - {_CANVAS}:
        if before.get(key) != hashes.get(key):
            raise ScanlearnError(
                f"{folder.path} was started on different {key} scans: name another output folder, "
                "or use the scans it was started on"
            )


def chose_by_area(folder: StudyFolder) -> bool:
    """Whether an earlier release began the study: it chose the canvas by the area of crops alone.

    Raises:
        ScanlearnError: The record of its archives cannot be read.
    """
    return folder.archives.is_file() and _CANVAS not in _archives(folder)


def _archives(folder: StudyFolder) -> dict[str, str]:
    return read_json(
        folder.archives,
        dict[str, str],
        what="does not hold the hashes of the archives",
        remedy="restore it from a copy, or name another output folder",
    )
