"""Which scales a search keeps and which it chooses; numbers in, names out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from scantune.statistics.intervals import Estimate, paired_difference


@dataclass(frozen=True)
class Choice:
    """What one set of patients chooses among scales.

    Args:
        best: Name of the scale of the highest AUROC.
        chosen: The smallest that is within one standard error of it.
        alike: All that are, ascending, the best among them.
        sureness: Share of patient resamples in which each is chosen, by name.
    """

    best: str
    chosen: str
    alike: tuple[str, ...]
    sureness: Mapping[str, float]

    @property
    def is_flat(self) -> bool:
        """Whether every scale that was a candidate is within one standard error of the best."""
        return set(self.alike) == set(self.sureness)


def standard_errors(estimates: Mapping[str, Estimate], to: str) -> dict[str, float]:
    """Returns the standard error of each scale's difference to one of them, over patients.

    It is that of `paired_difference` with one pretraining seed, 0 of the one to itself, and
    infinite where the difference is undefined: nothing is then known to be worse.
    """
    found = {}
    for name, estimate in estimates.items():
        variance = 0.0 if name == to else paired_difference([estimate], [estimates[to]]).variance
        found[name] = float(np.sqrt(variance)) if np.isfinite(variance) else float("inf")
    return found


def kept(estimates: Mapping[str, Estimate], ranks: Mapping[str, float], count: int) -> list[str]:
    """Returns the scales that go on after a rung: the best by AUROC, ties by the label-free rank.

    Those within one standard error of the last that would be kept by AUROC alone are a tie: the
    places that are left when all above the tie are kept go to the highest ranks, then to the
    higher AUROC.

    Args:
        estimates: AUROC of each scale that has not collapsed.
        ranks: Of the same scales, the higher the better.
        count: How many are kept.

    Returns:
        Names in the order of ``estimates``.
    """
    if len(estimates) <= count:
        return list(estimates)
    # One whose AUROC is undefined comes last, and ties with nothing.
    auroc = {n: e.auroc if np.isfinite(e.auroc) else -np.inf for n, e in estimates.items()}
    order = sorted(auroc, key=auroc.__getitem__, reverse=True)
    cut = order[count - 1]
    error = standard_errors(estimates, cut)
    near = [n for n in order if np.isfinite(auroc[n]) and auroc[cut] - error[n] <= auroc[n]]
    tied = [n for n in near if auroc[n] <= auroc[cut] + error[n]] or [cut]
    above = [name for name in order[:count] if name not in tied]
    tied.sort(key=lambda name: (ranks[name], auroc[name]), reverse=True)
    taken = {*above, *tied[: count - len(above)]}
    return [name for name in estimates if name in taken]


def choose(scales: Mapping[str, float], estimates: Mapping[str, Estimate]) -> Choice:
    """Chooses the smallest scale whose AUROC is within one standard error of the best.

    The standard errors are those over patients; what another pretraining seed would change is not
    in them. `Choice.sureness` chooses anew in each patient resample, with the same errors.

    Args:
        scales: Of each name, at least those of ``estimates``.
        estimates: Of the candidates, with the same patient resamples.

    Source: Breiman et al. 1984, section 3.4.3, the one standard error rule; smaller is simpler.
    """
    names = sorted(estimates, key=lambda name: scales[name])
    aurocs = np.array([estimates[name].auroc for name in names])
    resampled = np.stack([estimates[name].replicates for name in names])
    errors = np.array(
        [list(standard_errors({n: estimates[n] for n in names}, to).values()) for to in names]
    )
    picks = _picks(np.concatenate([aurocs[:, None], resampled], axis=1), errors)
    best = int(np.nanargmax(aurocs)) if np.isfinite(aurocs).any() else 0
    alike = _within(aurocs, errors[best], best)
    drawn = picks[1:][picks[1:] >= 0]
    share = np.bincount(drawn, minlength=len(names)) / max(1, len(drawn))
    return Choice(
        best=names[best],
        chosen=names[int(np.flatnonzero(alike)[0])],
        alike=tuple(name for name, is_alike in zip(names, alike, strict=True) if is_alike),
        sureness=dict(zip(names, share.tolist(), strict=True)),
    )


def _within(
    aurocs: Float[np.ndarray, " k"], errors: Float[np.ndarray, " k"], best: int
) -> np.ndarray:
    within = np.array(aurocs >= aurocs[best] - errors)
    within[best] = True
    return within


def _picks(aurocs: Float[np.ndarray, "k r"], errors: Float[np.ndarray, "k k"]) -> np.ndarray:
    """The smallest scale within one standard error of the best, by column; -1 where undefined."""
    picks = np.full(aurocs.shape[1], -1)
    for column, values in enumerate(aurocs.T):
        if np.isfinite(values).all():
            best = int(values.argmax())
            picks[column] = int(np.flatnonzero(_within(values, errors[best], best))[0])
    return picks
