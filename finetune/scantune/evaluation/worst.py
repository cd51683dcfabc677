"""The worst errors of one learner: test scans whose score is most confidently wrong, to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from scanlearn.archive.count import Count
from scanlearn.archive.reader import Archive
from scanlearn.archive.sheets import FAINT, RED, Line, Section, Tile, fitted, grid, picture, png
from scanlearn.features.auroc import mean_of_defined
from scantune.labels.labeled_set import LabeledSet
from scantune.scores import Scores
from scantune.wording import budget_name, learner_name

_COLUMNS = 5
# In pixels.
_SIDE, _GAP = 232, 18


@dataclass(frozen=True)
class WorstError:
    """One test scan and what was wrongly said of it."""

    row: int
    truth: str
    claim: str
    score: float


@dataclass(frozen=True)
class WorstErrors:
    """The worst errors of a learner, of all classes together or of one finding.

    Args:
        heading: The finding; empty for classes.
        shown: The worst of them, the worst first; of a finding, scans with it before scans
            without.
    """

    heading: str
    shown: tuple[WorstError, ...]
    num_errors: int
    num_tested: int


def worst_errors(
    scores: Scores, learner: str, budget: str | int, most: int
) -> tuple[WorstErrors, ...]:
    """Returns the most confident errors on tested scans, by scores averaged over label seeds.

    A scan of one class is an error where another class scores higher, and the higher that is the
    worse. Of findings each has its own: half of them scans that have the finding, the lowest
    score first, though some scan without it scores higher; the rest scans without it, the highest
    score first, though some scan with it scores lower.
    """
    means = mean_of_defined(scores.of(learner, budget))
    if scores.truth.is_exclusive:
        return (_of_classes(scores, means, most),)
    return tuple(_of_finding(scores, means[:, code], code, most) for code in scores.truth.asked)


def _of_classes(scores: Scores, means: Float[np.ndarray, "n k"], most: int) -> WorstErrors:
    tested = np.flatnonzero(~np.isnan(means[:, 0]))
    truth = scores.truth.classes[tested]
    others = means[tested].copy()
    right = others[np.arange(len(tested)), truth]
    others[np.arange(len(tested)), truth] = -np.inf
    called, wrong = others.argmax(axis=1), others.max(axis=1)
    order = np.argsort(-wrong, kind="stable")
    order = order[wrong[order] > right[order]]
    shown = tuple(
        WorstError(
            row=int(tested[place]),
            truth=f"true: {scores.classes[truth[place]]}",
            claim=f"scored {scores.classes[called[place]]}: {wrong[place]:.2f}",
            score=float(wrong[place]),
        )
        for place in order[:most]
    )
    return WorstErrors("", shown, len(order), len(tested))


def _of_finding(
    scores: Scores, means: Float[np.ndarray, " n"], code: int, most: int
) -> WorstErrors:
    tested = ~np.isnan(means) & scores.truth.known(code)
    has = scores.truth.positives(code)
    with_it, without = np.flatnonzero(tested & has), np.flatnonzero(tested & ~has)
    missed = with_it[means[with_it] < means[without].max(initial=-np.inf)]
    alarms = without[means[without] > means[with_it].min(initial=np.inf)]
    missed = missed[np.argsort(means[missed], kind="stable")]
    alarms = alarms[np.argsort(-means[alarms], kind="stable")]
    num_missed = min(len(missed), max(most - most // 2, most - len(alarms)))
    chosen = [(row, "true: yes") for row in missed[:num_missed]]
    chosen += [(row, "true: no") for row in alarms[: most - num_missed]]
    shown = tuple(
        WorstError(int(row), truth, f"scored yes: {means[row]:.2f}", float(means[row]))
        for row, truth in chosen
    )
    return WorstErrors(
        scores.classes[code], shown, len(missed) + len(alarms), len(with_it) + len(without)
    )


def worst_sheet(
    found: Sequence[WorstErrors],
    labeled: LabeledSet,
    archives: Sequence[Archive],
    learner: str,
    budget: str | int,
) -> bytes | None:
    """Returns a PNG of the scans with what is true and what was scored, or None without any.

    Scans are named by their own names in the archive, which are hashes; no patient and no path
    is written.
    """
    found = [errors for errors in found if errors.shown]
    if not found:
        return None
    title = f"{labeled.target}: worst errors of {learner_name(learner)}, {budget_name(budget)}"
    sections = [Section((Line(title, 22), Line(_subtitle(found, labeled.count()), 14, FAINT)))]
    for errors in found:
        heading = (Line(errors.heading, 17),) if errors.heading else ()
        cells = [[_tile(error, labeled, archives)] for error in errors.shown]
        sections.append(Section(heading, cells))
    return png(grid(sections, columns=_COLUMNS, size=(_SIDE, _SIDE), gap=_GAP))


def _subtitle(found: Sequence[WorstErrors], count: Count) -> str:
    unseen = "no scan of the patient"
    if count.unknown:
        unseen = f"not the scan ({count.caveat})"
    means = f"means over label seeds, of models that saw {unseen}."
    if found[0].heading:
        return (
            "Scans with a finding that score lowest, then scans without it that score highest; "
            f"{means}"
        )
    one = found[0]
    return (
        f"{len(one.shown)} of {one.num_errors:,} errors in {one.num_tested:,} scans, the highest "
        f"wrong score first; {means}"
    )


def _tile(error: WorstError, labeled: LabeledSet, archives: Sequence[Archive]) -> Tile:
    archive = archives[0 if labeled.sources is None else int(labeled.sources[error.row])]
    row = int(labeled.rows[error.row])
    name = Line(str(archive.scan_ids[row]), 11, FAINT)
    caption = (Line(error.truth), Line(error.claim, ink=RED), name)
    return Tile(fitted(picture(archive, row), _SIDE), caption)
