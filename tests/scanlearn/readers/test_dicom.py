from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import pixels as processing
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from scanlearn.packing import canvas
from scanlearn.packing.settings import PackSettings
from scanlearn.readers import dicom
from scanlearn.readers.dicom import READER
from scanlearn.readers.scan import (
    MAX_FRAMES,
    MAX_PIXELS,
    Frame,
    Header,
    ReadSettings,
    Scan,
    Undecodable,
)

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
    assert (header.num_frames, header.patient, header.has_series) == (3, "7", True)
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


def shown_on_canvas(path: Path, **chosen: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """What pack shows of a file, 0 to 1, at its own size."""
    settings = PackSettings(**chosen)
    (frame,) = read_frames(path, range(1), settings.reading())
    assert isinstance(frame.scan, Scan)
    packed, _ = canvas.place(frame.scan, frame.scan.pixels.shape[1:], 1, settings.preprocess())
    assert packed.value_range is not None
    low, high = packed.value_range
    return np.clip((packed.pixels[0].astype(float) - low) / (high - low), 0, 1), frame.notes


PADDED: list[tuple[str, int, dict[str, Any]]] = [
    ("int16", -32768, {"PixelPaddingValue": -32768}),
    ("int16", -32768, {}),  # No tag, but no measured value either.
    ("int16", -2000, {"PixelPaddingValue": -2000, "RescaleIntercept": -24, "RescaleSlope": 2}),
    ("int16", -2000, {"PixelPaddingValue": -2000, "PhotometricInterpretation": "MONOCHROME1"}),
    ("int16", 5000, {"PixelPaddingValue": 5000, "RescaleSlope": -2}),
    ("uint16", 16383, {"PixelPaddingValue": 16383, "BitsStored": 14}),
    ("uint16", 0, {"PixelPaddingValue": 0, "PhotometricInterpretation": "MONOCHROME1"}),
    ("uint16", 4090, {"PixelPaddingValue": 4080, "PixelPaddingRangeLimit": 4095}),
    ("uint16", 4090, {"PixelPaddingValue": 4095, "PixelPaddingRangeLimit": 4080}),
    ("uint16", 63536, {"PixelPaddingValue": 63536, "BitsStored": 12}),
    ("uint8", 255, {"PixelPaddingValue": 255}),
    ("int32", -(2**31), {}),
    ("uint32", 2**32 - 1, {}),
]


@pytest.mark.parametrize("intensity", ["full", "percentile"])
@pytest.mark.parametrize(("dtype", "value", "tags"), PADDED, ids=str)
def test_padding_counts_among_no_percentiles_and_is_dark(
    make_dicom: MakeDicom,
    rng: np.random.Generator,
    dtype: str,
    value: int,
    tags: dict[str, Any],
    intensity: str,
) -> None:
    tissue = rng.integers(20, 200, (40, 30)).astype(dtype)
    is_padding = rng.random(tissue.shape) < 0.3
    values = np.where(is_padding, np.array(value).astype(dtype), tissue)
    found, notes = shown_on_canvas(make_dicom(values, **tags), intensity=intensity)
    is_inverse = "PhotometricInterpretation" in tags or tags.get("RescaleSlope", 1) < 0
    bright = -tissue.astype(float) if is_inverse else tissue.astype(float)
    low, high = np.percentile(bright[~is_padding], (0.5, 99.5))
    expected = np.where(is_padding, 0, np.clip((bright - low) / (high - low), 0, 1))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert "bits beyond BitsStored left out" not in notes


def test_padding_is_no_foreground_and_black_in_every_window(
    make_dicom: MakeDicom, rng: np.random.Generator
) -> None:
    tissue = rng.integers(0, 1000, (40, 30)).astype(np.int16)
    is_padding = rng.random(tissue.shape) < 0.3
    rescale = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": 0}
    low, high = np.percentile(tissue[~is_padding], (0.5, 99.5))
    inside = tissue[~is_padding & (tissue > low + 0.05 * (high - low))]
    low, high = np.percentile(inside, (0.5, 99.5))
    for value in (-32768, -2000, 3000):
        values = np.where(is_padding, np.int16(value), tissue)
        path = make_dicom(values, PixelPaddingValue=value, **rescale)
        found, _ = shown_on_canvas(path, intensity="foreground")
        expected = np.where(is_padding, 0, np.clip((tissue - low) / (high - low), 0, 1))
        np.testing.assert_allclose(found, expected, atol=1e-4)
        found, _ = shown_on_canvas(path, window=[1500, -600])
        expected = np.where(is_padding, 0, np.clip((tissue + 1350) / 1500, 0, 1))
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("representation", "written", "stored"), [(1, "US", 63536), (0, "SS", -2000)]
)
def test_padding_whose_sign_is_mistaken_is_found(
    make_dicom: MakeDicom, deep: np.ndarray, representation: int, written: str, stored: int
) -> None:
    values = (deep // 4).astype("int16" if representation else "uint16")
    values[:4] = np.array(-2000).astype(values.dtype)
    data = pydicom.dcmread(make_dicom(values))
    data.add_new("PixelPaddingValue", written, stored)
    data.save_as(str(data.filename))
    scan = scan_in(Path(str(data.filename)))
    assert scan.padding is not None
    np.testing.assert_array_equal(scan.padding[0, :, 0], np.arange(9) < 4)


def text_in(path: Path, **texts: bytes) -> Path:
    """A file whose tags hold these bytes, which pydicom would not write."""
    data = pydicom.dcmread(path)
    for name, text in texts.items():
        tag = tag_for_keyword(name)
        assert tag is not None
        data.add_new(tag, dictionary_VR(tag), None)
        data[tag] = RawDataElement(Tag(tag), dictionary_VR(tag), len(text), text, 0, False, True)
    data.save_as(path)
    return path


@pytest.mark.parametrize(
    ("centre", "width", "limits"),
    [
        (b"2048,00", b"4096,00 ", (0, 4095)),
        (b"2048,0", b"4096", (0, 4095)),
        (b"2048.", b"4,096e3", (0, 4095)),
        (b"2048,5", b"4096", (0.5, 4095.5)),
        (b"2048,0\\300,0", b"4096,0\\20,0", (0, 4095)),
        (b"\\2048", b"\\4096", (0, 4095)),
        (b"2048\\", b"4096\\", (0, 4095)),
        (b" 2048 ", b"4096\0", (0, 4095)),
        (b"AUTO", b"4096", "WindowCenter"),
        (b"2048", b"AUTO", "WindowWidth"),
        (b"2,048", b"4096", "WindowCenter"),
        (b"1.2.3", b"4096", "WindowCenter"),
        (b"2048", b"4096px", "WindowWidth"),
        (b"", b"4096", None),
        (b"2048", b"  ", None),
    ],
)
def test_numbers_that_are_text_are_read_or_give_way_to_percentiles(
    make_dicom: MakeDicom, deep: np.ndarray, centre: bytes, width: bytes, limits: Any
) -> None:
    path = text_in(make_dicom(deep), WindowCenter=centre, WindowWidth=width)
    (frame,) = read_frames(path, range(1))
    assert isinstance(frame.scan, Scan)
    if isinstance(limits, tuple):
        assert (frame.scan.value_range, frame.notes) == (limits, ())
        return
    assert frame.scan.value_range == tuple(np.percentile(deep, (0.5, 99.5)))
    assert frame.notes == (
        () if limits is None else (f"{limits} that is no number replaced by percentiles",)
    )


@pytest.mark.parametrize(
    ("slope", "intercept", "expected"),
    [
        (b"2,5", b"-1024,0", (2.5, -1024, "HU")),
        (b"0,500", b"0", (0.5, 0, "HU")),
        (b"", b"", (1, 0, "CT values")),
        (b"AUTO", b"-1024", (1, 0, "CT values")),
        (b"1", b"1\\2", (1, 0, "CT values")),
    ],
)
def test_rescaling_in_text_is_read_or_leaves_no_units(
    make_dicom: MakeDicom, deep: np.ndarray, slope: bytes, intercept: bytes, expected: Any
) -> None:
    path = make_dicom(deep, Modality="CT", WindowCenter=40, WindowWidth=400)
    text_in(path, RescaleSlope=slope, RescaleIntercept=intercept)
    (frame,) = read_frames(path, range(1))
    assert isinstance(frame.scan, Scan)
    units = frame.scan.units
    assert units is not None
    assert (units.slope, units.intercept, units.name) == expected
    is_unread = b"AUTO" in slope or b"\\" in intercept
    assert any("that is no number: no units" in note for note in frame.notes) == is_unread


@pytest.mark.parametrize(
    ("text", "spacing"),
    [
        (b"0,5\\0,25", (0.5, 0.25)),
        (b"0,500\\0,250 ", (0.5, 0.25)),
        (b"0,5", None),
        (b"\\", None),
        (b"AUTO\\0.5", None),
        (b"-1\\1", None),
    ],
)
def test_spacing_in_text_is_read_or_unknown(
    make_dicom: MakeDicom, deep: np.ndarray, text: bytes, spacing: Any
) -> None:
    path = text_in(make_dicom(deep), PixelSpacing=text)
    assert scan_in(path).spacing_mm == spacing


@pytest.mark.parametrize(("text", "number"), [(b"3,0", 3), (b"3 ", 3), (b"AUTO", 0), (b"2,5", 0)])
def test_number_of_frames_in_text_is_read_or_refused(
    make_dicom: MakeDicom, deep: np.ndarray, text: bytes, number: int
) -> None:
    path = text_in(make_dicom(np.stack([deep, deep + 1, deep + 2])), NumberOfFrames=text)
    if number:
        assert read_header(path).num_frames == number
        np.testing.assert_array_equal(scan_in(path, 2).pixels[0], deep + 2)
        return
    for read in (read_header, lambda path: list(read_frames(path, range(1)))):
        with pytest.raises(Undecodable, match="NumberOfFrames that is no whole number"):
            read(path)


def with_high_bit(path: Path, high_bit: int) -> Path:
    data = pydicom.dcmread(path)
    data.HighBit = high_bit
    data.save_as(path)
    return path


@pytest.mark.parametrize("signed", [False, True])
def test_high_bit_elsewhere_is_shifted(
    make_dicom: MakeDicom, deep: np.ndarray, signed: bool
) -> None:
    values = deep.astype(np.int16) - 2048 if signed else deep
    path = with_high_bit(make_dicom(values << 4, BitsStored=12), 15)
    np.testing.assert_array_equal(
        scan_in(path).pixels[0], values.astype(int) + (32768 if signed else 0)
    )


@pytest.mark.parametrize(
    ("stored", "high_bit", "values", "is_read"),
    [
        (12, 15, [0, 1, 4095], False),
        (12, 16, [0, 16, 4080], False),
        (16, 11, [0, 1, 4095], True),
        (16, 11, [0, 1, 4096], False),
    ],
)
def test_high_bit_that_contradicts_the_values_is_refused(
    make_dicom: MakeDicom, stored: int, high_bit: int, values: list[int], is_read: bool
) -> None:
    pixels = np.array([values], np.uint16)
    path = with_high_bit(make_dicom(pixels, BitsStored=stored), high_bit)
    if is_read:
        np.testing.assert_array_equal(scan_in(path).pixels[0], pixels)
        return
    with pytest.raises(Undecodable, match=f"HighBit {high_bit} for {stored} bits"):
        scan_in(path)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_signed_values_under_an_unsigned_header_are_read_where_hounsfield_units_tell(
    make_dicom: MakeDicom, deep: np.ndarray, modality: str
) -> None:
    hounsfield = deep.astype(np.int16) - 1000
    rescale = {"RescaleSlope": 1, "RescaleIntercept": 0}
    path = make_dicom(hounsfield.view(np.uint16), Modality=modality, **rescale)
    (frame,) = read_frames(path, range(1))
    assert isinstance(frame.scan, Scan)
    assert frame.scan.units is not None
    measured = frame.scan.pixels[0].astype(int) + frame.scan.units.intercept
    is_told = frame.notes != ()
    assert is_told == (modality == "CT")
    np.testing.assert_array_equal(measured, hounsfield if is_told else hounsfield.view(np.uint16))
    # One bright value is a mark.
    marked = np.where(deep > 4000, 65535, deep).astype(np.uint16)
    (frame,) = read_frames(make_dicom(marked, Modality="CT", **rescale), range(1))
    assert frame.notes == ()


def test_bits_beyond_those_stored_are_left_out_and_told(
    make_dicom: MakeDicom, deep: np.ndarray
) -> None:
    overlaid = deep | np.uint16(0x8000) * (np.arange(7) % 2).astype(np.uint16)
    for overlay, notes in ((15, ()), (0, ("bits beyond BitsStored left out",))):
        path = make_dicom(overlaid, BitsStored=12)
        data = pydicom.dcmread(path)
        data.add_new((0x6000, 0x0102), "US", overlay)
        data.save_as(path)
        (frame,) = read_frames(path, range(1))
        assert isinstance(frame.scan, Scan)
        np.testing.assert_array_equal(frame.scan.pixels[0], deep)
        assert frame.notes == notes


def test_table_of_8_bits_reaches_all_of_its_entries(make_dicom: MakeDicom) -> None:
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    entries = [value // 16 for value in range(4096)]
    for name in ("VOILUTSequence", "ModalityLUTSequence"):
        item = table(entries, 8)
        item.ModalityLUTType = "US"
        scan = scan_in(make_dicom(values, **{name: [item]}))
        np.testing.assert_array_equal(scan.pixels[0], values // 16)


NO_PICTURES = [
    ("1.2.840.10008.5.1.4.1.1.66.4", {}, "is a Segmentation object"),
    ("1.2.840.10008.5.1.4.1.1.66", {}, "is a Raw Data object"),
    ("1.2.840.10008.5.1.4.1.1.66.1", {}, "is a Spatial Registration object"),
    ("1.2.840.10008.5.1.4.1.1.481.2", {}, "is a RT Dose object"),
    ("1.2.840.10008.5.1.4.1.1.481.3", {}, "is a RT Structure Set object"),
    ("1.2.840.10008.5.1.4.1.1.481.5", {}, "is a RT Plan object"),
    ("1.2.840.10008.5.1.4.1.1.88.67", {}, "is a X-Ray Radiation Dose SR object"),
    ("1.2.840.10008.5.1.4.1.1.88.59", {}, "is a Key Object Selection Document object"),
    ("1.2.840.10008.5.1.4.1.1.11.1", {}, "is a Grayscale Softcopy Presentation State object"),
    ("1.2.840.10008.5.1.4.1.1.104.1", {}, "is a Encapsulated PDF object"),
    ("1.2.840.10008.5.1.4.1.1.9.1.1", {}, "is a 12-lead ECG Waveform object"),
    ("1.2.840.10008.5.1.4.1.1.4.2", {}, "is a MR Spectroscopy object"),
    ("1.2.840.10008.5.1.4.1.1.7", {"Modality": "SR"}, "has the modality SR"),
    ("1.2.840.10008.5.1.4.1.1.7", {"Modality": "DOC"}, "has the modality DOC"),
    (
        "1.2.840.10008.5.1.4.1.1.7",
        {"Modality": "CT", "ImageType": ["DERIVED", "SECONDARY", "DOSE_INFO"]},
        "is a dose report by its image type",
    ),
]


@pytest.mark.parametrize(("sop_class", "tags", "reason"), NO_PICTURES)
def test_what_is_no_picture_of_a_patient_is_set_aside_unless_asked_for(
    make_dicom: MakeDicom, deep: np.ndarray, sop_class: str, tags: dict[str, Any], reason: str
) -> None:
    path = make_dicom(deep, SOPClassUID=sop_class, **tags)
    settings = ReadSettings()
    for read in (
        lambda: READER.header(path, settings, b""),
        lambda: list(read_frames(path, range(1), settings)),
    ):
        with pytest.raises(Undecodable, match=f"^{reason}, not a picture of a patient$"):
            read()
    assert scan_in(path).pixels.shape == (1, 9, 7)


@pytest.mark.parametrize(
    ("sop_class", "tags"),
    [
        ("1.2.840.10008.5.1.4.1.1.7", {"Modality": "OT"}),  # A scanned film.
        ("1.2.840.10008.5.1.4.1.1.7", {"Modality": "CR", "ImageType": ["DERIVED", "SECONDARY"]}),
        ("1.2.840.10008.5.1.4.1.1.7.3", {}),
        ("1.2.840.10008.5.1.4.1.1.2", {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
        ("1.2.840.10008.5.1.4.1.1.481.1", {"Modality": "RTIMAGE"}),
        ("1.2.840.10008.5.1.4.1.1.30", {}),  # A parametric map, such as of diffusion.
        ("1.2.840.10008.5.1.4.1.1.77.1.5.1", {"Modality": "OP"}),
        ("1.2.840.10008.5.1.4.1.1.130", {"Modality": "PT"}),
        ("1.2.3.4", {}),
    ],
)
def test_pictures_of_patients_stay(
    make_dicom: MakeDicom, deep: np.ndarray, sop_class: str, tags: dict[str, Any]
) -> None:
    path = make_dicom(deep, SOPClassUID=sop_class, **tags)
    assert len(list(read_frames(path, range(1), ReadSettings()))) == 1
