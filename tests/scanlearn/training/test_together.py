"""Processes started together end together."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from scanlearn.errors import ScanlearnError
from scanlearn.training.distributed import run_together
from scanlearn.training.settings import PretrainConfig
from scanlearn.training.stopping import Stopped

Configure = Callable[..., PretrainConfig]

pytestmark = pytest.mark.long

# What the processes do; they import it by name.
ACTS = """
import os, signal, time
from pathlib import Path
from scanlearn.errors import ScanlearnError
from scanlearn.training.stopping import listening

def tell(config):
    told = {name: os.environ[name] for name in ("LOCAL_RANK", "WORLD_SIZE", "NODE_RANK")}
    Path(config.output).mkdir(exist_ok=True)
    Path(config.output, told["LOCAL_RANK"]).write_text(str(told))

def fail(config):
    if os.environ["LOCAL_RANK"] == "1":
        raise ScanlearnError("scan 3 is broken")
    time.sleep(600)

def die(config):
    if os.environ["LOCAL_RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)

def listen(config):
    with listening():
        Path(config.output).mkdir(exist_ok=True)
        Path(config.output, os.environ["LOCAL_RANK"]).touch()
        time.sleep(600)
"""


@pytest.fixture
def acts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    (tmp_path / "acts_together.py").write_text(ACTS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "acts_together", raising=False)
    return importlib.import_module("acts_together")


def test_each_process_is_told_which_it_is(acts: ModuleType, configure: Configure) -> None:
    config = configure()
    run_together(acts.tell, config, 2)
    for rank in ("0", "1"):
        told = Path(config.output, rank).read_text()
        assert told == str({"LOCAL_RANK": rank, "WORLD_SIZE": "2", "NODE_RANK": "0"})


def test_an_error_of_one_ends_all_with_its_sentence(
    acts: ModuleType, configure: Configure, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ScanlearnError, match=r"^scan 3 is broken$"):
        run_together(acts.fail, configure(), 2)
    assert capfd.readouterr() == ("", "")


def test_the_death_of_one_ends_all(acts: ModuleType, configure: Configure) -> None:
    with pytest.raises(Exception, match="process 1 terminated with signal SIGKILL"):
        run_together(acts.die, configure(), 2)


def test_a_request_to_stop_reaches_all(acts: ModuleType, configure: Configure) -> None:
    config = configure()

    def ask() -> None:
        deadline = time.monotonic() + 200
        while len(list(Path(config.output).glob("?"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    asking = threading.Thread(target=ask)
    asking.start()
    with pytest.raises(Stopped, match="stopped by SIGTERM"):
        run_together(acts.listen, config, 2)
    asking.join()
    assert signal.getsignal(signal.SIGTERM) == before
