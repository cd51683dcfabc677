"""AUROC over the scale: the arms of one curve, its fit, and what it shows in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from scanlearn.console import track
from scantune.splits import Budget
from scantune.statistics.dose import DoseFit, fit_dose
from scantune.study.results import ArmRow, DoseCurve
from scantune.study.summary import Estimates


@dataclass(frozen=True)
class DoseArms:
    """Pretrained arms that differ in one scale for all sub-dials, by ascending scale.

    Args:
        group: What is particular to them, such as the method; empty in a study of one group.
    """

    group: str
    arms: tuple[ArmRow, ...]
    scales: tuple[float, ...]


def overall_scale(arm: ArmRow) -> float | None:
    """The one number of an arm's dial; None where its sub-dials differ or it was not pretrained.

    Acquisition may stay at 0, as where no policy moves it.
    """
    if arm.scale is None:
        return None
    dial = arm.scale
    is_one = dial.crop == dial.geometry == dial.photometric
    return dial.crop if is_one and dial.acquisition in (0, dial.crop) else None


def dose_arms(arms: Sequence[ArmRow]) -> list[DoseArms]:
    """The groups of arms that have a scale each; a scale that two arms have is the first one's."""
    groups: dict[tuple[str, float, bool], dict[float, ArmRow]] = {}
    # The identity comes last: it moves nothing, and is an end of every curve of its method.
    for arm in sorted(arms, key=lambda arm: overall_scale(arm) == 0):
        scale = overall_scale(arm)
        if scale is None or arm.scale is None:
            continue
        method, share = arm.method or "", arm.share or 1.0
        joined = [key for key in groups if key[:2] == (method, share)] if scale == 0 else []
        for key in joined or [(method, share, arm.scale.acquisition > 0)]:
            groups.setdefault(key, {}).setdefault(scale, arm)
    methods, shares = ({key[place] for key in groups} for place in (0, 1))
    made = []
    for (method, share, moves), by_scale in groups.items():
        words = [
            *([method] if len(methods) > 1 else []),
            *([f"{100 * share:g} % of the archive"] if len(shares) > 1 else []),
            *(["acquisition moved"] if moves and (method, share, False) in groups else []),
        ]
        scales = tuple(sorted(by_scale))
        made.append(DoseArms(", ".join(words), tuple(by_scale[s] for s in scales), scales))
    return sorted(made, key=lambda group: -len(group.scales))


def dose_curves(
    arms: Sequence[ArmRow], estimates: Estimates, margin: float
) -> tuple[DoseCurve, ...]:
    """The curve of each group of arms, task, learner and label budget that has one."""
    places = list(dict.fromkeys(key[:3] for key in estimates))
    groups = dose_arms(arms)
    curves = []
    with track(len(groups) * len(places), "fitting curves over the scale") as progress:
        for group in groups:
            for place in places:
                of_arms = [estimates.get((*place, arm.name)) for arm in group.arms]
                members = [each for each in of_arms if each is not None]
                if len(members) == len(of_arms):
                    fit = fit_dose(group.scales, members, margin=margin)
                    if fit is not None:
                        curves.append(_curve(place, group, fit, margin))
                progress.advance()
    return tuple(curves)


def _curve(
    place: tuple[str, str, Budget], group: DoseArms, fit: DoseFit, margin: float
) -> DoseCurve:
    within = [s for s, is_in in zip(fit.at, fit.is_within, strict=True) if is_in]
    tested = [s for s in group.scales if any(abs(s - w) < 1e-9 for w in within)]
    return DoseCurve(
        task=place[0],
        learner=place[1],
        budget=place[2],
        group=group.group,
        arms=tuple(arm.name for arm in group.arms),
        scales=group.scales,
        kind=fit.kind,
        at=_rounded(fit.at),
        auroc=_rounded(fit.auroc),
        low=_rounded(np.clip(fit.low, 0, 1)),
        high=_rounded(np.clip(fit.high, 0, 1)),
        best=round(fit.best, 4),
        best_low=round(fit.best_low, 4),
        best_high=round(fit.best_high, 4),
        within=_ranges(fit.at, fit.is_within),
        possible=_ranges(fit.at, fit.is_possible),
        is_flat=fit.is_flat,
        take=tested[0] if tested else fit.near,
        is_take_shown=bool(tested),
        margin=margin,
    )


def _rounded(values: Float[np.ndarray, " x"]) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)


def _ranges(
    at: Float[np.ndarray, " x"], is_in: Bool[np.ndarray, " x"]
) -> tuple[tuple[float, float], ...]:
    """The runs of neighbouring scales that are in a set, each from its first to its last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_in, [False]]).astype(int)))
    pairs = zip(edges[::2], edges[1::2] - 1, strict=True)
    return tuple((round(float(at[a]), 4), round(float(at[b]), 4)) for a, b in pairs)


def ranges_text(ranges: Sequence[tuple[float, float]]) -> str:
    """``0.25 to 1``, or several of them."""
    return " and ".join(f"{a:.2g}" if a == b else f"{a:.2g} to {b:.2g}" for a, b in ranges)


def dose_headline(curve: DoseCurve) -> str:
    """What a curve shows, in a few words."""
    whole = (curve.scales[0], curve.scales[-1])
    if curve.is_flat and curve.within == (whole,):
        return f"Any scale from {whole[0]:g} to {whole[1]:g} does as well: take {curve.take:g}"
    if curve.is_flat:
        return "No scale is shown to be better than another"
    ends = f"{curve.best_low:.2g} to {curve.best_high:.2g}"
    return f"Best scale: s = {curve.best:.2g} (95 % interval {ends})"


def dose_sentences(curve: DoseCurve) -> list[str]:
    """What a curve shows and by which rule a scale is named, a sentence each."""
    said = []
    if not curve.is_flat:
        top = max(curve.auroc)
        said.append(f"AUROC is highest, {top:.3f}, at s = {curve.best:.2g}.")
        said.append(
            f"Scales {ranges_text(curve.possible)} are not shown to be worse; all others are."
        )
    else:
        said.append(
            f"AUROC is {min(curve.auroc):.3f} to {max(curve.auroc):.3f} from s = "
            f"{curve.scales[0]:g} to {curve.scales[-1]:g}, and no two scales are shown to differ."
        )
    if curve.within:
        said.append(
            f"Scales {ranges_text(curve.within)} are shown to be within {curve.margin:g} of the "
            "best."
        )
    if curve.is_take_shown:
        said.append(f"Take s = {curve.take:g}: the smallest tested scale of which this is shown.")
    else:
        said.append(
            f"No tested scale is shown to be within {curve.margin:g} of the best. Until more seeds "
            f"or patients tell, s = {curve.take:g} is a choice and no finding: the smallest tested "
            "scale at most one standard error below the highest."
        )
    if curve.kind == "points":
        said.append("No smooth curve fits these AUROCs: only the tested scales are compared.")
    return said
