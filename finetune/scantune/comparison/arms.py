"""The networks of a study: one per arm and pretraining seed, and the proof that they match."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from scanlearn.archive.reader import Archive
from scanlearn.backbones.backbone import Backbone, has_batch_norm, weights_hash
from scanlearn.backbones.weights import load_backbone
from scanlearn.console import say
from scanlearn.errors import ScanlearnError
from scanlearn.features.batch_norm import WholeScans
from scanlearn.training.folder import RunFolder, read_rows
from scanlearn.training.pretrain import PretrainResult, pretrain
from scanlearn.training.run import (
    initial_backbone,
    read_provenance,
    resolve,
    training_device,
)
from scanlearn.training.settings import PretrainConfig
from scantune.comparison.folder import StudyFolder
from scantune.comparison.plan import CompareConfig
from scantune.comparison.results import Matched, RunRow, SeedMatch, TrainingCurve

_CURVE_POINTS = 200
_MATCHED = {
    "initial_hash": "initial weights",
    "order_hash": "data order",
    "uniforms_hash": "random draws",
    "steps": "steps",
}


def train_arms(
    config: CompareConfig, folder: StudyFolder, unlabeled: Archive
) -> tuple[tuple[RunRow, ...], tuple[str, ...]]:
    """Trains every arm with every seed, or reads back what is finished.

    Returns:
        A row per network, seed by seed, and what was warned of.
    """
    rows: list[RunRow] = []
    warned: dict[tuple[str, str], list[int]] = {}
    total = len(config.arms) * len(config.seeds)
    for seed in config.seeds:
        for arm in config.arms:
            where = f"arm {arm}, seed {seed} ({len(rows) + 1} of {total})"
            if config.arms[arm].kind == "random":
                rows.append(_random_row(config, arm, seed, unlabeled))
                of = rows[-1].statistics
                aside = f"; BatchNorm statistics of {of} unlabeled scans" if of else ""
                say(f"{where}: untrained, the initial weights of the other arms{aside}")
                continue
            say(f"{where}:")
            run = folder.run(arm, seed)
            _check_recipe(config, run)
            leave_out = folder.leaking if config.leaks == "drop" else None
            result = pretrain(config.run_config(arm, seed, run, leave_out))
            rows.append(_trained_row(result, arm, seed, folder.path))
            for text in result.warnings:
                warned.setdefault((arm, text), []).append(seed)
    warnings = [
        f"{arm} (seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}): {text}"
        for (arm, text), seeds in warned.items()
    ]
    return tuple(rows), tuple(warnings)


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
    """Compares all networks of a seed: initial weights, data order, random draws and steps.

    Untrained networks are compared by their initial weights.
    """
    problems: list[str] = []
    per_seed: list[SeedMatch] = []
    for seed in sorted({row.seed for row in rows}):
        of_seed = [row for row in rows if row.seed == seed]
        trained = [row for row in of_seed if row.steps > 0]
        shared: dict[str, str | int] = {}
        for key, words in _MATCHED.items():
            groups: dict[str | int, list[str]] = {}
            for row in of_seed if key == "initial_hash" else trained:
                groups.setdefault(getattr(row, key), []).append(row.arm)
            if len(groups) > 1:
                sides = " against ".join(", ".join(arms) for arms in groups.values())
                problems.append(f"seed {seed}: {words} differ ({sides}).")
            shared[key] = next(iter(groups)) if len(groups) == 1 else "" if key != "steps" else 0
        per_seed.append(SeedMatch.model_validate({"seed": seed, **shared}))
    return Matched(ok=not problems, problems=tuple(problems), per_seed=tuple(per_seed))


def _initial_run(config: CompareConfig, seed: int, folder: Path) -> PretrainConfig:
    """The run of any trained arm: before its first step they are all the same."""
    trained = (name for name, arm in config.arms.items() if arm.kind == "pretrained")
    return config.run_config(next(trained), seed, folder)


def _initial_backbone(config: CompareConfig, seed: int, unlabeled: Archive) -> Backbone:
    return initial_backbone(_initial_run(config, seed, Path()), unlabeled)[0]


def _whole_scans(config: CompareConfig, unlabeled: Archive) -> WholeScans:
    """The scans from which an untrained network takes its statistics."""
    return WholeScans(unlabeled, config.pretrain.views.size, unlabeled.mean, unlabeled.std)


def _check_recipe(config: CompareConfig, run: Path) -> None:
    """Refuses a run of this study whose recipe of views an earlier release chose otherwise.

    Raises:
        ScanlearnError: It is one.
    """
    folder, recipe = RunFolder(run), config.pretrain.recipe
    if not folder.provenance.is_file():
        return
    earlier = read_provenance(folder).chosen.recipe or config.pretrain.views.recipe
    earlier = earlier or config.pretrain.method.recipe
    if earlier != recipe:
        raise ScanlearnError(
            f"{run}: was begun by an earlier release with recipe {earlier}, and "
            f"pretrain.views.recipe null now stands for {recipe}, which is published for this kind "
            "of network: name another output folder, or delete the run's folder to train it again"
        )


def _random_row(config: CompareConfig, arm: str, seed: int, unlabeled: Archive) -> RunRow:
    backbone = _initial_backbone(config, seed, unlabeled)
    final, statistics = weights_hash(backbone), ""
    if config.pretrain.backbone.weights is None and has_batch_norm(backbone):
        scans = _whole_scans(config, unlabeled)
        final, statistics = scans.hash(backbone), scans.in_words
    # The whole method is hashed, as a run hashes it before its first step: equal hashes prove
    # that this network is the one from which the trained arms of the seed began.
    run = _initial_run(config, seed, Path())
    method = resolve(run, unlabeled, backbone).method.build(backbone, seed)
    return RunRow(
        arm=arm,
        seed=seed,
        initial_hash=weights_hash(method),
        final_hash=final,
        statistics=statistics,
    )


def _trained_row(result: PretrainResult, arm: str, seed: int, study: Path) -> RunRow:
    shared = RunRow.model_fields.keys() - {"arm", "seed", "curve", "backbone", "statistics"}
    return RunRow(
        arm=arm,
        seed=seed,
        **{name: getattr(result, name) for name in shared},
        curve=read_curve(result.metrics),
        backbone=result.backbone.relative_to(study).as_posix(),
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
