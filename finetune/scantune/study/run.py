"""Runs a comparison: trains the arms, scores them, and leaves ``results.json``."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from scanlearn.archive.reader import Archive
from scanlearn.backbones.settings import BackboneConfig
from scanlearn.backbones.start import check_start
from scanlearn.console import say, warn_user
from scanlearn.errors import ScanlearnError
from scanlearn.files import write_atomically
from scanlearn.locks import held, inside
from scanlearn.packing.sources import chosen_canvas, open_archive
from scanlearn.provenance import provenance
from scanlearn.training.wandb_log import WandbRun
from scantune.evaluation.backbone import packing_of_backbone
from scantune.labels.open import open_archives, single_columns
from scantune.study import facts
from scantune.study.arms import given_rows, train_arms
from scantune.study.augmented import finding_counts, learner_differences
from scantune.study.classes import class_cells, class_effects, class_scores, roc_curves
from scantune.study.dose import dose_curves, joint_curves
from scantune.study.facts import draw_sheets
from scantune.study.folder import StudyFolder, check_archives, chose_by_area
from scantune.study.jobs import jobs_started, warn_of_threads
from scantune.study.label_free import measure_all
from scantune.study.leaks import dropped, find_study_leaks, leak_warnings
from scantune.study.matching import matched
from scantune.study.plan import CompareConfig
from scantune.study.planned import (
    after_results,
    is_other_question,
    look_in_words,
    power_at_start,
    power_fact,
)
from scantune.study.resolving import resolve_groups
from scantune.study.results import RESULTS_FILE, TABLE_FILE, Rejected, Results, RunRow
from scantune.study.scores import (
    Network,
    StudyScores,
    networks_of,
    read_tasks,
)
from scantune.study.sharing import taking_part
from scantune.study.summary import difference_rows, estimate_all, score_rows, state_verdict
from scantune.study.tables import html_table, table_csv


def run_study(config: CompareConfig) -> Path:
    """Trains and scores every arm, or goes on with a study that was stopped.

    Finished networks and scores are read back, never made again. What another command on the study
    is making is waited for at the end.

    Returns:
        The study's folder, with ``results.json``, ``results.csv`` and ``figures/``.

    Raises:
        ScanlearnError: The scans or labels cannot be used, test scans leak, the folder holds
            another study, or the disk is full.
    """
    check_start(config.pretrain.backbone, is_new=not Path(config.output).exists())
    with (
        taking_part(config) as (folder, since_ns),
        jobs_started(config, folder),
        ExitStack() as stack,
    ):
        return _run(config, folder, since_ns, stack)


def _run(config: CompareConfig, folder: StudyFolder, since_ns: int, stack: ExitStack) -> Path:
    alone = partial(held, inside(folder.path), folder.path, wait=True)
    with alone():
        config = canvas_chosen(config, folder)
        unlabeled, archives = open_study_archives(config)
        named = dict(zip(("unlabeled", "labels", "test"), (unlabeled, *archives), strict=False))
        labels, test = archives[0], named.get("test")
        tasks = read_tasks(config, archives)
        check_archives(folder, {name: archive.content_hash for name, archive in named.items()})
        leaks = find_study_leaks(config, folder, unlabeled, archives, tasks)
        left_out = dropped(config, folder)
        if left_out:
            named["unlabeled"] = unlabeled = unlabeled.without(left_out)
        on_devices, groups = resolve_groups(config, folder, unlabeled)
    warn_of_threads(config.jobs, groups[config.groups[0]].threads)
    # Runs keep the plan as it was written; before the hours that they take, tune is checked too.
    resolved = config.under(groups[config.groups[0]].modality)
    own_scans = packed_again(config, archives)
    given, given_warnings = given_rows(config, labels, own_scans)
    # Hours of training should not end in a backbone that was put in the place of another.
    study_scores = StudyScores(resolved, folder, archives, tasks)
    study_scores.check(networks_of(resolved, folder, given, unlabeled, labels, own_scans))
    early = (
        *facts.step_warnings(groups),
        *facts.mixture_warnings(unlabeled),
        *given_warnings,
    )
    for warning in early:
        warn_user(warning)
    say(f"power: {power_at_start(config, tasks)}")
    scored: set[str] = set()

    def score_one(rows: Sequence[RunRow]) -> bool:
        def score(network: Network) -> None:
            study_scores.of(network)
            scored.add(network.name)

        networks = networks_of(resolved, folder, (*rows, *given), unlabeled, labels, own_scans)
        left = (network for network in networks if network.name not in scored)
        return any(study_scores.piece(network, score).try_making() for network in left)

    runs, run_warnings = train_arms(on_devices, folder, unlabeled, groups, score_one)
    runs = (*runs, *given)
    policy_left_out = {name for chosen in groups.values() for name in chosen.left_out}
    config = resolved
    networks = networks_of(config, folder, runs, unlabeled, labels, own_scans)
    scores = study_scores.of_all(networks)
    label_free, label_free_views = measure_all(config, folder, runs, unlabeled, policy_left_out)
    stack.enter_context(alone())
    if _is_newer(folder.path / RESULTS_FILE, since_ns):
        return folder.path  # A command that shared the work has said it all meanwhile.
    answered = list(folder.answered)
    with folder.timed("intervals"):
        estimates = estimate_all(config, scores)
    unknown = [name for name, each in tasks.items() if each.count().known_patients is None]
    table = score_rows(config, estimates, scores, unknown)
    differences = difference_rows(config, estimates, scores)
    cells = class_cells(config, scores)
    of_classes = class_scores(config, scores, cells)
    proof = matched(runs)
    arms = facts.arm_rows(config, unlabeled.shape[0], policy_left_out)
    answer = state_verdict(config, arms, table, differences, proof)
    if look := look_in_words(config):
        answer = answer.model_copy(update={"sentence": f"{answer.sentence} {look}"})
    caveat = facts.patients_caveat({config.primary_task: tasks[config.primary_task]})
    if caveat:
        answer = answer.model_copy(update={"sentence": f"{answer.sentence} {caveat}"})
    results = Results(
        title=config.title,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        evidence_note=facts.evidence_note(*named.values()),
        versions=_versions(),
        command=facts.command_text(config),
        config=facts.config_text(config),
        margin=config.margin,
        setup=(
            *facts.setup_facts(config, runs, tasks, len(unlabeled), policy_left_out),
            power_fact(config, tasks, estimates, scores),
        ),
        verdict=answer,
        unlabeled=facts.counted(unlabeled),
        labels=facts.counted(labels),
        test=None if test is None else facts.counted(test),
        tasks=facts.task_counts(tasks),
        arms=arms,
        runs=runs,
        matched=proof,
        table=table,
        differences=differences,
        dose=dose_curves(arms, estimates, config.margin),
        joint_dose=joint_curves(
            arms, estimates, (answer.primary.learner, answer.primary.budget), config.margin
        ),
        classes=of_classes,
        class_effects=class_effects(config, scores, cells),
        finding_counts=finding_counts(config, scores, of_classes),
        learner_differences=learner_differences(config, estimates, scores),
        roc=roc_curves(config, arms, scores),
        label_free=label_free,
        label_free_views=label_free_views,
        view_statistics=facts.view_shares(config, policy_left_out),
        sheets=draw_sheets(config, folder, unlabeled, policy_left_out),
        warnings=(
            *early,
            *facts.data_warnings(unlabeled, archives, tasks),
            *facts.score_warnings(config, scores),
            *facts.undefined_warnings(scores),
            *facts.interval_warnings(table),
            *facts.saturation_warnings(config, table),
            *facts.thumbnail_warnings(config, table),
            *facts.collapse_warnings(runs),
            *leak_warnings(leaks, len(left_out)),
            *run_warnings,
        ),
        after_results=tuple(after_results(config, answered)),
        is_chosen_late=any(is_other_question(config, before) for before, _ in answered[:1]),
        rejected=Rejected(**{name: archive.num_rejected for name, archive in named.items()}),
        leaks=leaks,
        timing=folder.timing(),
    )
    write_atomically(folder.path / TABLE_FILE, table_csv(results.table))
    if config.max_seeds is not None and answer.kind == "none":
        folder.add_unsettled(len(config.seeds))
    # Written last: where it is, the study is complete.
    write_atomically(folder.path / RESULTS_FILE, results.model_dump_json(indent=1) + "\n")
    say(f"{RESULTS_FILE} and {TABLE_FILE} written")
    _tell_wandb(config, folder, results)
    return folder.path


def _tell_wandb(config: CompareConfig, folder: StudyFolder, results: Results) -> None:
    """Hands the tables and the verdict to wandb where its runs were told to it."""
    asked = config.pretrain.logging
    if asked.wandb == "off":
        return
    group = asked.group or folder.wandb_group
    run = WandbRun(
        folder.path,
        mode=asked.wandb,
        project=asked.project,
        run_id=hashlib.sha256(f"results of {group}".encode()).hexdigest()[:16],
        config={},
        group=group,
        name="results",
    )
    try:
        for title, rows in {"auroc": results.table, "differences": results.differences}.items():
            run.page(title, html_table(rows, without=("per_seed",)))
        aurocs = {
            f"auroc/{row.task}/{row.learner}/{row.budget}/{row.arm}": row.auroc
            for row in results.table
        }
        verdict = {"verdict": results.verdict.kind, "sentence": results.verdict.sentence}
        run.summary({**verdict, **aurocs})
    finally:
        run.finish()


def _is_newer(file: Path, since_ns: int) -> bool:
    return file.is_file() and file.stat().st_mtime_ns > since_ns


def canvas_chosen(config: CompareConfig, folder: StudyFolder) -> CompareConfig:
    """Returns the plan with a canvas by the shorter side of its scans, where it left that open.

    A study goes on with the canvas by which its first plan packed its scans, which an earlier
    release chose otherwise.
    """
    settings = config.pack_settings(config.unlabeled_columns, config.pack.channels)
    if config.pack.canvas is not None:
        return config
    begun = folder.begun(config)
    side = begun.square_crops_canvas() if chose_by_area(folder) else begun.canvas()
    assert isinstance(side, int), "it follows from the size of views"
    canvas = chosen_canvas(config.unlabeled, side, settings)
    if canvas == config.canvas():
        return config
    height, width = (canvas, canvas) if isinstance(canvas, int) else canvas
    say(
        f"canvas: {height} x {width} px, {height * width / side**2:.1f} times the memory of a "
        f"square of {side}: crops go by the shorter side of a scan; pack.canvas chooses another"
    )
    return config.model_copy(update={"pack": config.pack.model_copy(update={"canvas": canvas})})


def open_study_archives(config: CompareConfig) -> tuple[Archive, tuple[Archive, ...]]:
    """Opens the unlabeled scans, the labeled ones and an external test set, packed alike."""
    unlabeled = open_archive(
        config.unlabeled,
        settings=config.pack_settings(config.unlabeled_columns, config.pack.channels),
    )
    channels = unlabeled.shape[0]
    assert channels in (1, 3), f"an archive has 1 or 3 channels, not {channels}"
    archives = _labeled_archives(config, 1 if channels == 1 else 3)
    if archives[0].shape[0] != channels:
        raise ScanlearnError(
            f"the unlabeled scans have {channels} channels and the labeled ones "
            f"{archives[0].shape[0]}: pack both with pack.channels={channels}"
        )
    return unlabeled, archives


def _labeled_archives(
    config: CompareConfig, channels: Literal[1, 3], side: int | None = None
) -> tuple[Archive, ...]:
    """Opens the labeled scans and an external test set; ``side`` replaces the plan's canvas."""
    packing = config.pack_settings(config.label_columns, channels)
    if side is not None:
        canvas = chosen_canvas(config.labels, side, packing)
        packing = packing.model_copy(update={"canvas": canvas})
    # What the plan names is a label, whatever it looks like.
    named = {"allow_columns": (*packing.allow_columns, *config.named_columns)}
    packing = packing.model_copy(update=named)
    asked = config.evaluation
    single = single_columns(
        config.tasks, asked.multilabel, asked.split_column, asked.synthetic_column
    )
    return open_archives(config.labels, asked.test, packing, single)


def packed_again(
    config: CompareConfig, archives: tuple[Archive, ...]
) -> dict[str, tuple[Archive, ...]]:
    """Returns the labeled scans of given arms that have a canvas of their own, row by row the same.

    Raises:
        ScanlearnError: They are packed or drawn already, so that no file can be packed again.
    """
    again = {}
    for name, arm in config.arms.items():
        if arm.canvas is None or arm.backbone is None:
            continue
        is_file = isinstance(arm.backbone, BackboneConfig)
        channels = 3 if is_file else packing_of_backbone(str(arm.backbone)).get("channels")
        packed = _labeled_archives(config, 1 if channels == 1 else 3, arm.canvas)
        if any(
            own.content_hash == other.content_hash and min(own.shape[1:]) != arm.canvas
            for own, other in zip(packed, archives, strict=True)
        ):
            raise ScanlearnError(
                f"arms.{name}.canvas={arm.canvas} packs the labeled scans again, which are an "
                "archive or a phantom: name the folder or table that they are from, or leave it out"
            )
        for own, other in zip(packed, archives, strict=True):
            if not np.array_equal(own.scan_ids, other.scan_ids):
                raise ScanlearnError(
                    f"arms.{name}.canvas={arm.canvas}: {own.path} holds other scans than "
                    f"{other.path}; a file changed between the two: pack both anew"
                )
        again[name] = packed
    return again


def _versions() -> dict[str, str]:
    known = provenance()
    versions = known["versions"]
    assert isinstance(versions, dict)
    commit, _, dirty = str(known["commit"] or "").partition("-")
    if not commit:
        return versions
    return versions | {"commit": commit[:12] + (f"-{dirty}" if dirty else "")}
