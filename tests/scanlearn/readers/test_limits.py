from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from scanlearn.packing.parallel import ordered_map
from scanlearn.readers import limits as deadline
from scanlearn.readers.limits import limited, limits_kept
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
def test_what_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "MAX_WAIT_SECONDS", 0.1)
    start = time.monotonic()
    with pytest.raises(Undecodable, match=r"0\.1 seconds on the clock"), limited():
        time.sleep(30)
    assert time.monotonic() - start < 10
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.usefixtures("short")
def test_alarm_of_the_program_still_rings() -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    try:
        signal.setitimer(signal.ITIMER_REAL, 100)
        with limited():
            pass
        assert 90 < signal.setitimer(signal.ITIMER_REAL, 0)[0] <= 100
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("short")
def test_kept_limits_refuse_each_by_its_own_time() -> None:
    with limits_kept():
        for _ in range(3):
            with limited():
                spin(0.06)
        spin(0.2)  # Nothing is at work: nothing is refused.
        for _ in range(2):
            with pytest.raises(Undecodable, match=r"more than 0\.1 seconds"), limited():
                spin(10)
        with limited():
            spin(0.02)


def test_limits_are_set_once_for_many_small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    settimer = signal.setitimer

    def counted(kind: int, *values: float) -> tuple[float, float]:
        calls.append(kind)
        return settimer(kind, *values)

    before = [signal.getsignal(kind) for kind in (signal.SIGPROF, signal.SIGALRM)]
    monkeypatch.setattr(deadline, "MAX_SECONDS", 3600.0)
    monkeypatch.setattr(signal, "setitimer", counted)
    with limits_kept():
        for _ in range(50):
            with limited():
                pass
    # Set once and lifted once.
    assert len(calls) == 4
    assert [signal.getsignal(kind) for kind in (signal.SIGPROF, signal.SIGALRM)] == before


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux")
def test_kept_limits_refuse_too_much_memory_and_are_lifted(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    monkeypatch.setattr(deadline, "MAX_BYTES", 2**27)
    with limits_kept():
        for _ in range(2):
            with pytest.raises(Undecodable, match="does not fit into memory"), limited():
                np.ones(2**29, np.uint8)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux")
def test_what_asks_for_too_much_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    monkeypatch.setattr(deadline, "MAX_BYTES", 2**27)
    with limited():
        assert np.ones(2**25, np.uint8).all()
    with pytest.raises(Undecodable, match="does not fit into memory"), limited():
        np.ones(2**29, np.uint8)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert np.ones(2**29, np.uint8).size


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
import hashlib, signal, time
from scanlearn.readers import limits as deadline

def hash_for(rounds):
    # A single call into C that listens to no signal.
    deadline.MAX_SECONDS = 0.1
    with deadline.limited():
        hashlib.pbkdf2_hmac("sha256", b"", b"", rounds)
    return "done"

def wait(seconds):
    # As on a drive that answers no signal either.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM] if seconds else [])
    deadline.MAX_WAIT_SECONDS = 0.5
    with deadline.limited():
        time.sleep(seconds)
    return "done"
"""


@pytest.mark.long
@pytest.mark.parametrize(("decoder", "items"), [("hash_for", [1, 10**9, 1]), ("wait", [0, 600, 0])])
def test_decoder_that_does_not_return_costs_only_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoder: str, items: list[int]
) -> None:
    module = f"deaf_in_{decoder}"
    (tmp_path / f"{module}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    decode = getattr(importlib.import_module(module), decoder)
    start = time.monotonic()
    found = ordered_map(decode, items, workers=1, crashed="crashed", chunk=2)
    assert list(found) == ["done", "crashed", "done"]
    assert time.monotonic() - start < 60
