from __future__ import annotations

import threading

import numpy as np
import pytest

from scanlearn.archive.reader import Archive
from scanlearn.errors import ScanlearnError
from scanlearn.training.batches import StepLoader, epoch_order, rows_of_steps, steps_in_epoch


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    assert np.array_equal(epoch_order(100, 3, 1), epoch_order(100, 3, 1))
    assert not np.array_equal(epoch_order(100, 3, 1), epoch_order(100, 3, 2))
    assert not np.array_equal(epoch_order(100, 3, 1), epoch_order(100, 4, 1))


def test_the_order_is_the_same_on_every_machine() -> None:
    assert epoch_order(10, 0, 0).tolist() == [2, 3, 5, 7, 0, 6, 1, 4, 9, 8]


def test_every_epoch_visits_every_scan_once() -> None:
    for epoch in range(3):
        assert sorted(epoch_order(57, 5, epoch)) == list(range(57))


def test_places_in_the_order_are_uniform() -> None:
    places = np.array([np.argsort(epoch_order(8, 0, epoch)) for epoch in range(2000)])
    # The standard error of each mean is 2.29 / sqrt(2000) = .05.
    assert np.abs(places.mean(axis=0) - 3.5).max() < 0.2


def test_the_incomplete_last_batch_is_left_out() -> None:
    assert steps_in_epoch(20, 8) == 2
    rows = list(rows_of_steps(20, 8, seed=0, first=0, stop=4))
    assert len(set(np.concatenate(rows[:2]))) == 16
    assert np.array_equal(np.concatenate(rows[2:]), epoch_order(20, 0, 1)[:16])


@pytest.mark.parametrize("first", [0, 1, 2, 3, 6])
def test_what_a_step_sees_does_not_depend_on_where_the_run_began(first: int) -> None:
    whole = list(rows_of_steps(20, 8, seed=1, first=0, stop=7))
    resumed = list(rows_of_steps(20, 8, seed=1, first=first, stop=7))
    assert np.array_equal(whole[first:], resumed)


def test_a_batch_larger_than_the_archive_is_refused() -> None:
    with pytest.raises(ScanlearnError, match="batch_size is 32, but the archive holds 20 scans"):
        steps_in_epoch(20, 32)


def test_the_loader_gives_the_scans_of_its_rows_and_a_key_for_its_step(archive: Archive) -> None:
    batches = list(StepLoader(archive, batch_size=8, seed=1, first=3, stop=6))
    assert [batch.key.step for batch in batches] == [3, 4, 5]
    for batch, rows in zip(batches, rows_of_steps(20, 8, 1, 3, 6), strict=True):
        assert np.array_equal(batch.rows, rows)
        assert batch.scans.ids.tolist() == rows.tolist()
        assert batch.key.seed == 1
        assert batch.key.positions.tolist() == list(range(8))
        expected = archive.gather(rows)
        assert bool((batch.scans.pixels == expected.pixels).all())


@pytest.mark.parametrize(("ranks", "parts"), [(1, 2), (2, 1), (2, 2)])
def test_processes_and_parts_share_every_batch(archive: Archive, ranks: int, parts: int) -> None:
    whole = list(StepLoader(archive, batch_size=8, seed=1, first=1, stop=4))
    shared = [
        list(
            StepLoader(
                archive, batch_size=8, seed=1, first=1, stop=4, rank=rank, ranks=ranks, parts=parts
            )
        )
        for rank in range(ranks)
    ]
    for step, batch in enumerate(whole):
        mine = [process[step * parts + part] for part in range(parts) for process in shared]
        assert np.array_equal(np.concatenate([one.rows for one in mine]), batch.rows)
        positions = np.concatenate([one.key.positions for one in mine])
        assert np.array_equal(positions, batch.key.positions)
        for one in mine:
            assert one.key.step == batch.key.step
            assert one.scans.ids.tolist() == one.rows.tolist()
            assert np.array_equal(one.global_rows, batch.rows)
            assert np.array_equal(one.global_key.positions, batch.key.positions)
        assert [one.is_last_part for one in mine] == [one.part == parts - 1 for one in mine]


def test_an_error_while_reading_reaches_the_run(archive: Archive) -> None:
    loader = StepLoader(archive, batch_size=8, seed=1, first=0, stop=3)

    def broken(rows: object) -> None:
        raise OSError("the disk went away")

    loader._archive = type(
        "Broken", (), {"gather": staticmethod(broken), "__len__": lambda _: 20}
    )()
    with pytest.raises(OSError, match="went away"):
        list(loader)


def test_a_loader_left_early_leaves_no_thread(archive: Archive) -> None:
    before = threading.active_count()
    batches = iter(StepLoader(archive, batch_size=8, seed=1, first=0, stop=100))
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
