"""Measures without labels against AUROC: would they have chosen the scale?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from statistics import fmean

from markupsafe import Markup

from scanlearn import svg
from scanlearn.svg import Axis, Point
from scantune.reports.plots import auroc_range, interval_text
from scantune.statistics.ranks import label_free_rank, rank_correlation
from scantune.study.results import ArmRow, Results, Score

# What is better by theory: more (1), less (-1), or near 1 (0).
_BETTER = {
    "lidar": 1,
    "rotation": 1,
    "rankme": 1,
    "silhouette": 1,
    "embedding_std": 1,
    "uniformity": -1,
    "alignment": -1,
    "alpha": 0,
}
_TITLES = {
    "lidar": "LiDAR",
    "rotation": "Rotation probe",
    "rankme": "RankMe",
    "silhouette": "Silhouette",
    "embedding_std": "Embedding std × √d",
    "uniformity": "Uniformity",
    "alignment": "Alignment",
    "alpha": "Decay of the spectrum",
}
_WANTED = {1: "more", -1: "less", 0: "near 1"}
# What a search ranks scales by, together.
_OF_SEARCH = ("lidar", "rotation")
_LEAST_ARMS = 3


@dataclass(frozen=True)
class RankAgreement:
    """One measure against AUROC over the arms of a group, each the mean over its seeds.

    Args:
        wanted: What is better by theory, in a word.
        rho: Spearman's, of the measure as theory would have it: positive where it is right; NaN
            where undefined.
        p: How often chance alone gives a correlation as far from 0.
        picked: The arm that the measure would take.
        lost: AUROC of the best arm less that of the one picked.
    """

    measure: str
    wanted: str
    rho: float
    p: float
    picked: str
    lost: float


@dataclass(frozen=True)
class LabelFreeGroup:
    """The arms of one method and share of patients: their measures and AUROCs by name."""

    title: str
    measures: Mapping[str, Mapping[str, float]]
    aurocs: Mapping[str, float]

    @property
    def best(self) -> str:
        """The arm of the highest AUROC."""
        return max(self.aurocs, key=self.aurocs.__getitem__)

    def agreements(self) -> list[RankAgreement]:
        """Each measure against AUROC, LiDAR first, and what a search ranks by."""
        arms = list(self.aurocs)
        judged = {name: {a: _judged(name, of[a]) for a in arms} for name, of in self.whole()}
        wanted = {name: _WANTED[_BETTER[name]] for name in judged}
        titles = {name: _TITLES[name] for name in judged}
        if set(_OF_SEARCH) <= judged.keys():
            ranks = label_free_rank({a: [judged[name][a] for name in _OF_SEARCH] for a in arms})
            judged["search"], wanted["search"] = ranks, "more"
            titles["search"] = "LiDAR and rotation, mean rank"
        return [self._agreement(titles[name], wanted[name], judged[name]) for name in judged]

    def whole(self) -> list[tuple[str, Mapping[str, float]]]:
        """The measures that all arms have, in the order of the report."""
        return [
            (name, self.measures[name])
            for name in _BETTER
            if set(self.aurocs) <= self.measures.get(name, {}).keys()
        ]

    def _agreement(self, title: str, wanted: str, judged: Mapping[str, float]) -> RankAgreement:
        arms = list(self.aurocs)
        rho, p = rank_correlation([judged[a] for a in arms], [self.aurocs[a] for a in arms])
        picked = max(arms, key=judged.__getitem__)
        return RankAgreement(
            title, wanted, rho, p, picked, self.aurocs[self.best] - self.aurocs[picked]
        )

    def in_words(self) -> list[str]:
        """Whether LiDAR would have chosen the scale, and how little so few arms tell."""
        count = len(self.aurocs)
        (first, *_), best = self.agreements(), self.best
        said = (
            f"{first.measure} is highest in {first.picked}, which has the highest AUROC too."
            if first.picked == best
            else f"{first.measure} is highest in {first.picked}, whose AUROC is {first.lost:.3f} "
            f"below that of {best}, the highest."
        )
        if isnan(first.rho):
            return [
                said,
                "Its rank correlation with AUROC is undefined: all arms are alike in one.",
            ]
        evidence = (
            "which chance alone rarely gives"
            if first.p < 0.05
            else "which is no evidence that it predicts AUROC, nor that it does not"
        )
        p = "under .001" if first.p < 0.001 else f"{first.p:.3f}".lstrip("0")
        return [
            said,
            f"Over {count} arms its rank correlation with AUROC is {signed_text(first.rho)} "
            f"(p {p}, by permutation), {evidence}.",
        ]


def _judged(name: str, value: float) -> float:
    better = _BETTER[name]
    return better * value if better else -abs(value - 1)


def signed_text(value: float) -> str:
    """``−0.37``, with a true minus; a dash where it is undefined."""
    if isnan(value):
        return "–"
    return ("−" if value < 0 else "") + f"{abs(value):.2f}"


def label_free_groups(results: Results, scores: Mapping[str, Score]) -> list[LabelFreeGroup]:
    """The groups of three trained arms or more that were measured, that of the primary arm first.

    Args:
        scores: By arm, all of one task, learner and budget.
    """
    means = _means(results)
    named = results.verdict.primary
    by_group: dict[tuple[str | None, str], list[ArmRow]] = {}
    for arm in results.arms:
        if arm.scale is not None and means.get(arm.name) and _auroc(scores, arm.name) is not None:
            by_group.setdefault((arm.method, arm.group), []).append(arm)
    groups = []
    for (_, title), arms in by_group.items():
        if len(arms) >= _LEAST_ARMS:
            aurocs = {arm.name: _auroc(scores, arm.name) or 0.0 for arm in arms}
            measures = {
                name: {a: means[a][name] for a in aurocs if name in means[a]} for name in _BETTER
            }
            group = LabelFreeGroup(title, measures, aurocs)
            groups += [group] if group.whole() else []
    return sorted(groups, key=lambda group: not {named.a, named.b} & group.aurocs.keys())


def _auroc(scores: Mapping[str, Score], arm: str) -> float | None:
    return scores[arm].auroc if arm in scores else None


def _means(results: Results) -> dict[str, dict[str, float]]:
    """The measures of each arm, mean over its seeds; one that some seed lacks is left out."""
    of_arm: dict[str, list[Mapping[str, float | None]]] = {}
    for row in results.label_free:
        of_arm.setdefault(row.arm, []).append(row.measures)
    means: dict[str, dict[str, float]] = {}
    for arm, members in of_arm.items():
        values = {name: [each.get(name) for each in members] for name in _BETTER}
        means[arm] = {
            name: fmean(v for v in of_seed if v is not None)
            for name, of_seed in values.items()
            if None not in of_seed
        }
    return means


def label_free_panels(
    results: Results, scores: Mapping[str, Score], colours: Mapping[str, str]
) -> list[tuple[str, Markup]]:
    """AUROC over each measure, a dot per arm of the first group."""
    groups = label_free_groups(results, scores)
    if not groups:
        return []
    group = groups[0]
    limits = auroc_range([scores[a].model_copy(update={"per_seed": ()}) for a in group.aurocs])
    return [
        (
            f"{_TITLES[name]} ({_WANTED[_BETTER[name]]} is better)",
            _scatter(_TITLES[name], of_arm, [scores[a] for a in group.aurocs], limits, colours),
        )
        for name, of_arm in group.whole()
    ]


def _scatter(
    title: str,
    measures: Mapping[str, float],
    scores: Sequence[Score],
    limits: tuple[float, float],
    colours: Mapping[str, str],
) -> Markup:
    left, right, top, foot = 40.0, 292.0, 8.0, 168.0
    across, up = Axis(*_range(list(measures.values())), left, right), Axis(*limits, foot, top)
    body = [
        *svg.grid(up, left, right),
        *svg.ticks_below(across, foot + 15, 5),
        svg.turned_text(10, (top + foot) / 2, "AUROC"),
    ]
    placed: list[Point] = []
    for score in scores:
        colour, x, y = colours[score.arm], across.at(measures[score.arm]), up.at(score.auroc or 0)
        if score.low is not None and score.high is not None:
            ends = ((x, up.at(score.low)), (x, up.at(score.high)))
            body.append(svg.line(*ends, css="line whisker", colour=colour))
        hint = f"{score.arm}: {measures[score.arm]:.3g}, AUROC {interval_text(score)}"
        body.append(svg.dot(x, y, 4.6, colour=colour, hint=hint))
        # A name that would lie on another is shown on hover alone.
        if any(abs(x - a) < 44 and abs(y - b) < 11 for a, b in placed):
            continue
        placed.append((x, y))
        is_right = x > (left + right) / 2
        at, anchor = (x - 8, "end") if is_right else (x + 8, "start")
        name = svg.shortened(score.arm, 12)
        body.append(svg.text(at, y + 4, name, css="label small", anchor=anchor, colour=colour))
    return svg.figure(300, foot + 22, f"AUROC over {title}", body)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """The range of a measure, whatever its unit; a tenth wider on both sides."""
    low, high = min(values), max(values)
    pad = 0.1 * (high - low) or 0.1 * abs(high) or 0.1
    return low - pad, high + pad
