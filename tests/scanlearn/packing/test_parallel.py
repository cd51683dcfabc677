from __future__ import annotations

import multiprocessing
import operator
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scanlearn.archive.reader import Archive
from scanlearn.packing import parallel as pool
from scanlearn.packing.parallel import SharedBuffers, map_where_worth, num_cores, ordered_map


def test_results_come_in_order() -> None:
    results = ordered_map(abs, range(-100, 0), workers=2, crashed=-1, chunk=3)
    assert list(results) == list(range(100, 0, -1))


def test_items_are_taken_as_results_are_not_all_at_once() -> None:
    taken: list[int] = []

    def items() -> Any:
        for number in range(10_000):
            taken.append(number)
            yield number

    results = ordered_map(abs, items(), workers=1, crashed=-1, chunk=2)
    assert next(results) == 0
    assert len(taken) <= 10
    results.close()


def test_item_that_takes_its_process_down_costs_only_itself() -> None:
    calls: list[Any] = [partial(abs, -number) for number in range(20)]
    calls[7] = partial(os._exit, 3)
    results: Any = ordered_map(operator.call, calls, workers=1, crashed=None, chunk=4)
    assert list(results) == [None if number == 7 else number for number in range(20)]


def test_arrays_come_home_through_shared_memory_a_crash_between_them() -> None:
    calls: list[Any] = [partial(np.full, 2000, number) for number in range(30)]
    calls[11] = partial(os._exit, 3)
    results: Any = ordered_map(
        operator.call, calls, workers=2, crashed=None, chunk=4, chunk_bytes=4 * 2000 * 8
    )
    for number, found in enumerate(results):
        if number == 11:
            assert found is None
        else:
            # Before the next one is asked for, its memory is its own.
            assert found.shape == (2000,)
            assert (found == number).all()
    assert number == 29


def test_heavy_items_come_in_smaller_chunks() -> None:
    taken: list[int] = []

    def items() -> Any:
        for number in range(1000):
            taken.append(number)
            yield 5

    results = ordered_map(abs, items(), workers=1, crashed=-1, chunk=10, weigh=abs)
    for _ in range(100):
        next(results)
    # Four chunks of two are in flight at most, beside the one that is being handed out.
    assert len(taken) <= 110
    results.close()


def test_error_in_the_function_reaches_the_caller() -> None:
    with pytest.raises(TypeError):
        list(ordered_map(abs, ["no number"], workers=1, crashed=0))  # type: ignore[arg-type]


def test_processes_that_were_got_ready_for_do_the_work() -> None:
    pool.get_ready(2, ("colorsys",))
    assert list(ordered_map(abs, range(-9, 0), workers=2, crashed=-1)) == list(range(9, 0, -1))


def test_there_is_at_least_one_core() -> None:
    assert num_cores() >= 1


def _process(number: int) -> tuple[int, int]:
    return number, os.getpid()


def test_quick_work_starts_no_process() -> None:
    results = map_where_worth(_process, range(100), 100, workers=2, crashed=(0, 0))
    assert list(results) == [(number, os.getpid()) for number in range(100)]


def test_slow_work_goes_on_in_processes_after_the_first_items(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "_TIMED_ITEMS", 3)
    monkeypatch.setattr(pool, "_SECONDS_WORTH_PROCESSES", 0.0)
    results = list(map_where_worth(abs, range(-9, 0), 9, workers=2, crashed=-1, chunk=2))
    assert results == list(range(9, 0, -1))


@pytest.fixture
def buffers() -> SharedBuffers:
    return SharedBuffers(2, 100_000, multiprocessing.get_context("spawn"))


def results(rng: np.random.Generator) -> list[Any]:
    drawn = rng.integers(0, 256, (3, 1, 100, 101)).astype(np.uint8)
    return [*drawn, "refused", np.arange(5, dtype=np.uint16)]


def test_arrays_come_out_as_they_went_in_and_beside_the_pickle(
    buffers: SharedBuffers, rng: np.random.Generator
) -> None:
    sent = results(rng)
    pickled = buffers.dump(sent, 1)
    assert len(pickled.data) < 2000
    for found, given in zip(buffers.load(pickled, 1), sent, strict=True):
        np.testing.assert_array_equal(found, given)


def test_buffers_are_kept_apart(buffers: SharedBuffers, rng: np.random.Generator) -> None:
    first, second = results(rng), results(rng)
    dumped = [buffers.dump(first, 0), buffers.dump(second, 1)]
    np.testing.assert_array_equal(buffers.load(dumped[0], 0)[2], first[2])
    np.testing.assert_array_equal(buffers.load(dumped[1], 1)[0], second[0])


def test_what_has_no_room_travels_in_the_pickle(buffers: SharedBuffers) -> None:
    sent = [np.full(60_000, number, np.uint8) for number in range(3)]
    pickled = buffers.dump(sent, 0)
    assert len(pickled.sizes) == 1
    assert len(pickled.data) > 120_000
    for found, given in zip(buffers.load(pickled, 0), sent, strict=True):
        np.testing.assert_array_equal(found, given)


def test_without_shared_memory_all_travels_in_the_pickle(rng: np.random.Generator) -> None:
    buffers = SharedBuffers(1, 0, multiprocessing.get_context("spawn"))
    sent = results(rng)
    pickled = buffers.dump(sent, 0)
    assert pickled.sizes == ()
    np.testing.assert_array_equal(buffers.load(pickled, 0)[1], sent[1])


@pytest.mark.parametrize("is_script", [True, False])
def test_nothing_is_imported_out_of_the_folder_that_one_works_in(
    make_dicom: Callable[..., Path], tmp_path: Path, is_script: bool
) -> None:
    here = tmp_path / "here"
    for number in range(2):
        make_dicom(np.full((9, 9), 7 + number, np.uint8), f"here/dl/{number}.dcm")
    code = (
        "from scanlearn.packing.pack import pack\n"
        "from scanlearn.packing.settings import PackSettings\n"
        "pack('dl', 'packed', settings=PackSettings(canvas=8, workers=2))\n"
    )
    words = ["-c", code]
    if is_script:
        # The interpreter of a script does not look here; those of its workers did.
        (here / "pydicom.py").write_text("raise SystemExit(9)\n")
        script = tmp_path / "elsewhere.py"
        script.write_text(code)
        words = [str(script)]
    done = subprocess.run([sys.executable, *words], cwd=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert len(Archive(here / "packed")) == 2
