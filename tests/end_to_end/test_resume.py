"""A run that is killed or asked to stop, started again, ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from scanlearn.archive.layout import Origin, PackedScan
from scanlearn.archive.writer import ArchiveWriter
from scanlearn.console import STOPPED_EXIT_CODE
from scanlearn.methods import MethodConfig

STEPS = 8

# Settings that put to work, in so few steps, what each method carries from step to step. A further
# method is one line.
METHODS: dict[str, dict[str, Any]] = {
    "simclr": {},
    # The queue turns over in the middle of the run, and again.
    "mocov2": {"queue_size": 24},
    "mocov3": {},
    "dino": {"num_prototypes": 64, "head_hidden": 32, "head_bottleneck": 16, "local_views": 2},
}

# Imports once, then forks a process for every run it is told of: imports take ten times as long
# as such a run. The moment says where the process kills itself.
SERVER = """
import json, os, signal, sys, traceback
from scanlearn import files
from scanlearn.backbones import weights
from scanlearn.training import module as keeper
from scanlearn.training import pretrain

# A further process that imports timm takes seconds; the export's own tests start it.
weights.check_reload = lambda *_: None

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def arm(moment):
    if moment == "in a checkpoint":
        write, count = files.write_all, []
        def torn(descriptor, content):
            if len(content) > 50_000 and count.append(1) is None and len(count) == 2:
                write(descriptor, content[:30_000])
                die()
            write(descriptor, content)
        files.write_all = torn
    if moment == "in a step":
        loss = keeper.Pretrainer.training_step
        def stopped(module, batch, index):
            return die() if module.global_step == 6 else loss(module, batch, index)
        keeper.Pretrainer.training_step = stopped
    if moment == "in the export":
        pretrain.export_backbone = die
    if moment == "asked to stop":
        loss = keeper.Pretrainer.training_step
        def asked(module, batch, index):
            if module.global_step == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            return loss(module, batch, index)
        keeper.Pretrainer.training_step = asked

def run(config, moment):
    code = 1
    try:
        os.dup2(2, 1)
        arm(moment)
        pretrain.pretrain(pretrain.PretrainConfig.model_validate(config))
        code = 0
    except SystemExit as stopped:
        code = stopped.code
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        run(*json.loads(line))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Server:
    """A process that starts runs, one at a time."""

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, output: Path, method: str, moment: str = "never") -> int:
        """Starts a run and returns its process."""
        config = {
            "archive": str(self._archive),
            "output": str(output),
            "backbone": {"name": "test_resnet", "drop_path": 0.3},
            "method": {"name": method, **METHODS[method]},
            "views": {"size": 32, "scale": 1},
            "batch_size": 8,
            "steps": STEPS,
            "precision": "fp32",
            "checkpoint_steps": 2,
            "checkpoint_minutes": 60,
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([config, moment]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def wait(self) -> int:
        """Returns the exit code of the run that was started."""
        return self._answer()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _answer(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archives") / "tiny"
    random = np.random.default_rng(0)
    with ArchiveWriter(path, shape=(3, 72, 72), dtype=np.uint8) as writer:
        for index in range(20):
            coarse = random.integers(0, 256, (3, 6 + index % 4, 6 + index % 4))
            pixels = coarse.repeat(12, 1).repeat(12, 2)[:, :72, :72].astype(np.uint8)
            writer.add(PackedScan(pixels), Origin(str(index), str(index)))
    return path


@pytest.fixture(scope="module")
def server(archive: Path) -> Iterator[Server]:
    server = Server(archive)
    yield server
    server.close()


@pytest.fixture(scope="module", params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def whole(server: Server, method: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    output = tmp_path_factory.mktemp("runs") / "whole"
    server.start(output, method)
    assert server.wait() == 0
    return read(output)


def read(output: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((output / "result.json").read_text())
    with (output / "metrics.csv").open() as file:
        result["rows"] = [
            (int(row["step"]), row["loss"], row["embedding_std"]) for row in csv.DictReader(file)
        ]
    hashes = ("initial_hash", "final_hash", "order_hash", "uniforms_hash", "rows")
    return {key: result[key] for key in hashes}


def test_every_method_is_killed() -> None:
    (union, *_) = get_args(MethodConfig)
    assert set(METHODS) == {config.model_fields["name"].default for config in get_args(union)}


@pytest.mark.long
@pytest.mark.parametrize(
    ("moment", "code"),
    [
        ("in a step", -signal.SIGKILL),
        ("in a checkpoint", -signal.SIGKILL),
        ("in the export", -signal.SIGKILL),
        ("asked to stop", STOPPED_EXIT_CODE),
    ],
)
def test_a_run_ended_at_a_chosen_moment_goes_on_bit_equal(
    server: Server, method: str, whole: dict[str, Any], tmp_path: Path, moment: str, code: int
) -> None:
    output = tmp_path / "run"
    server.start(output, method, moment)
    assert server.wait() == code
    assert not (output / "result.json").exists()
    server.start(output, method)
    assert server.wait() == 0
    assert read(output) == whole
    assert [step for step, *_ in whole["rows"]] == list(range(1, STEPS + 1))
    assert [path.name for path in (output / "checkpoints").iterdir()] == ["last.ckpt"]


@pytest.mark.long
def test_a_run_killed_again_and_again_ends_bit_equal(
    server: Server, method: str, whole: dict[str, Any], tmp_path: Path
) -> None:
    output = tmp_path / "run"
    codes = []
    for rows in (1, 4, 7):
        process = server.start(output, method)
        deadline = time.monotonic() + 120
        while count_rows(output / "metrics.csv") < rows and time.monotonic() < deadline:
            time.sleep(0.002)
        with contextlib.suppress(ProcessLookupError):  # it may have been faster
            os.kill(process, signal.SIGKILL)
        codes.append(server.wait())
    assert codes[0] == -signal.SIGKILL
    server.start(output, method)
    assert server.wait() == 0
    assert read(output) == whole


def count_rows(metrics: Path) -> int:
    return metrics.read_text().count("\n") - 1 if metrics.is_file() else 0
