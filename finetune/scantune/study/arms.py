"""The networks of a study: one per arm and pretraining seed, and the proof that they match."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from jaxtyping import Shaped
from pydantic import BaseModel

from scanlearn.archive.reader import Archive
from scanlearn.backbones.backbone import Backbone, has_batch_norm, weights_hash
from scanlearn.backbones.settings import BackboneConfig
from scanlearn.backbones.weights import load_backbone
from scanlearn.config.reading import read_json
from scanlearn.console import say, warn_user
from scanlearn.errors import ScanlearnError
from scanlearn.features.batch_norm import WholeScans
from scanlearn.files import make_folder, write_atomically
from scanlearn.training.conditions import (
    DIAL,
    Conditions,
    differences_in_words,
    machine_conditions,
    read_record,
)
from scanlearn.training.folder import RunFolder, read_rows
from scanlearn.training.monitor import final_health
from scanlearn.training.pretrain import PretrainResult, pretrain, pretrain_until
from scanlearn.training.run import (
    Resolved,
    initial_backbone,
    layout_of,
    read_provenance,
    resolve,
    training_device,
    with_batch_of,
)
from scanlearn.training.settings import PretrainConfig, TrainingSettings
from scantune.evaluation.backbone import EvaluatedBackbone, open_backbone, open_weights
from scantune.evaluation.classifier import View
from scantune.study.folder import StudyFolder
from scantune.study.plan import CompareConfig, Group
from scantune.study.results import Matched, Mismatch, RunRow, SeedMatch, TrainingCurve
from scantune.study.sharing import SharedPiece, make_all

_CURVE_POINTS = 200
_MATCHED = {
    "initial_hash": "initial weights",
    "order_hash": "data order",
    "uniforms_hash": "random draws",
    "steps": "steps",
}
# Earlier versions recorded none of these.
_RECORDED_SINCE = (
    *("device", "processor", "threads", "processes", "batch_size", "accumulate"),
    *("views.size", "views.recipe", "views.operations", "archive.scan_ids"),
)


def train_arms(
    config: CompareConfig,
    folder: StudyFolder,
    unlabeled: Archive,
    resolved: Mapping[Group, Resolved],
    meanwhile: Callable[[Sequence[RunRow]], bool] = lambda _: False,
) -> tuple[tuple[RunRow, ...], tuple[str, ...]]:
    """Trains every arm with every seed that no other command trains, or reads back what is there.

    Args:
        config: The plan on the devices that `resolve_groups` found.
        meanwhile: Called with the rows so far where others train all that is left; returns whether
            it found anything to do.

    Returns:
        A row per network, seed by seed, and what was warned of.
    """
    arms = [arm for arm in config.arms if config.arms[arm].kind in ("pretrained", "random")]
    rows: dict[tuple[int, str], RunRow] = {}
    warnings_of: dict[tuple[int, str], tuple[str, ...]] = {}
    networks = [(seed, arm) for seed in config.seeds for arm in arms]

    def train(seed: int, arm: str) -> None:
        where = f"arm {arm}, seed {seed} ({networks.index((seed, arm)) + 1} of {len(networks)})"
        if config.arms[arm].kind == "random":
            row = _random_row(config, arm, seed, unlabeled, resolved[config.groups[0]])
            aside = (
                f"; BatchNorm statistics of {row.statistics} unlabeled scans"
                if row.statistics
                else ""
            )
            say(f"{where}: untrained, the initial weights of the other arms{aside}")
            rows[seed, arm] = row
            return
        say(f"{where}:")
        run, group = folder.run(arm, seed), config.group(arm)
        _check_recipe(config, arm, run)
        leave_out = _leave_out(config, folder, unlabeled, group)
        with folder.timed("pretraining"):
            result = pretrain(
                config.run_config(arm, seed, run, leave_out), resolved=resolved[group]
            )
        rows[seed, arm] = _trained_row(config, folder, result, arm, seed)
        warnings_of[seed, arm] = result.warnings

    pieces = [
        SharedPiece(
            f"arm {arm} with seed {seed}",
            folder.run(arm, seed) if config.arms[arm].kind == "pretrained" else None,
            partial(train, seed, arm),
        )
        for seed, arm in networks
    ]
    make_all(pieces, lambda: meanwhile(tuple(rows.values())))
    warned: dict[tuple[str, str], list[int]] = {}
    for seed, arm in networks:
        for text in warnings_of.get((seed, arm), ()):
            warned.setdefault((arm, text), []).append(seed)
    warnings = [
        f"{arm} (seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}): {text}"
        for (arm, text), seeds in warned.items()
    ]
    return tuple(rows[network] for network in networks), tuple(warnings)


def train_until(
    config: CompareConfig,
    folder: StudyFolder,
    unlabeled: Archive,
    arm: str,
    step: int,
    resolved: Resolved,
    seed: int,
) -> tuple[Backbone, float]:
    """Trains an arm with one pretraining seed until a step; returns its network as it is then.

    At the last step the run is finished and exported.

    Returns:
        The network in evaluation mode, and the spread of its training's embeddings: 1 healthy, 0
        collapsed.

    Args:
        config: The plan on the devices that `resolve_once` found.

    Raises:
        NotFiniteError: The loss or a gradient is not finite.
        ScanlearnError: The run is beyond that step, or cannot be trained.
    """
    leave_out = _leave_out(config, folder, unlabeled, config.group(arm))
    run = config.run_config(arm, seed, folder.run(arm, seed), leave_out)
    if step < resolved.total_steps:
        network = pretrain_until(run, step, resolved)
    else:
        network, _ = load_backbone(pretrain(run, resolved=resolved).backbone)
    spread = final_health(RunFolder(Path(run.output)).metrics).spread
    return network.eval().to(training_device(config.pretrain.device)), spread


def given_rows(
    config: CompareConfig,
    labels: Archive,
    packed_again: Mapping[str, tuple[Archive, ...]] = MappingProxyType({}),
) -> tuple[tuple[RunRow, ...], list[str]]:
    """Loads every network that is not trained here, before the hours of training.

    Args:
        packed_again: The labeled scans of arms that have their own ``canvas``.

    Returns:
        A row for each, at the first seed: it is one network for all seeds; and what was warned of.

    Raises:
        ScanlearnError: One of them cannot be loaded.
    """
    rows, notes = [], []
    for name, arm in config.arms.items():
        if arm.kind not in ("backbone", "scratch"):
            continue
        scans = packed_again.get(name, (labels,))[0]
        given = load_given(config, name, scans)
        assert given.network is not None, "only the thumbnail has none"
        final = weights_hash(given.network)
        rows.append(RunRow(arm=name, seed=config.seeds[0], initial_hash="", final_hash=final))
        if given.card is not None and given.card.evidence_note is not None:
            notes.append(f"{name}: {given.card.evidence_note}.")
        notes += [f"{name}: {note}." for note in given.notes]
        if arm.kind == "backbone":
            say(f"arm {name}: given weights, {arm.backbone_name}, views of {given.view.size} px")
            notes += _given_notes(name, given.view.size, scans)
    if any(arm.kind == "backbone" for arm in config.arms.values()):
        names = ", ".join(name for name, arm in config.arms.items() if arm.kind == "backbone")
        notes.append(
            f"{names}: which scans a given backbone was pretrained on is not known, so that test "
            "patients may be among them: the leak audit does not speak of it."
        )
    return tuple(rows), notes


def _given_notes(name: str, side: int, labels: Archive) -> list[str]:
    canvas = min(labels.shape[1:])
    if canvas >= side:
        return []
    return [
        f"{name}: its views of {side} px are enlarged from scans packed at {canvas} px, which may "
        f"cost it what small findings look like; arms.{name}.canvas={side} packs them again for it."
    ]


def load_given(config: CompareConfig, arm: str, labels: Archive) -> EvaluatedBackbone:
    """Returns the network of an arm that is not trained here.

    A given one is shown scans as its card says. From scratch it is the plan's own network, whose
    weights are drawn anew for every training on labels.

    Raises:
        ScanlearnError: It cannot be loaded.
    """
    settings = config.arms[arm]
    if settings.kind == "scratch":
        # Of the labeled scans alone: no unlabeled one is known to it.
        view = View(config.pretrain.views.size, labels.mean, labels.std)
        network = _initial_backbone(config, config.seeds[0], labels).eval()
        network.to(training_device(config.pretrain.device))
        return EvaluatedBackbone({"kind": arm}, network, None, view, is_blank=True)
    try:
        if isinstance(settings.backbone, BackboneConfig):
            return open_weights(settings.backbone, labels, settings.size)
        return open_backbone(str(settings.backbone), labels, settings.size)
    except ScanlearnError as error:
        raise ScanlearnError(f"arms.{arm}: {error}") from error


def of_share(patients: Shaped[np.ndarray, " n"], share: float) -> Shaped[np.ndarray, " n"]:
    """Returns whether the patient of each scan is in a share of all patients, ``[n]``.

    The patients with the lowest hashes: the same in all arms and seeds, and a smaller share lies
    within a larger one.
    """
    ranked = sorted(
        set(patients.tolist()), key=lambda each: hashlib.sha256(f"share {each}".encode()).digest()
    )
    return np.isin(patients, ranked[: max(1, round(share * len(ranked)))])


def _leave_out(
    config: CompareConfig, folder: StudyFolder, unlabeled: Archive, group: Group
) -> Path | None:
    """Returns the file with the ids of scans that a group is not trained on; None for none."""
    leaking = folder.leaking if config.leaks == "drop" else None
    if group.share == 1:
        return leaking
    gone = unlabeled.scan_ids[~of_share(unlabeled.patients, group.share)].tolist()
    if leaking is not None:
        gone += leaking.read_text(encoding="utf-8").split()
    path = folder.path / "shares" / f"without-{group.share:g}.txt"
    make_folder(path.parent)
    write_atomically(path, "".join(f"{name}\n" for name in gone))
    return path


class ResolvedOnce(BaseModel):
    """``resolved.json``: what the runs of all arms and seeds are trained with, and where.

    ``chosen`` is for ``pretrain.method`` on all patients, ``groups`` for each other method and
    share by title.
    """

    device: Literal["cpu", "gpu"]
    devices: int
    chosen: Resolved
    machine: Conditions
    groups: dict[str, Resolved] = {}

    def of(self, group: Group) -> Resolved | None:
        """What was resolved for a group, or None."""
        return self.groups.get(group.title) if group.title else self.chosen


def resolve_once(
    config: CompareConfig, folder: StudyFolder, unlabeled: Archive
) -> tuple[CompareConfig, Resolved]:
    """`resolve_groups`, and of these the first."""
    config, resolved = resolve_groups(config, folder, unlabeled)
    return config, resolved[config.groups[0]]


def resolve_groups(
    config: CompareConfig, folder: StudyFolder, unlabeled: Archive
) -> tuple[CompareConfig, dict[Group, Resolved]]:
    """Resolves what the plan leaves open for all arms and seeds, or takes what was resolved.

    What was silently wrong: each run resolved ``auto`` by itself, and arms trained on two machines
    were compared as if they had been trained alike.

    Returns:
        The plan on the devices on which the study was begun, and what the runs of each group are
        trained with.

    Raises:
        ScanlearnError: There are runs to train, and this machine has not the devices for it.
    """
    runs = [RunFolder(folder.run(arm, seed)) for seed in config.seeds for arm in config.trained]
    is_begun = folder.resolved.is_file()
    once = _read_resolved(folder) if is_begun else _resolve_now(config, folder, unlabeled)
    new = {
        group.title: _resolve_group(config, folder, unlabeled, group)
        for group in config.groups
        if once.of(group) is None
    }
    once = once.model_copy(update={"groups": {**once.groups, **new}})
    resolved = {group: found for group in config.groups if (found := once.of(group))}
    if all(run.result.is_file() for run in runs):
        return config, resolved
    asked = config.pretrain
    there = {"device": once.device, "devices": once.devices}
    here = {key: value for key, value in there.items() if getattr(asked, key) == "auto"}
    config = config.model_copy(update={"pretrain": asked.model_copy(update=here)})
    _check_devices(config.pretrain, folder)
    if is_begun:
        now = machine_conditions(training_device(config.pretrain.device), once.devices)
        changed = differences_in_words(once.machine, now)
        if changed:
            warn_user(
                f"{folder.path} goes on under other conditions than it was begun: "
                f"{'; '.join(changed)}. Arms of one seed that were trained partly here are not "
                "matched, and the report will say so"
            )
    if new or not is_begun:
        write_atomically(folder.resolved, once.model_dump_json(indent=1) + "\n")
    return config, resolved


def _resolve_now(config: CompareConfig, folder: StudyFolder, unlabeled: Archive) -> ResolvedOnce:
    layout = layout_of(_initial_run(config, config.seeds[0], folder.path))
    return ResolvedOnce(
        device="cpu" if layout.device.type == "cpu" else "gpu",
        devices=layout.devices,
        chosen=_resolve_group(config, folder, unlabeled, Group("", config.pretrain.method)),
        machine=machine_conditions(layout.device, layout.devices),
    )


def _resolve_group(
    config: CompareConfig, folder: StudyFolder, unlabeled: Archive, group: Group
) -> Resolved:
    runs = [
        RunFolder(folder.run(arm, seed))
        for seed in config.seeds
        for arm in config.trained
        if config.group(arm) == group
    ]
    begun = next((run for run in runs if run.provenance.is_file()), None)
    if begun is not None:
        # Begun by an earlier version: what its first run chose holds for all.
        return read_provenance(begun).chosen
    if group.share < 1:
        gone = unlabeled.scan_ids[~of_share(unlabeled.patients, group.share)].tolist()
        unlabeled = unlabeled.without(gone)
    run = _initial_run(config, config.seeds[0], folder.path)
    run = run.model_copy(update={"method": group.method})
    run = with_batch_of(run, len(unlabeled))
    backbone = initial_backbone(run, unlabeled)[0]
    asked = config.pretrain.batch_size
    return resolve(run, unlabeled, backbone, ranks=layout_of(run).ranks, asked_batch=asked)


def _check_devices(asked: TrainingSettings, folder: StudyFolder) -> None:
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    needed = asked.devices if asked.device == "gpu" and asked.devices != "auto" else 0
    if needed > visible:
        raise ScanlearnError(
            f"{folder.path} was begun on {needed} GPU{'s' if needed > 1 else ''}, and {visible} "
            "are visible here: go on where it was begun, or name another output folder; arms "
            "trained on different devices are not matched"
        )


def _read_resolved(folder: StudyFolder) -> ResolvedOnce:
    return read_json(
        folder.resolved,
        ResolvedOnce,
        what="does not say what the study resolved",
        remedy="restore it from a copy, or name another output folder",
    )


def load_network(config: CompareConfig, row: RunRow, folder: Path, unlabeled: Archive) -> Backbone:
    """Returns a network of the study on the device that trains, in evaluation mode.

    An untrained one with BatchNorm has the statistics of whole unlabeled scans; one that begins
    from given weights keeps theirs.
    """
    device = training_device(config.pretrain.device)
    if config.arms[row.arm].kind == "random":
        backbone = _initial_backbone(config, row.seed, unlabeled).eval().to(device)
        if config.pretrain.backbone.weights is None:
            _whole_scans(config, unlabeled).set_statistics(backbone)
        return backbone
    backbone, card = load_backbone(folder / row.backbone)
    if card.weights_hash != row.final_hash:
        # A backbone put in its place was scored under the name of this arm.
        raise ScanlearnError(
            f"{folder / row.backbone}: holds other weights than those its run ended with; restore"
            " it from a copy, or delete the run's folder to train it again"
        )
    return backbone.to(device)


def matched(rows: Sequence[RunRow]) -> Matched:
    """Compares all networks of a seed and group: weights, data, draws, and what each run recorded.

    Untrained networks are compared by their initial weights; references are not compared.
    """
    problems: list[str] = []
    partial: list[str] = []
    mismatches: list[Mismatch] = []
    per_seed: list[SeedMatch] = []
    notes: list[str] = []
    rows = [row for row in rows if row.initial_hash]
    for seed, group in sorted(dict.fromkeys((row.seed, row.group) for row in rows), key=_seed_of):
        of_seed = [row for row in rows if (row.seed, row.group) == (seed, group)]
        trained = [row for row in of_seed if row.steps > 0]
        shared: dict[str, str | int] = {}
        for key, words in _MATCHED.items():
            compared = of_seed if key == "initial_hash" else trained
            values = {row.arm: getattr(row, key) for row in compared}
            is_same = len(set(values.values())) == 1
            shared[key] = next(iter(values.values())) if is_same else "" if key != "steps" else 0
            if len(set(values.values())) > 1:
                shown = {arm: _shortened(value) for arm, value in values.items()}
                mismatches.append(Mismatch(seed=seed, key=words, values=shown, group=group))
        per_seed.append(SeedMatch.model_validate({"seed": seed, "group": group, **shared}))
        mismatches += _differing(seed, group, trained)
        problems += [
            f"seed {seed}: the record of {row.arm} is no proof: {row.record_problem}."
            for row in trained
            if row.record_problem
        ]
        earlier = [row for row in trained if not (row.is_recorded or row.record_problem)]
        if earlier:
            partial.append(_partial_in_words(seed, earlier))
    for group in dict.fromkeys(row.group for row in rows):
        known = {mismatch.key for mismatch in mismatches if mismatch.group == group}
        told = _notes([row for row in rows if row.group == group], known)
        notes += [f"{group}: {note}" if group else note for note in told]
    problems = [*(mismatch.in_words for mismatch in mismatches), *problems]
    return Matched(
        ok=not problems,
        problems=tuple(problems),
        per_seed=tuple(per_seed),
        mismatches=tuple(mismatches),
        partial=tuple(partial),
        notes=tuple(notes),
    )


def _seed_of(place: tuple[int, str]) -> int:
    return place[0]


def _differing(seed: int, group: str, trained: Sequence[RunRow]) -> list[Mismatch]:
    """Returns the conditions that are not those of all runs of a seed which recorded them."""
    found = []
    for key in _keys(trained):
        values = {row.arm: row.conditions[key] for row in trained if key in row.conditions}
        if len(set(values.values())) > 1:
            shown = {arm: _shortened(value) for arm, value in values.items()}
            found.append(Mismatch(seed=seed, key=key, values=shown, group=group))
    return found


def _keys(rows: Sequence[RunRow]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row.conditions if key != DIAL))


def _shortened(value: object) -> str:
    """Returns a hash's first digits, and anything else whole."""
    return re.sub(r"\b[0-9a-f]{40,64}\b", lambda found: found[0][:12], str(value))


def _partial_in_words(seed: int, earlier: Sequence[RunRow]) -> str:
    names = ", ".join(row.arm for row in earlier)
    lacking = set(_RECORDED_SINCE).difference(*(row.conditions for row in earlier))
    keys = ", ".join(key for key in _RECORDED_SINCE if key in lacking)
    return (
        f"seed {seed}: {names} did not record all when trained, as runs begun by an earlier "
        f"version; not recorded: {keys}."
    )


def _notes(rows: Sequence[RunRow], known: Set[str]) -> tuple[str, ...]:
    """Says what changed in all arms of a seed alike, and what differs between seeds."""
    trained = [row for row in rows if row.steps > 0]
    notes = []
    for key in _keys(trained):
        values: dict[str, list[int]] = {}
        for row in trained:
            if key in row.conditions and key not in known:
                values.setdefault(_shortened(row.conditions[key]), []).append(row.seed)
        changed = [value for value in values if ", from step " in value]
        if len(values) > 1 or changed:
            sides = (
                f"{value} (seed {', '.join(map(str, sorted(set(seeds))))})"
                for value, seeds in values.items()
            )
            notes.append(f"{key.replace('_', ' ')}: {'; '.join(sides)}.")
    return tuple(notes)


def _initial_run(config: CompareConfig, seed: int, folder: Path) -> PretrainConfig:
    """The run of any trained arm: before their first step those of a group are all the same."""
    return config.run_config(next(iter(config.trained)), seed, folder)


def _initial_backbone(config: CompareConfig, seed: int, unlabeled: Archive) -> Backbone:
    return initial_backbone(_initial_run(config, seed, Path()), unlabeled)[0]


def _whole_scans(config: CompareConfig, unlabeled: Archive) -> WholeScans:
    """The scans from which an untrained network takes its statistics."""
    return WholeScans(unlabeled, config.pretrain.views.size, unlabeled.mean, unlabeled.std)


def _check_recipe(config: CompareConfig, arm: str, run: Path) -> None:
    """Refuses a run of this study whose recipe of views an earlier release chose otherwise.

    Raises:
        ScanlearnError: It is one.
    """
    training, folder = config.training_of(arm), RunFolder(run)
    recipe = training.recipe
    if not folder.provenance.is_file():
        return
    earlier = read_provenance(folder).chosen.recipe or training.views.recipe
    earlier = earlier or training.method.recipe
    if earlier != recipe:
        raise ScanlearnError(
            f"{run}: was begun by an earlier release with recipe {earlier}, and "
            f"pretrain.views.recipe null now stands for {recipe}, which is published for this kind "
            "of network: name another output folder, or delete the run's folder to train it again"
        )


def _random_row(
    config: CompareConfig, arm: str, seed: int, unlabeled: Archive, resolved: Resolved
) -> RunRow:
    backbone = _initial_backbone(config, seed, unlabeled)
    final, statistics = weights_hash(backbone), ""
    if config.pretrain.backbone.weights is None and has_batch_norm(backbone):
        scans = _whole_scans(config, unlabeled)
        final, statistics = scans.hash(backbone), scans.in_words
    # The whole method is hashed, as a run hashes it before its first step: equal hashes prove
    # that this network is the one from which the trained arms of the seed began.
    method = resolved.method.build(backbone, seed)
    return RunRow(
        arm=arm,
        seed=seed,
        initial_hash=weights_hash(method),
        final_hash=final,
        statistics=statistics,
        group=config.groups[0].title,
    )


def _trained_row(
    config: CompareConfig, folder: StudyFolder, result: PretrainResult, arm: str, seed: int
) -> RunRow:
    added = {"arm", "seed", "curve", "backbone", "statistics", "group"}
    added |= {"conditions", "is_recorded", "record_problem"}
    record = read_record(RunFolder(result.folder))
    dial, problem = str(config.arms[arm].dial()), record.problem
    if record.values.get(DIAL, dial) != dial:
        problem = f"it was trained at scale {record.values[DIAL]}, not {dial}"
    return RunRow(
        arm=arm,
        seed=seed,
        **{name: getattr(result, name) for name in RunRow.model_fields.keys() - added},
        conditions=dict(record.values),
        is_recorded=record.is_whole,
        record_problem=problem,
        curve=read_curve(result.metrics),
        backbone=result.backbone.relative_to(folder.path).as_posix(),
        group=config.group(arm).title,
    )


def read_curve(metrics: Path) -> TrainingCurve:
    """Reads loss and embedding std from ``metrics.csv``, in at most 200 means over equal spans."""
    rows = read_rows(metrics, ("step", "loss", "embedding_std"))
    if not rows:
        return TrainingCurve()
    span = math.ceil(len(rows) / _CURVE_POINTS)
    groups = [rows[first : first + span] for first in range(0, len(rows), span)]
    return TrainingCurve(
        step=tuple(int(group[-1][0]) for group in groups),
        loss=tuple(_mean(group, 1) for group in groups),
        embedding_std=tuple(_mean(group, 2) for group in groups),
    )


def _mean(rows: Sequence[tuple[float, ...]], column: int) -> float | None:
    values = [row[column] for row in rows if math.isfinite(row[column])]
    return sum(values) / len(values) if values else None
