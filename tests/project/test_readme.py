"""Every command of the README runs, in its order, in one folder."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scanlearn.archive.reader import Archive
from scanlearn.packing.sources import open_archive

ROOT = Path(__file__).resolve().parents[2]
# What keeps a command of the README short here; the README's own words stay as they are.
SMALL = {
    "scanlearn pretrain": "batch_size=16 steps=3 views.size=32 backbone.name=test_resnet",
    "scantune evaluate": "folds=2 label_seeds=1",
    "scantune compare": "pretrain.batch_size=16 pretrain.steps=2 "
    "pretrain.views.size=32 pretrain.backbone.name=test_resnet evaluation.folds=2 "
    "evaluation.label_seeds=1 evaluation.budgets=[all] evaluation.learners=[knn] seeds=[0] "
    "primary.learner=knn",
}
# The same for the README's Python.
SMALL_PYTHON = {
    '"output=runs/python"]': '"output=runs/python", '
    + ", ".join(f'"{word}"' for word in SMALL["scanlearn pretrain"].split())
    + "]",
    'output="scores-2"': 'output="scores-2", folds=2, label_seeds=1',
}
FINDINGS = ("finding", "pneumonia")


def commands() -> list[str]:
    """Returns the lines of the README's shell blocks, continued lines joined."""
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```(?:bash|sh|console)\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    stripped = [re.sub(r"\s+#.*", "", line).strip() for line in lines]
    return [line for line in stripped if line and not line.startswith("#")]


def python_blocks() -> list[str]:
    """Returns the Python of the README, made small, and of the pages on views and scores."""
    pages = ("README.md", "docs/dial.md", "docs/evaluation.md")
    text = "\n".join((ROOT / page).read_text() for page in pages)
    for words, smaller in SMALL_PYTHON.items():
        assert words in text
        text = text.replace(words, smaller)
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the README's reader has it: ``scans/`` and ``labels.csv``."""
    folder = tmp_path_factory.mktemp("reader")
    draw_pictures(folder, "scans", seed=5)
    # Of other patients: a comparison refuses test scans that the arms have learned from.
    labeled = draw_pictures(folder, "labeled", seed=6)
    rows = ["path,patient_id," + ",".join(FINDINGS)]
    for i, (patient, label) in enumerate(
        zip(labeled.patients, labeled.labels("pallor"), strict=True)
    ):
        rows.append(f"labeled/{i:03d}.png,{patient}," + ",".join([label] * len(FINDINGS)))
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def draw_pictures(folder: Path, name: str, seed: int) -> Archive:
    """Draws a phantom's scans into a folder of pictures."""
    source = f"phantom:patients=40,seed={seed},size=64x64"
    archive = open_archive(source, cache=folder / "cache")
    (folder / name).mkdir()
    for i, scan in enumerate(archive.gather(np.arange(len(archive))).pixels.numpy()):
        image = scan[0] if scan.shape[0] == 1 else np.moveaxis(scan, 0, 2)
        Image.fromarray(image).save(folder / name / f"{i:03d}.png")
    return archive


def test_the_readme_has_the_two_make_commands_and_every_program() -> None:
    found = commands()
    assert "make demo" in found
    assert "make test" in found
    for name in ("pack", "preview", "pretrain", "export"):
        assert any(line.startswith(f"scanlearn {name} ") for line in found), name
    for name in ("evaluate", "compare"):
        assert any(line.startswith(f"scantune {name} ") for line in found), name


@pytest.mark.long
def test_every_command_of_the_readme_runs(workplace: Path) -> None:
    ran = 0
    for line in commands():
        program = " ".join(line.split()[:2])
        if not line.startswith(("scanlearn ", "scantune ")):
            continue
        words = shlex.split(f"{line} {SMALL.get(program, '')}")
        module = "scanlearn.cli" if words[0] == "scanlearn" else "scantune.cli"
        done = subprocess.run(
            [sys.executable, "-c", f"from {module} import main; main()", *words[1:]],
            cwd=workplace,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
        ran += 1
    assert ran >= 7
    assert len(python_blocks()) >= 6
    for i, block in enumerate(python_blocks()):
        done = subprocess.run(
            [sys.executable, "-c", block],
            cwd=workplace,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f"python block {i}\n{done.stderr[-3000:]}"


@pytest.mark.long
def test_the_demo_answers_in_time(tmp_path: Path) -> None:
    recipe = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "--assume-old=.venv/.installed", "demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert recipe.stdout.strip().endswith("scantune compare demo")
    started = time.perf_counter()
    words = ["compare", "demo", f"output={tmp_path / 'demo'}", "pretrain.precision=fp32"]
    done = subprocess.run(
        [sys.executable, "-c", "from scantune.cli import main; main()", *words],
        capture_output=True,
        text=True,
        timeout=900,
    )
    minutes = (time.perf_counter() - started) / 60
    assert done.returncode == 0, done.stderr[-3000:]
    assert "report.html" in done.stdout
    assert (tmp_path / "demo" / "report.html").is_file()
    # The promise is six minutes on two idle cores; a shared machine may take longer.
    assert minutes < 10, f"the demo took {minutes:.1f} minutes"
