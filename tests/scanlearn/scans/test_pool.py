from __future__ import annotations

import operator
import os
from functools import partial
from typing import Any

import pytest

from scanlearn.scans.pool import num_cores, ordered_map


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


def test_error_in_the_function_reaches_the_caller() -> None:
    with pytest.raises(TypeError):
        list(ordered_map(abs, ["no number"], workers=1, crashed=0))  # type: ignore[arg-type]


def test_there_is_at_least_one_core() -> None:
    assert num_cores() >= 1
