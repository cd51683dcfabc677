"""What needs further installations: the wheel, and the oldest and newest dependencies.

Run by ``make release-check``. Each check makes a virtual environment of its own.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(*words: object, cwd: Path = ROOT) -> None:
    print("$", *words, flush=True)
    subprocess.run([str(word) for word in words], cwd=cwd, check=True)


def environment(folder: Path, *requirements: str) -> Path:
    """Makes a virtual environment with ``requirements`` and returns its Python."""
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    run(uv, "venv", "--quiet", "--python", sys.executable, folder)
    run(uv, "pip", "install", "--quiet", "--python", folder / "bin" / "python", *requirements)
    return folder / "bin" / "python"


def oldest() -> list[str]:
    """Returns the dependencies of pyproject.toml pinned to the lowest version each allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = []
    for requirement in project["dependencies"]:
        match = re.match(r"([A-Za-z0-9_-]+)>=([0-9.]+)", requirement)
        assert match, requirement
        version = match[2] if match[2].count(".") > 1 else f"{match[2]}.*"
        pins.append(f"{match[1]}=={version}")
    return pins


def main() -> None:
    """Builds the wheel and tries it, then runs the tests with oldest and newest dependencies."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        builder = environment(folder / "build", "build", "hatchling")
        run(builder, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist")
        wheel = next((folder / "dist").glob("*.whl"))
        python = environment(folder / "wheel", str(wheel))
        for words in (
            ["scantune.cli", "config", "compare"],
            ["scanlearn.cli", "config", "pretrain"],
        ):
            run(python, "-c", f"from {words[0]} import main; main()", *words[1:], cwd=folder)
        run(
            python,
            "-c",
            "from scanlearn.config import find_config as f; f('demo', 'compare')",
            cwd=folder,
        )
        tests = ["-m", "pytest", "-q", "-m", "not long"]
        run(environment(folder / "newest", f"{ROOT}[dev]"), *tests)
        run(environment(folder / "oldest", f"{ROOT}[dev]", *oldest()), *tests)


if __name__ == "__main__":
    main()
