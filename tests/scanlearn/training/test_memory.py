from __future__ import annotations

import errno
import os

import pytest
import torch

from scanlearn.training.memory import (
    SMALLEST_BATCH,
    is_out_of_memory,
    largest_that_fits,
    out_of_memory_sentence,
)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate"
                     " memory: you tried to allocate 9437184 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("could not create a primitive"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    ],
)  # fmt: skip
def test_every_way_of_saying_out_of_memory_is_understood(error: BaseException) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RuntimeError("could not create a primitive descriptor for a convolution"),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        ValueError("out of memory"),
    ],
)
def test_other_errors_are_not_taken_for_it(error: BaseException) -> None:
    assert not is_out_of_memory(error)


def test_an_allocation_that_cannot_be_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("limit", [2, 3, 7, 100, 255, 256, 999])
def test_the_batch_found_fits_and_an_eighth_more_does_not(limit: int) -> None:
    found = largest_that_fits(1000, lambda batch: batch <= limit)
    assert found is not None
    assert SMALLEST_BATCH <= found <= limit
    assert found + max(1, found // 8) + 1 > limit


def test_few_trials_find_it() -> None:
    tried: list[int] = []

    def fits(batch: int) -> bool:
        tried.append(batch)
        return batch <= 300

    largest_that_fits(4096, fits)
    assert len(tried) <= 10
    assert len(set(tried)) == len(tried)


def test_what_fits_at_a_second_look_is_returned_as_it_is() -> None:
    assert largest_that_fits(64, lambda batch: True) == 64


def test_nothing_fits_is_told_apart() -> None:
    assert largest_that_fits(64, lambda batch: False) is None


def test_the_sentence_names_the_batch_and_what_is_kept() -> None:
    text = out_of_memory_sentence(512, 96, 224)
    assert "batch_size=512" in text
    assert "is batch_size=96" in text
    assert "another output" in text
    assert "not even batch_size=2" in out_of_memory_sentence(512, None, 224)
    assert "something else holds memory" in out_of_memory_sentence(512, 512, 224)
