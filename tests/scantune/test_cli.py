from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scantune.cli import CONFIGURED, app


def command(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from scantune.cli import main; main()", *words],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
    )


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from scantune.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'timm', 'numpy', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert all(f"\n  {name} " in done.stdout for name in (*CONFIGURED, "config"))


@pytest.mark.parametrize("name", CONFIGURED)
def test_config_prints_a_commented_yaml_and_a_schema(name: str) -> None:
    from scanlearn.config import parse_value

    printed = CliRunner().invoke(app, ["config", name])
    assert printed.exit_code == 0, printed.exception
    assert printed.stdout.startswith(f"# scantune {name} {CONFIGURED[name].usage} key=value")
    schema = CliRunner().invoke(app, ["config", name, "--schema"])
    assert set(parse_value(printed.stdout)) == set(json.loads(schema.stdout)["properties"])
    assert f"scantune config {name}" in CliRunner().invoke(app, [name, "--help"]).stdout


def test_a_misspelt_scale_is_one_sentence(tmp_path: Path) -> None:
    words = ("compare", "demo", "arms.weak.scale=weakk", f"output={tmp_path / 'out'}")
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "weakk" in done.stderr
    assert "weak" in done.stderr.replace("weakk", "")
    assert not (tmp_path / "out").exists()


def test_a_missing_backbone_is_one_sentence(tmp_path: Path) -> None:
    done = command("evaluate", str(tmp_path / "nothing"), str(tmp_path), cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_functions_stay_functions_once_their_modules_are_imported() -> None:
    code = (
        "import scantune\n"
        "for name in ('evaluate', 'compare'):\n"
        "    assert callable(getattr(scantune, name)), name\n"
        "    assert callable(getattr(scantune, name)), name\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
