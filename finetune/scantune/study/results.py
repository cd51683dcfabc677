"""What a comparison found, as ``results.json`` holds it: the contract between study and report."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field

from scanlearn.archive.count import Count
from scanlearn.config.reading import read_json
from scanlearn.config.settings import Settings
from scanlearn.errors import ScanlearnError
from scantune.evaluation.settings import THUMBNAIL
from scantune.labels.labeled_set import Design
from scantune.splits import Budget
from scantune.wording import dial_text

ArmKind = Literal["random", "scratch", "backbone", "pretrained", "thumbnail"]
# Higher and lower are better and worse of some networks or one draw of labels alone.
Outcome = Literal["better", "worse", "higher", "lower", "equivalent", "none"]

RESULTS_FILE = "results.json"
TABLE_FILE = "results.csv"
REPORT_FILE = "report.html"
FIGURES = "figures"


class Primary(Settings):
    """The one comparison named in advance: is ``a`` better than ``b``?"""

    task: str
    learner: str
    budget: Budget
    a: str
    b: str


class EarlierAnswer(BaseModel):
    """What `Results` said under an earlier plan: when, and in which sentence."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    created: str
    # Of `Results` that of its verdict.
    sentence: str = Field(
        validation_alias=AliasChoices("sentence", AliasPath("verdict", "sentence"))
    )

    @property
    def in_words(self) -> str:
        """The verdict's sentence, and its day."""
        return f"{self.sentence} ({self.created[:10]})"


class Verdict(Settings):
    """The answer in one sentence; ``kind`` is seen from arm ``a`` of the primary comparison.

    ``holds_for`` is that of the primary `ArmDifference`.
    """

    kind: Outcome
    sentence: str
    primary: Primary
    holds_for: str = ""


class CountedScans(Settings):
    """Scans and their patients.

    ``patients`` are those that are known, None where nobody knows any; the others are of
    ``unknown_patients`` scans, which count as ``stand_ins`` patients.
    """

    scans: int
    patients: int | None
    unknown_patients: int = 0
    stand_ins: int = 0

    @property
    def count(self) -> Count:
        """The same, to be told in words; earlier releases kept no number of unknown ones."""
        unknown = self.unknown_patients or (self.scans if self.patients is None else 0)
        return Count(self.scans, self.patients or 0, unknown, self.stand_ins or unknown)


class Counted(CountedScans):
    """Size and content hash of an archive."""

    hash: str
    shape: tuple[int, int, int] | None = None


class TaskCount(CountedScans):
    """Labeled scans, patients and scans per class of one task.

    ``design`` says which scans are tested, and ``is_compared`` whether a patient of labels and
    external test set would have been recognised.
    """

    name: str
    classes: tuple[str, ...]
    counts: dict[str, int]
    design: Design = "folds"
    is_compared: bool = True


class Dial(Settings):
    """The four sub-dials of an arm."""

    crop: float
    geometry: float
    photometric: float
    acquisition: float


class Parameter(Settings):
    """One resolved augmentation parameter: its value and where that comes from."""

    parameter: str
    value: str
    source: str
    note: str = ""


class ArmRow(Settings):
    """One arm; ``scale`` and ``resolved`` are empty unless it was pretrained.

    ``method`` and ``share`` (of the unlabeled patients) are those of a pretrained arm, None in
    results of earlier releases; ``group`` is empty where they are the plan's own. ``backbone`` is
    the name of a given one.
    """

    name: str
    kind: ArmKind
    scale: Dial | None = None
    resolved: tuple[Parameter, ...] = ()
    method: str | None = None
    share: float | None = None
    group: str = ""
    backbone: str = ""

    @property
    def scale_text(self) -> str:
        """``s = 0.5``; the sub-dials by name where they differ."""
        if self.scale is not None:
            dial = dial_text(self.scale.model_dump())
            return f"{dial}, {self.group}" if self.group else dial
        return {
            "thumbnail": "no network",
            "scratch": "from scratch",
            "backbone": f"given weights: {self.backbone}",
        }.get(self.kind, "not trained")


class TrainingCurve(Settings):
    """Loss and embedding std (times sqrt d: 1 healthy, 0 collapsed) over optimiser steps."""

    step: tuple[int, ...] = ()
    loss: tuple[float | None, ...] = ()
    embedding_std: tuple[float | None, ...] = ()


class RunRow(Settings):
    """One network: an arm at one pretraining seed; the defaults are those of an untrained one.

    ``conditions`` is what the run recorded while it trained, by dotted key; ``is_recorded`` is
    false where an earlier version recorded less, ``record_problem`` says why it is not believed.
    ``statistics`` says of how many scans an untrained network has its BatchNorm statistics; they
    are part of its ``final_hash``. ``group`` names the arms that it is matched with.
    A reference has one network for all seeds, and no ``initial_hash``: it began from nothing that
    the trained arms began from.
    """

    arm: str
    seed: int
    steps: int = 0
    epochs: float = 0.0
    views: int = 0
    seconds: float = 0.0
    views_per_s: float = 0.0
    initial_hash: str
    final_hash: str
    order_hash: str = ""
    uniforms_hash: str = ""
    conditions: dict[str, str] = Field(default={})
    is_recorded: bool = False
    record_problem: str = ""
    curve: TrainingCurve = TrainingCurve()
    backbone: str = ""
    statistics: str = ""
    group: str = ""


class SeedMatch(Settings):
    """What all pretrained arms of one seed and group share; empty where they do not."""

    seed: int
    group: str = ""
    initial_hash: str
    order_hash: str
    uniforms_hash: str
    steps: int


class Mismatch(Settings):
    """What is not the same in all arms of a seed: its value for each arm, or that there is none."""

    seed: int
    key: str
    values: dict[str, str]
    group: str = ""

    @property
    def in_words(self) -> str:
        """One sentence: the seed, what differs, and the value of each arm."""
        arms: dict[str, list[str]] = {}
        for arm, value in self.values.items():
            arms.setdefault(value, []).append(arm)
        sides = ", ".join(f"{value} in {' and '.join(names)}" for value, names in arms.items())
        where = f"seed {self.seed}, {self.group}" if self.group else f"seed {self.seed}"
        return f"{where}: different {self.key.replace('_', ' ')}: {sides}."


class Matched(Settings):
    """The proof that arms differ in the dial alone.

    ``ok`` is false where something differs or a record is missing or was changed. ``partial``
    says what earlier versions did not record, ``notes`` what a reader should know although it
    is the same in all arms of a seed.
    """

    ok: bool
    problems: tuple[str, ...] = ()
    per_seed: tuple[SeedMatch, ...] = ()
    mismatches: tuple[Mismatch, ...] = ()
    partial: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Score(Settings):
    """AUROC of one arm: mean over pretraining seeds, folds and label seeds, with its interval.

    ``train_scans`` and ``train_patients`` are means over folds and label seeds; patients are None
    where nobody knows them. AUROC and its limits are None where it is undefined. ``undefined``
    counts the classes without a positive or a negative in a fold, over folds and label seeds: they
    are left out of the mean. ``note`` says why there are no limits, or why they are too narrow.
    """

    arm: str
    task: str
    learner: str
    budget: Budget
    auroc: float | None
    low: float | None
    high: float | None
    per_seed: tuple[float | None, ...]
    train_scans: float
    train_patients: float | None
    test_patients: int | None
    undefined: int = 0
    note: str = ""


class ArmDifference(Settings):
    """AUROC of arm ``a`` minus that of arm ``b``, on the same folds and patients.

    ``p_holm`` is None for the primary comparison; ``verdict`` rests on it for all others, and on
    ``p_equivalent``, Holm's too, of two one-sided tests. ``label_draws`` counts the label subsets
    over which the interval speaks, None with all labels. ``delong_p`` is DeLong's paired
    test of these networks, of two classes and a given split alone. ``note`` is as in `Score`.
    ``level`` is that of the interval, more than .95 where several looks at the study were planned.
    """

    task: str
    learner: str
    budget: Budget
    a: str
    b: str
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    df: float | None
    seeds: int
    verdict: Outcome
    primary: bool = False
    delong_p: float | None = None
    p_equivalent: float | None = None
    label_draws: int | None = None
    note: str = ""
    level: float = 0.95

    @property
    def holds_for(self) -> str:
        """What alone the verdict speaks of; empty where it speaks of the arms in general."""
        has_reference = THUMBNAIL in (self.a, self.b)
        networks = "in this network" if has_reference else "in these two networks"
        narrow = (
            networks if self.seeds == 1 else "",
            "on this draw of labels" if self.label_draws == 1 else "",
        )
        return ", ".join(part for part in narrow if part)


class DoseCurve(Settings):
    """AUROC over the scale at one task, learner and label budget, as `statistics.dose` fits it.

    ``at``, ``auroc``, ``low`` and ``high`` are the curve with its 95 % band; ``best_low`` and
    ``best_high`` the 95 % interval of the best scale. ``within`` are the scales, from and to, that
    are shown to be less than ``margin`` below the best, ``possible`` those not shown to be below
    it: all of them where ``is_flat``. ``take`` is the smallest tested scale within the margin; if
    none is (``is_take_shown`` is false), the smallest at most one standard error below the highest.
    """

    task: str
    learner: str
    budget: Budget
    group: str = ""
    arms: tuple[str, ...]
    scales: tuple[float, ...]
    kind: Literal["quadratic", "spline", "points"]
    at: tuple[float, ...]
    auroc: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    best: float
    best_low: float
    best_high: float
    within: tuple[tuple[float, float], ...]
    possible: tuple[tuple[float, float], ...]
    is_flat: bool
    take: float
    is_take_shown: bool
    margin: float


class JointDoseCurve(DoseCurve):
    """The curve that several learners and label budgets share, each at its own level.

    ``learner`` and ``budget`` are those at whose level it is told, ``places`` all that it is
    fitted to, ``levels`` how far these lie above it as normal scores; without any, as in results
    of an earlier release, it was fitted to AUROCs. ``shape_p`` is the p-value of one shape.
    """

    places: tuple[tuple[str, Budget], ...]
    levels: tuple[float, ...] = ()
    shape_p: float


class ClassScore(Settings):
    """One class against the rest at the primary task, learner and label budget.

    Means over pretraining seeds, label seeds and folds; ``scores`` has the average precision, and
    sensitivity and specificity at a threshold that was set on training patients. ``note`` is as in
    `Score`.
    """

    arm: str
    name: str
    scans: int
    negatives: int
    auroc: float | None
    low: float | None
    high: float | None
    scores: dict[str, float | None]
    note: str = ""


class ClassEffect(Settings):
    """AUROC of arm ``a`` minus that of ``b``, the primary pair, in one class at the primary place.

    ``p`` is that of its difference from the mean of the other classes', on normal scores, corrected
    for their number (Holm); None where there is no interval.
    """

    name: str
    a: str
    b: str
    difference: float | None
    p: float | None
    seeds: int


class FindingCount(Settings):
    """How many findings (classes) of the primary task an arm tells from chance by one learner.

    ``above_chance`` are those whose 95 % interval of the AUROC lies above .5. With as many findings
    as are tested, one in 40 without any signal is among them.
    """

    arm: str
    learner: str
    findings: int
    above_chance: int


class LearnerDifference(Settings):
    """AUROC by learner ``a`` minus that by ``b``, of one arm's networks at the primary place.

    The learners differ in their augmentation alone. ``p_holm`` covers all of these.
    """

    arm: str
    a: str
    b: str
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    seeds: int


class RocCurve(Settings):
    """Sensitivity of one class at evenly spaced shares of false positives, from 0 to 1.

    ``low`` and ``high`` are its 95 % band, for each point by itself; empty where none is drawn.
    """

    arm: str
    name: str
    sensitivity: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


class LabelFree(Settings):
    """What one network is worth without labels, by views that are the same for all networks.

    ``measures`` is the panel of `scanlearn.features.panel` by its names, and as ``rotation`` the
    accuracy of a rotation probe; one is None where it is undefined. ``problem`` says why there are
    none, ``made_from`` is a hash of weights, scans and views.
    """

    arm: str
    seed: int
    scans: int
    measures: dict[str, float | None]
    problem: str = ""
    made_from: str = ""


class ViewShare(Settings):
    """Mean overlap of an arm's two views, and how often they do not touch at all."""

    arm: str
    iou: float
    disjoint: float


class Sheet(Settings):
    """A picture of some arms' views, in the ``figures`` folder."""

    title: str
    file: str
    arms: tuple[str, ...] = ()


class Fact(Settings):
    """One line of the set-up: what, and its value."""

    name: str
    value: str


class Leak(Settings):
    """What the audit found between two sets of scans, or in one set across its folds.

    ``patients`` is None where they cannot be compared, ``respelled`` those that agree with another
    but for how the number is written; ``invalid_scans`` are the scans of the
    second set for which a result is invalid. `scanlearn.audit.result` says what is counted.
    """

    first: str
    second: str
    first_scans: int
    second_scans: int
    patients: int | None
    respelled: int = 0
    respelled_scans: tuple[str, ...] = ()
    identical: int
    near: int
    near_by_turn: dict[str, int]
    proposed: int
    without_contrast: int
    invalid_scans: int
    notes: tuple[str, ...]

    @property
    def is_within(self) -> bool:
        """Whether one set was compared across its folds."""
        return self.first == self.second

    @property
    def title(self) -> str:
        """Which sets, in words."""
        return f"within {self.first}" if self.is_within else f"{self.first} and {self.second}"


class Rejected(Settings):
    """Scans that could not be read and were set aside."""

    unlabeled: int = 0
    labels: int = 0
    test: int = 0


class Results(Settings):
    """All that a comparison found.

    ``after_results`` says what of the plan was changed once results were known, ``is_chosen_late``
    that the primary comparison or its margin is among it.
    """

    format: Literal[1] = 1
    title: str
    created: str
    evidence_note: str | None
    versions: dict[str, str]
    command: str
    config: str
    margin: float
    setup: tuple[Fact, ...]
    verdict: Verdict
    unlabeled: Counted
    labels: Counted
    test: Counted | None = None
    tasks: tuple[TaskCount, ...]
    arms: tuple[ArmRow, ...]
    runs: tuple[RunRow, ...]
    matched: Matched
    table: tuple[Score, ...]
    differences: tuple[ArmDifference, ...]
    dose: tuple[DoseCurve, ...] = ()
    joint_dose: tuple[JointDoseCurve, ...] = ()
    classes: tuple[ClassScore, ...] = ()
    class_effects: tuple[ClassEffect, ...] = ()
    roc: tuple[RocCurve, ...] = ()
    finding_counts: tuple[FindingCount, ...] = ()
    learner_differences: tuple[LearnerDifference, ...] = ()
    label_free: tuple[LabelFree, ...] = ()
    label_free_views: str = ""
    view_statistics: tuple[ViewShare, ...]
    sheets: tuple[Sheet, ...]
    warnings: tuple[str, ...]
    after_results: tuple[str, ...] = ()
    is_chosen_late: bool = False
    rejected: Rejected
    leaks: tuple[Leak, ...] = ()
    timing: dict[str, float]

    @property
    def named(self) -> str:
        """When the primary comparison and its margin were chosen, in words."""
        return "chosen after results were known" if self.is_chosen_late else "named in advance"

    @property
    def seeds(self) -> tuple[int, ...]:
        """Pretraining seeds, ascending."""
        return tuple(sorted({run.seed for run in self.runs}))


def read_results(folder: Path) -> Results:
    """Reads ``results.json`` of a finished comparison.

    Raises:
        ScanlearnError: There is none, or it is not one this version can read.
    """
    path = folder / RESULTS_FILE
    if not path.is_file():
        raise ScanlearnError(
            f"{folder}: holds no {RESULTS_FILE}; give the output folder of a finished comparison"
        )
    return read_json(
        path,
        Results,
        what="is not a result that this version can read",
        remedy="run the comparison again with this version",
    )
