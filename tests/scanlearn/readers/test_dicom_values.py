from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from scanlearn.readers.dicom_values import gray, voi_function
from scanlearn.readers.scan import Scan, Undecodable
from scanlearn.readers.values import inverted


def tags(**values: Any) -> Dataset:
    made = Dataset()
    for tag, value in values.items():
        setattr(made, tag, value)
    return made


RAMP = np.arange(0, 4000, 100, dtype=np.uint16).reshape(4, 10)


@pytest.mark.parametrize(
    ("function", "limits"), [("LINEAR", (1000, 1999)), ("LINEAR_EXACT", (999.5, 2000.5 - 1))]
)
def test_window_becomes_the_range_of_what_is_stored(
    function: str, limits: tuple[float, float]
) -> None:
    centre = 1500 if "EXACT" not in function else 1499.5
    voi = tags(WindowCenter=centre, WindowWidth=1000, VOILUTFunction=function)
    scan, notes = gray(RAMP, tags(), tags(), voi)
    np.testing.assert_array_equal(scan.pixels[0], RAMP)
    assert scan.value_range == limits
    assert notes == ()


def test_sigmoid_window_is_half_at_its_centre() -> None:
    voi = tags(WindowCenter=1500, WindowWidth=400, VOILUTFunction="SIGMOID")
    assert voi_function(voi) == "SIGMOID"
    scan, _ = gray(RAMP, tags(), tags(), voi)
    pixels, stored = scan.pixels[0], scan.value_range
    assert pixels.reshape(-1)[15] == round(65535 / 2)
    assert pixels.reshape(-1)[16] == round(65535 / (1 + np.exp(-1)))
    assert (pixels[0, 0], stored) == (0, (0, 65535))


@pytest.mark.parametrize(("centre", "width"), [(9000, 10), (1500, 1), (1500, -5), (1500, np.inf)])
def test_window_of_no_use_gives_way_to_percentiles_and_is_told(centre: float, width: float) -> None:
    voi = Dataset()
    voi.WindowCenter, voi.WindowWidth = centre, 1
    voi["WindowWidth"]._value = width
    scan, notes = gray(RAMP, tags(), tags(), voi)
    assert scan.value_range == tuple(np.percentile(RAMP, (0.5, 99.5)))
    assert notes == ("window that shows nothing replaced by percentiles",)


def test_slope_of_zero_is_refused() -> None:
    with pytest.raises(Undecodable, match="rescale slope of 0"):
        gray(RAMP, tags(), tags(RescaleSlope=0, RescaleIntercept=1), tags())


def test_inverting_twice_is_identity() -> None:
    ramp = Scan(RAMP[None], value_range=(1000.0, 1999.0))
    scan = inverted(inverted(ramp))
    np.testing.assert_array_equal(scan.pixels[0], RAMP)
    assert scan.value_range == (1000, 1999)
    assert inverted(ramp).pixels[0, 0, 0] == 65535


@pytest.mark.parametrize("slope", [1, -2])
@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint8", "float32"])
def test_units_give_back_the_rescaled_values(dtype: str, slope: int) -> None:
    values = (RAMP // 40 - (50 if dtype[0] != "u" else 0)).astype(dtype)
    rescale = tags(RescaleSlope=slope, RescaleIntercept=7)
    scan, _ = gray(values, tags(Modality="CT"), rescale, tags())
    assert scan.units is not None
    assert scan.units.slope > 0
    for each in (scan, inverted(scan)):
        assert each.units is not None
        measured = each.units.slope * each.pixels[0].astype(float) + each.units.intercept
        np.testing.assert_allclose(measured, slope * values.astype(float) + 7, atol=1e-2)


def test_only_rescaled_ct_is_in_hounsfield_units() -> None:
    def name(modality: str, **rescale: Any) -> str | None:
        units = gray(RAMP, tags(Modality=modality), tags(**rescale), tags())[0].units
        return units and units.name

    assert name("CT", RescaleIntercept=-1024, RescaleSlope=1) == "HU"
    assert name("CT", RescaleIntercept=0, RescaleSlope=1, RescaleType="HU") == "HU"
    assert name("CT", RescaleIntercept=0, RescaleSlope=1, RescaleType="US") == "CT values"
    assert name("CT") == "CT values"
    assert name("MR", RescaleIntercept=0, RescaleSlope=2) == "MR values"
    assert gray(RAMP, tags(), tags(), tags(WindowCenter=9, WindowWidth=4))[0].units is not None
    sigmoid = tags(WindowCenter=1500, WindowWidth=400, VOILUTFunction="SIGMOID")
    assert gray(RAMP, tags(Modality="CT"), tags(RescaleIntercept=0), sigmoid)[0].units is None
