from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from scanlearn.audit.leaks import find_leaks
from scanlearn.audit.result import ScanSet
from scanlearn.errors import ScanlearnError
from scanlearn.packing.sources import open_archive
from scanlearn.training.run import open_scans
from scantune.study.folder import StudyFolder, open_study
from scantune.study.leaks import dropped, find_study_leaks, leak_warnings
from scantune.study.plan import CompareConfig
from scantune.study.results import Leak
from scantune.study.scores import read_tasks

Plan = Callable[..., CompareConfig]
SAME = {"unlabeled": "phantom:patients=24,seed=4,size=48x48"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANLEARN_CACHE", str(tmp_path / "cache"))


def look(config: CompareConfig) -> tuple[StudyFolder, tuple[Leak, ...]]:
    folder = open_study(config)
    unlabeled, labels = open_archive(config.unlabeled), (open_archive(config.labels),)
    found = find_study_leaks(config, folder, unlabeled, labels, read_tasks(config, labels))
    return folder, found


def test_drawn_patients_of_equal_names_are_no_leak(plan: Plan) -> None:
    folder, (between, within) = look(plan())
    assert between.title == "unlabeled and labels"
    assert within.title == "within labels"
    assert between.patients is None
    assert "no patients" in between.notes[0]
    assert (between.invalid_scans, within.invalid_scans) == (0, 0)
    assert (folder.leaks / "audit.csv").read_text().count("\n") == 1


def test_test_scans_among_the_unlabeled_ones_are_refused(plan: Plan) -> None:
    with pytest.raises(ScanlearnError, match=r"48 scans make the result invalid.*set leaks=warn"):
        look(plan(**SAME))


def test_a_refused_study_goes_on_when_told_to(
    plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ScanlearnError):
        look(plan(**SAME))
    capsys.readouterr()
    _, found = look(plan(**SAME, leaks="warn"))
    assert found[0].identical == found[0].invalid_scans == 48
    assert "48 scans make the result invalid" in capsys.readouterr().err


def test_leaking_scans_are_dropped_when_told_to(
    plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    # The first 24 of 36 patients are those of the labels, pixel by pixel.
    more = {"unlabeled": "phantom:patients=36,seed=4,size=48x48", "leaks": "drop"}
    config = plan(**more)
    folder, found = look(config)
    assert found[0].invalid_scans == 48
    assert "48 unlabeled scans were left out of pretraining" in capsys.readouterr().err
    left_out = dropped(config, folder)
    assert len(left_out) == 48
    unlabeled, labels = open_archive(config.unlabeled), open_archive(config.labels)
    rest = unlabeled.without(left_out)
    assert len(rest) == 24
    again = find_leaks(ScanSet.unlabeled("unlabeled", rest), [ScanSet.labeled("labels", labels)])
    assert not again.is_invalid
    run = config.run_config("weak", 0, folder.path / "run", folder.leaking)
    assert open_scans(run).content_hash == rest.content_hash != unlabeled.content_hash


def test_an_audit_is_made_once(plan: Plan) -> None:
    folder, found = look(plan())
    before = (folder.leaks / "audit.json").stat().st_mtime_ns
    spent = folder.timing()["leak audit"]
    assert look(plan())[1] == found
    assert (folder.leaks / "audit.json").stat().st_mtime_ns == before
    assert folder.timing()["leak audit"] == spent


def test_warnings_name_leaks_first_and_near_duplicates_last() -> None:
    counts = {"first_scans": 9, "second_scans": 9, "proposed": 9, "without_contrast": 0}
    found = {"near_by_turn": {"mirrored": 2}, "notes": (), **counts}
    near = Leak(
        first="unlabeled",
        second="labels",
        patients=0,
        identical=0,
        near=2,
        invalid_scans=0,
        **found,
    )
    leak = near.model_copy(update={"patients": 3, "identical": 4, "invalid_scans": 5, "near": 0})
    respelled = near.model_copy(update={"respelled": 2, "respelled_scans": ("a1", "b7"), "near": 0})
    told = leak_warnings([near, leak, respelled])
    assert told == (
        "unlabeled and labels: 5 scans make the result invalid (3 patients and 4 scans with "
        "identical pixels).",
        "unlabeled and labels: 2 patients agree with another but for leading zeros, a trailing .0,"
        " letter case or the like of the number (first a1 and b7); they count as different people:"
        " write their numbers in one way.",
        "unlabeled and labels: 2 pairs of near-duplicates, listed in leaks/audit.csv.",
    )


def test_patients_of_another_spelling_are_still_told_where_leaks_are_dropped() -> None:
    leak = Leak(
        first="unlabeled",
        second="labels",
        first_scans=9,
        second_scans=9,
        patients=1,
        respelled=2,
        respelled_scans=("a", "b"),
        identical=0,
        near=3,
        near_by_turn={},
        proposed=3,
        without_contrast=0,
        invalid_scans=1,
        notes=(),
    )
    told = leak_warnings((leak,), num_dropped=4)
    assert [text.split(":")[0] for text in told] == [
        "4 unlabeled scans were left out of pretraining",
        "unlabeled and labels",
    ]
    assert "different people" in told[1]
