from __future__ import annotations

import json
from pathlib import Path

import pytest

from scanlearn.errors import ScanlearnError
from scantune.study import results as r


@pytest.mark.parametrize(
    ("dial", "text"),
    [
        ((0.5, 0.5, 0.5, 0.0), "s = 0.5"),
        ((0.5, 0.5, 0.5, 1.0), "s = 0.5, acquisition 1"),
        ((0.5, 0.5, 1.0, 0.0), "crop 0.5, geometry 0.5, photometric 1, acquisition 0"),
    ],
)
def test_scale_is_named_by_s_where_the_sub_dials_agree(
    dial: tuple[float, float, float, float], text: str
) -> None:
    keys = ("crop", "geometry", "photometric", "acquisition")
    scale = r.Dial(**dict(zip(keys, dial, strict=True)))
    assert r.ArmRow(name="a", kind="pretrained", scale=scale).scale_text == text


def test_references_have_no_scale() -> None:
    assert r.ArmRow(name="random", kind="random").scale_text == "not trained"
    assert r.ArmRow(name="thumbnail", kind="thumbnail").scale_text == "no network"


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / r.RESULTS_FILE).write_text(json.dumps({"format": 1, "extra": 1}))
    with pytest.raises(ScanlearnError, match=r"results\.json"):
        r.read_results(tmp_path)
