"""What a plan would run, what it costs and what it can show, before anything is packed or trained.

Scans and patients are counted by headers and tables, or in the archive; steps are timed on noise of
the plan's canvas, or on its archive where that is packed, in a folder that is removed.
"""

from __future__ import annotations

import shlex
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scanlearn.archive.layout import Origin, PackedScan
from scanlearn.archive.reader import Archive
from scanlearn.archive.writer import ArchiveWriter
from scanlearn.config.calls import checked
from scanlearn.config.loading import load_config
from scanlearn.console import quiet
from scanlearn.errors import ScanlearnError
from scanlearn.features.fixed_views import LEAST_SCANS
from scanlearn.packing.listed import ListedScans, count_scans, list_scans
from scanlearn.tables.settings import TABLE_SETTINGS
from scanlearn.training.batches import steps_in_epoch
from scanlearn.training.checkpoint import checkpoint_step
from scanlearn.training.folder import RunFolder
from scanlearn.training.resolved import training_device, with_batch_of
from scanlearn.training.stopping import listening
from scanlearn.training.trial import Clock, measure, trial_run
from scantune.evaluation.evaluate import num_fits
from scantune.evaluation.settings import THUMBNAIL
from scantune.labels.classes import Target
from scantune.labels.labeled_set import LabeledSet, read_labels, scorable
from scantune.learners.by_name import frozen_learner
from scantune.learners.table import LEARNERS
from scantune.reports.page_tables import duration
from scantune.scores import Scores, are_kept
from scantune.splits import folds_of
from scantune.statistics.intervals import estimate, patient_weights
from scantune.statistics.power import PlannedTest, Variation
from scantune.study.facts import FEW_STEPS
from scantune.study.folder import StudyFolder
from scantune.study.jobs import Sharing
from scantune.study.kept import parts_missing, selected
from scantune.study.label_free import VIEWS_OF_EACH
from scantune.study.plan import CompareConfig
from scantune.study.planned import (
    planned_test,
    power_in_words,
    power_warning,
    usual_variation,
    variation_so_far,
)

# Pixels of the views of a timed step on a CPU; of a larger batch a part is timed.
_TIMED_PIXELS = 8_000_000
# A step more is timed while they took less than this together; the first are slow.
_ENOUGH_S, _PATIENCE_S, _FEWEST_STEPS = 6.0, 15.0, 4
# A forward pass alone, as a share of a training step; ours, of resnet10t and ViT-S.
_FORWARD = 1 / 3
_SMALLEST_BATCH, _MANY_STEPS = 8, 1000
# Of the primary pair's kept scores: a variance is known to 6 % then.
_REPLICATES = 500


def _labeled(
    config: CompareConfig, scans: ListedScans, target: Target, *, is_test: bool = False
) -> LabeledSet:
    asked = config.evaluation
    labeled = read_labels(
        scans,
        target,
        classes=asked.classes,
        ordinal=asked.ordinal,
        multilabel=asked.multilabel,
        split_column=None if is_test else asked.split_column,
        synthetic_column=asked.synthetic_column,
    )
    return labeled if is_test or asked.test is not None else scorable(labeled)


@dataclass(frozen=True)
class Piece:
    """One network to train: its steps, and how many of them are done."""

    arm: str
    seed: int
    steps: int
    done: int
    batch: int
    views: int

    @property
    def left(self) -> int:
        """Views still to be seen."""
        return (self.steps - self.done) * self.views


@dataclass(frozen=True)
class PlanSummary:
    """What a plan would run, cost and show; its text is what the terminal prints.

    Args:
        pieces: Networks to train, those that are finished among them.
        fits: Models still to be fitted to the labels.
        kept: Models whose scores the study has.
        seconds: By stage, on this machine.
        jobs: That share the time, with GPUs of their own.
        memory: Most bytes that a job uses at once, on the device that trains; None where it is not
            told.
        is_least: Whether it is that of smaller batches than the plan's.
        disk: Bytes that will be written.
        power: What the primary comparison can show.
        leaks: That shared patients are looked for before training only, and how to do it now.
        warnings: What to know before anything is spent.
    """

    pieces: tuple[Piece, ...]
    tasks: tuple[str, ...]
    fits: int
    kept: int
    seconds: Mapping[str, float]
    jobs: int
    memory: int | None
    is_least: bool
    disk: int
    power: str
    leaks: str
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        finished = [piece for piece in self.pieces if piece.done == piece.steps]
        begun = [piece for piece in self.pieces if 0 < piece.done < piece.steps]
        kinds = dict.fromkeys((each.steps, each.batch, each.views) for each in self.pieces)
        steps = "; ".join(
            f"{count:,} steps of {batch:,} scans, {count * views:,} views each"
            for count, batch, views in kinds
        )
        times = ", ".join(f"{name} {duration(each)}" for name, each in self.seconds.items())
        if self.jobs > 1:
            times += f"; {self.jobs} jobs at once"
        memory = "" if self.memory is None else f"{self.memory / 1e9:.2g} GB, "
        memory = f"at least {memory}" if memory and self.is_least else memory
        return "\n".join(
            (
                *self.tasks,
                f"networks {len(self.pieces) - len(finished)} to train, {len(finished)} finished: "
                f"{steps}",
                *(
                    f"         {each.arm}, seed {each.seed}: {each.done:,} of {each.steps:,} steps "
                    "done"
                    for each in begun
                ),
                f"scores   {self.fits:,} models to fit to the labels, {self.kept:,} kept",
                f"time     about {duration(sum(self.seconds.values()) / self.jobs)} here ({times})"
                if self.seconds
                else "time     all is done; the report alone is written anew",
                *((f"memory   {memory}disk {self.disk / 1e9:.2g} GB",) if self.seconds else ()),
                f"power    {self.power}",
                f"leaks    {self.leaks}",
                *(f"WARNING  {text}" for text in self.warnings),
            )
        )


@checked
def plan_summary(config: CompareConfig | str | Path, overrides: Sequence[str] = ()) -> PlanSummary:
    """Returns what a plan would run, its time, memory and disk, and what it can show.

    Takes about half a minute: a few steps are trained, and a model is fitted for each frozen
    learner. Nothing is packed, and nothing written but in a folder that is removed.

    Raises:
        ScanlearnError: The scans or labels cannot be used, or files of the study are damaged.

    Example:
        >>> print(plan_summary("demo"))     # doctest: +SKIP
    """
    if not isinstance(config, CompareConfig):
        config = load_config(CompareConfig, config, overrides)
    elif overrides:
        raise ScanlearnError("overrides change a file; give them to load_config instead")
    config = config if config.max_seeds is None else config.at_look(config.max_seeds)
    folder = StudyFolder(Path(config.output).expanduser())
    unlabeled = config.pack_settings(config.unlabeled_columns, config.pack.channels)
    num_unlabeled, shape = count_scans(config.unlabeled, unlabeled)
    labeled = _listed(config, config.labels)
    test = _listed(config, str(config.evaluation.test)) if config.evaluation.test else None
    pairs = list(zip(config.task_names, config.tasks, strict=True))
    tasks = {name: _labeled(config, labeled, target) for name, target in pairs}
    tested = tasks
    if test is not None:
        tested = {name: _labeled(config, test, target, is_test=True) for name, target in pairs}
    pieces = tuple(_pieces(config, folder, num_unlabeled))
    kept = _kept(config, folder)
    names = _networks(config)
    fits = {
        (task, name): _num_fits(config, tasks[task], arm)
        for task in tasks
        for name, arm in names.items()
    }
    left = {place: count for place, count in fits.items() if place not in kept}
    views_left = sum(piece.left for piece in pieces)
    seconds: dict[str, float] = {}
    memory, is_least, disk = None, False, 0
    unlabeled_views = _views_without_labels(config, folder, num_unlabeled)
    if views_left or left or unlabeled_views:
        cost = _measured(config, shape, tasks)
        networks = len({name for _, name in left})
        num_scored = len(labeled) + (len(test) if test is not None else 0)
        seconds = {
            "pretraining": views_left / cost.views_per_s,
            "features": networks * num_scored * _FORWARD / cost.views_per_s,
            "label-free": unlabeled_views * _FORWARD / cost.views_per_s,
            "learners": sum(_fit_seconds(config, cost, tasks[t], names[n]) for t, n in left),
        }
        unpacked = [len(each) for each in (labeled, test) if each is not None and not each.shape]
        packed = sum((*unpacked, 0 if shape else num_unlabeled)) * int(np.prod(cost.shape))
        memory, is_least = cost.memory, cost.is_least
        disk = packed + len(pieces) * cost.backbone + 2 * cost.checkpoint
    planned = planned_test(
        config,
        tested[config.primary_task],
        len(tasks[config.primary_task]) if test is not None else None,
    )
    variation = _variation(config, kept, planned) or usual_variation(config)
    sharing = Sharing.of(config)
    warnings = (power_warning(config, planned, variation), *_early(config, pieces))
    return PlanSummary(
        pieces,
        tuple(f"{name}: {each.count().in_words}" for name, each in tasks.items()),
        sum(left.values()),
        sum(fits.values()) - sum(left.values()),
        seconds,
        sharing.at_once,
        memory,
        is_least,
        disk,
        power_in_words(config, planned, variation),
        "shared patients and copies are looked for before training, not here; now: scanlearn audit "
        f"{config.unlabeled} {config.labels}{_reading(config)}",
        tuple(filter(None, (*warnings, sharing.warning(memory)))),
    )


def _listed(config: CompareConfig, source: str) -> ListedScans:
    packing = config.pack_settings(config.label_columns, config.pack.channels)
    allowed = (*packing.allow_columns, *config.named_columns)
    return list_scans(source, packing.model_copy(update={"allow_columns": allowed}))


def _reading(config: CompareConfig) -> str:
    """How the table of labels is read, as words of another command."""
    settings = config.pack_settings(config.label_columns, config.pack.channels)
    read = {key: getattr(settings, key) for key in TABLE_SETTINGS}
    words = (shlex.quote(f"{key}={value}") for key, value in read.items() if value is not None)
    return "".join(f" {word}" for word in words)


def _early(config: CompareConfig, pieces: Sequence[Piece]) -> Iterator[str]:
    """Yields what can be known of the training before it starts."""
    fewest = min(pieces, key=lambda piece: piece.steps)
    if fewest.steps < FEW_STEPS:
        yield (
            f"{fewest.arm} trains for {fewest.steps:,} steps alone: networks hardly leave their "
            "initial weights in so few; give more pretrain.epochs or steps"
        )
    if len(config.seeds) < 3:
        yield "fewer than three pretraining seeds support no claim about the scale"


def _pieces(config: CompareConfig, folder: StudyFolder, num_scans: int) -> Iterator[Piece]:
    for seed in config.seeds:
        for arm in config.trained:
            run = RunFolder(folder.run(arm, seed))
            count = max(2, round(num_scans * config.group(arm).share))
            settings = with_batch_of(config.run_config(arm, seed, run.path), count)
            steps = settings.total_steps(steps_in_epoch(count, settings.batch_size))
            done = steps if run.result.is_file() else min(steps, checkpoint_step(run.checkpoint))
            views = settings.batch_size * (2 + settings.method.num_local_views)
            yield Piece(arm, seed, steps, done, settings.batch_size, views)


def _views_without_labels(config: CompareConfig, folder: StudyFolder, num_scans: int) -> int:
    """Returns how many views are still to be seen to measure networks without labels."""
    left = sum(
        # What is not trained here is called as its arm, and not measured.
        name != arm and not folder.label_free(name).is_file()
        for name, arm in _networks(config).items()
    )
    return left * min(num_scans, LEAST_SCANS) * VIEWS_OF_EACH if config.label_free else 0


def _networks(config: CompareConfig) -> dict[str, str]:
    """Returns the arm of every network that is scored, by the name of its scores."""
    names = {THUMBNAIL: THUMBNAIL} if config.learners_of(THUMBNAIL) else {}
    for arm, settings in config.arms.items():
        if settings.kind in ("pretrained", "random"):
            names |= {f"{arm}-seed-{seed}": arm for seed in config.seeds}
        else:
            names[arm] = arm
    return names


def _kept(config: CompareConfig, folder: StudyFolder) -> dict[tuple[str, str], Scores]:
    """Returns the scores that the study has, with all that the plan asks of them."""
    kept = {}
    for task in config.task_names:
        for name, arm in _networks(config).items():
            path = folder.scores(task, name)
            if not path.is_file() or not are_kept(path):
                continue
            scores = Scores.load(path)
            budgets = [str(budget) for budget in config.evaluation.budgets]
            asked = (config.learners_of(arm), budgets, config.evaluation.label_seeds)
            if not parts_missing(scores, *asked):
                kept[task, name] = selected(scores, *asked)
    return kept


def _variation(
    config: CompareConfig, kept: Mapping[tuple[str, str], Scores], planned: PlannedTest
) -> Variation | None:
    """Returns how the pair varied in the seeds that both its arms have; None where there are none.

    The learner and budget of the primary comparison alone are read, of all trained arms.
    """
    task, learner, budget = config.primary_task, config.primary.learner, config.primary_budget
    names = _networks(config)
    by_arm: dict[str, dict[str, Scores]] = {}
    for (of_task, name), scores in kept.items():
        if of_task == task:
            by_arm.setdefault(names[name], {})[name.removeprefix(names[name])] = scores
    pair = [by_arm.get(arm, {}) for arm in (config.primary.better, config.primary.than)]
    seeds = [set(each) for each in pair if len(each) > 1 or "" not in each]
    shared = sorted(set.intersection(*seeds)) if seeds else []
    if not all(pair) or (seeds and not shared):
        return None
    members = {
        arm: [each[seed] for seed in shared] if len(each) > 1 or "" not in each else [each[""]]
        for arm, each in by_arm.items()
        if "" in each or set(shared) <= set(each)
    }
    weights = patient_weights(next(iter(members.values()))[0], replicates=_REPLICATES)
    estimates = {
        (task, learner, budget, arm): [estimate(each, learner, budget, weights) for each in of_arm]
        for arm, of_arm in members.items()
        if learner in of_arm[0].learners
    }
    scores_of = {(task, arm): of_arm for arm, of_arm in members.items()}
    return variation_so_far(config, estimates, scores_of, planned)


def _num_fits(config: CompareConfig, labeled: LabeledSet, arm: str) -> int:
    settings = config.scoring.model_copy(update={"learners": config.learners_of(arm)})
    return num_fits(settings, labeled)


@dataclass(frozen=True)
class _Cost:
    """What the calibration measured.

    Args:
        views_per_s: Of training.
        is_least: Whether the memory is that of a smaller batch.
        fit_s: Of each frozen learner on a whole training fold, its refits not counted.
        shape: Of a packed scan.
    """

    views_per_s: float
    memory: int | None
    is_least: bool
    checkpoint: int
    backbone: int
    fit_s: Mapping[str, float]
    shape: tuple[int, int, int]


def _measured(
    config: CompareConfig,
    packed: tuple[int, int, int] | None,
    tasks: Mapping[str, LabeledSet],
) -> _Cost:
    """Trains a few steps and fits a model of each frozen learner."""
    run = config.run_config(next(iter(config.trained)), config.seeds[0], Path())
    shape = packed or _shape(config)
    batch = asked = run.batch_size
    if training_device(run.device).type == "cpu":
        pixels = (2 + run.method.num_local_views) * run.views.size**2
        batch = min(batch, max(_SMALLEST_BATCH, _TIMED_PIXELS // pixels))
    changes = {"batch_size": batch, "accumulate": 1, "devices": 1, "nodes": 1}
    run = run.model_copy(update={**changes, "steps": _MANY_STEPS})
    with tempfile.TemporaryDirectory(prefix="scanlearn-") as folder:
        archive = _noise(Path(folder) / "noise", shape, batch)
        with quiet(), trial_run(run, archive) as trial:
            clock = Clock(_is_timed)
            with listening(clock.is_enough) as stop:
                trial_cost = measure(trial, clock, stop)
            plan, taken = trial.method.plan, trial.config.batch_size
            weights = trial.method.exported.state_dict().values()
            backbone = sum(tensor.nbytes for tensor in weights)
            width = trial.method.exported.num_features
    views = taken * (plan.global_views + plan.local_views)
    labeled = max(tasks.values(), key=len)
    return _Cost(
        views / statistics.fmean(trial_cost.steps_s),
        trial_cost.memory,
        taken < asked,
        trial_cost.checkpoint,
        backbone,
        {name: _fit_s(config, name, labeled, width) for name in config.evaluation.frozen_learners},
        shape,
    )


def _shape(config: CompareConfig) -> tuple[int, int, int]:
    canvas = config.canvas()
    height, width = (canvas, canvas) if isinstance(canvas, int) else canvas
    return (1 if config.pack.channels == "auto" else config.pack.channels, height, width)


def _noise(path: Path, shape: tuple[int, int, int], count: int) -> Archive:
    rng = np.random.default_rng(0)
    with quiet(), ArchiveWriter(path, shape=shape, dtype=np.uint8) as writer:
        for place in range(count):
            pixels = rng.integers(0, 256, shape, dtype=np.uint8)
            writer.add(PackedScan(pixels), Origin(str(place), str(place)))
        return writer.close()


def _is_timed(steps: int, seconds: float) -> bool:
    return (steps >= _FEWEST_STEPS and seconds >= _ENOUGH_S) or seconds >= _PATIENCE_S


def _fit_s(config: CompareConfig, learner: str, labeled: LabeledSet, width: int) -> float:
    """Returns the seconds of one fit on a whole training fold of features that tell a little."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(len(labeled), width)).astype(np.float32)
    features[:, : labeled.truth.num_classes] += labeled.truth.matrix
    fold = folds_of(labeled, config.evaluation.folds, 0)[0]
    fit = frozen_learner(learner, features, labeled, config.scoring.tune)
    began = time.perf_counter()
    fit(fold.train, fold.test, 0)
    return time.perf_counter() - began


def _fit_seconds(config: CompareConfig, cost: _Cost, labeled: LabeledSet, arm: str) -> float:
    """Returns the seconds of one network's models on one task."""
    settings = config.scoring
    held = labeled.num_scans
    if labeled.split is None and settings.test is None:
        held = held * (settings.folds - 1) // settings.folds
    sizes = [held if budget == "all" else min(held, budget) for budget in settings.budgets]
    models = _num_fits(config, labeled, arm) // (len(config.learners_of(arm)) * len(sizes))
    total = 0.0
    for learner in config.learners_of(arm):
        if LEARNERS[learner].needs_network:
            seen = sum(settings.tune.plan(learner, size).epochs * size for size in sizes)
            total += models * seen / cost.views_per_s
        else:
            # With folds each model is fitted anew without groups of patients.
            times = 2 if labeled.split is None and settings.test is None else 1
            total += times * models * cost.fit_s[learner] * sum(sizes) / max(1, held)
    return total
