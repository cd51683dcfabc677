"""Which scales a search keeps and which it chooses; numbers in, names out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from scantune.statistics.dose import DoseFit, fit_dose
from scantune.statistics.intervals import Estimate, combined, paired_difference


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


def standard_errors(estimates: Mapping[str, Sequence[Estimate]], to: str) -> dict[str, float]:
    """Returns the standard error of each scale's difference to one of them.

    It is that of `paired_difference`: over patients with one pretraining seed, and between seeds
    too with several. 0 of the one to itself, and infinite where the difference is undefined:
    nothing is then known to be worse.
    """
    found = {}
    for name, seeds in estimates.items():
        variance = 0.0 if name == to else paired_difference(seeds, estimates[to]).variance
        found[name] = float(np.sqrt(variance)) if np.isfinite(variance) else float("inf")
    return found


def _mean_auroc(seeds: Sequence[Estimate]) -> float:
    """The mean over seeds; one that is undefined comes last, and ties with nothing."""
    mean = float(np.mean([each.auroc for each in seeds]))
    return mean if np.isfinite(mean) else -np.inf


def cut(estimates: Mapping[str, Sequence[Estimate]], count: int) -> tuple[list[str], list[str]]:
    """Returns the scales that go on by AUROC alone, and those of which only some can.

    The second are within one standard error of the last that would go on by AUROC alone.
    """
    auroc = {name: _mean_auroc(seeds) for name, seeds in estimates.items()}
    order = sorted(auroc, key=auroc.__getitem__, reverse=True)
    if len(order) <= count:
        return order, []
    last = order[count - 1]
    error = standard_errors(estimates, last)
    near = [n for n in order if np.isfinite(auroc[n]) and auroc[last] - error[n] <= auroc[n]]
    tied = [n for n in near if auroc[n] <= auroc[last] + error[n]] or [last]
    return [name for name in order[:count] if name not in tied], tied


def kept(
    estimates: Mapping[str, Sequence[Estimate]], ranks: Mapping[str, float], count: int
) -> list[str]:
    """Returns the scales that go on after a rung: the best by AUROC, ties by the label-free rank.

    The places that are left when all above the tie are kept go to the highest ranks, then to the
    higher AUROC.

    Args:
        estimates: AUROC of each scale that has not collapsed.
        ranks: Of the same scales, the higher the better.
        count: How many are kept.

    Returns:
        Names in the order of ``estimates``.
    """
    above, tied = cut(estimates, count)
    tied.sort(key=lambda name: (ranks[name], _mean_auroc(estimates[name])), reverse=True)
    taken = {*above, *tied[: count - len(above)]}
    return [name for name in estimates if name in taken]


def choose(scales: Mapping[str, float], estimates: Mapping[str, Sequence[Estimate]]) -> Choice:
    """Chooses the smallest scale whose AUROC is within one standard error of the best.

    With one seed the errors are those over patients, and what another would change is not in
    them. `Choice.sureness` chooses anew in each patient resample, with the same errors.

    Args:
        scales: Of each name, at least those of ``estimates``.
        estimates: Of the candidates, one per pretraining seed, with the same patient resamples.

    Source: Breiman et al. 1984, section 3.4.3, the one standard error rule; smaller is simpler.
    """
    names = sorted(estimates, key=lambda name: scales[name])
    members = [estimates[name] for name in names]
    aurocs = np.array([np.mean([each.auroc for each in seeds]) for seeds in members])
    resampled = np.stack([np.mean([e.replicates for e in seeds], axis=0) for seeds in members])
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


def rival(choice: Choice, estimates: Mapping[str, Sequence[Estimate]]) -> str | None:
    """Returns the scale that the chosen one is to be confirmed against; None where none is close.

    It is the best, or, where that was chosen, the best of those within one standard error of it.
    """
    others = [name for name in choice.alike if name != choice.chosen]
    return max(others, key=lambda name: _mean_auroc(estimates[name])) if others else None


def curve_over_rungs(
    scales: Mapping[str, float], rungs: Sequence[Mapping[str, Estimate]], margin: float
) -> DoseFit | None:
    """Returns the curve over the scale that all rungs share, each at its own level.

    A scale's AUROC is its part in the least squares fit of rung + scale, so that the later rungs
    count for those that reached them; with one pretraining seed their scatter about the curve
    stands for the seeds. None with fewer than five scales.

    Args:
        rungs: AUROCs of the scales that were measured, all of them on the first; a scale that
            collapsed later is left out by the caller.
    """
    names = sorted(rungs[0], key=scales.__getitem__)
    places = [(number, name) for number, rung in enumerate(rungs) for name in names if name in rung]
    design = np.zeros((len(places), len(rungs) + len(names)))
    for row, (number, name) in enumerate(places):
        design[row, [number, len(rungs) + names.index(name)]] = 1
    # At the level of the last rung.
    wanted = np.eye(len(names), len(rungs) + len(names), len(rungs))
    wanted[:, len(rungs) - 1] = 1
    weights = wanted @ np.linalg.pinv(design)
    measured = [rungs[number][name] for number, name in places]
    arms = [[combined(measured, row.tolist())] for row in weights]
    return fit_dose([scales[name] for name in names], arms, margin=margin, fewest_seeds=1)
