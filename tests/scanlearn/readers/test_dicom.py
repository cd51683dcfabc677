from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import pixels as processing
from pydicom.dataset import Dataset

from scanlearn.readers import dicom
from scanlearn.readers.dicom import READER, gray, voi_function
from scanlearn.readers.scan import (
    MAX_FRAMES,
    MAX_PIXELS,
    Frame,
    Header,
    ReadSettings,
    Scan,
    Undecodable,
)
from scanlearn.readers.values import inverted

MakeDicom = Callable[..., Path]
REFUSED = {
    "JPEG-lossy.dcm": "is compressed as JPEG Extended",
    "JPEG2000-embedded-sequence-delimiter.dcm": "is compressed as JPEG 2000",
    "JPGExtended.dcm": "is compressed as JPEG Extended",
    "MR_truncated.dcm": "less than expected",
    "badVR.dcm": "NumberOfFrames that is no whole number",
    "csa_slice_norm.dcm": "without pixel data",
    "liver_deflate.dcm": "for which no decoder is installed",
    "liver_nonbyte_aligned_deflate.dcm": "for which no decoder is installed",
    "liver_nonbyte_aligned_rle.dcm": "is compressed as RLE Lossless",
    "liver_rle.dcm": "is compressed as RLE Lossless",
}


# Masks and doses are read too, as anything else that pydicom decodes.
ANY = ReadSettings(pictures_only=False)


def read_header(path: Path) -> Header:
    return READER.header(path, ANY, b"")


def read_frames(path: Path, frames: range, settings: ReadSettings = ANY) -> Iterator[Frame]:
    return READER.frames(path, frames, settings)


def scan_in(path: Path, index: int = 0) -> Scan:
    (frame,) = read_frames(path, range(index, index + 1))
    assert isinstance(frame.scan, Scan)
    return frame.scan


def unit(scan: Scan) -> np.ndarray:
    assert scan.value_range is not None
    low, high = scan.value_range
    return np.clip((scan.pixels.astype(np.float64) - low) / (high - low), 0, 1)


def group(data: Dataset, index: int, name: str) -> Dataset:
    for groups, place in (
        ("PerFrameFunctionalGroupsSequence", index),
        ("SharedFunctionalGroupsSequence", 0),
    ):
        if groups in data and name in data[groups][place]:
            found: Dataset = data[groups][place][name][0]
            return found
    return data


def windowed_by_pydicom(values: np.ndarray, data: Dataset, voi: Dataset) -> np.ndarray:
    """Gray values of 0 to 1 by pydicom's own windowing, whose output range is undone here."""
    flat = Dataset()
    flat.PhotometricInterpretation = "MONOCHROME2"
    flat.BitsStored, flat.PixelRepresentation = 16, 0
    for tag in ("WindowCenter", "WindowWidth", "VOILUTFunction"):
        if tag in voi:
            setattr(flat, tag, voi[tag].value)
    return processing.apply_windowing(values, flat) / 65535


def expected_unit(data: Dataset, values: np.ndarray, index: int, replaced: bool) -> np.ndarray:
    """What a viewer shows, ``[h w]`` 0 to 1, by pydicom's functions alone."""
    if data.get("BitsStored") == 1:
        return values.astype(float)
    rescaled = processing.apply_modality_lut(
        values, data if "ModalityLUTSequence" in data else _rescaling(data, index)
    )
    voi = group(data, index, "FrameVOILUTSequence")
    if "VOILUTSequence" in voi:
        shown = processing.apply_voi(rescaled, voi).astype(float)
        return (shown - shown.min()) / np.ptp(shown)
    if voi.get("WindowWidth") not in (None, "") and voi.get("WindowCenter") not in (None, ""):
        shown = windowed_by_pydicom(rescaled, data, voi)
        if not replaced:
            return shown
        assert np.ptp(shown) == 0 or voi.WindowWidth == 1
    low, high = np.percentile(rescaled, (0.5, 99.5))
    high = high if high > low else low + 1
    return np.clip((rescaled - low) / (high - low), 0, 1)


def _rescaling(data: Dataset, index: int) -> Dataset:
    found = group(data, index, "PixelValueTransformationSequence")
    flat = Dataset()
    for tag in ("RescaleSlope", "RescaleIntercept"):
        if tag in found:
            setattr(flat, tag, found[tag].value)
    return flat


def check_against_pydicom(path: Path) -> int:
    """Compares every frame with pydicom's own processing; returns how many there were."""
    data = pydicom.dcmread(path)
    every = data.pixel_array
    header = read_header(path)
    frames = list(read_frames(path, range(header.num_frames)))
    assert len(frames) == int(data.get("NumberOfFrames") or 1)
    for index, frame in enumerate(frames):
        values = every[index] if len(frames) > 1 else every
        scan = frame.scan
        assert isinstance(scan, Scan)
        assert (scan.pixels.dtype == np.uint16) == header.is_deep
        assert header.is_colour == (len(scan.pixels) == 3)
        if values.ndim == 3 or data.PhotometricInterpretation == "PALETTE COLOR":
            if values.ndim == 2:
                values = processing.apply_color_lut(values, data)
            shift = max(0, data.BitsStored - 16)
            np.testing.assert_array_equal(scan.pixels, (values >> shift).transpose(2, 0, 1))
            continue
        replaced = any("replaced by percentiles" in note for note in frame.notes)
        expected = expected_unit(data, values, index, replaced)
        if data.PhotometricInterpretation == "MONOCHROME1":
            expected = 1 - expected
        if data.get("BitsStored") == 1:
            assert set(np.unique(scan.pixels)) <= {0, 255}
        np.testing.assert_allclose(unit(scan)[0], expected, atol=1e-4)
    return len(frames)


@pytest.mark.filterwarnings("ignore:The pixel data is 8320 bytes long:UserWarning")
@pytest.mark.filterwarnings("ignore:Expected explicit VR, but found implicit VR:UserWarning")
def test_every_real_file_agrees_with_pydicom_or_is_refused_by_name(real_data: Path) -> None:
    paths = sorted((real_data / "readers" / "dicom").iterdir())
    assert len(paths) == 175
    refused, num_frames = {}, 0
    for path in paths:
        try:
            frames = list(read_frames(path, range(read_header(path).num_frames)))
        except Undecodable as error:
            refused[path.name] = str(error)
            continue
        reasons = {str(frame.scan) for frame in frames if isinstance(frame.scan, Undecodable)}
        if reasons:
            assert all(isinstance(frame.scan, Undecodable) for frame in frames)
            (refused[path.name],) = reasons
            continue
        num_frames += check_against_pydicom(path)
    assert refused.keys() == REFUSED.keys()
    assert all(REFUSED[name] in reason for name, reason in refused.items())
    assert num_frames > 165


@pytest.fixture
def deep(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 4096, (9, 7)).astype(np.uint16)


def table(entries: list[int], bits: int, first: int = 0) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item.add_new("LUTData", "US", entries)
    return item


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"WindowCenter": 2000, "WindowWidth": 1500},
        {"WindowCenter": [1000, 30], "WindowWidth": [800, 2]},
        {"WindowCenter": 2000, "WindowWidth": 1500, "VOILUTFunction": "LINEAR_EXACT"},
        {"WindowCenter": 2000, "WindowWidth": 1500, "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": 100, "WindowWidth": 300, "RescaleSlope": 0.5, "RescaleIntercept": -900},
        {"WindowCenter": -900, "WindowWidth": 300, "RescaleSlope": -0.5, "RescaleIntercept": 20},
        {"RescaleSlope": -2, "RescaleIntercept": 7},
        {"WindowCenter": 2000, "WindowWidth": 0},
        {"PhotometricInterpretation": "MONOCHROME1"},
        {
            "PhotometricInterpretation": "MONOCHROME1",
            "WindowCenter": 2000,
            "WindowWidth": 1500,
            "BitsStored": 12,
        },
        {"VOILUTSequence": [table(list(range(4095, -1, -1)), 12)]},
        {"ModalityLUTSequence": [table([value // 2 for value in range(4096)], 16)]},
    ],
    ids=str,
)
def test_gray_file_agrees_with_pydicom(
    make_dicom: MakeDicom, deep: np.ndarray, tags: dict[str, Any]
) -> None:
    if "ModalityLUTSequence" in tags:
        tags["ModalityLUTSequence"][0].ModalityLUTType = "US"
    if tags.get("WindowWidth") == 0:
        path = make_dicom(deep, **tags)
        assert scan_in(path).value_range == tuple(np.percentile(deep, (0.5, 99.5)))
    else:
        assert check_against_pydicom(make_dicom(deep, **tags)) == 1


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32"])
def test_every_depth_agrees_with_pydicom(
    make_dicom: MakeDicom, rng: np.random.Generator, dtype: str
) -> None:
    limits = np.iinfo(dtype)
    values = rng.integers(limits.min, limits.max, (9, 7), dtype=dtype, endpoint=True)
    path = make_dicom(values)
    assert check_against_pydicom(path) == 1
    assert scan_in(path).pixels.dtype == (np.uint8 if values.dtype.itemsize == 1 else np.uint16)


def test_stored_bits_are_kept_and_the_window_is_only_a_range(
    make_dicom: MakeDicom, deep: np.ndarray
) -> None:
    signed = deep.astype(np.int16) - 2000
    path = make_dicom(signed, WindowCenter=40, WindowWidth=400, RescaleIntercept=5, RescaleSlope=1)
    scan = scan_in(path)
    np.testing.assert_array_equal(scan.pixels[0], signed.astype(np.int32) + 32768)
    assert scan.value_range == (32768 - 160 - 5, 32768 + 239 - 5)


def test_window_that_shows_nothing_gives_way_to_percentiles(
    make_dicom: MakeDicom, deep: np.ndarray
) -> None:
    (frame,) = read_frames(make_dicom(deep, WindowCenter=9000, WindowWidth=10), range(1))
    assert frame.notes == ("window that shows nothing replaced by percentiles",)
    assert isinstance(frame.scan, Scan)
    assert frame.scan.value_range == tuple(np.percentile(deep, (0.5, 99.5)))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_colour_is_kept_bit_for_bit(
    make_dicom: MakeDicom, rng: np.random.Generator, dtype: str
) -> None:
    rgb = rng.integers(0, np.iinfo(dtype).max, (2, 9, 7, 3)).astype(dtype)
    path = make_dicom(rgb, SamplesPerPixel=3, PhotometricInterpretation="RGB")
    assert check_against_pydicom(path) == 2
    assert scan_in(path, 1).value_range == (0, np.iinfo(dtype).max)


def test_frames_carry_number_patient_series_and_spacing(
    make_dicom: MakeDicom, deep: np.ndarray
) -> None:
    tags = {"PatientID": " 7 ", "IssuerOfPatientID": "Mercy", "SeriesInstanceUID": "1.2.3"}
    path = make_dicom(np.stack([deep, deep + 1, deep]), PixelSpacing=[0.5, 0.25], **tags)
    header = read_header(path)
    assert (header.num_frames, header.has_patient, header.has_series) == (3, True, True)
    frames = list(read_frames(path, range(1, 3)))
    assert [frame.number for frame in frames] == [2, 3]
    named = {(frame.patient, frame.issuer, frame.series) for frame in frames}
    assert named == {("7", "Mercy", "1.2.3")}
    assert isinstance(frames[0].scan, Scan)
    assert frames[0].scan.spacing_mm == (0.5, 0.25)


def test_detector_spacing_stands_in_and_nonsense_is_left_out(
    make_dicom: MakeDicom, deep: np.ndarray
) -> None:
    assert scan_in(make_dicom(deep, ImagerPixelSpacing=[0.2, 0.1])).spacing_mm == (0.2, 0.1)
    assert scan_in(make_dicom(deep, PixelSpacing=[0, 0.1])).spacing_mm is None
    assert scan_in(make_dicom(deep)).spacing_mm is None


def test_each_frame_has_its_own_window_and_spacing(make_dicom: MakeDicom, deep: np.ndarray) -> None:
    def item(**tags: Any) -> Dataset:
        made = Dataset()
        for tag, value in tags.items():
            setattr(made, tag, value)
        return made

    own = [
        item(FrameVOILUTSequence=[item(WindowCenter=centre, WindowWidth=500)])
        for centre in (1000, 3000)
    ]
    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=[2, 3])],
        PixelValueTransformationSequence=[item(RescaleSlope=2, RescaleIntercept=-9)],
    )
    path = make_dicom(
        np.stack([deep, deep]),
        PerFrameFunctionalGroupsSequence=own,
        SharedFunctionalGroupsSequence=[shared],
    )
    assert check_against_pydicom(path) == 2
    assert scan_in(path, 0).value_range != scan_in(path, 1).value_range
    assert scan_in(path, 1).spacing_mm == (2, 3)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"Rows": 65535, "Columns": 65535}, f"allowed: 1 to {MAX_PIXELS:,}"),
        ({"Rows": 0}, "claims 7 x 0 pixels"),
        ({"NumberOfFrames": MAX_FRAMES + 1}, f"more than {MAX_FRAMES:,}"),
        ({"Rows": 10}, "less than expected"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "rescale slope of 0"),
        ({"PhotometricInterpretation": "HSV"}, "HSV"),
    ],
)
def test_what_makes_no_scan_is_refused(
    make_dicom: MakeDicom, deep: np.ndarray, tags: dict[str, Any], reason: str
) -> None:
    path = make_dicom(deep, **tags)
    with pytest.raises(Undecodable, match=reason):
        list(read_frames(path, range(read_header(path).num_frames)))


def test_bytes_that_are_no_dicom_are_refused(tmp_path: Path, make_dicom: MakeDicom) -> None:
    whole = make_dicom(np.zeros((9, 7), np.uint8)).read_bytes()
    contents = (
        b"",
        b"no image",
        bytes(132),
        bytes(128) + b"DICM",
        *(whole[:n] for n in (150, 300)),
    )
    for number, content in enumerate(contents):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(content)
        with pytest.raises(Undecodable):
            list(read_frames(path, range(1)))
        with pytest.raises(Undecodable):
            read_header(path)


def test_flipped_bytes_are_refused_or_read_but_never_raise(
    tmp_path: Path, make_dicom: MakeDicom, deep: np.ndarray, rng: np.random.Generator
) -> None:
    whole = np.frombuffer(make_dicom(deep, WindowCenter=1, WindowWidth=2).read_bytes(), np.uint8)
    num_read = 0
    for number in range(150):
        damaged = whole.copy()
        damaged[rng.integers(132, len(whole), 3)] = rng.integers(0, 256, 3)
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(damaged.tobytes())
        try:
            frames = list(read_frames(path, range(read_header(path).num_frames)))
        except Undecodable:
            continue
        num_read += any(isinstance(frame.scan, Scan) for frame in frames)
    assert num_read > 10


def test_deflated_bomb_is_refused_before_it_fills_the_memory(
    real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = real_data / "readers" / "dicom" / "image_dfl.dcm"
    assert scan_in(path).pixels.shape == (1, 512, 512)
    monkeypatch.setattr(dicom, "_MAX_INFLATED", 512 * 512)
    with pytest.raises(Undecodable, match="inflates to more than 262,144 bytes"):
        read_header(path)
    monkeypatch.setattr(dicom, "_MAX_INFLATED", 512 * 512 + 4096)
    assert read_header(path).num_frames == 1


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
