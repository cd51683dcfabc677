from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scanlearn.archive.identity import Identities
from scanlearn.archive.layout import Origin, PackedScan
from scanlearn.archive.reader import Archive
from scanlearn.archive.writer import ArchiveWriter
from scanlearn.errors import ScanlearnError
from scanlearn.packing.settings import PackSettings
from scanlearn.packing.sources import open_archive
from scantune.labels.external import join, open_external, packing_notes, read_external
from scantune.labels.labeled_set import LabeledSet, read_labels

Make = Callable[..., Archive]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes an archive of noise from columns and patients, under a key."""

    def write(
        name: str,
        patients: list[str],
        seed: int = 0,
        key: bytes | None = b"k" * 32,
        channels: int = 1,
        known: bool = True,
        settings: dict[str, Any] | None = None,
        **columns: list[str | None],
    ) -> Archive:
        pixels = np.random.default_rng(seed).integers(0, 255, (len(patients), channels, 8, 8))
        with ArchiveWriter(
            tmp_path / name,
            shape=(channels, 8, 8),
            dtype=np.uint8,
            label_columns=tuple(columns),
            patients_known=known,
            settings=settings,
            identities=None if key is None else Identities(key, name if name == "x" else "site"),
        ) as writer:
            for row, patient in enumerate(patients):
                writer.add(
                    PackedScan(pixels[row].astype(np.uint8)),
                    Origin(
                        f"{name}{row}",
                        patient,
                        {column: values[row] for column, values in columns.items()},
                        spelling=f"{name}{row}",
                    ),
                )
            return writer.close()

    return write


def external(archive: Archive, labeled: LabeledSet, **options: Any) -> LabeledSet:
    asked: dict[str, Any] = {"is_chosen": False, "synthetic_column": None, "source": "b.csv"}
    return read_external(archive, labeled, "y", **{**asked, **options})


def joined(first: Archive, second: Archive, **options: Any) -> LabeledSet:
    labeled = read_labels(first, "y", **options)
    column = options.get("synthetic_column")
    return join(labeled, external(second, labeled, synthetic_column=column), (first, second))


def test_one_set_trains_and_the_other_is_tested(make: Make) -> None:
    first = make("a", ["p", "q", "q"], y=["0", "1", "1"])
    second = make("b", ["r", "s", "s"], seed=1, y=["1", None, "0"])
    found = joined(first, second)
    assert found.split is not None
    assert found.sources is not None
    assert found.split.tolist() == ["train"] * 3 + ["test"] * 2
    assert found.sources.tolist() == [0, 0, 0, 1, 1]
    assert found.rows.tolist() == [0, 1, 2, 0, 2]
    assert found.truth.classes.tolist() == [0, 1, 1, 1, 0]
    assert found.patients.tolist() == [0, 1, 1, 2, 3]
    assert found.num_blank == 1
    assert found.notes == ()


def test_a_patient_in_both_sets_is_refused_with_the_count(make: Make) -> None:
    first = make("a", ["p", "q", "r"], y=["0", "1", "1"])
    second = make("b", ["s", "q", "p"], seed=1, y=["0", "1", "1"])
    with pytest.raises(ScanlearnError, match=r"2 of 3 patients of the test set .* test scan b1;"):
        joined(first, second)


def test_equal_names_under_other_keys_are_other_patients_and_that_is_said(make: Make) -> None:
    first = make("a", ["p", "q"], y=["0", "1"])
    second = make("b", ["p", "q"], seed=1, key=b"j" * 32, y=["0", "1"])
    found = joined(first, second)
    assert found.patients.tolist() == [0, 1, 2, 3]
    assert "were packed under different keys" in found.notes[0]


def test_unknown_patients_cannot_be_compared_and_that_is_said(make: Make) -> None:
    first = make("a", ["p", "q"], y=["0", "1"])
    second = make("b", ["p", "q"], seed=1, known=False, y=["0", "1"])
    assert "patients of test are unknown" in joined(first, second).notes[0]


def test_other_issuers_are_said(make: Make) -> None:
    first = make("a", ["p", "q"], y=["0", "1"])
    second = make("x", ["r", "s"], seed=1, y=["0", "1"])
    assert "different issuers" in joined(first, second).notes[0]


def test_equal_pixels_in_both_sets_are_refused_whatever_the_key(make: Make) -> None:
    first = make("a", ["p", "q"], y=["0", "1"])
    second = make("b", ["r", "s"], seed=0, key=None, y=["0", "1"])
    with pytest.raises(
        ScanlearnError, match=r"2 of 2 scans of the test set .* first b0 equals a0;"
    ):
        joined(first, second)


def test_a_test_set_may_lack_a_class_but_not_have_another(make: Make) -> None:
    labeled = read_labels(make("a", ["p", "q", "r"], y=["0", "1", "2"]), "y", ordinal=True)
    second = make("b", ["s", "t"], y=["2", "0"])
    found = external(second, labeled)
    assert found.classes == ("0", "1", "2")
    assert found.truth.task == "ordinal"
    third = make("c", ["s", "t"], y=["2", "3"])
    with pytest.raises(ScanlearnError, match=r"b\.csv row 3 \(scan c1\): label '3' of 'y' is not"):
        external(third, labeled)


def test_an_unsure_label_of_the_test_set_is_left_out(make: Make) -> None:
    labeled = read_labels(make("a", ["p", "q"], y=["0", "1"]), "y")
    found = external(make("b", ["s", "t", "u"], y=["1", "-1", "0"]), labeled)
    assert (len(found), found.num_uncertain) == (2, 1)


def test_findings_that_nobody_trains_on_are_refused_unless_some_were_chosen(make: Make) -> None:
    first = make("a", ["p", "q"], y=["A|B", "No Finding"])
    second = make("b", ["s", "t"], y=["A", "C"])
    with pytest.raises(ScanlearnError, match="lists 'C', which is not one of A, B"):
        external(second, read_labels(first, "y"))
    labeled = read_labels(first, "y", classes=("B", "A"))
    found = external(second, labeled, is_chosen=True)
    assert found.classes == ("B", "A")
    assert found.truth.matrix.tolist() == [[0, 1], [0, 0]]


def test_columns_of_findings_are_read_in_both_sets(make: Make) -> None:
    first = make("a", ["p", "q"], y=["1", "0"], z=["0", None])
    second = make("b", ["s", "t"], seed=1, y=["1", "0"], z=["-1", "1"])
    labeled = read_labels(first, ["y", "z"])
    found = join(
        labeled,
        read_external(
            second, labeled, ["y", "z"], is_chosen=False, synthetic_column=None, source="b"
        ),
        (first, second),
    )
    assert found.truth.matrix.tolist() == [[1, 0], [0, -1], [1, -1], [0, 1]]
    assert found.uncertain == (0, 1)
    assert found.unknown == {"y": 0, "z": 2}


def test_synthetic_scans_are_trained_on_alone(make: Make) -> None:
    first = make("a", ["p", "q", "s"], y=["0", "1", "1"], made=["0", "0", "1"])
    second = make("b", ["r", "s", "t"], seed=1, y=["1", "0", "0"], made=["0", "0", "1"])
    found = joined(first, second, synthetic_column="made")
    assert found.truth.is_real.tolist() == [True, True, False, True, True]
    assert found.patients[2] == found.patients[4], "it names a patient of the test set"
    assert found.notes == ("1 synthetic scans of the test set are left out",)


def test_other_channels_are_refused(make: Make) -> None:
    first = make("a", ["p", "q"])
    second = make("b", ["r", "s"], channels=3)
    with pytest.raises(
        ScanlearnError, match="the test scans have 3 channels, but the labeled ones"
    ):
        open_external(second.path, first, PackSettings())


def test_other_treatment_of_pixels_is_said(make: Make) -> None:
    first = make("a", ["p"], settings={"intensity": "full", "canvas": 8, "path_column": "x"})
    second = make("b", ["r"], settings={"intensity": "percentile", "canvas": 9})
    assert packing_notes((first, second)) == (
        "labeled scans were packed with intensity=full, test scans with intensity=percentile",
    )
    assert packing_notes((first, make("c", ["s"]))) == ()


def test_a_test_set_is_packed_as_the_labeled_scans_were(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCANLEARN_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "files" / "mild"
    folder.mkdir(parents=True)
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(folder / "1.png")
    like = make("a", ["p"], settings={"canvas": 16, "intensity": "percentile", "workers": 1})
    found = open_external(folder.parent, like, PackSettings(folder_labels=True, workers=1))
    assert found.shape == (1, 16, 16)
    assert found.info["settings"]["intensity"] == "percentile"
    assert found.labels("folder").tolist() == ["mild"]


def test_labels_of_a_phantom_take_a_test_set_that_is_not_packed_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCANLEARN_CACHE", str(tmp_path / "cache"))
    phantom = open_archive("phantom:patients=2,seed=0,size=32x32")
    channels, pictures = phantom.shape[0], tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(pictures / "a.png")
    test = open_external(pictures, phantom, PackSettings(channels=channels))
    assert test.shape == (channels, 256, 256)
    assert packing_notes((phantom, test)) == ()


@pytest.mark.parametrize("known", [True, False])
def test_whether_patients_were_compared_is_kept(make: Make, known: bool) -> None:
    first = make("a", ["p", "q"], y=["0", "1"])
    second = make("b", ["r", "s"], seed=1, y=["1", "0"], known=known)
    found = joined(first, second)
    assert found.design == "test"
    assert found.is_compared == known
    assert found.unknown_patients.tolist() == [False, False, not known, not known]


def test_patients_of_two_issuers_by_default_were_not_compared(make: Make) -> None:
    first, second = make("a", ["p", "q"], y=["0", "1"]), make("x", ["r", "s"], 1, y=["1", "0"])
    assert not joined(first, second).is_compared
