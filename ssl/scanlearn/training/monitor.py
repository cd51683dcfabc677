"""What is watched while a network learns: collapse, and the proof that arms are matched."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

COLLAPSED_BELOW = 0.1
ROWS_TO_JUDGE = 5


def embedding_std(embeddings: Float[Tensor, "b d"]) -> float:
    """Spread of a batch's embeddings: about 1 when healthy, 0 when all scans look alike.

    The mean over dimensions of the standard deviation of L2-normalised embeddings, times
    ``sqrt(d)``, which makes it independent of the dimension.

    Source: Chen and He, "Exploring Simple Siamese Representation Learning", CVPR 2021,
    section 4.1 (there without the factor ``sqrt(d)``).
    """
    unit = torch.nn.functional.normalize(embeddings.float(), dim=1)
    spread = unit.std(dim=0, correction=0).mean() * unit.shape[1] ** 0.5
    return float(spread)


def chained(digest: str, array: Shaped[np.ndarray, "..."]) -> str:
    """Appends one array to a chain of SHA-256 digests.

    Equal ends of two chains prove that every array was equal, in the same order.

    Args:
        digest: The chain so far; the empty string begins one.
        array: What to append; its shape and type count too.
    """
    state = hashlib.sha256(digest.encode())
    state.update(f"{array.dtype.str} {array.shape}".encode())
    state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()


def collapse_warning(spread: float) -> tuple[str, ...]:
    """A warning where the embeddings' spread says that they have collapsed; else none.

    Source: Chen and He, Exploring Simple Siamese Representation Learning, CVPR 2021, section 4.1:
    the std is near 1 / sqrt(d) for spread embeddings and 0 when collapsed. The bound is ours: at
    .1 the cosine between two scans averages .99. Healthy short runs of SimCLR at temperature .1
    go as low as .2: the head's offset then stands in for a higher temperature.
    """
    if spread >= COLLAPSED_BELOW:
        return ()
    return (
        f"the embeddings have collapsed (their spread is {spread:.2f}; 1 is healthy, 0 means that "
        "all scans look alike): try a larger scale, a larger batch_size or a smaller "
        "method.learning_rate.",
    )


def final_spread(metrics: Path) -> float:
    """The mean spread of the embeddings over the last rows of a run's metrics."""
    with metrics.open(newline="") as file:
        spreads = [float(row["embedding_std"]) for row in csv.DictReader(file)]
    return float(np.mean(spreads[-ROWS_TO_JUDGE:]))
