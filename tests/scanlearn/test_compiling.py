from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scanlearn import compiling

# Two functions: the cache is tried once, and told of once.
CHILD = """
import sys, time
from scanlearn.compiling import compiled

@compiled("f8(f8)")
def twice(x):
    return 2 * x

@compiled("f8(f8)")
def thrice(x):
    return 3 * x

print(twice(4.0), thrice(4.0), sum(twice.stats.cache_hits.values()))
"""


def _run(folder: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    script = folder / "child.py"
    script.write_text(CHILD)
    kept = {name: text for name, text in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, str(script)],
        env=kept | {"SCANLEARN_CACHE": str(cache)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_what_was_compiled_is_kept_in_the_cache_folder(tmp_path: Path) -> None:
    assert _run(tmp_path, tmp_path / "cache").stdout.split() == ["8.0", "12.0", "0"]
    assert list((tmp_path / "cache" / "compiled").rglob("*.nbc"))
    again = _run(tmp_path, tmp_path / "cache")
    assert again.stdout.split() == ["8.0", "12.0", "1"]
    assert again.stderr == ""


@pytest.mark.parametrize("name", ["file/cache"])
def test_a_cache_folder_that_cannot_be_written_is_told_once(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    done = _run(tmp_path, tmp_path / name)
    assert done.stdout.split() == ["8.0", "12.0", "0"]
    assert done.stderr.count("cannot be kept") == 1
    assert "SCANLEARN_CACHE" in done.stderr


def test_compiling_that_takes_long_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def doubled(x: float) -> float:
        return 2 * x

    monkeypatch.setenv("SCANLEARN_CACHE", str(tmp_path))
    monkeypatch.setattr(compiling, "_PATIENCE_S", 600.0)
    assert compiling.compiled("f8(f8)")(doubled)(2.0) == 4
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(compiling, "_PATIENCE_S", 0.0)
    assert compiling.compiled("f4(f4)")(doubled)(2.0) == 4
    assert "once on this machine: about half a minute" in capsys.readouterr().out
