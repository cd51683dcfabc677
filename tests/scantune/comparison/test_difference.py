from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from scanlearn.errors import ScanlearnError
from scantune.cli import app
from scantune.comparison.difference import difference
from scantune.comparison.sides import at_least
from scantune.evaluation.evaluate import evaluate
from scantune.labels.truth import Truth, at_or_above
from scantune.scores import Scores
from scantune.scoring import score_features
from scantune.statistics.intervals import estimate, paired_difference, patient_weights

Keep = Callable[..., Path]


def scored(
    seed: int, *, signal: float = 1.0, grades: int = 2, learners: tuple[str, ...] = ("linear",)
) -> Scores:
    """Scores of 60 patients with two scans each, in two folds, better with ``signal``."""
    rng = np.random.default_rng(7)
    y = rng.integers(0, grades, 60).repeat(2)
    own = np.random.default_rng(seed)
    shape = (len(learners), 2, 2, len(y))
    shown = signal * y + rng.normal(size=len(y)) + 0.5 * own.normal(size=shape)
    logits = -((shown[..., None] - np.arange(grades)) ** 2)
    values = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    patients = np.arange(60).repeat(2)
    return Scores(
        learners=learners,
        budgets=("20", "all"),
        classes=tuple(str(grade) for grade in range(grades)),
        truth=Truth.of_classes(y, grades, "ordinal" if grades > 2 else "multiclass"),
        patients=patients,
        fold_of=np.stack([patients % 2, patients // 2 % 2]),
        values=values,
        thresholds=np.full((*shape[:3], 2, grades), np.nan),
        train_scans=np.array([20, 60]).repeat(4).reshape(2, 2, 2),
        train_patients=np.array([10, 30]).repeat(4).reshape(2, 2, 2),
        made_from="these scans",
    )


@pytest.fixture
def keep(tmp_path: Path) -> Keep:
    """Writes what `evaluate` keeps, of made-up scores."""

    def write(name: str, scores: Scores, target: str = "finding", **named: str) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        scores.save(folder / "scores.npz")
        metrics = {"inputs": {"labels": {"target": target}}, "named": named, "patients": 60}
        (folder / "metrics.json").write_text(json.dumps(metrics))
        return folder

    return write


def test_one_network_a_side_is_called_higher_and_the_sentence_says_of_what(keep: Keep) -> None:
    a, b = keep("own", scored(1, signal=2.0)), keep("imagenet", scored(2, signal=0.2))
    found = difference(a, b, replicates=500)
    assert found.verdict.kind == "higher"
    assert "holds for these two networks only" in found.verdict.sentence
    first = found.differences[0]
    values = [scores.of("linear", "all") for scores in (scored(1, signal=2.0), scored(2))]
    y, fold_of = scored(1).truth.classes, scored(1).fold_of
    mean = np.mean(
        [
            roc_auc_score(y[fold_of[j] == f], values[0][j, fold_of[j] == f, 1])
            for j in range(2)
            for f in range(2)
        ]
    )
    assert found.table[0].auroc == pytest.approx(mean)
    assert (first.a, first.b, first.budget, first.p_holm) == ("own", "imagenet", "all", None)
    (second,) = found.differences[1:]
    # Holm's of one further p-value is that value.
    assert second.budget == 20
    assert second.p_holm == second.p


def test_seeds_of_a_recipe_are_an_arm_as_in_a_study(keep: Keep) -> None:
    of_sides = [[scored(10 * side + seed, signal=1 + side) for seed in range(3)] for side in (1, 0)]
    # Given in another order: they are paired by seed.
    a, b = (
        [keep(f"{name}-{seed}", members[seed], **{"pretraining seed": str(seed)}) for seed in order]
        for name, members, order in zip("wv", of_sides, ((0, 1, 2), (2, 0, 1)), strict=True)
    )
    first = difference(a, ",".join(map(str, b))).differences[0]
    weights = patient_weights(of_sides[0][0])
    estimates = [[estimate(s, "linear", "all", weights) for s in side] for side in of_sides]
    right = paired_difference(*estimates)
    assert (first.low, first.high) == pytest.approx((right.low, right.high), rel=1e-12)
    assert first.seeds == 3
    assert first.verdict == "better"


def test_one_network_against_seeds_stands_for_itself(keep: Keep) -> None:
    seeds = [keep(f"weak-{seed}", scored(seed)) for seed in range(3)]
    found = difference(seeds, keep("imagenet", scored(9)), keep("other", scored(8)))
    assert [side.name for side in found.sides] == ["weak", "imagenet", "other"]
    assert "imagenet is one network" in found.verdict.sentence
    pairs = [(d.a, d.b) for d in found.differences]
    expected = [("weak", "imagenet")] * 2 + [("weak", "other"), ("imagenet", "other")]
    assert pairs == expected
    p = [d.p or 0 for d in found.differences[1:]]
    order = np.argsort(p)
    holm = np.maximum.accumulate(
        [min(1, (3 - rank) * p[place]) for rank, place in enumerate(order)]
    )
    assert [found.differences[1 + place].p_holm for place in order] == pytest.approx(list(holm))


def changed(scores: Scores, **changes: Any) -> Scores:
    return replace(scores, **changes)


BASE = scored(1)
OTHERS = [
    (changed(BASE, made_from="other scans"), "finding", "other scans"),
    (BASE, "glaucoma", r"other targets \(finding and glaucoma\)"),
    (changed(BASE, truth=Truth(1 - BASE.truth.matrix)), "finding", "other labels"),
    (changed(BASE, patients=np.arange(120)), "finding", "other patients"),
    (changed(BASE, fold_of=1 - BASE.fold_of), "finding", "other folds"),
    (
        changed(
            BASE,
            fold_of=BASE.fold_of[:1],
            values=BASE.values[:, :, :1],
            train_scans=BASE.train_scans[:, :1],
        ),
        "finding",
        r"other label seeds \(2 and 1\)",
    ),
    (changed(BASE, train_scans=BASE.train_scans + 1), "finding", "other training subsets"),
    (changed(BASE, budgets=("21", "22")), "finding", "no label budget in common: 20, all; 21, 22"),
    (changed(BASE, learners=("knn",)), "knn", "other targets"),
]


@pytest.mark.parametrize(("other", "target", "words"), OTHERS)
def test_what_differs_is_named(keep: Keep, other: Scores, target: str, words: str) -> None:
    with pytest.raises(ScanlearnError, match=words):
        difference(keep("a", BASE), keep("b", other, target))


def test_folders_that_cannot_be_compared_are_refused(keep: Keep, tmp_path: Path) -> None:
    a, two = keep("a", BASE), keep("two", scored(3, learners=("knn", "ncm")))
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "metrics.json").write_text("{}")
    cases = [
        ((a,), "compares two outputs"),
        ((a, a), "compared with itself"),
        ((a, f"{two}"), "has the learners knn, ncm; name one, as in .*two:knn"),
        ((a, f"{two}:lineer"), "'lineer' is no learner .*did you mean 'linear'"),
        ((a, f"{two}:linear"), "two was not scored by linear; it has knn, ncm"),
        (([a, a], two), "named twice"),
        (([a, two], [keep(f"n{n}", BASE) for n in range(3)]), "2 and 3 networks"),
        ((a, tmp_path), "holds no metrics.json"),
        ((a, tmp_path / "old"), "kept no scores.npz"),
    ]
    for outputs, words in cases:
        with pytest.raises(ScanlearnError, match=words):
            difference(*outputs)
    with pytest.raises(ScanlearnError, match="budget is '7', which not all outputs have"):
        difference(a, keep("b", scored(2)), budget=7)


def test_sides_may_have_learners_of_their_own(keep: Keep) -> None:
    a, b = keep("x/a", scored(1, signal=3.0)), keep("x/b", scored(2, learners=("knn", "finetune")))
    found = difference(a, f"{b}:finetune")
    weights = patient_weights(scored(1))
    right = estimate(scored(2, learners=("knn", "finetune")), "finetune", "all", weights)
    assert {row.learner for row in found.table} == {"linear / finetune"}
    assert found.table[1].auroc == pytest.approx(right.auroc)
    # Of one output: the learner tells its sides apart.
    both = difference(f"{b}:knn", f"{b}:finetune")
    assert len({side.name for side in both.sides}) == 2


def test_the_primary_learner_is_linear_unless_another_is_asked_for(keep: Keep) -> None:
    of_both = [scored(seed, learners=("knn", "linear")) for seed in (1, 2)]
    a, b = keep("a", of_both[0]), keep("b", of_both[1])
    assert difference(a, b).verdict.primary.learner == "linear"
    assert difference(a, b, learner="knn").verdict.primary.learner == "knn"
    others = [keep(f"o{seed}", scored(seed, learners=("ncm", "knn"))) for seed in (1, 2)]
    assert difference(*others).verdict.primary.learner == "ncm"


def test_grades_are_compared_at_every_cut(keep: Keep) -> None:
    a, b = (scored(seed, grades=4, signal=1.5 - seed) for seed in range(2))
    found = difference(keep("a", a), keep("b", b), grade=2)
    assert found.verdict.primary.task == "finding, 2 or higher"
    assert found.tasks[1:] == ("finding", "finding, 1 or higher", "finding, 3 or higher")
    y, values = a.truth.classes, a.of("linear", "all")
    aurocs = [
        roc_auc_score(y[rows] >= 2, values[j, rows, 2] + values[j, rows, 3])
        for j in range(2)
        for rows in (a.test_rows(j, f) for f in range(2))
    ]
    assert found.table[0].auroc == pytest.approx(np.mean(aurocs))
    learned = np.ones((2, 2, 2, 4), np.bool_)
    learned[0, 0, 0] = (False, False, True, True)
    cut = at_least(changed(a, learned=learned), 2).is_learned(20)
    assert not cut[0, 0].any()
    assert cut.sum() == 6


def test_cuts_are_refitted_as_classes_are(labeled: Callable[..., Any], tmp_path: Path) -> None:
    data = labeled(classes=3)
    data = replace(data, truth=Truth(data.truth.matrix, "ordinal"))
    signal = np.eye(3)[data.truth.classes] + np.random.default_rng(1).normal(size=(len(data), 3))
    scores = score_features(signal, data, learners=["knn"], folds=2, label_seeds=1)
    scores.save(tmp_path / "scores.npz")
    kept = Scores.load(tmp_path / "scores.npz")
    assert kept.cut_refits is not None
    y, values = data.truth.classes, scores.of("knn", "all")[0]
    for code in (1, 2):
        above = at_or_above(values)[:, code - 1]
        assert above == pytest.approx(values[:, code:].sum(axis=1))
        aurocs = [
            roc_auc_score(y[rows] >= code, above[rows])
            for rows in (scores.test_rows(0, fold) for fold in range(2))
        ]
        refits = at_least(kept, code).refits_of("knn", "all", [1])
        assert refits is not None
        assert refits[0, 0] == pytest.approx(np.mean(aurocs), abs=1e-6)
        assert np.ptp(refits[1:, 1:]) > 0


def test_page_tables_and_figures_are_written(keep: Keep, tmp_path: Path) -> None:
    a, b = keep("own_50%", scored(1, signal=2.0)), keep("<other>", scored(2))
    found = difference(a, b, output=tmp_path / "out", replicates=500)
    out = tmp_path / "out"
    page = (out / "difference.html").read_text()
    assert "&lt;other&gt;" in page
    assert "<other>" not in page
    assert "in these two networks" in page
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page)
    assert str(tmp_path) not in page
    with (out / "difference.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["difference"]) for row in rows] == [d.difference for d in found.differences]
    assert float(rows[0]["auroc_a"]) == found.table[0].auroc
    table = (out / "difference.tex").read_text()
    assert r"own\_50\% $-$ <other>" in table
    rows_of = [line for line in table.splitlines() if line.endswith(r"\\")]
    assert {line.count(" & ") for line in rows_of} == {6}
    assert len(rows_of) == 1 + len(found.differences)
    for name in ("auroc", "differences"):
        assert (out / "figures" / f"{name}.svg").read_text().startswith("<svg")


def test_the_command_finds_what_evaluate_said_of_a_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    phantom = "phantom:patients=24,height=32,width=32"
    options: dict[str, Any] = {"target": "pallor", "learners": ("knn",), "folds": 2}
    options |= {"label_seeds": 1, "keep": False}
    first = evaluate("random:test_resnet", phantom, output="own", size=32, **options)
    evaluate("thumbnail", phantom, output="thumb", **options)
    done = CliRunner().invoke(app, ["difference", "own", "thumb", "output=out", "margin=.02"])
    assert done.exit_code == 0, done.exception
    with (tmp_path / "out" / "difference.csv").open() as file:
        row = next(csv.DictReader(file))
    right = next(each for each in first.table[0].references if each.name == "thumbnail")
    for key, value in (("difference", right.difference), ("low", right.difference_low)):
        assert float(row[key]) == pytest.approx(value, rel=1e-9)
    assert float(row["p"]) == pytest.approx(right.p, rel=1e-9)
    wrong = CliRunner().invoke(app, ["difference", "own", "thumb", "margn=.02"])
    assert "margin" in str(wrong.exception)
