"""The networks of a study: one per arm and pretraining seed, and the proof that they match."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel

from scanlearn.archive.reader import Archive
from scanlearn.backbones.backbone import Backbone, has_batch_norm, weights_hash
from scanlearn.backbones.weights import load_backbone
from scanlearn.config.reading import read_json
from scanlearn.console import say, warn_user
from scanlearn.errors import ScanlearnError
from scanlearn.features.batch_norm import WholeScans
from scanlearn.files import write_atomically
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
from scantune.comparison.folder import StudyFolder
from scantune.comparison.plan import CompareConfig
from scantune.comparison.results import Matched, Mismatch, RunRow, SeedMatch, TrainingCurve

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
    config: CompareConfig, folder: StudyFolder, unlabeled: Archive
) -> tuple[tuple[RunRow, ...], tuple[str, ...]]:
    """Trains every arm with every seed, or reads back what is finished.

    Returns:
        A row per network, seed by seed, and what was warned of.
    """
    config, resolved = resolve_once(config, folder, unlabeled)
    rows: list[RunRow] = []
    warned: dict[tuple[str, str], list[int]] = {}
    total = len(config.arms) * len(config.seeds)
    for seed in config.seeds:
        for arm in config.arms:
            where = f"arm {arm}, seed {seed} ({len(rows) + 1} of {total})"
            if config.arms[arm].kind == "random":
                rows.append(_random_row(config, arm, seed, unlabeled, resolved))
                of = rows[-1].statistics
                aside = f"; BatchNorm statistics of {of} unlabeled scans" if of else ""
                say(f"{where}: untrained, the initial weights of the other arms{aside}")
                continue
            say(f"{where}:")
            run = folder.run(arm, seed)
            _check_recipe(config, run)
            leave_out = folder.leaking if config.leaks == "drop" else None
            result = pretrain(config.run_config(arm, seed, run, leave_out), resolved)
            rows.append(_trained_row(config, folder, result, arm, seed))
            for text in result.warnings:
                warned.setdefault((arm, text), []).append(seed)
    warnings = [
        f"{arm} (seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}): {text}"
        for (arm, text), seeds in warned.items()
    ]
    return tuple(rows), tuple(warnings)


def train_until(
    config: CompareConfig, folder: StudyFolder, arm: str, step: int, resolved: Resolved
) -> tuple[Backbone, float]:
    """Trains an arm with the plan's first seed until a step, and returns its network as it is then.

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
    leave_out = folder.leaking if config.leaks == "drop" else None
    run = config.run_config(arm, config.seeds[0], folder.run(arm, config.seeds[0]), leave_out)
    if step < resolved.total_steps:
        network = pretrain_until(run, step, resolved)
    else:
        network, _ = load_backbone(pretrain(run, resolved).backbone)
    spread = final_health(RunFolder(Path(run.output)).metrics).spread
    return network.eval().to(training_device(config.pretrain.device)), spread


class ResolvedOnce(BaseModel):
    """``resolved.json``: what the runs of all arms and seeds are trained with, and where."""

    device: Literal["cpu", "gpu"]
    devices: int
    chosen: Resolved
    machine: Conditions


def resolve_once(
    config: CompareConfig, folder: StudyFolder, unlabeled: Archive
) -> tuple[CompareConfig, Resolved]:
    """Resolves what the plan leaves open for all arms and seeds, or takes what was resolved.

    What was silently wrong: each run resolved ``auto`` by itself, and arms trained on two machines
    were compared as if they had been trained alike.

    Returns:
        The plan on the devices on which the study was begun, and what its runs are trained with.

    Raises:
        ScanlearnError: There are runs to train, and this machine has not the devices for it.
    """
    runs = [
        RunFolder(folder.run(arm, seed))
        for seed in config.seeds
        for arm, settings in config.arms.items()
        if settings.kind == "pretrained"
    ]
    is_begun = folder.resolved.is_file()
    once = _read_resolved(folder) if is_begun else _resolve_now(config, folder, unlabeled, runs)
    if all(run.result.is_file() for run in runs):
        return config, once.chosen
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
    else:
        write_atomically(folder.resolved, once.model_dump_json(indent=1) + "\n")
    return config, once.chosen


def _resolve_now(
    config: CompareConfig, folder: StudyFolder, unlabeled: Archive, runs: Sequence[RunFolder]
) -> ResolvedOnce:
    run = with_batch_of(_initial_run(config, config.seeds[0], folder.path), len(unlabeled))
    layout = layout_of(run)
    begun = next((run for run in runs if run.provenance.is_file()), None)
    if begun is not None:
        # Begun by an earlier version: what its first run chose holds for all.
        chosen = read_provenance(begun).chosen
    else:
        backbone = initial_backbone(run, unlabeled)[0]
        asked = config.pretrain.batch_size
        chosen = resolve(run, unlabeled, backbone, ranks=layout.ranks, asked_batch=asked)
    return ResolvedOnce(
        device="cpu" if layout.device.type == "cpu" else "gpu",
        devices=layout.devices,
        chosen=chosen,
        machine=machine_conditions(layout.device, layout.devices),
    )


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
    """Compares all networks of a seed: weights, data and draws, and what each run recorded.

    Untrained networks are compared by their initial weights.
    """
    problems: list[str] = []
    partial: list[str] = []
    mismatches: list[Mismatch] = []
    per_seed: list[SeedMatch] = []
    for seed in sorted({row.seed for row in rows}):
        of_seed = [row for row in rows if row.seed == seed]
        trained = [row for row in of_seed if row.steps > 0]
        shared: dict[str, str | int] = {}
        for key, words in _MATCHED.items():
            compared = of_seed if key == "initial_hash" else trained
            values = {row.arm: getattr(row, key) for row in compared}
            is_same = len(set(values.values())) == 1
            shared[key] = next(iter(values.values())) if is_same else "" if key != "steps" else 0
            if len(set(values.values())) > 1:
                shown = {arm: _shortened(value) for arm, value in values.items()}
                mismatches.append(Mismatch(seed=seed, key=words, values=shown))
        per_seed.append(SeedMatch.model_validate({"seed": seed, **shared}))
        mismatches += _differing(seed, trained)
        problems += [
            f"seed {seed}: the record of {row.arm} is no proof: {row.record_problem}."
            for row in trained
            if row.record_problem
        ]
        earlier = [row for row in trained if not (row.is_recorded or row.record_problem)]
        if earlier:
            partial.append(_partial_in_words(seed, earlier))
    problems = [*(mismatch.in_words for mismatch in mismatches), *problems]
    return Matched(
        ok=not problems,
        problems=tuple(problems),
        per_seed=tuple(per_seed),
        mismatches=tuple(mismatches),
        partial=tuple(partial),
        notes=_notes(rows, {mismatch.key for mismatch in mismatches}),
    )


def _differing(seed: int, trained: Sequence[RunRow]) -> list[Mismatch]:
    """Returns the conditions that are not those of all runs of a seed which recorded them."""
    found = []
    for key in _keys(trained):
        values = {row.arm: row.conditions[key] for row in trained if key in row.conditions}
        if len(set(values.values())) > 1:
            shown = {arm: _shortened(value) for arm, value in values.items()}
            found.append(Mismatch(seed=seed, key=key, values=shown))
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
    )


def _trained_row(
    config: CompareConfig, folder: StudyFolder, result: PretrainResult, arm: str, seed: int
) -> RunRow:
    own = {"arm", "seed", "curve", "backbone", "statistics"}
    own |= {"conditions", "is_recorded", "record_problem"}
    record = read_record(RunFolder(result.folder))
    dial, problem = str(config.arms[arm].dial()), record.problem
    if record.values.get(DIAL, dial) != dial:
        problem = f"it was trained at scale {record.values[DIAL]}, not {dial}"
    return RunRow(
        arm=arm,
        seed=seed,
        **{name: getattr(result, name) for name in RunRow.model_fields.keys() - own},
        conditions=dict(record.values),
        is_recorded=record.is_whole,
        record_problem=problem,
        curve=read_curve(result.metrics),
        backbone=result.backbone.relative_to(folder.path).as_posix(),
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
