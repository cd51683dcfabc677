from __future__ import annotations

import importlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scanlearn.packing.parallel import ordered_map
from scanlearn.readers import limits as deadline
from scanlearn.readers.limits import limited
from scanlearn.readers.scan import Undecodable

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there are no such signals")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(deadline, "MAX_SECONDS", 0.1)
    yield
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGPROF) == signal.SIG_DFL


def spin(seconds: float) -> None:
    start = time.process_time()
    while time.process_time() - start < seconds:
        pass


@pytest.mark.usefixtures("short")
def test_what_is_done_in_time_is_left_alone() -> None:
    with limited():
        spin(0.02)
    spin(0.2)


@pytest.mark.usefixtures("short")
def test_what_takes_too_long_is_refused() -> None:
    with pytest.raises(Undecodable, match=r"more than 0\.1 seconds"), limited():
        spin(10)


@pytest.mark.usefixtures("short")
def test_decoder_that_swallows_the_refusal_is_refused_again() -> None:
    def decode() -> None:
        try:
            spin(10)
        except Undecodable:
            spin(10)

    with pytest.raises(Undecodable), limited():
        decode()


@pytest.mark.usefixtures("short")
def test_waiting_for_a_slow_disk_does_not_count() -> None:
    with limited():
        time.sleep(0.3)


@pytest.mark.usefixtures("short")
def test_other_threads_go_without() -> None:
    failed: list[Undecodable] = []

    def work() -> None:
        try:
            with limited():
                spin(0.15)
        except Undecodable as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed


# Of a module on the path, where the processes that call it find it.
MODULE = """
import hashlib
from scanlearn.readers import limits as deadline

def hash_for(rounds):
    # A single call into C that listens to no signal.
    deadline.MAX_SECONDS = 0.1
    with deadline.limited():
        hashlib.pbkdf2_hmac("sha256", b"", b"", rounds)
    return "done"
"""


@pytest.mark.long
def test_decoder_that_does_not_return_costs_only_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deaf_decoder.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    hash_for = importlib.import_module("deaf_decoder").hash_for
    start = time.monotonic()
    found = ordered_map(hash_for, [1, 10**9, 1], workers=1, crashed="crashed", chunk=2)
    assert list(found) == ["done", "crashed", "done"]
    assert time.monotonic() - start < 60
