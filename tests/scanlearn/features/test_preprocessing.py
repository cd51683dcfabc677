from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from scanlearn.backbones.backbone import BackboneConfig, build_backbone
from scanlearn.backbones.card import Card
from scanlearn.backbones.weights import export_backbone
from scanlearn.errors import ScanlearnError
from scanlearn.features.extract import whole_scans
from scanlearn.features.preprocessing import load_preprocessing
from scanlearn.packing.settings import PackSettings
from scanlearn.packing.sources import open_archive

SIZE = 32


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gray PNG, a colour PNG, one of 16 bits and a CT slice, none of them square."""
    folder = tmp_path_factory.mktemp("files")
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (70, 50), np.uint8)).save(folder / "gray.png")
    Image.fromarray(random.integers(0, 256, (40, 90, 3), np.uint8)).save(folder / "colour.png")
    Image.fromarray(random.integers(0, 65536, (60, 300)).astype(np.uint16)).save(
        folder / "deep.png"
    )
    scan = pydicom.Dataset()
    scan.file_meta = pydicom.dataset.FileMetaDataset()
    scan.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    scan.SOPClassUID = scan.file_meta.MediaStorageSOPClassUID = CTImageStorage
    scan.SOPInstanceUID = scan.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    scan.Modality, scan.PatientID = "CT", "7"
    scan.Rows, scan.Columns, scan.SamplesPerPixel = 48, 64, 1
    scan.PhotometricInterpretation = "MONOCHROME2"
    scan.BitsAllocated, scan.BitsStored, scan.HighBit, scan.PixelRepresentation = 16, 16, 15, 1
    scan.RescaleSlope, scan.RescaleIntercept = 1, -1024
    scan.PixelData = random.integers(0, 3000, (48, 64)).astype(np.int16).tobytes()
    scan.save_as(folder / "slice.dcm", enforce_file_format=True)
    return folder


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("scanlearn.backbones.weights.check_reload", lambda *_: 0.0)

    def make(channels: int, **packing: object) -> Path:
        backbone = build_backbone(BackboneConfig(name="test_resnet"), channels, 0, size=SIZE)
        statistics = {"mean": (0.41,) * channels, "std": (0.23,) * channels}
        card = Card.of(backbone, size=SIZE, packing=packing, **statistics)
        return export_backbone(backbone, tmp_path / "backbone", card)

    return make


@pytest.mark.parametrize(
    ("channels", "packing", "names"),
    [
        (1, {}, ("gray.png", "colour.png", "deep.png", "slice.dcm")),
        (3, {"canvas": 40, "intensity": "percentile"}, ("gray.png", "colour.png", "deep.png")),
        (1, {"window": "lung"}, ("slice.dcm",)),
        (3, {"window": ["lung", "mediastinum", "bone"]}, ("slice.dcm",)),
        (1, {"fit": "crop", "canvas": [48, 40]}, ("gray.png", "deep.png")),
    ],
)
def test_a_file_is_shown_as_evaluate_shows_it_to_the_bit(
    files: Path, tmp_path: Path, exported, channels: int, packing: dict, names: tuple[str, ...]
) -> None:
    from scantune.evaluation.backbone import packing_of_backbone

    folder = exported(channels, **packing)
    preprocessing = load_preprocessing(folder)
    table = tmp_path / "labels.csv"
    table.write_text("path,patient_id\n" + "".join(f"{files / n},{n}\n" for n in names))
    settings = PackSettings(**packing_of_backbone(folder))
    archive = open_archive(table, settings=settings, cache=tmp_path / "cache")
    rows = np.arange(len(archive))
    view = (SIZE, (0.41,) * channels, (0.23,) * channels)
    ((_, views),) = whole_scans(archive, rows, *view, 8, torch.device("cpu"))
    assert len(archive) == len(names)
    for path, expected in zip(archive.paths(), views, strict=True):
        assert torch.equal(preprocessing(files / Path(path).name), expected), path


def test_a_square_picture_is_resized_and_standardised(tmp_path: Path, exported) -> None:
    Image.fromarray(np.full((SIZE, SIZE), 51, np.uint8)).save(tmp_path / "flat.png")
    view = load_preprocessing(exported(1))(tmp_path / "flat.png")
    torch.testing.assert_close(view, torch.full((1, SIZE, SIZE), (51 / 255 - 0.41) / 0.23))


def test_timm_alone_shows_a_picture_as_we_do(tmp_path: Path, exported) -> None:
    """Its resampling and the grey beside the scan differ a little; mean, std and aspect do not."""
    import timm
    from timm.data import create_transform, resolve_model_data_config

    ramp = np.linspace(20, 230, 80)[:, None] * np.linspace(0.4, 1, 50)
    Image.fromarray(ramp.astype(np.uint8)).save(tmp_path / "ramp.png")
    folder = exported(1)
    model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0)
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    with Image.open(tmp_path / "ramp.png") as picture:
        theirs = transform(picture)
    ours = load_preprocessing(folder)(tmp_path / "ramp.png")
    inside = slice(7, -7)  # 50 of 80 columns are 20 of 32.
    assert (theirs - ours)[:, :, inside].abs().max() < 0.1
    assert ours.std() > 0.5


@pytest.mark.parametrize(
    ("packing", "message"),
    [
        ({"root": "/somewhere"}, r"card\.json: packing names 'root', which changes no pixels"),
        ({"canvass": 3}, r"'canvass' is not a key \(did you mean 'canvas'\?\)"),
        ({"canvas": -3}, r"packing.*canvas"),
    ],
)
def test_a_card_that_packs_otherwise_is_refused(exported, packing: dict, message: str) -> None:
    with pytest.raises(ScanlearnError, match=message):
        load_preprocessing(exported(1, **packing))


def test_channels_that_no_scan_is_packed_into_are_refused(exported) -> None:
    with pytest.raises(ScanlearnError, match=r"takes 4 channels, but .* 1 or 3; load_backbone"):
        load_preprocessing(exported(4))


def test_a_file_that_is_no_scan_or_has_several_is_one_sentence(tmp_path: Path, exported) -> None:
    preprocessing = load_preprocessing(exported(1))
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ScanlearnError, match=r"text\.png: cannot be read"):
        preprocessing(tmp_path / "text.png")
    volume = np.zeros((9, 9, 2), np.int16)
    volume[:, :, 1] = np.arange(81).reshape(9, 9)
    volume[:, :, 0] = 80 - volume[:, :, 1]
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "two.nii")
    with pytest.raises(ScanlearnError, match="has 2 scans; name one with frame=, from 1 to 2"):
        preprocessing(tmp_path / "two.nii")
    first, second = (preprocessing(tmp_path / "two.nii", frame=frame) for frame in (1, 2))
    assert not torch.equal(first, second)
    with pytest.raises(ScanlearnError, match="has no scan 3"):
        preprocessing(tmp_path / "two.nii", frame=3)
