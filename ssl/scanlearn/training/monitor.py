"""What is watched while a network learns: collapse, and the proof that arms are matched."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from scanlearn.core import Losses
from scanlearn.features import labelfree as labelfree
from scanlearn.training.folder import read_rows

COLLAPSED_BELOW = 0.1
FLAT_BELOW = 4.0
SOLVED_BELOW = 0.01
CHANCE_ABOVE = 0.99
ROWS_TO_JUDGE = 5
# Whoever takes fewer is trying whether a command works, not whether a network learns.
LEAST_STEPS = 100


@dataclass(frozen=True)
class Health:
    """What one row of metrics says of collapse.

    Args:
        spread: Of the embeddings: about 1 when healthy, 0 when all scans look alike.
        rank: Effective rank of the embeddings: 1 when all scans lie on one line.
        loss_vs_chance: Loss as a share of that of a network that knows nothing; of DINO the entropy
            of the teacher's answers, as a share of that of equal ones.
    """

    spread: float
    rank: float
    loss_vs_chance: float

    @classmethod
    def of(cls, losses: Losses) -> Health:
        """Returns the health that a step's embeddings and loss show."""
        judged = losses.total if losses.judged is None else losses.judged
        return cls(
            spread=embedding_std(losses.embeddings),
            rank=embedding_rank(losses.embeddings),
            loss_vs_chance=float(judged.detach()) / losses.chance,
        )


def embedding_std(embeddings: Float[Tensor, "b d"]) -> float:
    """The `labelfree.embedding_std` of a batch; NaN where an embedding is not finite."""
    features = embeddings.float().cpu().numpy()
    return labelfree.embedding_std(features) if np.isfinite(features).all() else float("nan")


def embedding_rank(embeddings: Float[Tensor, "b d"]) -> float:
    """The `labelfree.rankme` of L2-normalised embeddings; NaN where one is not finite."""
    features = embeddings.float().cpu().numpy()
    if not np.isfinite(features).all():
        return float("nan")
    # Not by `labelfree.rankme`: NumPy's threads would spin for a tenth of a second after it, beside
    # those of torch, and every step after a row of metrics would wait for them.
    rows = torch.from_numpy(labelfree.unit_rows(features))
    return labelfree.effective_rank(torch.linalg.svdvals(rows).numpy())


def chained(digest: str, array: Shaped[np.ndarray, "..."]) -> str:
    """Appends one array to a chain of SHA-256 digests.

    Equal ends of two chains prove that every array, its shape and its type were equal, in the same
    order. The empty string begins one.
    """
    state = hashlib.sha256(digest.encode())
    state.update(f"{array.dtype.str} {array.shape}".encode())
    state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()


class CollapseMonitor:
    """Warns once, as early as it can be told, of a collapse or of a run that learns nothing.

    Args:
        is_identity: As of `collapse_warning`.
    """

    def __init__(self, *, is_identity: bool = False) -> None:
        self._is_identity = is_identity
        self._recent: deque[Health] = deque(maxlen=ROWS_TO_JUDGE)
        self._has_warned = False

    def row(self, health: Health, *, is_warm: bool, is_late: bool) -> tuple[str, ...]:
        """Takes in a row; returns what is to be warned of now.

        Args:
            is_warm: Whether the learning rate has reached its peak: before, little is learned.
        """
        if is_warm:
            self._recent.append(health)
        if len(self._recent) < ROWS_TO_JUDGE or self._has_warned:
            return ()
        warning = collapse_warning(
            _mean(self._recent), is_late=is_late, is_identity=self._is_identity
        )
        self._has_warned = bool(warning)
        return warning


def collapse_warning(
    health: Health, *, is_late: bool, is_identity: bool = False
) -> tuple[str, ...]:
    """A warning where embeddings have collapsed or nothing is learned; else none.

    Args:
        is_late: Whether half of the run is over: a healthy run may begin above chance, since at
            a small temperature spread embeddings that know nothing cost more than equal ones.
        is_identity: Whether views are not augmented at all: being equal is what they are for.

    Source: Chen and He, Exploring Simple Siamese Representation Learning, CVPR 2021, section 4.1:
    the std is near 1 / sqrt(d) for spread embeddings and 0 when collapsed. The bounds are ours: at
    a spread of .1 the cosine between two scans averages .99. Healthy short runs of SimCLR at
    temperature .1 go as low as .2 and an effective rank of 9: the head's offset then stands in for
    a higher temperature. Diverged ones stay at a spread of .07 to .13, a rank of 1.6 to 3.4 and
    within 1 % of chance. DINO without centring falls below 1 % of chance in some dozens of steps,
    its teacher's features still spread; so does SimCLR whose two views are equal.
    """
    loss = (
        "the loss (with dino the entropy of the teacher's answers) is "
        f"{health.loss_vs_chance:.2%} of chance level"
    )
    is_at_chance = health.loss_vs_chance > CHANCE_ABOVE
    if health.spread < COLLAPSED_BELOW or (health.rank < FLAT_BELOW and is_at_chance):
        return (
            f"the embeddings have collapsed (spread {health.spread:.2f}; 1 is healthy, 0 means all "
            f"scans look alike; effective rank {health.rank:.1f}) and {loss}: try a smaller "
            "method.learning_rate, a larger scale or a larger batch_size",
        )
    if health.loss_vs_chance < SOLVED_BELOW and is_identity:
        return (
            f"{loss}: at scale 0 the views of a scan are equal, and telling scans apart is learned "
            "at once; that is what an arm without augmentation shows, a backbone needs a larger "
            "scale",
        )
    if health.loss_vs_chance < SOLVED_BELOW:
        return (
            f"{loss}: the views are too alike to learn from, or all scans get the same output; try "
            "a larger scale, and with dino the published centring and temperatures",
        )
    if is_late and is_at_chance:
        return (
            f"after half of the steps {loss}: try a smaller method.learning_rate, more epochs, a "
            "smaller scale or, with dino, a smaller method.teacher_temperature",
        )
    return ()


def is_late(step: int, total_steps: int) -> bool:
    """Whether something must have been learned by now: half of the run, at least 100 steps."""
    return step >= max(total_steps / 2, LEAST_STEPS)


def final_health(metrics: Path) -> Health:
    """The mean over the last rows of a run's metrics."""
    columns = ("embedding_std", "embedding_rank", "loss_vs_chance")
    return _mean(Health(*row) for row in read_rows(metrics, columns)[-ROWS_TO_JUDGE:])


def _mean(rows: Iterable[Health]) -> Health:
    columns = zip(*((row.spread, row.rank, row.loss_vs_chance) for row in rows), strict=True)
    return Health(*(float(np.mean(column)) for column in columns))
