"""How fast an evaluation is, beside what it could be and beside a loop of scikit-learn.

    python benchmarks/evaluate.py                 three repeats of 1,000 scans
    python benchmarks/evaluate.py --quick         two of 200, too few for the goal of the rest
    python benchmarks/evaluate.py --only probe

- features_vs_bare_forward: `extract` of 1,000 scans at 224 px with ResNet-18, from an archive to
  the features, against the forward passes alone on one batch that is ready in memory.
- rest_share: all that `evaluate` does after the features, for kNN and one linear probe (7 values of
  C, 5 inner folds) on one split, as a share of the time of the features: the fits, the table with
  2,000 resamples, `metrics.json`, `predictions.csv` and the figures.
- bootstrap_seconds: 2,000 patient resamples of the macro AUROC of 14 findings over 10,000 scans,
  with the drawing of the patients, on one core.
- bootstrap_vs_sklearn_loop: the same by scikit-learn's roc_auc_score with sample weights, a
  finding and a resample at a time, timed on 20 of the resamples, whose values must be equal.
- probe_vs_newton: the linear probe's path over its 7 values of C on four fifths of the scans, 512
  features of an untrained resnet10t at 64 px, against scikit-learn's fastest solver of that
  accuracy, newton-cholesky, one C after another; no probability may differ by .001.
- probe_vs_newton_shuffled: the same with labels that the features cannot tell.
- probe_vs_lbfgs: the path against scikit-learn's default solver, with a tolerance of 1e-6.

Repeats are interleaved and medians taken. Scans are the X-rays of nih1000 in $SCANLEARN_DATA or
--data; without either, phantoms are drawn. Threads are torch's own (OMP_NUM_THREADS sets them).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import median_ratio, options, report, silence, workplace
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from scanlearn.archive.reader import Archive
from scanlearn.backbones.backbone import Backbone, BackboneConfig, build_backbone
from scanlearn.backbones.device import preferred_memory_format
from scanlearn.features.extract import extract
from scanlearn.packing.sources import open_archive
from scanlearn.training.resolved import training_device
from scantune.evaluation.outputs import write
from scantune.evaluation.results import Evaluation, score_table
from scantune.labels.labeled_set import LabeledSet, read_labels
from scantune.labels.truth import Truth
from scantune.learners.frozen import C_GRID
from scantune.learners.logistic import PenaltyPath, PrincipalAxes
from scantune.scores import Scores
from scantune.scoring import score_features
from scantune.statistics.intervals import estimate, patient_weights

GOALS = {
    "features_vs_bare_forward": (">=", 0.95),
    "rest_share": ("<=", 0.15),
    "bootstrap_seconds": ("<=", 5.0),
    "bootstrap_vs_sklearn_loop": (">=", 10.0),
    "probe_vs_newton": (">=", 2.0),
    "probe_vs_newton_shuffled": (">=", 2.0),
    "probe_vs_lbfgs": (">=", 5.0),
}
SIDE, BATCH = 224, 256
FINDINGS, SCANS, PATIENTS, REPLICATES, LOOPED = 14, 10_000, 4000, 2000, 20


def labeled_scans(data: Path | None, count: int) -> tuple[Archive, LabeledSet]:
    """Packed scans and their labels, every fifth patient's for the test."""
    if data is None:
        archive = open_archive(f"phantom:patients={(count + 1) // 2},height=256,width=256")
        labeled = read_labels(archive, "lesion")
    else:
        archive = open_archive(data / "nih1000" / "manifest.csv")
        labeled = read_labels(archive, "pneumonia")
    # Patients in a seeded order: a table may list one class before the other.
    order = np.random.default_rng(0).permutation(int(labeled.patients.max()) + 1)
    split = np.where(order[labeled.patients] % 5 == 0, "test", "train")
    kept = np.arange(min(count, len(labeled)))
    if len(kept) < len(labeled):
        kept = np.sort(np.random.default_rng(0).permutation(len(labeled))[: len(kept)])
    patients = np.unique(labeled.patients[kept], return_inverse=True)[1]
    truth, rows = labeled.truth[kept], labeled.rows[kept]
    return archive, replace(labeled, truth=truth, patients=patients, rows=rows, split=split[kept])


def features(network: Backbone, archive: Archive, labeled: LabeledSet) -> tuple[np.ndarray, float]:
    """Features of the labeled scans, and the seconds they took."""
    start = time.perf_counter()
    found = extract(
        network, archive, labeled.rows, size=SIDE, mean=archive.mean, std=archive.std, visible=False
    )
    return found, time.perf_counter() - start


def bare_seconds(network: Backbone, channels: int, count: int) -> float:
    """Seconds of as many scans' forward passes, in the same batches, nothing read or moved."""
    device = next(network.parameters()).device
    batch = torch.randn(min(BATCH, count), channels, SIDE, SIDE, device=device)
    batch = batch.contiguous(memory_format=preferred_memory_format(network))
    sizes = [min(BATCH, count - first) for first in range(0, count, BATCH)]
    with torch.no_grad():
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        for size in sizes:
            network(batch[:size])
        if device.type == "cuda":
            torch.cuda.synchronize()
    return time.perf_counter() - start


def rest_seconds(found: np.ndarray, archive: Archive, labeled: LabeledSet) -> float:
    """Seconds of all that follows the features."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, silence():
        scores = score_features(found, labeled, label_seeds=1)
        write(Evaluation({}, score_table(scores), labeled, scores, ()), [archive], Path(folder))
    return time.perf_counter() - start


def measure_features(arguments: argparse.Namespace) -> dict[str, float]:
    repeats, count = (2, 200) if arguments.quick else (3, 1000)
    archive, labeled = labeled_scans(arguments.data, count)
    device, channels = training_device("auto"), archive.shape[0]
    network = build_backbone(BackboneConfig(name="resnet18"), channels, 0, size=SIDE)
    network = network.eval().to(device, memory_format=preferred_memory_format(network))
    print(f"{len(labeled)} scans of {archive.shape}, {device}, {torch.get_num_threads()} threads")
    bare_seconds(network, channels, BATCH)
    taken: dict[str, list[float]] = {"features": [], "bare": [], "rest": []}
    for repeat in range(repeats):
        found, seconds = features(network, archive, labeled)
        taken["features"].append(seconds)
        taken["bare"].append(bare_seconds(network, channels, len(labeled)))
        taken["rest"].append(rest_seconds(found, archive, labeled))
        cells = ", ".join(f"{name} {every[-1]:.2f} s" for name, every in taken.items())
        print(f"  repeat {repeat + 1}  {cells}", flush=True)
    return {
        "features_scans_per_s": len(labeled) / statistics.median(taken["features"]),
        "features_vs_bare_forward": median_ratio(taken["bare"], taken["features"]),
        "rest_seconds": statistics.median(taken["rest"]),
        "rest_share": median_ratio(taken["rest"], taken["features"]),
    }


def drawn_scores() -> Scores:
    """Scores of 14 findings, from 1 in 100 to 4 in 10, in 10,000 scans of 4,000 patients."""
    rng = np.random.default_rng(0)
    matrix = rng.random((SCANS, FINDINGS)) < np.geomspace(0.01, 0.4, FINDINGS)
    values = (rng.normal(size=(SCANS, FINDINGS)) + matrix).round(3)
    used = np.full((1, 1, 1), SCANS)
    return Scores(
        learners=("drawn",),
        budgets=("all",),
        classes=tuple(str(number) for number in range(FINDINGS)),
        truth=Truth(matrix.astype(np.int8), "multilabel"),
        patients=np.sort(
            np.append(np.arange(PATIENTS), rng.integers(0, PATIENTS, SCANS - PATIENTS))
        ),
        fold_of=np.zeros((1, SCANS), dtype=np.int64),
        values=values[None, None, None],
        thresholds=np.zeros((1, 1, 1, 1, FINDINGS)),
        train_scans=used,
        train_patients=used,
    )


def loop_of_sklearn(scores: Scores, weights: np.ndarray) -> np.ndarray:
    values, truth = scores.of("drawn", "all")[0], scores.truth.matrix
    return np.array(
        [
            np.mean(
                [
                    roc_auc_score(truth[:, code], values[:, code], sample_weight=row)
                    for code in range(FINDINGS)
                ]
            )
            for row in weights[:, scores.patients]
        ]
    )


def measure_bootstrap(arguments: argparse.Namespace) -> dict[str, float]:
    scores = drawn_scores()
    own, looped = [], []
    for repeat in range(2 if arguments.quick else 5):
        start = time.perf_counter()
        weights = patient_weights(scores, replicates=REPLICATES, seed=repeat)
        found = estimate(scores, "drawn", "all", weights).replicates
        middle = time.perf_counter()
        expected = loop_of_sklearn(scores, weights[:LOOPED])
        own.append(middle - start)
        looped.append((time.perf_counter() - middle) * REPLICATES / LOOPED)
        np.testing.assert_allclose(found[:LOOPED], expected, rtol=1e-12)
        print(f"  repeat {repeat + 1}  bootstrap {own[-1]:.2f} s, loop {looped[-1]:.0f} s")
    return {
        "bootstrap_seconds": statistics.median(own),
        "bootstrap_vs_sklearn_loop": median_ratio(looped, own),
    }


def path_of_penalties(x: np.ndarray, y: np.ndarray, test: np.ndarray) -> list[np.ndarray]:
    """Probabilities of the second class of the test scans, at every C."""
    axes = PrincipalAxes.of(x[~test])
    z = axes.project(x)
    path = PenaltyPath(z[~test], y[~test], 2)
    return [path.fit(c).predict(z[test])[:, 1] for c in C_GRID]


def by_sklearn(
    x: np.ndarray, y: np.ndarray, test: np.ndarray, settings: Mapping[str, Any]
) -> list[np.ndarray]:
    """The same by scikit-learn."""
    scaler = StandardScaler().fit(x[~test])
    scaled = scaler.transform(x)
    models = (LogisticRegression(C=c, **settings).fit(scaled[~test], y[~test]) for c in C_GRID)
    return [model.predict_proba(scaled[test])[:, 1] for model in models]


def measure_probe(arguments: argparse.Namespace) -> dict[str, float]:
    archive, labeled = labeled_scans(arguments.data, 200 if arguments.quick else 1000)
    network = build_backbone(BackboneConfig(name="resnet10t"), archive.shape[0], 0, size=64)
    x = extract(
        network.eval(),
        archive,
        labeled.rows,
        size=64,
        mean=archive.mean,
        std=archive.std,
        visible=False,
    ).astype(np.float64)
    test = np.asarray(labeled.split) == "test"
    own = labeled.truth.classes
    figures = {}
    newton = {"solver": "newton-cholesky", "tol": 1e-8, "max_iter": 200}
    lbfgs = {"solver": "lbfgs", "tol": 1e-6, "max_iter": 20_000}
    for name, y in (("", own), ("_shuffled", np.random.default_rng(0).permutation(own))):
        ways = {
            "path": partial(path_of_penalties, x, y, test),
            "newton": partial(by_sklearn, x, y, test, newton),
        }
        if not name:
            ways["lbfgs"] = partial(by_sklearn, x, y, test, lbfgs)
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for repeat in range(2 if arguments.quick else 5):
            found = {}
            for way, fit in ways.items():
                start = time.perf_counter()
                found[way] = fit()
                taken[way].append(time.perf_counter() - start)
            np.testing.assert_allclose(found["path"], found["newton"], atol=1e-3)
            cells = ", ".join(f"{way} {every[-1]:.2f} s" for way, every in taken.items())
            print(f"  repeat {repeat + 1}  {cells}", flush=True)
        for way in list(ways)[1:]:
            figures[f"probe_vs_{way}{name}"] = median_ratio(taken[way], taken["path"])
    return figures


def main() -> None:
    parser = options(
        __doc__,
        quick="fewer repeats of fewer scans",
        only="features, bootstrap or probe",
        data=True,
    )
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    with workplace():
        if arguments.only in "features":
            figures |= measure_features(arguments)
        if arguments.only in "probe":
            figures |= measure_probe(arguments)
    if arguments.only in "bootstrap":
        figures |= measure_bootstrap(arguments)
    report(figures, GOALS, arguments.json)


if __name__ == "__main__":
    main()
