"""What a small archive, or a short run, changes in a recipe published for a million images.

Source: the rules are ours (no paper states any); the numbers they start from are each recipe's.
"""

from __future__ import annotations

import math

from scanlearn.core import Progress

# No warm-up or freeze takes more of a run than this.
MOST_WARMUP = 0.1
PUBLISHED_QUEUE = 65_536
PUBLISHED_PROTOTYPES = 65_536
_FEWEST_PROTOTYPES = 1_024
# After this many time constants the teacher has forgotten the initial weights.
_TURNOVERS = 20


def queue_size(num_scans: int) -> int:
    """Keys in MoCo's queue: the largest power of two within half of the archive.

    A longer queue would hold several keys of most scans, among them the query's own.

    Args:
        num_scans: Scans in the archive, at least 2.

    Returns:
        At most 65,536, the published length.

    Example:
        >>> queue_size(5_856), queue_size(1_281_167)
        (2048, 65536)
    """
    return int(min(PUBLISHED_QUEUE, 2 ** math.floor(math.log2(max(num_scans // 2, 1)))))


def num_prototypes(num_scans: int) -> int:
    """Outputs of DINO's head: the power of two nearest to an eighth of the archive.

    Returns:
        From 1,024 to the published 65,536.

    Example:
        >>> num_prototypes(5_856), num_prototypes(100_000), num_prototypes(1_281_167)
        (1024, 16384, 65536)
    """
    eighth = max(num_scans / 8, 1.0)
    lower = 2 ** math.floor(math.log2(eighth))
    nearest = lower if eighth - lower <= 2 * lower - eighth else 2 * lower
    return int(min(PUBLISHED_PROTOTYPES, max(_FEWEST_PROTOTYPES, nearest)))


def start_momentum(published: float, total_steps: int) -> float:
    """Momentum of a teacher at the start: the published one, less in a short run.

    Returns:
        ``min(published, 1 - 20 / total_steps)``, not below 0.

    Example:
        >>> start_momentum(0.996, 1_000), start_momentum(0.996, 100_000)
        (0.98, 0.996)
    """
    return min(published, max(0.0, 1 - _TURNOVERS / total_steps))


def momentum_in_words(start: float, total_steps: int) -> tuple[str, ...]:
    """Says why a short run lowers a teacher's momentum; nothing where it does not."""
    lowered = start_momentum(start, total_steps)
    if lowered == start:
        return ()
    return (
        f"teacher momentum starts at {lowered:.4g}: at {start:g} the teacher would still hold "
        f"{start**total_steps:.0%} of its initial weights after {total_steps:,} steps",
    )


def warmup_steps(epochs: float, at: Progress) -> int:
    """Steps of a warm-up or freeze that is published in epochs: at most a tenth of the run.

    Example:
        >>> warmup_steps(10, Progress(step=0, total_steps=1_000, steps_per_epoch=45))
        100
    """
    return min(round(epochs * at.steps_per_epoch), int(MOST_WARMUP * at.total_steps))
