from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from scanlearn.cli import app
from scanlearn.training.pretrain import pretrain
from scanlearn.training.settings import PretrainConfig


def flip(path: Path, place: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 1
    path.write_bytes(content)


def verify(folder: Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["verify", str(folder)])
    return done.exit_code, done.output


def test_a_flipped_bit_in_a_run_a_backbone_or_a_study_is_found(
    configure: Callable[..., PretrainConfig], tmp_path: Path
) -> None:
    study = tmp_path / "study"
    run = pretrain(configure(steps=1, output=str(study / "arms" / "weak" / "seed-0"))).folder
    scores = study / "scores" / "task" / "weak-seed-0.npz"
    scores.parent.mkdir(parents=True)
    np.savez(scores, values=np.arange(100.0))
    assert verify(study)[1].endswith("4 files with hashes read; they are as they were written\n")
    for file, folders in (
        (run / "backbone" / "model.safetensors", (run / "backbone", run, study)),
        (run / "checkpoints" / "last.ckpt", (run, study)),
        (scores, (study,)),
    ):
        flip(file)
        for folder in folders:
            code, said = verify(folder)
            assert code == 1
            assert file.name in said or str(file.parent) in said
        flip(file)
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(result | {"steps": 2}))
    code, said = verify(run)
    assert code == 1
    assert "result.json was changed after the run" in said
