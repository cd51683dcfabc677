"""What a search found: as ``search.json`` holds it, in sentences, and as a terminal shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from scanlearn.config.reading import read_json
from scanlearn.config.settings import Settings
from scantune.comparison.search_rules import Choice
from scantune.study.dose import dose_headline
from scantune.study.results import DoseCurve
from scantune.wording import budget_name, learner_name

SEARCH_FILE = "search.json"
SEARCH_TABLE = "search.csv"
ALL = "all patients"

Fate = Literal["kept", "left", "collapsed", "chosen"]


class RungRow(Settings):
    """One scale on one rung; what collapsed has no AUROC.

    ``to_best`` is its AUROC minus the best of those beside it, ``error_to_best`` the standard
    error of that over patients. ``rotation`` and ``patches`` are the shares of quarter turns and of
    swapped patches that a probe tells; ``why`` says what led to the fate.
    """

    step: int
    arm: str
    scale: float
    auroc: float | None
    to_best: float | None
    error_to_best: float | None
    lidar: float | None
    rotation: float | None
    patches: float | None = None
    embedding_std: float | None
    fate: Fate
    problem: str = ""
    why: str = ""


class Chosen(Settings):
    """What some patients chose, by the names of the arms."""

    patients: str
    best: str
    chosen: str
    alike: tuple[str, ...]
    sureness: dict[str, float]


class Confirmed(Settings):
    """The choice and its closest rival, trained again with further seeds.

    ``arms`` ascend; ``rows`` are of the further seeds after ``step`` steps, which is 0 where the
    cost allowed none; ``is_other_chosen`` says whether this changed the choice.
    """

    arms: tuple[str, ...]
    step: int = 0
    seeds: tuple[int, ...] = ()
    steps: int = 0
    rows: tuple[RungRow, ...] = ()
    is_other_chosen: bool = False
    sentence: str


class Reported(Settings):
    """The AUROC of what was chosen, on patients that did not choose it."""

    auroc: float | None
    low: float | None
    high: float | None
    note: str
    how: str

    @property
    def is_at_chance(self) -> bool:
        """Whether the interval holds .5: no network is shown to tell the classes apart."""
        return self.low is not None and self.high is not None and self.low <= 0.5 <= self.high


class SearchResults(Settings):
    """All that a search found, as ``search.json`` holds it."""

    format: Literal[1] = 1
    title: str
    created: str
    evidence_note: str | None
    task: str
    learner: str
    budget: int | str
    sentence: str
    scale: float
    apart: str | None = None
    is_flat: bool
    choices: tuple[Chosen, ...]
    confirmed: Confirmed | None = None
    curve: DoseCurve | None = None
    reported: Reported | None
    rungs: tuple[RungRow, ...]
    total_steps: int = 0
    steps: int
    grid_steps: int
    grid: str
    warnings: tuple[str, ...]
    backbone: str

    @property
    def cost(self) -> float:
        """Steps taken as a share of the grid's."""
        return self.steps / self.grid_steps


def read_search(folder: Path) -> SearchResults:
    """Reads ``search.json`` of a finished search.

    Raises:
        ScanlearnError: There is none, or it is not one this version can read.
    """
    return read_json(
        folder / SEARCH_FILE,
        SearchResults,
        what="is not a search that this version can read",
        remedy="run the search again with this version",
    )


def alike_scales(
    scales: Mapping[str, float],
    rows: Sequence[RungRow],
    answer: Choice,
    confirmed: Confirmed | None,
) -> list[float]:
    """Scales that nothing measured tells from the chosen one, in one stretch around it, ascending.

    Each is judged on its own last rung: by the one standard error of its difference to the best
    there; the two that were confirmed by all their seeds. One that collapsed is no choice.
    """
    is_alike = {
        row.arm: row.to_best is not None
        and row.error_to_best is not None
        and row.to_best >= -row.error_to_best
        for row in rows
    }
    if confirmed is not None and confirmed.step:
        is_alike |= {arm: arm in answer.alike for arm in confirmed.arms}
    names = list(scales)
    place = names.index(answer.chosen)
    first = place
    while first > 0 and is_alike[names[first - 1]]:
        first -= 1
    end = place + 1
    while end < len(names) and is_alike[names[end]]:
        end += 1
    return [scales[name] for name in names[first:end]]


def answer_sentence(
    scales: Mapping[str, float],
    answer: Choice,
    alike: Sequence[float],
    reported: Reported | None,
) -> str:
    """What to take, how sure that is, and what it is worth."""
    scale, sure = scales[answer.chosen], answer.sureness[answer.chosen]
    if reported is not None and reported.is_at_chance:
        return (
            f"No scale is shown to tell the classes apart: AUROC {reported.auroc:.3f} (95 % "
            f"interval {reported.low:.3f} to {reported.high:.3f}), {reported.how}, which is "
            f"chance. Scale {scale:g}, which {sure:.0%} of patient resamples choose, is taken for "
            "want of a better one."
        )
    if len(alike) > 1:
        first = f"Any scale from {alike[0]:g} to {alike[-1]:g} does as well here: take {scale:g}"
    else:
        first = f"Take scale {scale:g}"
    text = f"{first}, which {sure:.0%} of patient resamples choose among those compared at the end."
    if reported is None or reported.auroc is None:
        return text
    low, high = reported.low, reported.high
    ends = "" if low is None or high is None else f" (95 % interval {low:.3f} to {high:.3f})"
    return f"{text} AUROC {reported.auroc:.3f}{ends}, {reported.how}."


def confirmed_sentence(
    pair: Sequence[str],
    scales: Mapping[str, float],
    *,
    room: int | None = None,
    step: int = 0,
    total: int = 0,
    gap: float | None = None,
    error: float | None = None,
    collapsed: Sequence[str] = (),
    chosen: str = "",
) -> str:
    """What a confirmation showed, or why there was none.

    Args:
        pair: The smaller scale first.
        room: Steps that were left, where they were too few.
        gap: AUROC of the second minus the first, over all seeds; None where one collapsed.
    """
    low, high = (f"{scales[arm]:g}" for arm in pair)
    if room is not None:
        return (
            f"{low} and {high} are close, and were not trained with another seed: steps left of "
            f"max_cost: {max(0, room):,}, fewer than that takes"
        )
    text = f"{low} and {high} were close, and trained again with another seed, {step:,} of "
    text += f"{total:,} steps each: "
    if gap is None or error is None:
        return f"{text}{' and '.join(f'{scales[arm]:g}' for arm in collapsed)} collapsed"
    return (
        f"{text}{high} scores {_signed(gap)} ± {error:.3f} beside {low} over all seeds (± standard "
        f"error over patients and seeds), so {scales[chosen]:g} is taken"
    )


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def probe_note(results: SearchResults) -> str | None:
    """Which probe ranked where quarter turns are too easy; None where turns ranked throughout."""
    steps: dict[int, list[bool]] = {}
    for row in results.rungs:
        if row.rotation is not None:
            steps.setdefault(row.step, []).append(row.patches is not None)
    hard = [step for step, has_patches in steps.items() if all(has_patches)]
    if not hard:
        return None
    return (
        "Nearly all quarter turns are told by all networks, and rank none: after "
        f"{', '.join(f'{step:,}' for step in hard)} steps a probe tells which two patches were "
        "swapped instead"
    )


def seeds_note(results: SearchResults) -> str:
    """What pretraining seeds the figures hold."""
    if results.confirmed is not None and results.confirmed.step:
        return "All but the confirmation is of one pretraining seed."
    return "One pretraining seed: what another seed would change is not in these figures."


def summary_lines(results: SearchResults) -> list[str]:
    """The table of all rungs, the answer and what it cost, for a terminal."""
    width = max(6, *(len(row.arm) for row in results.rungs))
    head = f"{'steps':>8} {'scale':>{width}} {'AUROC':>7} {'to best':>16}"
    head += f" {'LiDAR':>7} {'turns':>6} {'patches':>7} {'std':>5}"
    learner, budget = learner_name(results.learner), budget_name(results.budget)
    lines = [f"{results.task}, {learner}, {budget}", head]
    further = results.confirmed.rows if results.confirmed else ()
    for row in (*results.rungs, *further):
        name = row.arm.removeprefix("s")
        fate = "another seed" if row in further and row.auroc is not None else row.fate
        if row.auroc is None or row.to_best is None or row.error_to_best is None:
            lines.append(f"{row.step:>8,} {name:>{width}}  {row.fate}")
            continue
        gap = f"{row.to_best:+.3f} ± {row.error_to_best:.3f}"
        lines.append(
            f"{row.step:>8,} {name:>{width}} {row.auroc:>7.3f} {gap:>16} {row.lidar or 0:>7.1f} "
            f"{row.rotation or 0:>6.2f} {'' if row.patches is None else f'{row.patches:.2f}':>7} "
            f"{row.embedding_std or 0:>5.2f}  {fate}"
        )
    lines += ["", results.sentence, *([f"{results.apart}."] if results.apart else [])]
    if results.confirmed is not None:
        lines.append(f"{results.confirmed.sentence}.")
    if results.curve is not None:
        lines.append(f"The curve over the scale, all rungs: {dose_headline(results.curve)}.")
    if note := probe_note(results):
        lines.append(f"{note}.")
    halves = [each for each in results.choices if each.patients != ALL]
    if halves:
        told = " and ".join(f"{each.patients} {each.chosen.removeprefix('s')}" for each in halves)
        lines.append(f"Chosen by each half of the patients alone: {told}.")
    lines.append(
        f"Cost: {results.steps:,} steps, {results.cost:.0%} of a grid of {results.grid}. "
        f"{seeds_note(results)}"
    )
    lines += [*results.warnings, *([results.evidence_note] if results.evidence_note else [])]
    lines.append(f"Backbone: {results.backbone}")
    return lines
