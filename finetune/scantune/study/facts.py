"""What a reader must know to judge a comparison: its set-up, arms, counts and warnings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from scanlearn.archive.count import Count
from scanlearn.archive.reader import Archive
from scanlearn.backbones.settings import BackboneConfig
from scanlearn.config import dump_plain
from scanlearn.files import disk_errors, make_folder
from scanlearn.methods import MethodConfig
from scanlearn.packing.sources import PHANTOM_PREFIX
from scanlearn.training.resolved import Resolved, with_batch_of
from scanlearn.training.settings import TrainingSettings
from scanlearn.views.adjusting import in_words
from scanlearn.views.explain import policy_changes
from scanlearn.views.extra_settings import build_extras
from scanlearn.views.preview import arm_sheet
from scanlearn.views.recipes import Recipe
from scanlearn.views.scale import Scale
from scanlearn.views.settings import RenderSettings
from scanlearn.views.statistics import view_statistics
from scantune.evaluation.settings import THUMBNAIL
from scantune.labels.labeled_set import LabeledSet
from scantune.learners.by_name import stopping_notes
from scantune.scores import Scores
from scantune.study.arm_settings import Group
from scantune.study.folder import StudyFolder
from scantune.study.plan import CompareConfig
from scantune.study.results import (
    ArmRow,
    Counted,
    Dial,
    Fact,
    Parameter,
    RunRow,
    Score,
    Sheet,
    TaskCount,
    ViewShare,
)
from scantune.wording import design_name, learner_name

# Pictures of what each arm saw.
_ARMS_A_SHEET = 4
_SCANS = 5
_DPI = 150
_NAMED = 5
# Steps below which a run is called short, ours; and the share of scans from which on a second body
# part or view is told.
FEW_STEPS = 100
_MIXED = 0.01
# AUROC above which all arms and the thumbnail are called alike.
SATURATED = 0.98
# Embedding std x sqrt(d), 1 where healthy, below which an arm is called collapsed; ours.
COLLAPSED = 0.3


def draw_sheets(
    config: CompareConfig, folder: StudyFolder, unlabeled: Archive, left_out: Collection[str] = ()
) -> tuple[Sheet, ...]:
    """Draws views of the trained arms, the same scans and draws in all of them.

    Arms of one method and dial that differ in their share of the patients are drawn once.

    Args:
        left_out: Operations of the policy that the scans do not allow, here and below.

    Returns:
        The sheets, written to the study's ``figures`` as PNG; one for each four arms of a method.
    """
    shared = config.pretrain.views
    settings = RenderSettings(scale_blur=shared.scale_blur)
    by_method: dict[MethodConfig, dict[Scale, str]] = {}
    for name, arm in config.trained.items():
        by_method.setdefault(config.group(name).method, {}).setdefault(arm.dial(), name)
    parts = []
    for method, names in by_method.items():
        dials = [(name, dial) for dial, name in names.items()]
        starts = range(0, len(dials), _ARMS_A_SHEET)
        parts += [(method, dict(dials[start : start + _ARMS_A_SHEET])) for start in starts]
    make_folder(folder.figures)
    sheets = []
    for number, (method, members) in enumerate(parts):
        recipe = config.recipe_of(next(iter(members)), left_out)
        if not method.num_local_views:
            recipe = replace(recipe, has_local_views=False)
        figure = arm_sheet(
            unlabeled,
            members,
            recipe=recipe,
            scans=_SCANS,
            size=shared.size,
            settings=settings,
            extras=build_extras(shared.extras),
        )
        path = folder.figures / f"views_{number + 1}.png"
        with disk_errors(path):
            figure.savefig(path, dpi=_DPI)
        title = f"Two views of {min(_SCANS, len(unlabeled))} scans: {', '.join(members)}"
        sheets.append(Sheet(title=title, file=path.name, arms=tuple(members)))
    return tuple(sheets)


EVIDENCE_NOTE = (
    "These scans are synthetic. They show that the method of comparison works and are no evidence "
    "about real scans."
)


def setup_facts(
    config: CompareConfig,
    runs: Sequence[RunRow],
    tasks: Mapping[str, LabeledSet],
    num_unlabeled: int,
    left_out: Collection[str] = (),
) -> tuple[Fact, ...]:
    """The set-up that all arms share, for a person; what groups of arms do not share, by group."""
    shared = config.pretrain
    methods: dict[str, None] = {}
    views: dict[str, str] = {}
    modality: dict[str, str] = {}
    training: dict[str, str] = {}
    for group in config.groups:
        arm = next(name for name in config.trained if config.group(name) == group)
        recipe = config.recipe_of(arm, left_out)
        methods[group.method.name] = None
        views[_views_text(shared, recipe)] = group.method.name
        if recipe.policy:
            modality[policy_changes(recipe)] = group.method.name
        trained = next((run for run in runs if run.steps > 0 and run.group == group.title), None)
        if trained is not None:
            training[_training_text(config, arm, trained, num_unlabeled)] = group.title
    return (
        Fact(name="Method", value=", ".join(methods)),
        Fact(name="Network", value=shared.backbone.in_words),
        Fact(name="Views", value=_by_group(views)),
        *((Fact(name="Modality", value=_by_group(modality)),) if modality else ()),
        Fact(name="Training", value=_by_group(training)),
        Fact(name="Evaluation", value=_evaluation_text(config, tasks)),
        *(
            Fact(
                name="Untrained network",
                value=f"initial weights; BatchNorm statistics of {statistics} unlabeled scans, "
                "whole and not augmented",
            )
            for statistics in {run.statistics for run in runs if run.statistics}
        ),
    )


def _by_group(texts: Mapping[str, str]) -> str:
    """Returns a text alone, or each with what it holds for."""
    if len(texts) == 1:
        return next(iter(texts))
    return "; ".join(f"{text} ({of})" if of else text for text, of in texts.items())


def _training_text(config: CompareConfig, arm: str, trained: RunRow, num_unlabeled: int) -> str:
    scans = int(trained.conditions.get("archive.scans", num_unlabeled))
    run = with_batch_of(config.run_config(arm, config.seeds[0], Path()), scans)
    return f"{trained.epochs:.3g} epochs of batches of {run.batch_size}, {trained.steps:,} steps"


def _evaluation_text(config: CompareConfig, tasks: Mapping[str, LabeledSet]) -> str:
    evaluation = config.scoring
    tested = ", ".join(
        f"{np.count_nonzero(labeled.split == 'test'):,} scans for {task}"
        for task, labeled in tasks.items()
    )
    if evaluation.test is not None:
        design = f"external test set ({tested})"
    elif evaluation.split_column is not None:
        design = f"test side of the split in column {evaluation.split_column} ({tested})"
    else:
        count = next((labeled.count() for labeled in tasks.values()), Count(0, 0))
        design = design_name("folds", count, evaluation.folds)
    seeds = evaluation.label_seeds
    frozen = ", ".join(learner_name(name) for name in evaluation.frozen_learners)
    trained = ", ".join(learner_name(name) for name in evaluation.network_learners)
    return ", ".join(
        (
            *((f"{frozen} on frozen features",) if frozen else ()),
            *((f"{trained} of each network",) if trained else ()),
            *((evaluation.views_in_words,) if evaluation.trained_on_views else ()),
            design,
            f"{seeds} label seed{'s' if seeds > 1 else ''}",
        )
    )


def _views_text(shared: TrainingSettings, recipe: Recipe | None = None) -> str:
    views = shared.views
    recipe = recipe or shared.build_recipe()
    modality = f" under modality {recipe.policy.name}" if recipe.policy else ""
    parts = [f"{views.size} px", f"recipe {recipe.name}{modality}"]
    if views.operations:
        parts.append(f"by hand: {in_words(views.operations)}")
    parts += [f"extra: {extra.in_words}" for extra in views.extras]
    if not views.scale_blur:
        parts.append("blur of 224-px views")
    return ", ".join(parts)


def arm_rows(
    config: CompareConfig, channels: int, left_out: Collection[str] = ()
) -> tuple[ArmRow, ...]:
    """The thumbnail and every arm with what its dial resolves to."""
    views = config.pretrain.views
    settings = RenderSettings(scale_blur=views.scale_blur, global_size=views.size)
    rows = [ArmRow(name=THUMBNAIL, kind="thumbnail")] if config.learners_of(THUMBNAIL) else []
    for name, arm in config.arms.items():
        if arm.kind != "pretrained":
            weights = arm.backbone_name if arm.kind == "backbone" else ""
            rows.append(ArmRow(name=name, kind=arm.kind, backbone=weights))
            continue
        dial, recipe, group = arm.dial(), config.recipe_of(name, left_out), config.group(name)
        resolved = tuple(
            Parameter(parameter=row.parameter, value=row.value, source=row.source, note=row.note)
            for row in recipe.table(dial, channels, settings)
            if row.note != "off"
        )
        rows.append(
            ArmRow(
                name=name,
                kind="pretrained",
                scale=Dial(**asdict(recipe.dial(dial))),
                resolved=resolved,
                method=group.method.name,
                share=group.share,
                group=group.title,
            )
        )
    return tuple(rows)


def view_shares(config: CompareConfig, left_out: Collection[str] = ()) -> tuple[ViewShare, ...]:
    """How much two views of a scan share in each trained arm."""
    pairs = {
        name: view_statistics(config.recipe_of(name, left_out), arm.dial()).global_global
        for name, arm in config.trained.items()
    }
    return tuple(ViewShare(arm=k, iou=s.iou, disjoint=s.disjoint) for k, s in pairs.items())


def counted(archive: Archive) -> Counted:
    """Size and hash of an archive."""
    return Counted(
        **_plain(Count.of_archive(archive)),
        hash=archive.content_hash,
        shape=archive.shape,
    )


def _plain(count: Count) -> dict[str, Any]:
    return {
        "scans": count.scans,
        "patients": count.known_patients,
        "unknown_patients": count.unknown,
        "stand_ins": count.stand_ins,
    }


def task_counts(tasks: Mapping[str, LabeledSet]) -> tuple[TaskCount, ...]:
    """Scans, patients and classes of every task."""
    return tuple(
        TaskCount(
            **_plain(labeled.count()),
            name=name,
            classes=labeled.classes,
            counts=labeled.counts,
            design=labeled.design,
            is_compared=labeled.is_compared,
        )
        for name, labeled in tasks.items()
    )


def patients_caveat(tasks: Mapping[str, LabeledSet]) -> str:
    """What the verdict has to say of patients that nobody knows, as a sentence; or nothing."""
    caveats = dict.fromkeys(filter(None, (labeled.count().caveat for labeled in tasks.values())))
    return " ".join(f"{caveat[0].upper()}{caveat[1:]}." for caveat in caveats)


def data_warnings(
    unlabeled: Archive, archives: tuple[Archive, ...], tasks: Mapping[str, LabeledSet]
) -> tuple[str, ...]:
    """What a reader should know about the scans and labels."""
    warnings: list[str] = []
    for name, archive in zip(("labeled", "test"), archives, strict=False):
        if unlabeled.content_hash == archive.content_hash:
            warnings.append(
                f"The {name} scans are also the unlabeled ones: every arm has seen the test scans, "
                "but not their labels."
            )
        caveat = counted(archive).count.caveat
        if caveat:
            warnings.append(
                f"Of the {name} scans, {caveat}: intervals are too narrow if patients have several "
                "scans, and with folds one person's scans may train and be tested."
            )
    for name, labeled in tasks.items():
        if labeled.num_blank:
            warnings.append(f"{name}: {labeled.num_blank} scans without a label are left out.")
        if labeled.num_uncertain:
            warnings.append(f"{name}: {labeled.num_uncertain} uncertain scans (-1) are left out.")
        warnings += [f"{name}: {note}." for note in labeled.notes]
        unknown = ", ".join(f"{key} {n}" for key, n in labeled.unknown.items() if n)
        if unknown:
            warnings.append(f"{name}: scans of which a finding is unknown are masked: {unknown}.")
    return tuple(warnings)


def score_warnings(
    config: CompareConfig, scores: Mapping[tuple[str, str], Sequence[Scores]]
) -> tuple[str, ...]:
    """What a reader should know about how the learners were trained and what they scored."""
    evaluation = config.evaluation
    warnings = []
    for (task, _), members in scores.items():
        for each in members:
            notes = (*each.notes, *stopping_notes(each, evaluation.tune))
            warnings += [f"{task}: {note}." for note in notes]
    if evaluation.network_learners:
        names = ", ".join(learner_name(name) for name in evaluation.network_learners)
        warnings.append(f"The thumbnail has no network to train: it is not scored with {names}.")
    scratch = ", ".join(name for name, arm in config.arms.items() if arm.kind == "scratch")
    if scratch:
        warnings.append(
            f"{scratch}: trained on the labels alone, from weights that each training draws anew, "
            "by the settings of the learner scratch whatever learner it stands beside; it is not "
            "scored on frozen features."
        )
    return tuple(dict.fromkeys(warnings))


def interval_warnings(table: Sequence[Score]) -> tuple[str, ...]:
    """Why AUROCs have no interval, or one that is too narrow."""
    learners: dict[tuple[str, str], dict[str, None]] = {}
    for score in table:
        if score.note:
            of_note = learners.setdefault((score.task, score.note), {})
            of_note[learner_name(score.learner)] = None
    return tuple(f"{task}, {', '.join(names)}: {note}." for (task, note), names in learners.items())


def thumbnail_warnings(config: CompareConfig, table: Sequence[Score]) -> tuple[str, ...]:
    """Names the trained arms that the thumbnail equals, with the primary learner and budget."""
    setting = (config.primary.learner, config.primary_budget)
    warnings = []
    for task in config.task_names:
        aurocs: dict[str, float] = {
            s.arm: s.auroc
            for s in table
            if s.task == task and (s.learner, s.budget) == setting and s.auroc is not None
        }
        reference = aurocs.get(THUMBNAIL)
        if reference is None:
            continue
        below = [
            f"{name} ({aurocs[name]:.3f})"
            for name in config.trained
            if name in aurocs and aurocs[name] <= reference
        ]
        if below:
            warnings.append(
                f"{task}: the thumbnail ({reference:.3f}) scores at least as high as "
                f"{', '.join(below)}: no evidence that these arms learned more than brightness and "
                "coarse layout."
            )
    return tuple(warnings)


def undefined_warnings(scores: Mapping[tuple[str, str], Sequence[Scores]]) -> tuple[str, ...]:
    """Names the classes that some fold cannot score, which its mean leaves out."""
    warnings = []
    for task, first in {task: members[0] for (task, _), members in scores.items()}.items():
        folds = list(np.ndindex(first.num_label_seeds, first.num_folds))
        for code in first.truth.asked:
            is_positive = first.truth.positives(code)
            tested = [is_positive[first.test_rows(seed, fold, code)] for seed, fold in folds]
            undefined = sum(positive.all() or not positive.any() for positive in tested)
            if undefined:
                warnings.append(
                    f"{task}: '{first.classes[code]}' has no positive or no negative scan to test "
                    f"in {undefined} of {len(folds)} folds: its AUROC there is undefined and left "
                    "out of the mean."
                )
    return tuple(warnings)


def step_warnings(groups: Mapping[Group, Resolved]) -> tuple[str, ...]:
    """Names the groups of arms whose training is too short to tell much of a scale."""
    short = []
    for group, chosen in groups.items():
        steps, epochs = chosen.total_steps, chosen.total_steps / chosen.steps_per_epoch
        if steps < FEW_STEPS or epochs < 1:
            of = f"; {group.title}" if group.title else ""
            short.append(f"{steps:,} step{'s' if steps > 1 else ''} ({epochs:.2g} epochs{of})")
    if not short:
        return ()
    return (
        f"Training takes {', '.join(short)}: below {FEW_STEPS} steps, or one epoch, networks are "
        "hardly trained, and their differences say little of longer training; raise "
        "pretrain.epochs or pretrain.steps.",
    )


def mixture_warnings(unlabeled: Archive) -> tuple[str, ...]:
    """What the archive mixes by its DICOM tags, or by a column of its views, if it kept these."""
    parts: Counter[str] = Counter()
    for examined, count in unlabeled.examined.items():
        parts[examined.partition(" ")[2]] += count
    kinds = {"body parts": parts}
    for column in unlabeled.label_columns:
        if re.fullmatch(r"view[ _]?position", column, re.IGNORECASE):
            views = [str(view) for view in unlabeled.labels(column) if view is not None]
            kinds["views"] = Counter(views)
    warnings = []
    for kind, counts in kinds.items():
        named = Counter({name: count for name, count in counts.items() if name})
        common = [f"{n} {c:,}" for n, c in named.most_common() if c >= _MIXED * named.total()]
        if len(common) > 1:
            warnings.append(
                f"The unlabeled scans mix {kind} ({', '.join(common[:_NAMED])}"
                f"{', ...' if len(common) > _NAMED else ''}): networks may learn to tell these "
                "apart in place of findings, and a crop or flip may suit one and not another; "
                "pack.keep chooses among them."
            )
    return tuple(warnings)


def saturation_warnings(config: CompareConfig, table: Sequence[Score]) -> tuple[str, ...]:
    """Names the tasks that every arm and the thumbnail solve, with the primary budget."""
    warnings = []
    for task in config.task_names:
        aurocs = [
            score.auroc if score.auroc is not None else 0.0
            for score in table
            if (score.task, score.learner, score.budget)
            == (task, config.primary.learner, config.primary_budget)
        ]
        if aurocs and min(aurocs) > SATURATED:
            thumbnail = THUMBNAIL in {score.arm for score in table}
            warnings.append(
                f"{task}: every arm{' and the thumbnail' if thumbnail else ''} scores above "
                f"{SATURATED:g}: the task is saturated, and no difference can be seen; take a "
                "harder one, or fewer labels."
            )
    return tuple(warnings)


def collapse_warnings(runs: Sequence[RunRow]) -> tuple[str, ...]:
    """Names the arms whose embedding had collapsed when training ended."""
    collapsed: dict[str, list[str]] = {}
    for run in runs:
        spread = [value for value in run.curve.embedding_std if value is not None]
        if spread and spread[-1] < COLLAPSED:
            collapsed.setdefault(run.arm, []).append(f"{spread[-1]:.2f} with seed {run.seed}")
    return tuple(
        f"{arm}: the embedding collapsed (std × √d {', '.join(spreads)}; 1 is healthy, below "
        f"{COLLAPSED:g} collapsed). All arms share one temperature and learning rate, which can "
        "collapse strong arms alone: what this arm lacks may not be for its scale. Try others "
        "before a claim about it."
        for arm, spreads in collapsed.items()
    )


def evidence_note(*archives: Archive) -> str | None:
    """What stands in the way of believing the numbers; None for real scans."""
    return EVIDENCE_NOTE if any(archive.synthetic_phantom for archive in archives) else None


def command_text(config: CompareConfig) -> str:
    """The command that repeats the study; no path of the user's stands in it."""
    words = [f"{'.'.join(keys)}={value}" for keys, value in _without_paths(config).items()]
    return " ".join(["scantune compare config.yaml", *words])


def config_text(config: CompareConfig) -> str:
    """The resolved configuration without the user's paths, as YAML."""
    plain = config.model_dump(mode="json")
    for (*parents, last), value in _without_paths(config).items():
        block = plain
        for parent in parents:
            block = block[parent]
        block[last] = value
    return dump_plain(plain)


def _without_paths(config: CompareConfig) -> dict[tuple[str, ...], str]:
    """Returns what stands for each path that the plan gives; a phantom is no path."""
    paths = {
        ("unlabeled",): (config.unlabeled, "SCANS"),
        ("labels",): (config.labels, "LABELS"),
        ("output",): (config.output, "FOLDER"),
        ("evaluation", "test"): (config.evaluation.test, "TEST"),
        ("pretrain", "backbone", "weights"): (config.pretrain.backbone.weights_path, "WEIGHTS"),
        ("pretrain", "watch", "probe"): (config.pretrain.watch.probe, "PROBE"),
    }
    for name, arm in config.arms.items():
        key = ("weights",) if isinstance(arm.backbone, BackboneConfig) else ()
        paths["arms", name, "backbone", *key] = (arm.backbone_path, "BACKBONE")
    return {
        keys: str(path) if str(path).startswith(PHANTOM_PREFIX) else word
        for keys, (path, word) in paths.items()
        if path is not None
    }
