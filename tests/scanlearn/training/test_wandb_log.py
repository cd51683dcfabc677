from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest


def test_wandb_is_not_imported_unless_asked_for() -> None:
    code = "import sys, scanlearn.training.wandb_log; sys.exit('wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.long
def test_wandb_offline_writes_nothing_that_identifies(tmp_path: Path) -> None:
    # In a process of its own: wandb starts a service that outlives its run.
    folder = tmp_path / "a_folder_of_mine"
    folder.mkdir()
    code = (
        "import sys; from pathlib import Path; from scanlearn.training.wandb_log import WandbRun\n"
        "for start in range(2):\n"
        "    run = WandbRun(Path(sys.argv[1]), mode='offline', project='p', run_id='abc',"
        " config={'seed': 3})\n"
        "    run.hold(1 + start, {'loss': 1.5})\n"
        "    run.release()\n"
        "    run.hold(9, {'loss': 9.0})\n"
        "    run.finish()\n"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=environment,
    )
    assert done.stdout == ""
    written = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    starts = [path for path in written if path.suffix == ".wandb"]
    assert len(starts) == 2
    assert {path.name for path in starts} == {"run-abc.wandb"}
    content = b"".join(path.read_bytes() for path in written)
    assert b"loss" in content
    secrets = [folder.name, str(Path.cwd()), platform.node() * (len(platform.node()) > 3)]
    secrets += [sys.executable, Path(__file__).name]
    assert not [word for word in secrets if word and word.encode() in content]
