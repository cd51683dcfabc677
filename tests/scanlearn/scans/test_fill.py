from __future__ import annotations

import hashlib
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from scanlearn.scans import fill, shards
from scanlearn.scans.archive import Archive
from scanlearn.scans.pack import pack
from scanlearn.scans.settings import PackSettings

SMALL = PackSettings(canvas=32, workers=1)

# Ends itself, as kill -9 does, at a place in the work that its last argument names.
KILLED = """
import os, signal, sys
from scanlearn.scans import pack as module
from scanlearn.scans import checkpoint, shards

shards.MAX_SCANS_PER_BATCH = shards.BATCHES_PER_SHARD = 2
where, opened, written = sys.argv[3], [], []

def end():
    os.kill(os.getpid(), signal.SIGKILL)

class Sink:
    def __init__(self, path):
        self._file, self._number = path.open("wb"), len(opened)
        opened.append(path)

    def write(self, data):
        if where == "inside a shard" and self._number == 2 and len(data) > 2000:
            self._file.write(bytes(data)[:1000])
            self._file.flush()
            end()
        return self._file.write(data)

    def __getattr__(self, name):
        return getattr(self._file, name)

write = checkpoint.Checkpoint.write

def counted(self, folder):
    written.append(folder)
    if where == "before a checkpoint" and len(written) == 3:
        end()
    write(self, folder)
    if where == "after a checkpoint" and len(written) == 3:
        end()

shards._open_sink, checkpoint.Checkpoint.write = Sink, counted
module.pack(sys.argv[1], sys.argv[2], settings=module.PackSettings(canvas=32, workers=1))
"""
KEPT = {"inside a shard": 2, "before a checkpoint": 2, "after a checkpoint": 3}


@pytest.fixture
def source(make_scans: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures, two broken files and a volume with empty slices, in shards of four scans."""
    monkeypatch.setattr(shards, "MAX_SCANS_PER_BATCH", 2)
    monkeypatch.setattr(shards, "BATCHES_PER_SHARD", 2)
    folder = make_scans(6)
    voxels = np.random.default_rng(0).integers(1, 255, (16, 12, 9)).astype(np.uint8)
    voxels[:, :, 4] = 0
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), folder / "scan000a.nii")
    (folder / "scan000b.png").write_text("no picture")
    (folder / "scan001b.png").touch()
    return folder


def digest(archive: Archive) -> dict[str, str]:
    files = sorted(path for path in archive.path.rglob("*") if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def pack_until_killed(source: Path, target: Path, where: str) -> Path:
    """Returns the folder that the killed process left."""
    command = [sys.executable, "-c", KILLED, str(source), str(target), where]
    done = subprocess.run(command, capture_output=True, check=False, timeout=120)
    assert done.returncode == -9, done.stderr
    (left,) = target.parent.glob(f".{target.name}.partial-*")
    assert not target.exists()
    return left


@pytest.mark.parametrize(
    "where",
    [
        "inside a shard",
        pytest.param("before a checkpoint", marks=pytest.mark.long),
        pytest.param("after a checkpoint", marks=pytest.mark.long),
    ],
)
def test_killed_packing_is_gone_on_with_and_ends_in_the_same_bytes(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    whole = pack(source, tmp_path / "whole", settings=SMALL)
    left = pack_until_killed(source, tmp_path / "a", where)
    names = [f"{number:05d}.arrow" for number in range(KEPT[where])]
    before = {name: (left / "shards" / name).stat() for name in names}
    capsys.readouterr()
    archive = pack(source, tmp_path / "a", settings=SMALL)
    assert f"going on after the {4 * KEPT[where]} scans" in capsys.readouterr().out
    for name in names:
        found = (archive.path / "shards" / name).stat()
        assert (found.st_ino, found.st_mtime_ns) == (
            before[name].st_ino,
            before[name].st_mtime_ns,
        )
    assert digest(archive) == digest(whole)
    assert archive.info["notes"] == {"empty slices left out": 1}
    assert archive.num_rejected == 2
    assert not list(tmp_path.glob(".a.partial-*"))


@pytest.mark.long
def test_changed_source_or_settings_start_over(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack_until_killed(source, tmp_path / "a", "after a checkpoint")
    pack(source, tmp_path / "a", settings=PackSettings(canvas=16, workers=1))
    assert "going on" not in capsys.readouterr().out
    pack_until_killed(source, tmp_path / "b", "after a checkpoint")
    os.utime(source / "scan002.png", (1, 1))
    pack(source, tmp_path / "b", settings=SMALL)
    assert "going on" not in capsys.readouterr().out
    assert not list(tmp_path.glob(".*.partial-*"))


def test_interrupted_packing_is_gone_on_with_in_the_same_process(
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from scanlearn.scans.archive import ArchiveWriter

    add = ArchiveWriter.add

    def interrupted(self: ArchiveWriter, *args: object, **named: object) -> bool:
        if self.num_scans == 9:
            raise KeyboardInterrupt
        return add(self, *args, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(ArchiveWriter, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pack(source, tmp_path / "a", settings=SMALL)
    archive = pack(source, tmp_path / "a", settings=SMALL)
    assert "going on after the 8 scans" in capsys.readouterr().out
    assert digest(archive) == digest(pack(source, tmp_path / "whole", settings=SMALL))


# Of a module on the path, where the processes that call it find it.
CRASHING = """
import os
from scanlearn.scans import prepare as module

def prepare(plan, job):
    if job.path.name == "scan002.png":
        os._exit(3)
    return module.prepare(plan, job)
"""


def test_decoder_that_crashes_costs_its_file_alone_though_there_are_few(
    make_scans: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "crashing_decoder.py").write_text(CRASHING)
    monkeypatch.syspath_prepend(str(tmp_path))
    crashing = importlib.import_module("crashing_decoder")
    monkeypatch.setattr(fill, "prepare", crashing.prepare)
    archive = pack(make_scans(5), tmp_path / "a", settings=PackSettings(canvas=32))
    assert len(archive) == 4
    assert "brings down the process" in (archive.path / "rejected.csv").read_text()


def test_masks_and_pixels_are_the_same_from_one_process_and_from_two(tmp_path: Path) -> None:
    folder = tmp_path / "fundus"
    folder.mkdir()
    rows, columns = np.mgrid[:140, :160] - 75
    for index in range(60):
        inside = (rows - index / 8) ** 2 + columns**2 < (40 + index / 3) ** 2
        drawn = np.where(inside[..., None], (180, 90 + index, 40), 0).astype(np.uint8)
        Image.fromarray(drawn).save(folder / f"{index:02d}.png")
    one, two = (
        pack(
            folder,
            tmp_path / f"with_{workers}",
            settings=PackSettings(canvas=96, workers=workers, field_of_view="fundus"),
        )
        for workers in (1, 2)
    )
    assert digest(two) == digest(one)
    masks = one.gather(np.arange(60)).mask
    assert masks is not None
    assert len({mask.numpy().tobytes() for mask in masks}) > 30
