from __future__ import annotations

import pytest

from scanlearn.errors import ScanlearnError
from scanlearn.packing.filters import make_selection

CT = {"Modality": ("CT",), "ImageType": ("DERIVED", "SECONDARY", "MPR")}


def left_out(
    tags: dict[str, tuple[str, ...]] | None,
    keep: dict[str, tuple[str, ...]] | None = None,
    drop: dict[str, tuple[str, ...]] | None = None,
) -> str | None:
    return make_selection(keep or {}, drop or {}, ()).left_out_by({}, tags)


def test_a_file_stays_that_matches_one_pattern_of_each_kept_tag() -> None:
    assert left_out(CT, keep={"Modality": ("CR", "CT")}) is None
    assert left_out(CT, keep={"Modality": ("CR", "DX")}) == "keep.Modality"
    assert left_out(CT, keep={"Modality": ("CT",), "ImageType": ("AX*",)}) == "keep.ImageType"


def test_a_file_goes_that_matches_a_dropped_pattern() -> None:
    assert left_out(CT, drop={"Modality": ("CR", "CT")}) == "drop.Modality"
    assert left_out(CT, drop={"Modality": ("CR", "DX")}) is None


def test_patterns_are_those_of_a_shell_and_case_does_not_count() -> None:
    tags = {"SeriesDescription": ("Localizer 3 plane",)}
    for pattern in ("*LOCAL*", "local?zer*", "[kl]ocalizer*"):
        assert left_out(tags, drop={"SeriesDescription": (pattern,)}) == "drop.SeriesDescription"
    for pattern in ("local", "scout*", "localizer 3 plane."):
        assert left_out(tags, drop={"SeriesDescription": (pattern,)}) is None


def test_any_of_several_values_matches_or_all_of_them_together() -> None:
    for pattern in ("secondary", "derived\\secondary*", "*mpr"):
        assert left_out(CT, drop={"ImageType": (pattern,)}) == "drop.ImageType"


def test_a_file_without_the_tag_is_not_kept_and_not_dropped() -> None:
    assert left_out({}, keep={"ViewPosition": ("*",)}) == "keep.ViewPosition"
    assert left_out({}, drop={"ViewPosition": ("*",)}) is None


def test_of_a_file_that_cannot_be_read_only_columns_decide() -> None:
    assert left_out(None, keep={"Modality": ("CT",)}) is None
    selection = make_selection({"view": ("PA",)}, {}, ("view",))
    assert selection.left_out_by({"view": "AP"}, None) == "keep.view"


def test_a_column_wins_over_a_tag_of_its_name() -> None:
    selection = make_selection({"Modality": ("CR",)}, {}, ("Modality",))
    assert selection.tags == ()
    assert selection.left_out_by({"Modality": " cr "}, CT) is None
    assert selection.left_out_by({"Modality": None}, {"Modality": ("CR",)}) == "keep.Modality"


def test_tags_that_headers_are_asked_for_are_named_once() -> None:
    patterns = {"Modality": ("CT",), "view": ("PA",)}
    assert make_selection(patterns, patterns, ("view",)).tags == ("Modality",)


def test_an_unknown_name_is_an_error_with_the_nearest_spelling() -> None:
    with pytest.raises(ScanlearnError, match=r"keep\.modalty: .*did you mean 'Modality'\?"):
        make_selection({"modalty": ("CT",)}, {}, ())
    with pytest.raises(ScanlearnError, match=r"did you mean 'Finding'\?\); .*Finding, y"):
        make_selection({}, {"finding": ("1",)}, ("Finding", "y"))


@pytest.mark.parametrize(
    "name",
    ["PatientID", "PatientName", "PerformingPhysicianName", "StudyInstanceUID", "AccessionNumber"],
)
def test_patterns_on_persons_are_refused_since_they_would_stand_in_the_archive(name: str) -> None:
    with pytest.raises(ScanlearnError, match="list the files to pack in a table"):
        make_selection({name: ("1",)}, {}, ())


def test_a_tag_without_text_is_refused() -> None:
    with pytest.raises(ScanlearnError, match="holds no text"):
        make_selection({"PixelData": ("1",)}, {}, ())
