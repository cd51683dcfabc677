"""Commands that are killed at random moments and started again end as if nothing had happened."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scanlearn.locks import beside, held

# Forks a process for every kill: imports take ten times as long as such a command.
WORK = """
import os, sys
from scanlearn.archive import layout, shards
layout.MAX_SCANS_PER_BATCH = shards.BATCHES_PER_SHARD = 2
from scanlearn.archive.withdraw import withdraw
from scanlearn.packing.add import add
from scanlearn.packing.pack import pack
from scanlearn.packing.settings import PackSettings

for line in sys.stdin:
    target, source, more = line.split()
    child = os.fork()
    if child == 0:
        os.dup2(2, 1)
        settings = PackSettings(canvas=32, workers=1, issuer="x")
        added = PackSettings(issuer="x", workers=1)
        steps = (lambda: pack(source, target, settings=settings),
                 lambda: add(target, more, settings=added))
        for number, step in enumerate(steps):
            if not os.path.exists(f"{target}.{number}"):
                step()
                open(f"{target}.{number}", "w").close()
        withdraw(target, ["03.png", "25.png"], issuer="x")
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def draw(folder: Path, number: int) -> Path:
    folder.mkdir()
    for index in range(number):
        pixels = np.random.default_rng(index).integers(0, 256, (32, 32)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02d}.png")
        os.utime(folder / f"{index:02d}.png", (1, 1))
    return folder


@pytest.mark.long
def test_archives_killed_while_they_are_packed_and_changed_end_in_the_same_bytes(
    tmp_path: Path,
) -> None:
    folders = draw(tmp_path / "source", 20), draw(tmp_path / "more", 30)
    rng, kills = random.Random(0), 0
    with subprocess.Popen(
        [sys.executable, "-c", WORK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None

        def start(name: str, after_s: float | None = None) -> int:
            print(tmp_path / name, *folders, file=server.stdin, flush=True)
            child = int(server.stdout.readline())  # type: ignore[union-attr]
            if after_s is not None:
                time.sleep(after_s)
                with contextlib.suppress(ProcessLookupError):  # it may have been faster
                    os.kill(child, signal.SIGKILL)
            return int(server.stdout.readline())  # type: ignore[union-attr]

        began = time.monotonic()
        assert start("whole") == 0
        span = time.monotonic() - began
        for round_ in range(3):
            for _ in range(3):
                kills += start(f"a{round_}", rng.uniform(0, span / 3)) == -signal.SIGKILL
            assert start(f"a{round_}") == 0
            made, whole = (
                {
                    str(file.relative_to(tmp_path / name)): file.read_bytes()
                    for file in (tmp_path / name).rglob("*")
                    if file.is_file()
                }
                for name in (f"a{round_}", "whole")
            )
            assert made.keys() == whole.keys()
            assert made == whole
        server.kill()
    assert kills >= 2
    assert not list(tmp_path.glob(".*"))


@pytest.mark.long
def test_a_second_command_says_who_is_at_work_and_ends_with_code_3(tmp_path: Path) -> None:
    source = draw(tmp_path / "source", 2)
    code = "from scanlearn.cli import main; main()"
    with held(beside(tmp_path / "a"), tmp_path / "a"):
        done = subprocess.run(
            [sys.executable, "-c", code, "pack", str(source), str(tmp_path / "a")],
            capture_output=True,
            text=True,
        )
    assert done.returncode == 3, done.stderr
    assert f"process {os.getpid()} on " in done.stderr
    assert "Traceback" not in done.stderr
