from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scanlearn import threads


def with_load(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "loadavg"
    file.write_text(text)
    monkeypatch.setattr(threads, "_LOAD_FILE", file)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)


@pytest.mark.parametrize(
    ("load", "busy"),
    [
        ("0.00 0.00 0.00 1/300 77", False),
        # This process and three others want a core each.
        ("9.00 9.00 9.00 4/300 77", False),
        ("0.00 0.00 0.00 5/300 77", True),
        ("0.00 0.00 0.00 40/300 77", True),
        ("nonsense", False),
    ],
)
def test_half_of_the_cores_make_a_machine_busy(
    load: str, busy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_load(load, tmp_path, monkeypatch)
    assert threads.is_busy() == busy


def test_another_system_is_not_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_LOAD_FILE", tmp_path / "none")
    assert not threads.is_busy()


@pytest.mark.parametrize("name", threads.VARIABLES)
def test_what_a_person_chose_is_kept(name: str) -> None:
    program = "import os; from scanlearn.threads import choose_waiting; choose_waiting(); "
    program += "print(os.environ.get('GOMP_SPINCOUNT'), os.environ.get('OMP_WAIT_POLICY'))"
    plain = {key: value for key, value in os.environ.items() if key not in threads.VARIABLES}

    def chosen(**more: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**plain, **more},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    assert chosen() in ("0 None", "10000 None")
    assert chosen(**{name: "7"}).split()[threads.VARIABLES.index(name) == 0] == "7"
