"""A run killed, asked to stop and started again is one run for wandb, no step told twice."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from scanlearn.archive.layout import Origin, PackedScan
from scanlearn.archive.writer import ArchiveWriter
from scanlearn.console import STOPPED_EXIT_CODE

STEPS = 9
BLOCK = 32_768

START = """
import json, os, signal, sys
from scanlearn.backbones import weights
from scanlearn.training import module as loop
from scanlearn.training import pretrain

# A further process that imports timm takes seconds; the export's own tests start it.
weights.check_reload = lambda *_: None
config, step, number = json.loads(sys.argv[1])
take_step = loop.Pretrainer.training_step

def signalled(module, *arguments):
    if module.global_step == step:
        os.kill(os.getpid(), number)
    return take_step(module, *arguments)

loop.Pretrainer.training_step = signalled
pretrain.pretrain(pretrain.PretrainConfig.model_validate(config))
"""


def start(folder: Path, *, step: int, number: int) -> int:
    """Starts the run, sends itself a signal in a step, and returns the exit code."""
    config = {
        "archive": str(folder / "scans"),
        "output": str(folder / "run"),
        "backbone": {"name": "test_resnet"},
        "views": {"size": 16},
        "batch_size": 8,
        "steps": STEPS,
        "precision": "fp32",
        "checkpoint_steps": 2,
        "checkpoint_minutes": 60,
        "logging": {"wandb": "offline"},
    }
    return subprocess.run(
        [sys.executable, "-c", START, json.dumps([config, step, number])],
        capture_output=True,
        timeout=300,
        # A signal to the process group reaches whatever wandb has started, too.
        start_new_session=True,
        env={**os.environ, "HOME": str(folder)},
        check=False,
    ).returncode


def records(path: Path) -> Iterator[bytes]:
    """The records of wandb's file: LevelDB's log format after a header of 7 bytes.

    A record lies in one piece (1) or in a first (2), middle (3) and last (4) one, none of which
    crosses the end of a block of 32 KiB; a killed process leaves the file torn at its end.
    """
    content = path.read_bytes()
    assert content.startswith(b":W&B")
    at, held = 7, b""
    while at + 7 <= len(content):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        piece = content[at + 7 : at + 7 + length]
        if kind not in (1, 2, 3, 4) or len(piece) < length:
            return
        held += piece
        at += 7 + length
        if kind in (1, 4):
            yield held
            held = b""


def steps_told(path: Path) -> list[int]:
    """The steps whose loss stands in one of wandb's files."""
    from wandb.proto.wandb_internal_pb2 import Record

    steps = []
    for content in records(path):
        record = Record()
        record.ParseFromString(content)
        if record.WhichOneof("record_type") == "history":
            items = {item.key or item.nested_key[0]: item for item in record.history.item}
            if "loss" in items:
                steps.append(int(json.loads(items["_step"].value_json)))
    return steps


@pytest.mark.long
def test_three_starts_are_one_run_and_no_step_is_told_twice(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    with ArchiveWriter(tmp_path / "scans", shape=(1, 24, 24), dtype=np.uint8) as writer:
        for index in range(20):
            pixels = random.integers(0, 256, (1, 24, 24)).astype(np.uint8)
            writer.add(PackedScan(pixels), Origin(str(index), str(index)))
    # Killed after step 5, of which the checkpoint after step 4 knows nothing.
    assert start(tmp_path, step=5, number=signal.SIGKILL) == -signal.SIGKILL
    assert start(tmp_path, step=6, number=signal.SIGTERM) == STOPPED_EXIT_CODE
    assert start(tmp_path, step=-1, number=0) == 0
    run_id = json.loads((tmp_path / "run" / "provenance.json").read_text())["run_id"]
    files = sorted((tmp_path / "run" / "wandb").glob(f"offline-run-*/run-{run_id}.wandb"))
    assert len({file.parent for file in files}) == len(files) == 3
    assert len(list((tmp_path / "run" / "wandb").rglob("*.wandb"))) == 3
    killed, stopped, finished = (steps_told(file) for file in files)
    # What wandb had not yet written of a killed start is lost to it; metrics.csv holds all.
    assert killed == [1, 2, 3, 4][: len(killed)]
    assert (stopped, finished) == ([5, 6, 7], [8, 9])
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == list(range(1, STEPS + 1))
