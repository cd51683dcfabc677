"""What the benchmarks share: options, scans as files, rates by turns, and the table of figures."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import shutil
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from scanlearn.phantom.phantom import PhantomSpec, draw_phantom

# Figure: ">=" or "<=", and the number.
Goals = Mapping[str, tuple[str, float]]


def options(
    description: str | None, *, quick: str, only: str | None = None, data: bool = False
) -> argparse.ArgumentParser:
    """Returns a parser with the options that benchmarks have in common.

    Args:
        quick: What --quick means here.
        only: What --only chooses; None leaves the option out.
        data: Whether the benchmark can measure real scans, found under --data.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=quick)
    if only is not None:
        parser.add_argument("--only", default="", help=only)
    if data:
        folder = os.environ.get("SCANLEARN_DATA")
        parser.add_argument("--data", type=Path, default=folder, help="folder of the real scans")
    parser.add_argument("--json", type=Path, help="write the figures as one flat object")
    return parser


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """Yields a folder that is removed afterwards; the user's own key and cache stay untouched."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        key = folder / "key"
        key.write_text("0123456789abcdef" * 4)
        key.chmod(0o600)
        os.environ.update(SCANLEARN_KEY=str(key), SCANLEARN_CACHE=str(folder / "cache"))
        yield folder


def hush() -> None:
    """Keeps Lightning's notes and all warnings out of the figures."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keeps what the code under test prints out of the figures."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def draw(count: int, side: int, channels: int) -> Iterator[Image.Image]:
    """Yields phantoms as pictures of ``side`` pixels."""
    spec = PhantomSpec(patients=(count + 1) // 2, height=96, width=96, channels=channels)
    for index in range(count):
        pixels = draw_phantom(spec, index).pixels
        image = Image.fromarray(pixels[0] if channels == 1 else np.moveaxis(pixels, 0, -1))
        yield image.resize((side, side))


def draw_files(folder: Path, count: int, side: int, channels: int = 1) -> list[Path]:
    """Draws phantoms and saves them as JPEG of ``side`` pixels."""
    folder.mkdir()
    files = [folder / f"{index:03d}.jpg" for index in range(count)]
    for file, image in zip(files, draw(count, side, channels), strict=True):
        image.save(file, quality=90)
    return files


def real_files(data: Path, *folders: str) -> list[Path]:
    """Returns the JPEG files in folders of the real scans."""
    return [file for folder in folders for file in sorted((data / folder).glob("*.jp*g"))]


def link_files(files: Sequence[Path], folder: Path, count: int) -> Path:
    """Fills a folder with ``count`` files: copies of the given ones and further names of these."""
    folder.mkdir()
    copies = [folder / f"{index:06d}{file.suffix}" for index, file in enumerate(files[:count])]
    for file, copy in zip(files, copies, strict=False):
        shutil.copyfile(file, copy)
    for index in range(len(copies), count):
        copy = copies[index % len(copies)]
        os.link(copy, folder / f"{index:06d}{copy.suffix}")
    return folder


def interleaved(
    ways: Mapping[str, Callable[[], float]], repeats: int, unit: str | None = None
) -> dict[str, list[float]]:
    """Returns each way's figure in every repeat; in each repeat every way has its turn.

    A machine that slows down for a while slows all ways.

    Args:
        ways: What to run, by name; each returns its figure, such as a rate.
        unit: Prints each figure in this unit as it comes; None prints nothing.
    """
    figures: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats):
        for name, run in ways.items():
            figures[name].append(run())
            if unit is not None:
                figure = f"{figures[name][-1]:10.1f} {unit}"
                print(f"  repeat {repeat + 1}  {name:30s} {figure}", flush=True)
    return figures


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Returns the median of the ratios within each repeat, not the ratio of the medians."""
    pairs = zip(numerators, denominators, strict=True)
    return statistics.median(numerator / denominator for numerator, denominator in pairs)


def report(figures: Mapping[str, float], goals: Goals, path: Path | None) -> None:
    """Prints the figures with their goals; writes them as JSON too, unless ``path`` is None."""
    print(f"\n{'figure':44s} {'value':>10s}  goal")
    for name, value in figures.items():
        goal = "{} {:g}".format(*goals[name]) if name in goals else ""
        print(f"{name:44s} {value:10.3f}  {goal}".rstrip())
    save(figures, path)


def save(figures: Mapping[str, float], path: Path | None) -> None:
    """Writes the figures as one flat JSON object, unless ``path`` is None."""
    if path is not None:
        path.write_text(json.dumps(figures, indent=2) + "\n")
