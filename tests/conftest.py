from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from scanlearn.files import cache_folder


@pytest.fixture(autouse=True, scope="session")
def site_key(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Key and cache are those of the tests; the user's own stay untouched."""
    # What was compiled holds nothing of anybody's: compiling it anew would take half a minute.
    os.environ.setdefault("NUMBA_CACHE_DIR", str(cache_folder() / "compiled"))
    key = Path(tmp_path_factory.mktemp("site")) / "key"
    os.environ["SCANLEARN_CACHE"] = str(key.with_name("cache"))
    key.write_text("0123456789abcdef" * 4)
    key.chmod(0o600)
    os.environ["SCANLEARN_KEY"] = str(key)
    # Compiled here where it is not yet, which no command that is tested then has to tell.
    import_module("scanlearn.views.kernel")


@pytest.fixture
def make_dicom(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes stored values into a DICOM file, gray unless tags say otherwise."""

    def make(pixels: np.ndarray, name: str = "a.dcm", **tags: Any) -> Path:
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
        data.SOPInstanceUID = f"1.2.{len(name)}"
        colours = tags.get("SamplesPerPixel", 1)
        shape = pixels.shape[:-1] if colours > 1 else pixels.shape
        if len(shape) == 3:
            data.NumberOfFrames = shape[0]
        data.Rows, data.Columns = shape[-2:]
        data.SamplesPerPixel, data.PhotometricInterpretation = colours, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 8 * pixels.dtype.itemsize
        data.PixelRepresentation = int(pixels.dtype.kind == "i")
        data.PlanarConfiguration = 0
        for tag, value in tags.items():
            setattr(data, tag, value)
        data.HighBit = data.BitsStored - 1
        data.PixelData = pixels.tobytes()
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        data.save_as(tmp_path / name, enforce_file_format=True)
        return tmp_path / name

    return make
