"""Out of memory, in words: which batch would fit."""

from __future__ import annotations

import errno
import gc
import re
from collections.abc import Callable

import torch

SMALLEST_BATCH = 2
# Trials stop once the answer is known to an eighth; a batch is chosen no finer.
_FINENESS = 8
# torch has no class of its own for these; the last is oneDNN's way of saying it.
_TEXTS = re.compile(
    r"(can't|cannot) allocate memory|not enough memory|out of memory|alloc_failed|bad_alloc"
    r"|could not (create|execute) a (primitive(?! desc)|memory)",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU or the machine has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and _TEXTS.search(str(error)) is not None


def free_memory() -> None:
    """Gives back what nobody refers to any more: a trainer and its module refer to each other."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def largest_that_fits(asked: int, fits: Callable[[int], bool]) -> int | None:
    """The largest batch known to fit, to within an eighth; None where not even the smallest does.

    Halves until a batch fits, then tries between the last two.

    Args:
        asked: What did not fit; tried once more, since something else may have held the memory.
        fits: Tries a batch.

    Example:
        >>> largest_that_fits(1000, lambda batch: batch <= 300)
        281
    """
    if fits(asked):
        return asked
    too_many, found = asked, max(asked // 2, SMALLEST_BATCH)
    while not fits(found):
        if found == SMALLEST_BATCH:
            return None
        too_many, found = found, max(found // 2, SMALLEST_BATCH)
    while too_many - found > max(1, found // _FINENESS):
        between = (found + too_many) // 2
        if fits(between):
            found = between
        else:
            too_many = between
    return found


def out_of_memory_sentence(asked: int, found: int | None, size: int) -> str:
    """What happened and what would fit.

    Args:
        asked: The run's batch size.
        found: The largest that fits; None where none does.
        size: Side of a view in pixels.
    """
    where = f"out of memory with batch_size={asked} and views of {size} px"
    if found is None:
        return (
            f"{where}, and not even batch_size={SMALLEST_BATCH} fits: make views.size or the "
            "backbone smaller; the last checkpoint is kept."
        )
    if found == asked:
        return (
            f"{where}, although that batch fits in a trial of its first steps: something else "
            "holds memory at times; the same command goes on from the last checkpoint."
        )
    return (
        f"{where}: the largest batch that fits here is batch_size={found}, found by trial; "
        "the last checkpoint is kept, but another batch size is another run and needs another "
        "output."
    )
