from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from scanlearn.archive.layout import Origin, PackedScan
from scanlearn.archive.reader import Archive
from scanlearn.archive.writer import ArchiveWriter
from scanlearn.errors import ScanlearnError
from scanlearn.features.panel import panel
from scanlearn.training.module import Pretrainer
from scanlearn.training.pretrain import pretrain
from scanlearn.training.recorder import Recorder
from scanlearn.training.settings import PretrainConfig, WatchConfig
from scanlearn.training.watch import PANEL_COLUMNS, WATCH_COLUMNS, LabeledProbe, ValidationCallback

Configure = Callable[..., PretrainConfig]
METHODS = ["simclr", "mocov2", "dino"]


class Killed(BaseException):
    """Stands for a kill: nothing of ours catches it."""


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    path = tmp_path_factory.mktemp("probe") / "labeled"
    random = np.random.default_rng(5)
    with ArchiveWriter(path, shape=(1, 48, 48), dtype=np.uint8, label_columns=("dark",)) as writer:
        for index in range(16):
            pixels = random.integers(0, 128, (1, 48, 48)) + 127 * (index % 2)
            writer.add(
                PackedScan(pixels.astype(np.uint8)),
                Origin(f"scan {index}", f"x{index}", {"dark": str(index % 2)}),
            )
        return writer.close()


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "panel.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def watched(probe: Archive | None = None, **changes: Any) -> dict[str, Any]:
    labeled = {"probe": str(probe.path), "probe_label": "dark", "probe_epochs": 1} if probe else {}
    return {"panel_epochs": 1, **labeled, **changes}


@pytest.mark.parametrize("method", METHODS)
def test_a_watched_run_ends_bit_equal_to_one_that_is_not(
    configure: Configure, tmp_path: Path, probe: Archive, method: str
) -> None:
    base: dict[str, Any] = {
        "method": {"name": method},
        "backbone": {"name": "test_resnet", "drop_path": 0.3},
        "views": {"size": 32},
    }
    plain = pretrain(configure(**base, output=str(tmp_path / "plain")))
    seen = pretrain(configure(**base, output=str(tmp_path / "seen"), watch=watched(probe)))
    assert seen.final_hash == plain.final_hash
    assert seen.uniforms_hash == plain.uniforms_hash
    assert len(rows_of(seen.folder)) == 3
    assert not (plain.folder / "panel.csv").exists()
    for name in ("loss", "embedding_std", "embedding_rank"):
        before, after = (
            [row[name] for row in csv.DictReader(result.metrics.open())] for result in (plain, seen)
        )
        assert before == after


def test_rows_come_every_k_epochs_and_at_the_end(configure: Configure) -> None:
    result = pretrain(configure(steps=7, watch={"panel_epochs": 2}))
    rows = rows_of(result.folder)
    assert tuple(rows[0]) == WATCH_COLUMNS
    assert [(row["step"], row["epoch"]) for row in rows] == [("4", "2"), ("7", "3.5")]
    assert all(math.isfinite(float(row[name])) for row in rows for name in PANEL_COLUMNS)
    assert all(row["knn_auroc"] == "nan" for row in rows)


def test_panel_and_probe_keep_their_own_pace(configure: Configure, probe: Archive) -> None:
    watch = watched(probe, panel_epochs=2, probe_epochs=1)
    rows = rows_of(pretrain(configure(steps=6, watch=watch)).folder)
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    assert [row["lidar"] == "nan" for row in rows] == [True, False, False]
    # Light and dark scans are told apart by any network.
    assert all(float(row["knn_auroc"]) == 1 for row in rows)
    assert all(float(row["linear_auroc"]) > 0.9 for row in rows)


def test_the_last_row_is_what_the_command_says_of_the_backbone(
    configure: Configure, archive: Archive
) -> None:
    result = pretrain(configure(watch=watched()))
    found = panel(result.backbone, archive.path)
    last = rows_of(result.folder)[-1]
    for name in PANEL_COLUMNS:
        assert float(last[name]) == pytest.approx(getattr(found, name), rel=1e-4), name


@pytest.mark.parametrize("killed_after", [3, 5])
def test_rows_survive_a_kill_and_none_comes_twice(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_after: int
) -> None:
    whole = pretrain(configure(steps=6, output=str(tmp_path / "whole"), watch=watched()))
    config = configure(steps=6, checkpoint_steps=3, watch=watched())
    judged = ValidationCallback.row

    def kill(watch: ValidationCallback, backbone: Any, step: int) -> dict[str, float]:
        made = judged(watch, backbone, step)
        if step == killed_after:
            raise Killed
        return made

    monkeypatch.setattr(ValidationCallback, "row", kill)
    with pytest.raises(Killed):
        pretrain(config)
    monkeypatch.setattr(ValidationCallback, "row", judged)
    resumed = pretrain(config)
    assert rows_of(resumed.folder) == rows_of(whole.folder)
    assert resumed.final_hash == whole.final_hash


def test_time_spent_on_judging_is_no_time_in_training(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    def slow(watch: ValidationCallback, backbone: Any, step: int) -> dict[str, float]:
        time.sleep(1)
        return {}

    monkeypatch.setattr(ValidationCallback, "row", slow)
    result = pretrain(configure(steps=3, watch=watched()))
    with result.metrics.open() as file:
        rows = list(csv.DictReader(file))
    # The first step waits for more than that; no later one does.
    assert all(16 / float(row["views_per_s"]) < 1 for row in rows[1:])


def test_figures_reach_wandb_under_their_step(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[tuple[int, dict[str, float]]] = []

    class Wandb:
        def hold(self, step: int, figures: dict[str, float]) -> None:
            held.append((step, figures))

        def release(self) -> None: ...

    start = Recorder.__init__

    def with_wandb(recorder: Recorder, *args: Any, **kwargs: Any) -> None:
        start(recorder, *args, **{**kwargs, "wandb": Wandb()})

    monkeypatch.setattr(Recorder, "__init__", with_wandb)
    pretrain(configure(steps=2, watch=watched()))
    assert [(step, sorted(figures)) for step, figures in held if "watch/lidar" in figures] == [
        (2, sorted(f"watch/{name}" for name in PANEL_COLUMNS))
    ]


def test_features_that_are_not_finite_are_a_row_and_a_warning(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stepped = Recorder._judge

    def broken(
        recorder: Recorder, watch: ValidationCallback, module: Pretrainer, step: int
    ) -> None:
        kept = module.method.exported.network.conv1[0].weight.detach().clone()  # type: ignore[union-attr,index]
        module.method.exported.network.conv1[0].weight.data.fill_(float("nan"))  # type: ignore[union-attr,index]
        stepped(recorder, watch, module, step)
        module.method.exported.network.conv1[0].weight.data.copy_(kept)  # type: ignore[union-attr,index]

    monkeypatch.setattr(Recorder, "_judge", broken)
    result = pretrain(configure(steps=2, watch=watched()))
    (row,) = rows_of(result.folder)
    assert row["lidar"] == "nan"
    warning = capsys.readouterr().err
    assert "step 2: " in warning
    assert "20 of 20 scans have features that are not finite" in warning


def test_a_watch_may_change_between_starts(configure: Configure) -> None:
    result = pretrain(configure())
    assert pretrain(configure(watch=watched())) == result


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"probe": "x"}, "give probe_label and probe_epochs too"),
        ({"probe": "x", "probe_label": "y"}, "give probe_epochs too"),
        ({"probe_epochs": 1}, "give probe and probe_label too"),
    ],
)
def test_half_a_probe_is_refused(given: dict[str, Any], missing: str) -> None:
    with pytest.raises(ValidationError, match=missing):
        WatchConfig.model_validate(given)


def test_a_probe_of_other_channels_is_refused_before_the_first_step(
    configure: Configure, probe: Archive, draw_archive: Callable[[int], Archive]
) -> None:
    config = configure(archive=str(draw_archive(3).path), watch=watched(probe))
    with pytest.raises(ScanlearnError, match="have 1 channels, those of the archive 3"):
        pretrain(config)


def test_a_missing_label_column_is_refused_before_the_first_step(
    configure: Configure, probe: Archive
) -> None:
    config = configure(watch=watched(probe, probe_label="drak"))
    with pytest.raises(ScanlearnError, match="did you mean 'dark'"):
        pretrain(config)


def test_a_probe_of_the_training_scans_is_warned_of(
    configure: Configure, probe: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain(configure(archive=str(probe.path), steps=1, watch=watched(probe)))
    said = capsys.readouterr()
    assert "16 of its patients are also in the training archive" in said.err
    assert "labeled probe: dark of 16 scans of 16 patients (0: 8, 1: 8), 5 folds" in said.out


def test_a_table_is_packed_as_the_archive_is(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    monkeypatch.setenv("SCANLEARN_CACHE", str(tmp_path / "cache"))
    lines = ["path,patient,sick"]
    for index in range(12):
        pixels = np.random.default_rng(index).integers(0, 255, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        lines.append(f"{index}.png,p{index},{index % 2}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    watch = {"probe": str(tmp_path / "labels.csv"), "probe_label": "sick", "probe_epochs": 1}
    rows = rows_of(pretrain(configure(steps=2, watch=watch)).folder)
    assert 0 <= float(rows[-1]["linear_auroc"]) <= 1
    assert rows[-1]["lidar"] == "nan"


Labeled = Callable[..., Archive]


@pytest.fixture
def labeled(tmp_path: Path) -> Labeled:
    """Returns a maker of archives with a label for each scan; two scans are one patient's."""

    def make(
        labels: Sequence[str | None], *, name: str = "a", patients_known: bool = True
    ) -> Archive:
        with ArchiveWriter(
            tmp_path / name,
            shape=(1, 8, 8),
            dtype=np.uint8,
            label_columns=("grade",),
            patients_known=patients_known,
        ) as writer:
            for index, label in enumerate(labels):
                pixels = np.full((1, 8, 8), index % 256, np.uint8)
                patient = f"{name}{index // 2}" if patients_known else f"{name}{index}.png"
                writer.add(
                    PackedScan(pixels), Origin(f"{name}{index}.png", patient, {"grade": label})
                )
            return writer.close()

    return make


def features_of(probe: LabeledProbe, signal: float, d: int = 6) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal((len(probe.y), d))
    noise[:, 0] += signal * probe.y
    return noise.astype(np.float32)


def test_a_patient_is_in_one_fold_and_every_fold_has_all_classes(labeled: Labeled) -> None:
    probe = LabeledProbe.of(labeled(["0", "0", "1", "1"] * 15), "grade")
    for patient in range(30):
        assert len(set(probe.fold_of[2 * patient : 2 * patient + 2])) == 1
    for fold in range(5):
        assert set(probe.y[probe.fold_of == fold]) == {0, 1}


def test_folds_are_the_same_every_time(labeled: Labeled) -> None:
    archive = labeled(["0", "1", "0", "1"] * 12)
    first, second = (LabeledProbe.of(archive, "grade") for _ in range(2))
    np.testing.assert_array_equal(first.fold_of, second.fold_of)


def test_a_class_that_features_show_is_found(labeled: Labeled) -> None:
    probe = LabeledProbe.of(labeled(["0", "0", "1", "1"] * 30), "grade")
    score = probe.score(features_of(probe, 8))
    assert score.knn_auroc > 0.97
    assert score.linear_auroc > 0.97


def test_labels_that_features_know_nothing_of_score_a_half(labeled: Labeled) -> None:
    probe = LabeledProbe.of(labeled(["0", "0", "1", "1"] * 100), "grade")
    score = probe.score(features_of(probe, 0))
    assert score.knn_auroc == pytest.approx(0.5, abs=0.1)
    assert score.linear_auroc == pytest.approx(0.5, abs=0.1)


def test_scans_of_a_patient_are_never_on_both_sides(labeled: Labeled) -> None:
    # Features that name the patient alone would score 1 if a patient were on both sides.
    random = np.random.default_rng(1)
    labels = np.repeat(random.integers(0, 2, 100).astype(str), 2).tolist()
    probe = LabeledProbe.of(labeled(labels), "grade")
    names = random.standard_normal((100, 8)).repeat(2, axis=0).astype(np.float32)
    score = probe.score(names)
    assert score.knn_auroc == pytest.approx(0.5, abs=0.15)


def test_the_score_is_the_mean_of_the_folds(labeled: Labeled) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    probe = LabeledProbe.of(labeled(["0", "0", "1", "1"] * 15), "grade")
    features = features_of(probe, 1).astype(np.float64)
    aurocs = []
    for fold in range(5):
        train, test = probe.fold_of != fold, probe.fold_of == fold
        mean, std = features[train].mean(axis=0), features[train].std(axis=0)
        fitted = LogisticRegression(C=0.01).fit((features[train] - mean) / std, probe.y[train])
        found = fitted.predict_proba((features[test] - mean) / std)[:, 1]
        aurocs.append(roc_auc_score(probe.y[test], found))
    assert probe.score(features.astype(np.float32)).linear_auroc == pytest.approx(np.mean(aurocs))


def test_more_than_two_classes_are_scored_one_against_the_rest(labeled: Labeled) -> None:
    probe = LabeledProbe.of(labeled(["a", "a", "b", "b", "c", "c"] * 12), "grade")
    assert probe.classes == ("a", "b", "c")
    features = features_of(probe, 0) + 6 * np.eye(6, dtype=np.float32)[probe.y]
    score = probe.score(features)
    assert score.knn_auroc > 0.97
    assert score.linear_auroc > 0.97


def test_blank_labels_are_left_out(labeled: Labeled) -> None:
    probe = LabeledProbe.of(labeled([None, " ", "nan", "0", "1", "1"] * 6), "grade")
    assert len(probe.rows) == 18
    assert set(probe.rows % 6) == {3, 4, 5}


def test_few_patients_make_few_folds(labeled: Labeled) -> None:
    probe = LabeledProbe.of(labeled(["0"] * 20 + ["1"] * 4), "grade")
    assert probe.fold_of.max() == 1
    assert "2 folds" in probe.in_words()
    assert "0: 20, 1: 4" in probe.in_words()


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["1"] * 8, "holds one class only, '1'"),
        ([None] * 8, "holds no label"),
        ([f"0.{index}" for index in range(30)], "30 different values"),
        (["0"] * 8 + ["1"] * 2, "class '1' of 'grade' has one patient only"),
    ],
)
def test_labels_that_cannot_be_probed_are_refused_in_words(
    labeled: Labeled, labels: list[str | None], words: str
) -> None:
    with pytest.raises(ScanlearnError, match=words):
        LabeledProbe.of(labeled(labels), "grade")


def test_a_missing_column_is_refused_with_the_nearest_name(labeled: Labeled) -> None:
    with pytest.raises(ScanlearnError, match="did you mean 'grade'"):
        LabeledProbe.of(labeled(["0", "1"]), "grades")


def test_shared_patients_are_warned_of(labeled: Labeled) -> None:
    labels = ["0", "0", "1", "1"] * 3
    probe = LabeledProbe.of(labeled(labels), "grade")
    (text,) = probe.warnings(probe.archive)
    assert "6 of its patients are also in the training archive, such as 'a0'" in text
    assert probe.warnings(labeled(labels, name="b")) == ()


def test_without_patients_shared_scans_are_warned_of(labeled: Labeled) -> None:
    labels = ["0", "0", "1", "1"] * 3
    probe = LabeledProbe.of(labeled(labels, patients_known=False), "grade")
    unknown, shared = probe.warnings(probe.archive)
    assert "no patient column" in unknown
    assert "12 of its scans" in shared
