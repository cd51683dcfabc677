from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from scanlearn.archive.layout import Origin, PackedScan
from scanlearn.archive.reader import Archive
from scanlearn.archive.writer import ArchiveWriter
from scantune.evaluation.results import Evaluation
from scantune.evaluation.worst import worst_errors, worst_sheet
from scantune.labels.labeled_set import LabeledSet
from scantune.scores import Scores


def test_the_most_confident_wrong_scores_come_first(make_scores: Callable[..., Scores]) -> None:
    y = np.array([0, 0, 0, 1, 1, 1])
    scores = make_scores(y, np.arange(6), np.array([0.1, 0.7, 0.95, 0.2, 0.4, 0.8]))
    (found,) = worst_errors(scores, "linear", "all", 3)
    assert [error.row for error in found.shown] == [2, 3, 1]
    assert [error.score for error in found.shown] == pytest.approx([0.95, 0.8, 0.7])
    assert found.shown[0].truth == "true: 0"
    assert found.shown[0].claim == "scored 1: 0.95"
    assert (found.num_errors, found.num_tested) == (4, 6)


def test_scores_are_means_over_label_seeds_of_tested_scans(
    make_scores: Callable[..., Scores],
) -> None:
    y, fold_of = np.array([0, 1, 0]), np.array([[0, 0, -1], [0, 0, -1]])
    values = np.array([[0.9, 0.9, 0.99], [0.3, 0.6, 0.99]])
    (found,) = worst_errors(make_scores(y, np.arange(3), values, fold_of), "linear", "all", 9)
    assert [(error.row, round(error.score, 9)) for error in found.shown] == [(0, 0.6)]
    assert found.num_tested == 2


def test_nothing_is_drawn_where_nothing_is_wrong(
    make_scores: Callable[..., Scores], evaluation: Evaluation, scan_archive: Archive
) -> None:
    scores = make_scores(np.array([0, 1]), np.arange(2), np.array([0.2, 0.8]))
    found = worst_errors(scores, "linear", "all", 9)
    assert worst_sheet(found, evaluation.labeled, [scan_archive], "linear", "all") is None


def test_each_finding_shows_its_missed_scans_then_its_false_alarms(finding_scores: Scores) -> None:
    edema, _, hernia = worst_errors(finding_scores, "linear", "all", 4)
    assert (edema.heading, hernia.heading) == ("Edema", "Hernia")
    assert [error.truth for error in edema.shown] == ["true: yes"] * 2 + ["true: no"] * 2
    means = finding_scores.values[0, 0].mean(axis=0)
    has, known = finding_scores.truth.positives(0), finding_scores.truth.known(0)
    lowest = np.sort(means[has, 0])[:2]
    highest = np.sort(means[known & ~has, 0])[::-1][:2]
    assert [error.score for error in edema.shown] == pytest.approx([*lowest, *highest])
    # One scan has a hernia: the rest of the four are scans without.
    assert [error.truth for error in hernia.shown].count("true: yes") <= 1
    assert len(hernia.shown) == 4


def test_an_unknown_finding_is_no_error(finding_scores: Scores) -> None:
    (edema, *_) = worst_errors(finding_scores, "linear", "all", 1000)
    rows = [error.row for error in edema.shown]
    assert finding_scores.truth.known(0)[rows].all()
    assert len(rows) == edema.num_errors < edema.num_tested


def test_no_patient_and_no_path_is_written(
    evaluation: Evaluation, scan_archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    draw = ImageDraw.ImageDraw.text

    def text(self: Any, at: Any, words: str, *rest: Any, **more: Any) -> None:
        written.append(words)
        draw(self, at, words, *rest, **more)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    found = worst_errors(evaluation.scores, "knn", "10", 40)
    assert worst_sheet(found, evaluation.labeled, [scan_archive], "knn", "10") is not None
    words = " ".join(written)
    (shown,) = (one.shown for one in found)
    assert "worst errors of kNN, 10 labels" in words
    for error in shown:
        assert str(scan_archive.scan_ids[evaluation.labeled.rows[error.row]]) in words
    for patient in scan_archive.patients:
        assert str(patient) not in words
    assert str(scan_archive.path) not in words


def test_a_scan_keeps_its_aspect_on_black(tmp_path: Path) -> None:
    pixels = np.full((1, 40, 80), 255, np.uint8)
    with ArchiveWriter(tmp_path / "a", shape=pixels.shape, dtype=pixels.dtype) as writer:
        for row in range(2):
            writer.add(PackedScan(pixels), Origin(f"s{row}", f"p{row}"))
        archive = writer.close()
    values = np.array([0.9, 0.8])
    scores = _two(values)
    data = LabeledSet("t", scores.classes, scores.truth, scores.patients, np.arange(2))
    sheet = worst_sheet(worst_errors(scores, "linear", "all", 1), data, [archive], "linear", "all")
    assert sheet is not None
    cell = np.asarray(Image.open(io.BytesIO(sheet)).convert("L"))[91 : 91 + 232, 32 : 32 + 232]
    assert (cell == 255).sum() == 232 * 116
    assert (cell == 0).sum() == 232 * 116


def _two(values: np.ndarray) -> Scores:
    from scantune.labels.truth import Truth

    both = np.stack([1 - values, values], axis=-1)[None, None, None]
    half, used = np.full((1, 1, 1, 1, 2), 0.5), np.ones((1, 1, 1), np.int64)
    fold_of = np.zeros((1, 2), np.int64)
    truth = Truth.of_classes(np.array([0, 1]), 2)
    whole = (truth, np.arange(2), fold_of, both, half, used, used)
    return Scores(("linear",), ("all",), ("0", "1"), *whole)


def test_scans_of_an_external_test_set_come_from_their_own_archive(
    evaluation: Evaluation, scan_archive: Archive, tmp_path: Path
) -> None:
    with ArchiveWriter(tmp_path / "b", shape=(1, 8, 8), dtype=np.uint8) as writer:
        writer.add(PackedScan(np.full((1, 8, 8), 201, np.uint8)), Origin("other", "p"))
        other = writer.close()
    scores = _two(np.array([0.9, 0.8]))
    data = LabeledSet(
        *("t", scores.classes, scores.truth, scores.patients, np.array([0, 0])),
        sources=np.array([1, 0]),
    )
    found = worst_errors(scores, "linear", "all", 1)
    sheet = worst_sheet(found, data, [scan_archive, other], "linear", "all")
    assert sheet is not None
    assert Image.open(io.BytesIO(sheet)).convert("L").getpixel((100, 200)) == 201
