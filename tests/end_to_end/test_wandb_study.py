"""A study that is told to wandb: a run for each network, the final table, and nothing private."""

from __future__ import annotations

import getpass
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scanlearn.archive.reader import Archive

START = (
    "import sys, json; from scantune.study.plan import CompareConfig;"
    "from scantune.study.run import run_study;"
    "run_study(CompareConfig.model_validate(json.loads(sys.argv[1])))"
)


def scans(folder: Path, patients: int) -> Path:
    """A table of noise, of patients who are known by name."""
    folder.mkdir()
    random, lines = np.random.default_rng(patients), ["path,patient,finding"]
    for number in range(2 * patients):
        Image.fromarray(random.integers(0, 256, (24, 24)).astype(np.uint8)).save(
            folder / f"portable-{patients}-{number}.png"
        )
        who = f"Doe-Jane-{patients}-{number // 2}"
        lines.append(f"portable-{patients}-{number}.png,{who},{number // 2 % 2}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder / "table.csv"


@pytest.mark.long
def test_a_study_is_a_group_of_runs_and_a_table_and_tells_nobodys_name(tmp_path: Path) -> None:
    plan = {
        "title": "Two scales",
        "unlabeled": str(scans(tmp_path / "ward", 8)),
        "labels": str(scans(tmp_path / "clinic", 20)),
        "tasks": ["finding"],
        "output": str(tmp_path / "study"),
        "arms": {"weak": {"scale": 0.5}, "strong": {"scale": 1}},
        "seeds": [0],
        "leaks": "warn",
        "label_free": False,
        "pack": {"canvas": 24},
        "pretrain": {
            "backbone": {"name": "test_resnet"},
            "views": {"size": 16, "modality": None},
            "batch_size": 8,
            "steps": 2,
            "device": "cpu",
            "precision": "fp32",
            "logging": {"wandb": "offline"},
        },
        "evaluation": {
            "learners": ["linear"],
            "budgets": ["all"],
            "folds": 2,
            "label_seeds": 1,
            "replicates": 200,
        },
    }
    # In a process of its own: wandb starts a service that outlives its run.
    done = subprocess.run(
        [sys.executable, "-c", START, json.dumps(plan)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={
            **os.environ,
            "HOME": str(tmp_path),
            "SCANLEARN_CACHE": str(tmp_path / "cache"),
        },
    )
    assert done.returncode == 0, done.stderr[-2000:]
    study = tmp_path / "study"
    told = {path.parents[2].relative_to(study).as_posix() for path in study.rglob("*.wandb")}
    assert told == {".", "arms/weak/seed-0", "arms/strong/seed-0"}
    files = [
        path
        for folder in study.rglob("wandb")
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    ]
    content = b"".join(path.read_bytes() for path in files)
    for word in ("Two scales (", "weak-seed-0", "strong-seed-0", "loss", "verdict", "differences"):
        assert word.encode() in content, word
    for path in files:
        if path.suffix == ".wandb":
            assert b"Two scales (" in path.read_bytes()
    pages = [path.read_text() for path in files if path.suffix == ".html"]
    assert len(pages) == 2
    results = json.loads((study / "results.json").read_text())
    # A header, and a row for each.
    counts = sorted(page.count("<tr>") - 1 for page in pages)
    assert counts == sorted((len(results["table"]), len(results["differences"])))
    assert b"auroc/finding/linear/all/weak" in content
    manifests = list((tmp_path / "cache").rglob("manifest.parquet"))
    hashes = {str(each) for found in manifests for each in Archive(found.parent).patients}
    assert len(hashes) == 28
    private = [*hashes, tmp_path.name, "ward", "clinic", "Doe-Jane", "portable-", str(Path.cwd())]
    private += [sys.executable, Path(__file__).name]
    # A name of three letters may stand anywhere by chance.
    private += [name for name in (platform.node(), getpass.getuser()) if len(name) > 3]
    assert [word for word in private if word.encode() in content] == []
