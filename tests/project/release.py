"""What needs further installations: the wheel alone, and the oldest and newest dependencies.

Run by ``make release-check``, which needs a network. Builds the source distribution and, from it,
the wheel; each row of the table that it prints is a fresh environment in which the wheel is tried
from an empty folder, and then the tests, unless ``--without-tests`` is given.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Of Python 3; one for which torch has no wheels fails at its first step.
MINORS = (11, 12, 13, 14)
SHOWN = ("torch", "torchvision", "timm", "numpy", "pydantic")
SCANS = """
import csv, pathlib, numpy, PIL.Image
rng = numpy.random.default_rng(0)
pathlib.Path("scans").mkdir()
with open("labels.csv", "w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(["path", "patient_id", "bright"])
    for i in range(24):
        pixels = rng.integers(0, 150, (48, 40)) + 90 * (i % 2)
        PIL.Image.fromarray(pixels.astype("uint8")).save(f"scans/{i}.png")
        rows.writerow([f"scans/{i}.png", f"p{i // 2}" if i % 2 else f"q{i // 2}", i % 2])
"""
SMALL = ("batch_size=8", "steps=2", "views.size=32", "backbone.name=test_resnet", "device=cpu")
COMMANDS = {
    "pack": ("scanlearn", "pack", "scans", "archive"),
    "pretrain": ("scanlearn", "pretrain", "simclr", "archive=archive", "output=run", *SMALL),
    "export": ("scanlearn", "export", "run", "backbone"),
    "evaluate": (
        *("scantune", "evaluate", "backbone", "labels.csv", "target=bright", "folds=2"),
        *("label_seeds=1", "output=scores"),
    ),
    "predict": ("scantune", "predict", "scores/classifier", "scans", "output=predictions.csv"),
    # By its name: the shipped files are in the wheel.
    "compare": (
        *(
            "scantune",
            "compare",
            "demo",
            "output=study",
            "unlabeled=phantom:patients=24,size=32x32",
        ),
        *("labels=phantom:patients=24,seed=1,size=32x32", "seeds=[0]", "evaluation.folds=2"),
        *("evaluation.label_seeds=1", "evaluation.budgets=[all]"),
        *(f"pretrain.{word}" for word in SMALL),
    ),
}


@dataclass
class Row:
    """What was found in one environment: a word for each column."""

    name: str
    cells: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def attempt(self, column: str, words: Sequence[object], folder: Path) -> bool:
        """Runs a command; its seconds are the cell, or ``FAILED`` and the end of what it said."""
        print("$", *words, flush=True)
        started = time.monotonic()
        done = subprocess.run(
            [str(word) for word in words],
            cwd=folder,
            env=os.environ | {"SCANLEARN_CACHE": str(folder / "cache"), "PYTHONPATH": ""},
            capture_output=True,
            text=True,
        )
        self.cells[column] = f"{time.monotonic() - started:.0f} s"
        if done.returncode:
            self.cells[column] = "FAILED"
            told = f"{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
            self.failures.append(f"{self.name}: {' '.join(map(str, words))}\n{told}")
        return not done.returncode


def uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else shutil.which("uv") or "uv"


def interpreters() -> list[str]:
    """Returns the Pythons on PATH from the oldest that is admitted on."""
    names = [name for name in (f"python3.{minor}" for minor in MINORS) if shutil.which(name)]
    # A shim of pyenv may stand there without its Python.
    return [name for name in names if not subprocess.call([name, "-V"], stderr=subprocess.DEVNULL)]


def check(folder: Path, wheel: Path, python: str, resolution: str, *, with_tests: bool) -> Row:
    """Installs the wheel with the oldest or the newest dependencies and tries it."""
    version = subprocess.run([python, "-V"], capture_output=True, text=True).stdout.split()[-1]
    row = Row(f"Python {version}, {resolution}")
    pins, venv, place = folder / "pins.txt", folder / "venv", folder / "empty"
    place.mkdir(parents=True)
    direct = "lowest-direct" if resolution == "oldest" else "highest"
    extras = ("--extra", "dev") if with_tests else ()
    project = ROOT / "pyproject.toml"
    words = ("--quiet", "--python", python, "--resolution", direct, *extras, "--output-file", pins)
    into = ("--quiet", "--python", venv / "bin" / "python")
    steps = (
        ("resolve", (uv(), "pip", "compile", project, *words)),
        ("venv", (uv(), "venv", "--quiet", "--python", python, venv)),
        ("install", (uv(), "pip", "install", *into, "-r", pins, wheel)),
    )
    if not all(row.attempt(name, step, folder) for name, step in steps):
        return row
    versions = dict(line.split("==") for line in pins.read_text().split() if "==" in line)
    row.cells |= {name: versions[name] for name in SHOWN}
    row.attempt("scans", (venv / "bin" / "python", "-c", SCANS), place)
    for name, (program, *rest) in COMMANDS.items():
        row.attempt(name, (venv / "bin" / program, *rest), place)
    if with_tests:
        tests = ("-m", "pytest", "-q", "-m", "not long", "-p", "no:cacheprovider")
        row.attempt("tests", (venv / "bin" / "python", *tests), ROOT)
    return row


def main() -> None:
    """Builds, tries every environment, prints the table; exit code 1 where anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pythons", nargs="*", help="Pythons to try; default: those on PATH.")
    parser.add_argument("--without-tests", action="store_true")
    parser.add_argument("--folder", type=Path, help="Where environments are made, 6 GB each.")
    asked = parser.parse_args()
    pythons = asked.pythons or interpreters()
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        folder = Path(name)
        build = Row("build")
        if not build.attempt("build", (uv(), "build", "--quiet", "-o", folder, ROOT), folder):
            raise SystemExit(build.failures[0])
        wheel = next(folder.glob("*.whl"))
        assert list(folder.glob("*.tar.gz")), "no source distribution was built"
        # The oldest dependencies may have no wheels for a newer Python.
        asks = [(pythons[0], "oldest"), *((python, "newest") for python in pythons)]
        rows = []
        for at, (python, resolution) in enumerate(asks):
            place = folder / str(at)
            place.mkdir()
            with_tests = not asked.without_tests
            rows.append(check(place, wheel, python, resolution, with_tests=with_tests))
            shutil.rmtree(place)
    columns = list(dict.fromkeys(column for row in rows for column in row.cells))
    print(f"\n| environment | {' | '.join(columns)} |\n|{' --- |' * (len(columns) + 1)}")
    for row in rows:
        print(f"| {row.name} | {' | '.join(row.cells.get(each, '-') for each in columns)} |")
    failures = [failure for row in rows for failure in row.failures]
    print("", *failures, sep="\n\n")
    raise SystemExit(bool(failures))


if __name__ == "__main__":
    main()
