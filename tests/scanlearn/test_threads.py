from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from scanlearn import threads
from scanlearn.threads import computing_with, cores_used_by_others, free_threads, usable_cores

_HZ = os.sysconf("SC_CLK_TCK")


def _stat(*seconds: tuple[float, float, float]) -> str:
    """The lines of /proc/stat for cores that worked so long: user, nice, system."""
    rows = [[round(value * _HZ) for value in core] for core in seconds]
    lines = [f"cpu{number} {a} {b} {c} 999 9 9 9 9 0 0" for number, (a, b, c) in enumerate(rows)]
    return "\n".join(["cpu  1 1 1 1 1 1 1 1 0 0", *lines, "intr 5", ""])


@pytest.fixture
def four_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(threads, "_STAT", tmp_path / "stat")
    monkeypatch.setattr(threads, "usable_cores", lambda: frozenset(range(4)))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def _worked(patch: pytest.MonkeyPatch, *seconds: tuple[float, float, float]) -> None:
    """Has the cores work so long within the half second that is watched."""
    threads._STAT.write_text(_stat(*[(5.0, 5.0, 5.0)] * 5))
    clock = [100.0]
    patch.setattr(time, "monotonic", lambda: clock[0])
    patch.setattr(time, "process_time", lambda: clock[0])

    def sleep(watched: float) -> None:
        clock[0] += watched
        later = [tuple(5.0 + value for value in core) for core in seconds]
        threads._STAT.write_text(_stat(*later))  # type: ignore[arg-type]

    patch.setattr(time, "sleep", sleep)


# The process itself works on one core throughout, as the clock above has it.
@pytest.mark.parametrize(
    ("worked", "expected"),
    [
        ([(0.5, 0, 0), (0, 0, 0), (0, 0, 0), (0, 0, 0)], 4),
        ([(0.5, 0, 0), (0.4, 0, 0.1), (0, 0, 0), (0, 0, 0)], 3),
        ([(0.5, 0, 0), (0.5, 0, 0), (0.3, 0, 0.2), (0, 0, 0)], 2),
        ([(0.5, 0, 0), (0, 0.5, 0), (0, 0.5, 0), (0, 0.5, 0)], 4),  # low priority gives way
        ([(0.5, 0, 0), (0.2, 0, 0), (0, 0, 0), (0, 0, 0)], 4),  # a short visit
        ([(0.5, 0, 0), (0.5, 0, 0), (0.5, 0, 0), (0.5, 0, 0)], 1),
    ],
)
def test_a_thread_is_given_up_for_each_core_that_others_use(
    four_cores: pytest.MonkeyPatch, worked: list[tuple[float, float, float]], expected: int
) -> None:
    # A fifth core is busy, but not ours to use.
    _worked(four_cores, *worked, (0.5, 0, 0))
    assert free_threads() == expected


def test_what_a_person_set_holds(four_cores: pytest.MonkeyPatch) -> None:
    _worked(four_cores, *[(0.5, 0.0, 0.0)] * 5)
    four_cores.setattr(torch, "get_num_threads", lambda: 3)
    assert free_threads() == 3
    four_cores.setattr(torch, "get_num_threads", lambda: 4)
    four_cores.setenv("OMP_NUM_THREADS", "4")
    assert free_threads() == 4


def test_a_system_that_does_not_tell_changes_nothing(four_cores: pytest.MonkeyPatch) -> None:
    assert not threads._STAT.exists()
    assert cores_used_by_others(frozenset({0}), 0.0) == 0.0
    assert free_threads() == 4


def test_spinning_processes_are_seen() -> None:
    spin = [sys.executable, "-c", "while True: pass"]
    environment = {
        name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")
    }
    spinning = [subprocess.Popen(spin) for _ in usable_cores()]
    try:
        program = "import torch; from scanlearn.threads import free_threads as f; print(f())"
        printed = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    finally:
        for process in spinning:
            process.kill()
            process.wait()
    # At least half of the cores are seen as busy whatever else runs here.
    assert int(printed) <= max(1, len(usable_cores()) // 2)


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with computing_with(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with computing_with(None):
        assert torch.get_num_threads() == before
