from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scanlearn.archive.reader import Archive
from scanlearn.errors import ScanlearnError
from scanlearn.packing.add import add
from scanlearn.packing.pack import pack
from scanlearn.packing.settings import PackSettings
from scanlearn.training.run import Run
from scanlearn.training.settings import PretrainConfig
from scanlearn.views.modality import OwnModality
from scanlearn.views.of_archive import contradiction, modality_by_tags, tagged_policy
from scanlearn.views.preview import preview

PackTagged = Callable[..., Archive]


@pytest.fixture
def pack_tagged(make_dicom: Callable[..., Path], tmp_path: Path) -> PackTagged:
    """A function that packs small DICOM files with so many scans of each kind."""

    def make(counts: Mapping[str, int], name: str = "a", **settings: Any) -> Archive:
        rng = np.random.default_rng(0)
        numbers = iter(range(100))
        for kind, count in counts.items():
            modality, _, part = kind.partition("/")
            tags: dict[str, Any] = {"Modality": modality, "BodyPartExamined": part or None}
            if modality == "CT":
                tags |= {"RescaleSlope": 1, "RescaleIntercept": -1024}
            for number in [next(numbers) for _ in range(count)]:
                pixels = rng.integers(0, 2000, (20, 20)).astype(np.uint16)
                make_dicom(pixels, f"{name}-files/{number}.dcm", PatientID=str(number), **tags)
        packing = PackSettings(canvas=20, summary=False, workers=1, **settings)
        return pack(tmp_path / f"{name}-files", tmp_path / name, settings=packing)

    return make


@pytest.mark.parametrize(
    ("examined", "policy"),
    [
        ("CR CHEST", "xray"),
        ("DX", "xray"),
        ("RG HAND", "xray"),
        ("DX OTHER", None),
        ("CR BREAST", "mammography"),
        ("MG BREAST", "mammography"),
        ("MG", "mammography"),
        ("MG KNEE", None),
        ("CT HEAD", "ct"),
        ("MR OTHER", "mri"),
        ("US ABDOMEN", "ultrasound"),
        ("US HEART", None),
        ("US", None),
        ("IVUS CORONARYARTERY", None),
        ("XA HEART", None),
        ("RF ABDOMEN", None),
        ("OP EYE", "fundus"),
        ("OP CORNEA", None),
        ("OPT", "oct"),
        ("IVOCT", None),
        ("SM", "histology"),
        ("DMS SKIN", "dermoscopy"),
        ("XC SKIN", None),
        ("PT", None),
        ("", None),
    ],
)
def test_tags_name_a_policy_or_none(examined: str, policy: str | None) -> None:
    assert tagged_policy(examined) == policy


def test_packing_counts_modalities_and_body_parts_in_words_of_the_standard(
    pack_tagged: PackTagged, make_scans: Callable[..., Path]
) -> None:
    archive = pack_tagged({"CR/CHEST": 2, "DX/THORAX": 1, "CT": 1, "DX/ANNA SMITH": 1})
    counts = {"CR CHEST": 2, "DX CHEST": 1, "CT": 1, "DX OTHER": 1}
    assert archive.examined == counts
    joined = add(archive.path, make_scans(3, "pictures"))
    assert joined.examined == {**counts, "": 3}
    assert Archive(joined.path).examined == joined.examined


@pytest.mark.parametrize(
    ("counts", "modality", "why"),
    [
        (
            {"CR/CHEST": 2, "DX/CHEST": 1},
            "xray",
            "the DICOM tags of all 3 scans name it (CR CHEST 2, DX CHEST 1)",
        ),
        (
            {"CT/HEAD": 3, "XA/HEAD": 1},
            None,
            "the DICOM tags name ct for 3 of 4 scans only (CT HEAD 3, XA HEAD 1)",
        ),
        ({"US/HEART": 2}, None, "the DICOM tags (US HEART 2) name no policy"),
    ],
)
def test_only_tags_on_which_all_scans_agree_name_a_modality(
    pack_tagged: PackTagged, counts: Mapping[str, int], modality: str | None, why: str
) -> None:
    assert modality_by_tags(pack_tagged(counts)) == (modality, why)


def test_pictures_among_tagged_scans_and_archives_without_tags_name_none(
    pack_tagged: PackTagged, make_scans: Callable[..., Path], tmp_path: Path
) -> None:
    mixed = add(pack_tagged({"CR/CHEST": 3}).path, make_scans(1, "pictures"))
    assert mixed.examined == {"CR CHEST": 3, "": 1}
    assert modality_by_tags(mixed).modality is None
    plain = pack(make_scans(2), tmp_path / "plain", settings=PackSettings(canvas=20, workers=1))
    assert modality_by_tags(plain) == (None, "")


@pytest.mark.parametrize(
    ("modality", "counts", "told"),
    [
        ("xray", {"CT/CHEST": 2, "CR/CHEST": 1}, "modality is xray.*2 of 3 scans name ct"),
        ("ct", {"US/HEART": 1}, "modality is ct.*name ultrasound"),
        ("natural", {"MR": 1}, "modality is natural.*name mri"),
        (OwnModality(name="child", like="xray"), {"CT": 1}, "modality is child.*name ct"),
        (OwnModality(name="phone"), {"CT": 1}, None),
        ("ultrasound", {"US/HEART": 1}, None),
        ("xray", {"XA/HEART": 1}, None),
        ("auto", {"CT": 1}, None),
        (None, {"CT": 1}, None),
    ],
)
def test_a_modality_that_contradicts_the_tags_is_told_with_both(
    pack_tagged: PackTagged,
    modality: str | OwnModality | None,
    counts: Mapping[str, int],
    told: str | None,
) -> None:
    text = contradiction(modality, pack_tagged(counts))
    assert text is None if told is None else re.search(told, text or "")


def _config(archive: Archive, output: Path, **views: Any) -> PretrainConfig:
    values = {
        "archive": str(archive.path),
        "output": str(output),
        "backbone": {"name": "test_resnet"},
        "views": {"size": 16, **views},
        "batch_size": 2,
        "steps": 2,
        "device": "cpu",
    }
    return PretrainConfig.model_validate(values)


def test_a_run_trains_under_the_modality_of_the_tags_and_goes_on_so(
    pack_tagged: PackTagged, tmp_path: Path
) -> None:
    archive = pack_tagged({"CR/CHEST": 3})
    config = _config(archive, tmp_path / "run")
    run = Run.of(config, archive)
    assert run.generator.recipe == config.views.build_recipe("simclr", "xray")
    assert run.generator.recipe.at(config.views.scale).views[0].flip_p == 0
    line = run.start_line(0)
    assert "of recipe simclr under modality xray, " in line
    assert "views.modality is xray: the DICOM tags of all 3 scans name it (CR CHEST 3)" in line
    assert "is not given" not in line
    # What a run was begun with holds, tags or not.
    archive.info = {**archive.info, "examined": {}}
    assert Run.of(config, archive).resolved == run.resolved
    pure = Run.of(_config(archive, tmp_path / "pure"), archive)
    assert pure.generator.recipe.policy is None
    archive.info = {**archive.info, "examined": {"CR CHEST": 3}}
    again = Run.of(_config(archive, tmp_path / "pure"), archive)
    assert again.generator.recipe.policy is None
    assert "is not given" in again.start_line(0)


def test_a_run_on_scans_of_several_kinds_says_what_to_do(
    pack_tagged: PackTagged, tmp_path: Path
) -> None:
    archive = pack_tagged({"CT/HEAD": 2, "CR/CHEST": 1})
    line = Run.of(_config(archive, tmp_path / "run"), archive).start_line(0)
    assert (
        "views.modality is not given, and the DICOM tags name ct for 2 of 3 scans only (CT HEAD 2, "
        "CR CHEST 1); pack each kind of scan by itself, or name the one that is to hold for all: "
        "the recipe as published" in line
    )


def test_null_is_the_recipe_alone_whatever_the_tags_say(
    pack_tagged: PackTagged, tmp_path: Path
) -> None:
    archive = pack_tagged({"CR/CHEST": 2})
    run = Run.of(_config(archive, tmp_path / "run", modality=None), archive)
    assert run.generator.recipe.policy is None
    assert "modality" not in run.start_line(0)


@pytest.mark.parametrize(
    ("packing", "views", "is_on"),
    [
        ({"window": "lung"}, {}, True),
        ({"window": ["lung", "bone", "brain"]}, {}, True),
        ({}, {}, False),
        ({}, {"modality": "ct"}, False),
        ({}, {"modality": {"name": "own", "like": "ct"}}, False),
    ],
)
def test_the_window_is_moved_only_of_scans_in_hounsfield_units(
    pack_tagged: PackTagged,
    tmp_path: Path,
    packing: dict[str, Any],
    views: dict[str, Any],
    is_on: bool,
) -> None:
    archive = pack_tagged({"CT/CHEST": 2}, **packing)
    config = _config(archive, tmp_path / "run", scale=1, **views)
    run = Run.of(config, archive)
    ranges = run.generator.recipe.at(config.views.scale).views[0]
    assert (ranges.window_p > 0, ranges.flip_p) == (is_on, 0)
    assert ("window of the policy is left out" in run.start_line(0)) is not is_on
    assert ("window_p" in run.generator.recipe.policy_text) is is_on


@pytest.mark.parametrize(
    ("views", "where"),
    [
        ({"operations": {"window_width": 0.2}}, "views.operations.window_width: window needs"),
        (
            {"modality": "ct", "operations": {"window_p": 1}},
            "views.operations.window_p: window needs scans packed in Hounsfield units",
        ),
        (
            {"modality": {"name": "own", "like": "ct", "operations": {"window_level": 0.1}}},
            "views.modality.operations.window_level: window needs",
        ),
        ({"operations": {"stain": 0.1}}, "views.operations.stain: stain needs colour"),
    ],
)
def test_what_a_person_set_that_the_scans_do_not_allow_is_refused(
    pack_tagged: PackTagged, tmp_path: Path, views: dict[str, Any], where: str
) -> None:
    archive = pack_tagged({"CT/CHEST": 2})
    with pytest.raises(ScanlearnError, match=where):
        Run.of(_config(archive, tmp_path / "run", **views), archive)
    assert not (tmp_path / "run").exists()
    operations = views.get("operations", {})
    if operations and "modality" not in views:
        with pytest.raises(ScanlearnError, match=where.removeprefix("views.")):
            preview(archive.path, operations=operations, output=tmp_path / "sheet.png")
    off = {"modality": "ct", "operations": {"window": "off"}}
    run = Run.of(_config(archive, tmp_path / "run", **off), archive)
    assert "left out" not in run.start_line(0)


def test_stains_of_the_policy_are_left_out_of_gray_scans(
    pack_tagged: PackTagged, tmp_path: Path
) -> None:
    archive = pack_tagged({"SM": 2})
    run = Run.of(_config(archive, tmp_path / "run"), archive)
    assert "under modality histology" in run.start_line(0)
    assert "stain of the policy is left out: it needs colour" in run.start_line(0)
    assert run.generator.recipe.at(run.config.views.scale).views[0].stain_p == 0


def test_a_preview_takes_the_modality_of_the_tags(
    pack_tagged: PackTagged, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = pack_tagged({"CT/HEAD": 2})
    sheets = {}
    for name, modality in (("auto", "auto"), ("ct", "ct"), ("pure", None), ("xray", "xray")):
        sheets[name] = preview(
            archive.path, modality=modality, output=tmp_path / f"{name}.png", scales=(1.0,), size=16
        ).read_bytes()
        out, err = capsys.readouterr()
        assert ("modality is ct: the DICOM tags of all 2 scans name it" in out) is (name == "auto")
        assert ("window of the policy is left out" in out) is (name in ("auto", "ct"))
        assert ("modality is xray, and the DICOM tags of 2 of 2" in err) is (name == "xray")
    assert sheets["auto"] == sheets["ct"] != sheets["pure"]
