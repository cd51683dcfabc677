"""The networks of a study: one per arm and pretraining seed, and those that are given."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType

from scanlearn.archive.reader import Archive
from scanlearn.backbones.backbone import Backbone, has_batch_norm, weights_hash
from scanlearn.backbones.settings import BackboneConfig
from scanlearn.backbones.weights import load_backbone
from scanlearn.console import say
from scanlearn.errors import ScanlearnError
from scanlearn.features.batch_norm import WholeScans
from scanlearn.files import make_folder, write_atomically
from scanlearn.training.conditions import (
    DIAL,
    read_record,
)
from scanlearn.training.folder import RunFolder, read_rows
from scanlearn.training.monitor import final_health
from scanlearn.training.pretrain import PretrainResult, pretrain, pretrain_until
from scanlearn.training.resolved import Resolved, initial_backbone, training_device
from scanlearn.training.run import read_provenance
from scanlearn.training.settings import PretrainConfig
from scantune.evaluation.backbone import EvaluatedBackbone, open_backbone, open_weights
from scantune.evaluation.classifier import View
from scantune.study.arm_settings import Group
from scantune.study.folder import StudyFolder
from scantune.study.plan import CompareConfig
from scantune.study.resolving import initial_run, of_share
from scantune.study.results import RunRow, TrainingCurve
from scantune.study.sharing import SharedPiece, make_all

_CURVE_POINTS = 200


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
            asked = told_to_wandb(config.run_config(arm, seed, run, leave_out), folder)
            result = pretrain(asked, resolved=resolved[group])
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
    asked = config.run_config(arm, seed, folder.run(arm, seed), leave_out)
    run = told_to_wandb(asked, folder)
    if step < resolved.total_steps:
        network = pretrain_until(run, step, resolved)
    else:
        network, _ = load_backbone(pretrain(run, resolved=resolved).backbone)
    spread = final_health(RunFolder(Path(run.output)).metrics).spread
    return network.eval().to(training_device(config.pretrain.device)), spread


def told_to_wandb(run: PretrainConfig, folder: StudyFolder) -> PretrainConfig:
    """Returns a run with the group and the name by which wandb shows it beside its study's."""
    asked, place = run.logging, Path(run.output)
    named = {
        "group": asked.group or folder.wandb_group,
        "name": asked.name or f"{place.parent.name}-{place.name}",
    }
    return run.model_copy(update={"logging": asked.model_copy(update=named)})


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


def _initial_backbone(config: CompareConfig, seed: int, unlabeled: Archive) -> Backbone:
    return initial_backbone(initial_run(config, seed, Path()), unlabeled)[0]


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
