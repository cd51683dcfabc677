"""The worst errors of one learner: test scans whose score is most confidently wrong, to look at."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from scanlearn.archive.reader import Archive
from scanlearn.archive.sheets import fitted, picture
from scanlearn.features.auroc import mean_of_defined
from scantune.labels.labeled_set import LabeledSet
from scantune.scores import Scores
from scantune.wording import budget_name, learner_name

_INK, _FAINT, _PAPER, _WRONG = "#1b2430", "#5c6673", "#ffffff", "#b8304a"
_COLUMNS = 5
# Lengths in pixels.
_SIDE, _GAP, _MARGIN = 232, 18, 32
_TITLE, _HEADING, _CAPTION, _BELOW = 66, 40, 58, 20
_ID_LETTERS = 24


@dataclass(frozen=True)
class WorstError:
    """One test scan and what was wrongly said of it.

    Args:
        row: Row of the scan in the labeled set.
        truth: What is true of it, in words.
        claim: What was scored, in words.
        score: Mean over label seeds of the score that is wrong.
    """

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
        num_errors: How many there are.
        num_tested: Of how many tested scans.
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

    Args:
        scores: Scores of every scan.
        learner: One of its learners.
        budget: One of its label budgets.
        most: At most so many, of findings for each.
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

    Args:
        found: From `worst_errors`.
        labeled: The labeled set.
        archives: Where its scans are packed, by their number in ``labeled.sources``.
        learner: Whose errors they are, for the title.
        budget: With which label budget.
    """
    found = [one for one in found if one.shown]
    if not found:
        return None
    title = f"{labeled.target}: worst errors of {learner_name(learner)}, {budget_name(budget)}"
    below = _subtitle(found)
    columns = min(_COLUMNS, max(len(one.shown) for one in found))
    inner = (
        columns * (_SIDE + _GAP) - _GAP,
        _font(22).getlength(title),
        _font(14).getlength(below),
    )
    heads = [_HEADING if one.heading else 0 for one in found]
    heights = [-(-len(one.shown) // columns) * (_SIDE + _CAPTION + _BELOW) for one in found]
    height = 2 * _MARGIN + _TITLE + sum(heads) + sum(heights) - _BELOW
    sheet = Image.new("RGB", (2 * _MARGIN + round(max(inner)), height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN), title, _INK, _font(22))
    draw.text((_MARGIN, _MARGIN + 32), below, _FAINT, _font(14))
    top = _MARGIN + _TITLE
    for one, head, height in zip(found, heads, heights, strict=True):
        if one.heading:
            draw.text((_MARGIN, top), one.heading, _INK, _font(17))
        for number, error in enumerate(one.shown):
            across, down = number % columns, number // columns
            left = _MARGIN + across * (_SIDE + _GAP)
            corner = left, top + head + down * (_SIDE + _CAPTION + _BELOW)
            _draw_error(sheet, corner, error, labeled, archives)
        top += head + height
    file = io.BytesIO()
    sheet.save(file, "PNG", optimize=True)
    return file.getvalue()


def _subtitle(found: Sequence[WorstErrors]) -> str:
    if found[0].heading:
        return (
            "Scans with a finding that score lowest, then scans without it that score highest; "
            "means over label seeds, of models that saw no scan of the patient."
        )
    one = found[0]
    return (
        f"{len(one.shown)} of {one.num_errors:,} errors in {one.num_tested:,} scans, the highest "
        "wrong score first; means over label seeds, of models that saw no scan of the patient."
    )


def _draw_error(
    sheet: Image.Image,
    corner: tuple[int, int],
    error: WorstError,
    labeled: LabeledSet,
    archives: Sequence[Archive],
) -> None:
    left, top = corner
    archive = archives[0 if labeled.sources is None else int(labeled.sources[error.row])]
    row = int(labeled.rows[error.row])
    shown = fitted(picture(archive, row), _SIDE)
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((left, top, left + _SIDE - 1, top + _SIDE - 1), fill="#000000")
    sheet.paste(shown, (left + (_SIDE - shown.width) // 2, top + (_SIDE - shown.height) // 2))
    scan = str(archive.scan_ids[row])
    short = scan if len(scan) <= _ID_LETTERS else scan[: _ID_LETTERS - 1] + "…"
    lines = ((error.truth, _INK, 14), (error.claim, _WRONG, 14), (short, _FAINT, 11))
    for number, (text, ink, size) in enumerate(lines):
        draw.text((left, top + _SIDE + 5 + 18 * number), _cut(text, size), ink, _font(size))


def _cut(text: str, size: int) -> str:
    """Returns the text without what does not fit below a picture."""
    while _font(size).getlength(text) > _SIDE:
        text = text[:-2] + "…"
    return text


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
