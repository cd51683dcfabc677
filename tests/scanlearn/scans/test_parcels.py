from __future__ import annotations

import multiprocessing
from typing import Any

import numpy as np
import pytest

from scanlearn.scans.parcels import Slots


@pytest.fixture
def slots() -> Slots:
    return Slots(2, 100_000, multiprocessing.get_context("spawn"))


def results(rng: np.random.Generator) -> list[Any]:
    drawn = rng.integers(0, 256, (3, 1, 100, 101)).astype(np.uint8)
    return [*drawn, "refused", np.arange(5, dtype=np.uint16)]


def test_arrays_come_out_as_they_went_in_and_beside_the_pickle(
    slots: Slots, rng: np.random.Generator
) -> None:
    sent = results(rng)
    parcel = slots.wrap(sent, 1)
    assert len(parcel.pickled) < 2000
    for found, given in zip(slots.unwrap(parcel, 1), sent, strict=True):
        np.testing.assert_array_equal(found, given)


def test_places_are_kept_apart(slots: Slots, rng: np.random.Generator) -> None:
    first, second = results(rng), results(rng)
    parcels = [slots.wrap(first, 0), slots.wrap(second, 1)]
    np.testing.assert_array_equal(slots.unwrap(parcels[0], 0)[2], first[2])
    np.testing.assert_array_equal(slots.unwrap(parcels[1], 1)[0], second[0])


def test_what_has_no_room_travels_in_the_pickle(slots: Slots) -> None:
    sent = [np.full(60_000, number, np.uint8) for number in range(3)]
    parcel = slots.wrap(sent, 0)
    assert len(parcel.sizes) == 1
    assert len(parcel.pickled) > 120_000
    for found, given in zip(slots.unwrap(parcel, 0), sent, strict=True):
        np.testing.assert_array_equal(found, given)


def test_without_shared_memory_all_travels_in_the_pickle(rng: np.random.Generator) -> None:
    slots = Slots(1, 0, multiprocessing.get_context("spawn"))
    sent = results(rng)
    parcel = slots.wrap(sent, 0)
    assert parcel.sizes == ()
    np.testing.assert_array_equal(slots.unwrap(parcel, 0)[1], sent[1])
