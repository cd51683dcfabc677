"""AUROC over the scale: the arms of one curve, its fit, and what it shows in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Bool, Float

from scanlearn.console import track
from scantune.splits import Budget
from scantune.statistics.dose import DoseFit, at_level, fit_dose, fit_joint
from scantune.study.results import ArmRow, DoseCurve, JointDoseCurve
from scantune.study.summary import Estimates
from scantune.wording import budget_name, learner_name

# Under this p-value learners and budgets are told not to share one shape of curve.
_OTHER_SHAPE = 0.05


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
                        curves.append(dose_curve(place, group, fit, margin))
                progress.advance()
    return tuple(curves)


def joint_curves(
    arms: Sequence[ArmRow], estimates: Estimates, primary: tuple[str, Budget], margin: float
) -> tuple[JointDoseCurve, ...]:
    """The curve that all learners and budgets of a task share, by group of arms and task.

    Those whose models were not refitted are left out where others were: their variance over
    patients would be too small.

    Args:
        primary: Learner and budget at whose level a curve is told, where it is among them.
    """
    groups = dose_arms(arms)
    tasks = list(dict.fromkeys(key[0] for key in estimates))
    curves = []
    with track(len(groups) * len(tasks), "fitting joint curves") as progress:
        for group, task in product(groups, tasks):
            curves += _joint(task, group, estimates, primary, margin)
            progress.advance()
    return tuple(curves)


def _joint(
    task: str,
    group: DoseArms,
    estimates: Estimates,
    primary: tuple[str, Budget],
    margin: float,
) -> list[JointDoseCurve]:
    places = list(dict.fromkeys(key[1:3] for key in estimates if key[0] == task))
    cells = {
        place: [estimates[task, *place, arm.name] for arm in group.arms]
        for place in places
        if all((task, *place, arm.name) in estimates for arm in group.arms)
    }
    is_refitted = {
        place: all(each.refits is not None for members in cell for each in members)
        for place, cell in cells.items()
    }
    if any(is_refitted.values()):
        cells = {place: cell for place, cell in cells.items() if is_refitted[place]}
    if len(cells) < 2:
        return []
    told = primary if primary in cells else next(iter(cells))
    members, place = list(cells.values()), list(cells).index(told)
    joint = fit_joint(group.scales, members, margin=margin, told=place)
    if joint is None:
        return []
    curve = dose_curve((task, *told), group, joint.fit, margin)
    return [
        JointDoseCurve(
            **dict(curve),
            places=tuple(cells),
            levels=_rounded(np.array(joint.levels)),
            shape_p=round(joint.shape_p, 4),
        )
    ]


def curves_of_places(
    curve: JointDoseCurve,
) -> list[tuple[tuple[str, Budget], tuple[float, ...]]]:
    """The AUROC of a joint curve at each of its places; nothing of one of an earlier release."""
    return [
        (place, _rounded(at_level(np.array(curve.auroc), level)))
        for place, level in zip(curve.places, curve.levels, strict=False)
    ]


def dose_curve(
    place: tuple[str, str, Budget], group: DoseArms, fit: DoseFit, margin: float
) -> DoseCurve:
    """A fitted curve as results hold it, at a task, learner and budget."""
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
        return "No best scale is shown"
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
            f"{curve.scales[0]:g} to {curve.scales[-1]:g}: chance may make a level curve as "
            "uneven. Two of them, tested by themselves, may still be shown to differ."
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


def joint_sentences(curve: JointDoseCurve) -> list[str]:
    """What a joint curve shows, what it is fitted to, and whether that has one shape."""
    learners = list(dict.fromkeys(learner_name(learner) for learner, _ in curve.places))
    budgets = list(dict.fromkeys(budget_name(budget) for _, budget in curve.places))
    said = [
        f"{dose_headline(curve)}.",
        f"One curve for {len(curve.places)} places of the table ({', '.join(learners)}; "
        f"{', '.join(budgets)}), each at its own level; what a scale changes is taken to be alike "
        "on normal scores, so that it shows less the nearer an AUROC is to 1.",
    ]
    if curve.shape_p < _OTHER_SHAPE:
        said.append(
            f"Their curves differ in shape (p {max(curve.shape_p, 0.001):.2g}): the scale that is "
            "best on the whole need not be so at each of them."
        )
    return said
