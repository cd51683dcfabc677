"""How fast scans are packed and read back, beside what it could be and beside other ways.

    python benchmarks/pack.py                  five repeats
    python benchmarks/pack.py --quick          two repeats of fewer scans, noisier
    python benchmarks/pack.py --only read      the parts whose names hold a word
    python benchmarks/pack.py --memory         most memory of packing 100,000 scans too

Packed with the default settings, from the list of files to the archive (its contact sheet and
page aside), are

- fundus: photographs of about 1,900 x 1,900 px, JPEG;
- xray: X-rays of 224 to 300 px, JPEG;
- dicom: a mix of transfer syntaxes, depths and sizes.

The limit is the decode call that packing makes, with the same options, in a bare loop that runs in
a process on each core at once, start-up aside. What one such loop does alone, times the cores, is
told too: cores that share a unit do less together.

Random batches of 256 scans at 256 x 256 are read back, beside numpy's memmap of one big array and
beside a DataLoader over the JPEG files with a worker on each core.

Ways are interleaved and medians taken, so that a machine that slows down slows all of them. Files
are in the page cache. They come from $SCANLEARN_DATA or --data; without either, phantoms are drawn.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from common import (
    draw,
    draw_files,
    interleaved,
    link_files,
    median_ratio,
    options,
    real_files,
    report,
    silence,
    workplace,
)
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from scanlearn.archive.layout import Origin, PackedScan
from scanlearn.archive.reader import Archive
from scanlearn.archive.writer import ArchiveWriter
from scanlearn.packing.headers import scan_headers
from scanlearn.packing.pack import pack
from scanlearn.packing.parallel import num_cores
from scanlearn.packing.prepare import make_plan
from scanlearn.packing.settings import PackSettings
from scanlearn.readers.readers import read_frames, read_header
from scanlearn.readers.scan import ReadSettings, Undecodable
from scanlearn.tables.manifest import read_manifest

GOALS = {
    "pack_fundus_vs_limit": (">=", 0.85),
    "pack_xray_vs_limit": (">=", 0.85),
    "pack_dicom_vs_limit": (">=", 0.85),
    "read_vs_memmap": (">=", 0.9),
    "read_vs_pil_loader": (">=", 20.0),
    "peak_mb_100k": ("<=", 2000.0),
}
SIDE, BATCH = 256, 256
NUM_MANY, MANY_SIDE = 100_000, 32


class Size(NamedTuple):
    """How much is measured."""

    repeats: int
    fundus: int
    xray: int
    dicom: int
    read: int
    batches: int


FULL = Size(repeats=5, fundus=5000, xray=60_000, dicom=4000, read=8000, batches=100)
QUICK = Size(repeats=2, fundus=1500, xray=20_000, dicom=1000, read=4000, batches=40)


def draw_dicom(folder: Path, count: int) -> list[Path]:
    """Draws phantoms of 512 px and saves them as DICOM of 12 bits, uncompressed."""
    folder.mkdir()
    files = [folder / f"{index:03d}.dcm" for index in range(count)]
    for file, image in zip(files, draw(count, 512, 1), strict=True):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", f"1.2.{len(files)}"
        data.PatientID, data.Rows, data.Columns = file.stem, 512, 512
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
        data.PixelData = (np.asarray(image).astype(np.uint16) * 16).tobytes()
        data.save_as(file, enforce_file_format=True)
    return files


def is_readable(file: Path) -> bool:
    try:
        frames = range(read_header(file, ReadSettings()).num_frames)
        return not any(
            isinstance(frame.scan, Undecodable)
            for frame in read_frames(file, frames, ReadSettings())
        )
    except Undecodable:
        return False


def sources(data: Path | None, work: Path, size: Size) -> dict[str, Path]:
    """Folders with the files of each kind."""
    if data is None:
        fundus = draw_files(work / "drawn_fundus", 12, 1900, channels=3)
        xray = draw_files(work / "drawn_xray", 200, SIDE)
        dicom = draw_dicom(work / "drawn_dicom", 24)
    else:
        fundus = real_files(data, "hygd/originals")
        xray = real_files(data, "kermany_cxr/images", "nih1000/images")
        # Spread, so that fewer files are the same mix.
        xray = xray[:: max(1, len(xray) // size.xray)]
        dicom = sorted((data / "readers" / "dicom").rglob("*.dcm"))
        dicom = [file for file in dicom if is_readable(file)]
    return {
        "fundus": link_files(fundus, work / "fundus", size.fundus),
        "xray": link_files(xray, work / "xray", size.xray),
        "dicom": link_files(dicom, work / "dicom", size.dicom),
    }


class Work(NamedTuple):
    """Files to decode as packing does."""

    files: list[Path]
    num_frames: list[int]
    read: ReadSettings


def work_of(folder: Path) -> Work:
    """The decode calls that packing a folder makes."""
    settings = PackSettings()
    manifest, found = scan_headers(read_manifest(folder), settings.reading(), workers=1)
    side = settings.canvas
    assert isinstance(side, int)
    plan = make_plan(
        found,
        canvas=(side, side),
        channels=settings.channels,
        preprocess=settings.preprocess(),
        settings=settings.reading(),
    )
    files = [folder / str(path) for path, _, _ in manifest.rows()]
    return Work(files, list(found.num_frames), plan.read)


def decode_all(work: Work, barrier: Any, seconds: Any) -> None:
    """The bare loop."""
    for file in work.files[:3]:  # Decoders are imported at their first use.
        for _ in read_frames(file, range(1), work.read):
            pass
    barrier.wait()
    start = time.perf_counter()
    for file, num_frames in zip(work.files, work.num_frames, strict=True):
        for _ in read_frames(file, range(num_frames), work.read):
            pass
    seconds.put(time.perf_counter() - start)


def loop_rate(work: Work, processes: int) -> float:
    """Scans/s of the bare loop in some processes at once."""
    context = multiprocessing.get_context("spawn")
    barrier, seconds = context.Barrier(processes), context.Queue()
    running = []
    for index in range(processes):
        part = Work(work.files[index::processes], work.num_frames[index::processes], work.read)
        running.append(context.Process(target=decode_all, args=(part, barrier, seconds)))
    for process in running:
        process.start()
    slowest = max(seconds.get() for _ in running)
    for process in running:
        process.join()
    return sum(work.num_frames) / slowest


def pack_rate(folder: Path) -> float:
    """Scans/s of packing."""
    target = folder.with_name(f"{folder.name}_packed")
    with silence():
        start = time.perf_counter()
        archive = pack(folder, target, settings=PackSettings(summary=False))
        seconds = time.perf_counter() - start
    assert archive.num_rejected == 0, target
    shutil.rmtree(target)
    return len(archive) / seconds


def measure_packing(name: str, folder: Path, size: Size) -> dict[str, float]:
    work, cores = work_of(folder), num_cores()
    # A quarter of the files in one process takes as long as all of them in four.
    part = Work(work.files[::4], work.num_frames[::4], work.read)
    ways = {
        f"{name} pack": lambda: pack_rate(folder),
        f"{name} limit": lambda: loop_rate(work, cores),
        f"{name} alone": lambda: loop_rate(part, 1),
    }
    packing, limit, alone = interleaved(ways, size.repeats, "scans/s").values()
    return {
        f"pack_{name}_scans_per_s": statistics.median(packing),
        f"limit_{name}_scans_per_s": statistics.median(limit),
        f"pack_{name}_vs_limit": median_ratio(packing, limit),
        f"pack_{name}_vs_one_loop_x_cores": median_ratio(packing, alone) / cores,
    }


class Pictures(torch.utils.data.Dataset[torch.Tensor]):
    """JPEG files as a plain script reads them."""

    def __init__(self, folder: Path) -> None:
        self._files = sorted(folder.iterdir())

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self._files[index]) as image:
            gray = image.convert("L").resize((SIDE, SIDE))
        return torch.from_numpy(np.array(gray))[None]


def loader_rate(folder: Path, batches: int) -> float:
    """Scans/s of a DataLoader over files, its start aside."""
    loader = torch.utils.data.DataLoader(
        Pictures(folder), batch_size=BATCH, shuffle=True, drop_last=True, num_workers=num_cores()
    )
    waiting = iter(loader)
    for _ in range(2 * num_cores()):
        next(waiting)  # What was fetched ahead before the clock starts.
    batches = min(batches, len(loader) - 2 * num_cores())
    start = time.perf_counter()
    for _ in range(batches):
        next(waiting)
    return batches * BATCH / (time.perf_counter() - start)


def measure_reading(work: Path, folder: Path, size: Size) -> dict[str, float]:
    rng = np.random.default_rng(0)
    some = rng.integers(0, 256, (64, 1, SIDE, SIDE)).astype(np.uint8)
    shape = (size.read, 1, SIDE, SIDE)
    big = np.memmap(work / "big", np.uint8, "w+", shape=shape)
    with ArchiveWriter(work / "read", shape=shape[1:], dtype=np.uint8) as writer:
        for index in range(size.read):
            big[index] = some[index % len(some)]
            writer.add(PackedScan(some[index % len(some)]), Origin(str(index), str(index)))
        archive = writer.close()
    big.flush()
    big = np.memmap(work / "big", np.uint8, "r", shape=shape)
    everything = np.arange(size.read)
    for start in range(0, size.read, BATCH):  # Both are mapped and in the page cache.
        rows = everything[start : start + BATCH]
        np.testing.assert_array_equal(archive.gather(rows).pixels.numpy(), big[rows])

    def rate(read: Callable[[Any], object]) -> float:
        batches = [rng.integers(0, size.read, BATCH) for _ in range(size.batches)]
        start = time.perf_counter()
        for rows in batches:
            read(rows)
        return size.batches * BATCH / (time.perf_counter() - start)

    # Short turns, many times: a disturbance meets few of them.
    ways = {"archive": lambda: rate(archive.gather), "memmap": lambda: rate(lambda rows: big[rows])}
    turns = interleaved(ways, 5 * size.repeats)
    loader = {"read loader": lambda: loader_rate(folder, 20)}
    (loaded,) = interleaved(loader, size.repeats, "scans/s").values()
    ours = statistics.median(turns["archive"])
    return {
        "read_scans_per_s": ours,
        "memmap_scans_per_s": statistics.median(turns["memmap"]),
        "pil_loader_scans_per_s": statistics.median(loaded),
        "read_vs_memmap": median_ratio(turns["archive"], turns["memmap"]),
        "read_vs_pil_loader": ours / statistics.median(loaded),
    }


PACK_MANY = """
import sys
from scanlearn.packing.pack import pack
from scanlearn.packing.settings import PackSettings
pack(sys.argv[1], sys.argv[2], settings=PackSettings(canvas=int(sys.argv[3])))
"""


def children_of(process: int) -> list[int]:
    """A process and all that descend from it."""
    found = [process]
    for one in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                found.extend(int(child) for child in (task / "children").read_text().split())
    return found


def memory_mb(process: int) -> float:
    """Memory of a process and its descendants; what they share is counted once."""
    total = 0
    for one in children_of(process):
        with contextlib.suppress(OSError, StopIteration, ValueError):
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def measure_memory(work: Path) -> dict[str, float]:
    """Most memory, over all its processes, of packing many small scans."""
    files = draw_files(work / "few", 500, 2 * MANY_SIDE)
    folder = link_files(files, work / "many", NUM_MANY)
    command = [sys.executable, "-c", PACK_MANY, str(folder), str(work / "many_packed")]
    peak, start = 0.0, time.perf_counter()
    with subprocess.Popen(
        [*command, str(MANY_SIDE)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None:
            peak = max(peak, memory_mb(process.pid))
            time.sleep(0.1)
    assert process.returncode == 0
    assert len(Archive(work / "many_packed")) == NUM_MANY
    return {"peak_mb_100k": peak, "pack_100k_s": time.perf_counter() - start}


def measure(work: Path, arguments: argparse.Namespace) -> dict[str, float]:
    size = QUICK if arguments.quick else FULL
    print(f"{num_cores()} cores, {size.repeats} repeats")
    folders = sources(arguments.data, work, size)
    figures: dict[str, float] = {}
    for name, folder in folders.items():
        if arguments.only in f"pack_{name}":
            figures |= measure_packing(name, folder, size)
    if arguments.only in "read":
        figures |= measure_reading(work, folders["xray"], size)
    if arguments.memory:
        figures |= measure_memory(work)
    return figures


def main() -> None:
    parser = options(
        __doc__,
        quick="fewer repeats of fewer scans",
        only="parts whose names contain this word",
        data=True,
    )
    parser.add_argument("--memory", action="store_true", help="most memory of 100,000 scans too")
    arguments = parser.parse_args()
    with workplace() as folder:
        figures = measure(folder, arguments)
    report(figures, GOALS, arguments.json)


if __name__ == "__main__":
    main()
