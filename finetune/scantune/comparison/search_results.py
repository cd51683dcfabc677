"""What a search found, as ``search.json`` holds it, and as a terminal shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from scanlearn.config.reading import read_json
from scanlearn.config.settings import Settings
from scantune.wording import budget_name, learner_name

SEARCH_FILE = "search.json"
SEARCH_TABLE = "search.csv"
ALL = "all patients"

Fate = Literal["kept", "left", "collapsed", "chosen"]


class RungRow(Settings):
    """One scale on one rung; what collapsed has no AUROC.

    ``to_best`` is its AUROC minus the best of those beside it, ``error_to_best`` the standard
    error of that over patients.
    """

    step: int
    arm: str
    scale: float
    auroc: float | None
    to_best: float | None
    error_to_best: float | None
    lidar: float | None
    rotation: float | None
    embedding_std: float | None
    fate: Fate
    problem: str = ""


class Chosen(Settings):
    """What some patients chose, by the names of the arms."""

    patients: str
    best: str
    chosen: str
    alike: tuple[str, ...]
    sureness: dict[str, float]


class Reported(Settings):
    """The AUROC of what was chosen, on patients that did not choose it."""

    auroc: float | None
    low: float | None
    high: float | None
    note: str
    how: str


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
    reported: Reported | None
    rungs: tuple[RungRow, ...]
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


def summary_lines(results: SearchResults) -> list[str]:
    """The table of all rungs, the answer and what it cost, for a terminal."""
    width = max(6, *(len(row.arm) for row in results.rungs))
    head = f"{'steps':>8} {'scale':>{width}} {'AUROC':>7} {'to best':>16}"
    head += f" {'LiDAR':>7} {'turns':>6} {'std':>5}"
    learner, budget = learner_name(results.learner), budget_name(results.budget)
    lines = [f"{results.task}, {learner}, {budget}", head]
    for row in results.rungs:
        name = row.arm.removeprefix("s")
        if row.auroc is None or row.to_best is None or row.error_to_best is None:
            lines.append(f"{row.step:>8,} {name:>{width}}  {row.fate}")
            continue
        gap = f"{row.to_best:+.3f} ± {row.error_to_best:.3f}"
        lines.append(
            f"{row.step:>8,} {name:>{width}} {row.auroc:>7.3f} {gap:>16} {row.lidar or 0:>7.1f} "
            f"{row.rotation or 0:>6.2f} {row.embedding_std or 0:>5.2f}  {row.fate}"
        )
    lines += ["", results.sentence, *([f"{results.apart}."] if results.apart else [])]
    halves = [each for each in results.choices if each.patients != ALL]
    if halves:
        told = " and ".join(f"{each.patients} {each.chosen.removeprefix('s')}" for each in halves)
        lines.append(f"Chosen by each half of the patients alone: {told}.")
    lines.append(
        f"Cost: {results.steps:,} steps, {results.cost:.0%} of a grid of {results.grid}. One "
        "pretraining seed: what another seed would change is not in these figures."
    )
    lines += [*results.warnings, *([results.evidence_note] if results.evidence_note else [])]
    lines.append(f"Backbone: {results.backbone}")
    return lines
