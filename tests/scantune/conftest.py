from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scanlearn.archive.layout import Origin, PackedScan
from scanlearn.archive.reader import Archive
from scanlearn.archive.writer import ArchiveWriter
from scantune.evaluation.results import Evaluation, score_table
from scantune.labels.labeled_set import LabeledSet, read_labels
from scantune.labels.truth import Truth
from scantune.scores import Scores
from scantune.scoring import score_features
from scantune.study import results as r
from scantune.study.plan import CompareConfig


@dataclass
class Table:
    """What labels are read from, without scans."""

    columns: dict[str, list[str | None]]
    patients: np.ndarray = field(default_factory=lambda: np.array([]))
    path: Path = Path("labels.csv")
    num_rejected: int = 0
    patients_known: bool = True

    def __post_init__(self) -> None:
        if not len(self.patients):
            self.patients = np.array([f"p{row}" for row in range(len(self))])

    @property
    def scan_ids(self) -> np.ndarray:
        return np.array([f"images/{row}.png" for row in range(len(self))])

    @property
    def label_columns(self) -> tuple[str, ...]:
        return tuple(self.columns)

    def labels(self, column: str) -> np.ndarray:
        return np.array(self.columns[column], dtype=object)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


@pytest.fixture
def table() -> type[Table]:
    return Table


@pytest.fixture
def labeled() -> Callable[..., LabeledSet]:
    """Makes a labeled set of patients with one to three scans, mostly of one class each."""

    def make(
        patients: int = 60,
        classes: int = 2,
        seed: int = 0,
        rare: float | None = None,
        split: bool = False,
    ) -> LabeledSet:
        rng = np.random.default_rng(seed)
        owner = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
        if rare is None:
            y = rng.integers(0, classes, patients)[owner]
            flip = rng.random(len(y)) < 0.1
            y = np.where(flip, rng.integers(0, classes, len(y)), y)
        else:
            y = (rng.random(len(owner)) < rare).astype(int)
        sides = np.where(owner < patients // 2, "train", "test") if split else None
        names = tuple(str(code) for code in range(classes))
        return LabeledSet(
            "target", names, Truth.of_classes(y, classes), owner, np.arange(len(y)), sides
        )

    return make


@pytest.fixture
def make_scores() -> Callable[..., Scores]:
    """Makes two-class scores of one cell from plain arrays: y, patients, values and folds."""

    def make(
        y: np.ndarray, patients: np.ndarray, values: np.ndarray, fold_of: np.ndarray | None = None
    ) -> Scores:
        fold_of = np.zeros((1, len(y)), dtype=np.int64) if fold_of is None else fold_of
        seeds, folds = len(fold_of), int(fold_of.max()) + 1
        values = np.broadcast_to(values, (seeds, len(y)))
        both = np.where((fold_of >= 0)[..., None], np.stack([1 - values, values], axis=-1), np.nan)
        used = np.full((1, seeds, folds), 10)
        half = np.full((1, 1, seeds, folds, 2), 0.5)
        all_of_it = (Truth.of_classes(y, 2), patients, fold_of, both[None, None], half, used, used)
        return Scores(("linear",), ("all",), ("0", "1"), *all_of_it)

    return make


@pytest.fixture
def informative() -> Callable[..., np.ndarray]:
    """Makes features that know the class a little and the patient as well."""

    def make(data: LabeledSet, d: int = 12, strength: float = 1.0, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        features: np.ndarray = rng.normal(size=(len(data), d))
        features += rng.normal(size=(data.patients.max() + 1, d))[data.patients]
        features[:, : len(data.classes)] += strength * np.eye(len(data.classes))[data.truth.classes]
        return features

    return make


@pytest.fixture
def finding_scores() -> Scores:
    """Scores of three findings in 60 patients' scans; some are unknown, one is very rare."""
    rng = np.random.default_rng(5)
    patients = np.repeat(np.arange(60), 2)
    n = len(patients)
    matrix = (rng.random((n, 3)) < [0.4, 0.2, 0.0]).astype(np.int8)
    matrix[7, 2] = 1
    matrix[rng.random((n, 3)) < [0.1, 0.0, 0.0]] = -1
    values = np.clip(0.3 * (matrix == 1) + 0.7 * rng.random((1, 1, 2, n, 3)), 0, 1)
    fold_of = np.stack([patients % 2, (patients // 2) % 2])
    half = np.full((1, 1, 2, 2, 3), 0.5)
    used = np.full((1, 2, 2), n // 2)
    names = ("Edema", "Effusion", "Hernia")
    truth = Truth(matrix, "multilabel")
    return Scores(("linear",), ("all",), names, truth, patients, fold_of, values, half, used, used)


@pytest.fixture(scope="session")
def scan_archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Forty small scans of twenty patients, of two classes; one has no label."""
    folder = tmp_path_factory.mktemp("packed") / "archive"
    with ArchiveWriter(
        folder, shape=(1, 8, 8), dtype=np.uint8, label_columns=("finding",)
    ) as writer:
        for row in range(40):
            writer.add(
                PackedScan(np.full((1, 8, 8), 3 * row, np.uint8)),
                Origin(
                    f"{row:024x}",
                    f"person-{row // 2}",
                    {"finding": None if row == 3 else str(row // 2 % 2)},
                ),
            )
        return writer.close()


@pytest.fixture(scope="session")
def evaluation(scan_archive: Archive) -> Evaluation:
    """Two learners at two label budgets on `scan_archive`."""
    data = read_labels(scan_archive, "finding")
    features = np.random.default_rng(0).normal(size=(len(data), 4)) + data.truth.classes[:, None]
    scores = score_features(features, data, budgets=(10, "all"), folds=2, label_seeds=2)
    return Evaluation({"target": "finding"}, score_table(scores), data, scores, ("read me",))


# A realistic finished comparison, made up: every number is drawn from a seeded generator.
TASKS = ("lesion", "pallor", "texture", "null")
ARMS = ("random", "identity", "weak", "strong")
SCALES = {"identity": 0.0, "weak": 0.5, "strong": 1.0}
BUDGETS: tuple[r.Budget, ...] = (50, 100, "all")
CENTRES = {
    "lesion": {"random": 0.58, "thumbnail": 0.56, "identity": 0.66, "weak": 0.78, "strong": 0.71},
    "pallor": {"random": 0.71, "thumbnail": 0.86, "identity": 0.85, "weak": 0.84, "strong": 0.74},
    "texture": {"random": 0.66, "thumbnail": 0.63, "identity": 0.72, "weak": 0.81, "strong": 0.80},
    "null": {"random": 0.50, "thumbnail": 0.51, "identity": 0.49, "weak": 0.51, "strong": 0.5},
}


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _runs(rng: np.random.Generator) -> list[r.RunRow]:
    rows = []
    for seed in (0, 1):
        for arm in ARMS:
            trained = arm != "random"
            steps = 930 if trained else 0
            at = tuple(range(0, steps + 1, 30)) if trained else ()
            decay = 2.2 - 0.5 * SCALES.get(arm, 0)
            loss = [4.85 - decay * (1 - math.exp(-s / 250)) + rng.normal(0, 0.03) for s in at]
            spread = [0.9 - 0.45 * (arm == "identity") * (1 - math.exp(-s / 300)) for s in at]
            initial = _hash("initial", seed)
            rows.append(
                r.RunRow(
                    arm=arm,
                    seed=seed,
                    steps=steps,
                    epochs=30.0 if trained else 0.0,
                    views=steps * 256,
                    seconds=212.0 if trained else 0.0,
                    views_per_s=1123.0 if trained else 0.0,
                    initial_hash=initial,
                    final_hash=_hash("final", arm, seed) if trained else initial,
                    order_hash=_hash("order", seed) if trained else "",
                    uniforms_hash=_hash("uniforms", seed) if trained else "",
                    curve=r.TrainingCurve(step=at, loss=tuple(loss), embedding_std=tuple(spread)),
                    backbone=f"arms/{arm}/seed-{seed}/backbone",
                )
            )
    return rows


def _table(rng: np.random.Generator) -> list[r.Score]:
    rows = []
    for task in TASKS:
        for learner in ("knn", "linear"):
            for index, budget in enumerate(BUDGETS):
                for arm in ("thumbnail", *ARMS):
                    gain = (index - 2) * 0.05 * (CENTRES[task][arm] - 0.5) * 4
                    centre = CENTRES[task][arm] + gain - 0.02 * (learner == "knn")
                    seeds = (0.0,) if arm == "thumbnail" else (-0.008, 0.008)
                    half = 0.035 - 0.005 * index
                    rows.append(
                        r.Score(
                            arm=arm,
                            task=task,
                            learner=learner,
                            budget=budget,
                            auroc=centre,
                            low=centre - half,
                            high=min(1.0, centre + half + rng.normal(0, 0.002)),
                            per_seed=tuple(centre + seed for seed in seeds),
                            train_scans=float((51, 101, 480)[index]),
                            train_patients=float((26, 51, 240)[index]),
                            test_patients=300,
                        )
                    )
    return rows


def _difference(
    table: dict[tuple[str, str, r.Budget, str], float],
    key: tuple[str, str, r.Budget],
    pair: tuple[str, str],
    primary: bool,
) -> r.ArmDifference:
    value = table[(*key, pair[0])] - table[(*key, pair[1])]
    half = 0.024
    low, high = value - half, value + half
    p = math.erfc(abs(value) / half * 1.96 / math.sqrt(2))
    outcome: r.Outcome = "better" if low > 0 else "worse" if high < 0 else "none"
    return r.ArmDifference(
        task=key[0],
        learner=key[1],
        budget=key[2],
        a=pair[0],
        b=pair[1],
        difference=value,
        low=low,
        high=high,
        p=p,
        p_holm=None if primary else min(1.0, p * 12),
        df=14.2,
        seeds=2,
        verdict=outcome,
        primary=primary,
    )


def _differences(table: list[r.Score]) -> list[r.ArmDifference]:
    cells = {(s.task, s.learner, s.budget, s.arm): float(s.auroc or 0) for s in table}
    rows = []
    for task in TASKS:
        for learner in ("linear", "knn"):
            for budget in reversed(BUDGETS):
                named = (task, learner, budget) == ("lesion", "linear", "all")
                rows.append(_difference(cells, (task, learner, budget), ("weak", "strong"), named))
    others = [("weak", "identity"), ("strong", "identity")]
    others += [(arm, "random") for arm in ("identity", "weak", "strong")]
    rows += [
        _difference(cells, (t, "linear", "all"), pair, False) for pair in others for t in TASKS
    ]
    return rows


def _resolved(scale: float) -> tuple[r.Parameter, ...]:
    crop = {0.0: "1 to 1", 0.5: "0.226 to 1", 1.0: "0.08 to 1"}[scale]
    jitter, on = f"{0.8 * scale:g}", scale > 0
    rows = (
        ("crop area", crop, "derived", ""),
        ("crop aspect", "3/4 to 4/3" if on else "1", "published", ""),
        ("brightness", jitter, "derived", ""),
        ("contrast", jitter, "derived", ""),
        ("saturation", "0.8" if on else "0", "published", "no meaning on one channel"),
        ("horizontal flip, probability", "0.5" if on else "0", "published", "fixed"),
        ("blur sigma at 224 px", "0.1 to 2" if on else "off", "published", "fixed"),
    )
    return tuple(
        r.Parameter(parameter=name, value=value, source=source, note=note)
        for name, value, source, note in rows
    )


def _sheet(path: Path, rng: np.random.Generator) -> None:
    yy, xx = np.mgrid[0:420, 0:900] / 60.0
    picture = 120 + 60 * np.sin(yy * xx)[..., None] + rng.normal(0, 8, (420, 900, 3))
    Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(path)


def _fake_results() -> r.Results:
    rng = np.random.default_rng(0)
    runs, table = _runs(rng), _table(rng)
    hash_of = {run.seed: run for run in runs if run.arm == "weak"}
    sentence = (
        "Weak (s = 0.5) is better than strong (s = 1): AUROC 0.780 against 0.710, difference "
        "+0.070 (95 % interval 0.046 to 0.094), lesion, linear probe, all labels."
    )
    return r.Results(
        title="Weak or strong on the phantom",
        created="2026-01-01T12:00:00+00:00",
        evidence_note="The scans were drawn by a program. This is no evidence about real scans.",
        versions={"scanlearn": "0.1.0", "torch": "2.15.0", "timm": "1.0.31", "python": "3.12"},
        command="scantune compare CONFIG unlabeled=ARCHIVE labels=LABELS output=FOLDER",
        config="arms:\n  weak:\n    scale: 0.5\n",
        margin=0.01,
        setup=(
            r.Fact(name="Method", value="SimCLR, temperature 0.5"),
            r.Fact(name="Network", value="resnet10t, 3 channels"),
            r.Fact(name="Views", value="64 px, recipe simclr"),
            r.Fact(name="Budget", value="30 epochs, batch 128"),
            r.Fact(name="Evaluation", value="5 patient folds, 3 label seeds, frozen features"),
        ),
        verdict=r.Verdict(
            kind="better",
            sentence=sentence,
            primary=r.Primary(task="lesion", learner="linear", budget="all", a="weak", b="strong"),
        ),
        unlabeled=r.Counted(scans=4000, patients=2000, hash=_hash("u"), shape=(3, 160, 160)),
        labels=r.Counted(scans=600, patients=300, hash=_hash("l"), shape=(3, 160, 160)),
        tasks=tuple(
            r.TaskCount(
                name=task, classes=("0", "1"), scans=600, patients=300, counts={"0": 311, "1": 289}
            )
            for task in TASKS
        ),
        arms=(
            r.ArmRow(name="thumbnail", kind="thumbnail"),
            r.ArmRow(name="random", kind="random"),
            *(
                r.ArmRow(
                    name=arm,
                    kind="pretrained",
                    scale=r.Dial(crop=s, geometry=s, photometric=s, acquisition=0),
                    resolved=_resolved(s),
                )
                for arm, s in SCALES.items()
            ),
        ),
        runs=tuple(runs),
        matched=r.Matched(
            ok=True,
            per_seed=tuple(
                r.SeedMatch(
                    seed=seed,
                    initial_hash=run.initial_hash,
                    order_hash=run.order_hash,
                    uniforms_hash=run.uniforms_hash,
                    steps=run.steps,
                )
                for seed, run in hash_of.items()
            ),
        ),
        table=tuple(table),
        differences=tuple(_differences(table)),
        view_statistics=(
            r.ViewShare(arm="identity", iou=1.0, disjoint=0.0),
            r.ViewShare(arm="weak", iou=0.51, disjoint=0.004),
            r.ViewShare(arm="strong", iou=0.40, disjoint=0.021),
        ),
        sheets=(r.Sheet(title="Views of each arm, the same draws in every row", file="views.png"),),
        warnings=("31 % of the strong arm's crops are enlarged: the canvas is 96 px wide.",),
        rejected=r.Rejected(unlabeled=2, labels=0),
        timing={"pretraining": 1272.0, "features": 64.0, "scores": 88.0},
    )


@pytest.fixture
def score() -> Callable[..., r.Score]:
    """Makes one row of the table of scores; only what a test is about need be given."""

    def make(arm: str = "weak", auroc: float | None = None, **replaced: Any) -> r.Score:
        row = {"task": "pallor", "learner": "linear", "budget": "all", "per_seed": (auroc,)}
        counts = {"train_scans": 24, "train_patients": 12, "test_patients": 24}
        limits = {"auroc": auroc, "low": None, "high": None}
        return r.Score.model_validate({"arm": arm, **row, **counts, **limits, **replaced})

    return make


@pytest.fixture
def difference() -> Callable[..., r.ArmDifference]:
    """Makes the difference of weak and strong, with an interval and a verdict."""

    def make(
        value: float | None, low: float | None, high: float | None, **replaced: Any
    ) -> r.ArmDifference:
        row = {"task": "pallor", "learner": "linear", "budget": "all", "a": "weak", "b": "strong"}
        test = {"p": 0.1, "p_holm": None, "df": 5, "seeds": 2, "verdict": "none"}
        limits = {"difference": value, "low": low, "high": high}
        return r.ArmDifference.model_validate({**row, **test, **limits, **replaced})

    return make


@pytest.fixture
def fake_results() -> r.Results:
    return _fake_results()


@pytest.fixture
def study_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes the made-up comparison, with the given keys replaced, and returns its folder."""

    def write(**replaced: Any) -> Path:
        folder = tmp_path / "study"
        (folder / r.FIGURES).mkdir(parents=True, exist_ok=True)
        results = _fake_results().model_copy(update=replaced)
        (folder / r.RESULTS_FILE).write_text(results.model_dump_json(), encoding="utf-8")
        _sheet(folder / r.FIGURES / "views.png", np.random.default_rng(0))
        return folder

    return write


TINY: dict[str, Any] = {
    "unlabeled": "phantom:patients=8,seed=3,size=48x48",
    "labels": "phantom:patients=24,seed=4,size=48x48",
    "tasks": ["pallor"],
    "arms": {"weak": {"scale": 0.5}, "strong": {"scale": 1}, "random": {"kind": "random"}},
    "seeds": [0],
    "pretrain": {
        "backbone": {"name": "test_resnet"},
        "views": {"size": 32},
        "batch_size": 8,
        "steps": 2,
        "device": "cpu",
        # Sums over other numbers of threads are rounded in another order.
        "threads": 1,
    },
    "evaluation": {"budgets": [10, "all"], "folds": 2, "label_seeds": 1, "replicates": 200},
}


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., CompareConfig]:
    """Makes a tiny plan whose top-level keys may be replaced; its output is below tmp_path."""

    def make(**replaced: Any) -> CompareConfig:
        return CompareConfig.model_validate({**TINY, "output": str(tmp_path / "study"), **replaced})

    return make
