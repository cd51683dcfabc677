"""Outputs of `evaluate` on the same labeled scans, compared as the arms of a study are."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from scanlearn.console import track
from scanlearn.errors import ScanlearnError, did_you_mean
from scantune.comparison.difference_settings import DifferenceConfig
from scantune.evaluation.outputs import Kept, read_kept
from scantune.labels.truth import Truth, at_or_above
from scantune.learners.table import LEARNERS, PRIMARY_LEARNER
from scantune.scores import Scores
from scantune.splits import Budget
from scantune.statistics.intervals import Estimate, estimate, patient_weights
from scantune.study.results import ArmDifference, ArmRow, Score, Verdict
from scantune.study.summary import Cell, Place, paired_rows, stated, table_rows
from scantune.wording import learner_name, signed


@dataclass(frozen=True)
class Side:
    """One of what is compared: a network, or several of one recipe with other pretraining seeds.

    Args:
        learner: The only one that is scored of it; empty for all that the sides share.
    """

    name: str
    networks: tuple[Kept, ...]
    learner: str = ""

    @property
    def in_words(self) -> str:
        """What was evaluated: backbone, method and scale, as its output calls them."""
        named = self.networks[0].metrics.get("named", {})
        words = [str(named[key]) for key in ("backbone", "method", "scale") if key in named]
        count = len(self.networks)
        return ", ".join([*words, f"{count} networks"] if count > 1 else words or ["one network"])


@dataclass(frozen=True)
class Differences:
    """What was found.

    Args:
        tasks: The target; of grades, then each cut, such as "grade, 2 or higher".
        differences: That of the first named pair comes first; Holm's correction covers the others.
        facts: What was tested, by name.
    """

    sides: tuple[Side, ...]
    tasks: tuple[str, ...]
    table: tuple[Score, ...]
    differences: tuple[ArmDifference, ...]
    verdict: Verdict
    margin: float
    facts: Mapping[str, str]
    notes: tuple[str, ...]
    created: datetime.datetime

    @property
    def arms(self) -> tuple[ArmRow, ...]:
        """The sides as the drawings of a study take its arms."""
        return tuple(ArmRow(name=side.name, kind="pretrained") for side in self.sides)


def tested(
    outputs: Sequence[str | Path | Sequence[str | Path]], settings: DifferenceConfig
) -> Differences:
    """Returns what `difference` returns, with its arguments and errors."""
    margin = settings.margin
    sides = _named_sides([_read_side(given) for given in outputs])
    _check_same(sides)
    target = str(_labels(sides[0].networks[0]).get("target", "target"))
    learners, scores_of = _aligned_learners(sides)
    scores: dict[tuple[str, str], list[Scores]] = {}
    for name, members in scores_of.items():
        for member in members:
            for task, of_task in _by_task(member, target).items():
                scores.setdefault((task, name), []).append(of_task)
    tasks = list(dict.fromkeys(task for task, _ in scores))
    cut = None if settings.grade is None else f"{target}, {settings.grade} or higher"
    tasks = _with_first(tasks, cut, "grade")
    usual = PRIMARY_LEARNER if PRIMARY_LEARNER in learners else None
    learners = _with_first(learners, settings.learner or usual, "learner")
    named = None if settings.budget is None else str(settings.budget)
    budgets: list[Budget] = [
        "all" if name == "all" else int(name)
        for name in _with_first(_shared_budgets(sides), named, "budget")
    ]
    places: list[Place] = [
        (task, name, each) for task in tasks for name in learners for each in budgets
    ]
    estimates = _estimate(places, scores, settings.replicates)
    trained = {side.name for side in sides if len(side.networks) > 1}
    names = [side.name for side in sides]
    compared = [(place, names[0], names[1]) for place in places]
    compared += [
        (place, *pair)
        for pair in list(combinations(names, 2))[1:]
        for place in places
        if place[1:] == places[0][1:]
    ]
    first = sides[0].networks[0].metrics
    unknown = tasks if first.get("patients") is None else ()
    table = table_rows(trained, estimates, scores, unknown)
    differences = paired_rows(compared, trained, estimates, scores, margin=margin)
    titles = {side.name: side.name for side in sides}
    verdict = stated(titles, table, differences, margin=margin)
    notes = tuple(_notes(sides, differences))
    fixed = [side.name for side in sides[:2] if len(side.networks) == 1]
    if len(fixed) == 1:
        told = f"{fixed[0]} is one network: this holds against it, not against its recipe."
        verdict = verdict.model_copy(update={"sentence": f"{verdict.sentence} {told}"})
    return Differences(
        sides,
        tuple(tasks),
        table,
        differences,
        verdict,
        margin,
        _facts(sides[0].networks[0]),
        notes,
        datetime.datetime.now(datetime.UTC),
    )


def _read_side(given: str | Path | Sequence[str | Path]) -> Side:
    words = (
        str(given).split(",") if isinstance(given, str | Path) else [str(word) for word in given]
    )
    folders, learners = [], set()
    for word in words:
        folder, colon, name = word.rpartition(":")
        if not colon or Path(word).expanduser().is_dir():
            folder, name = word, ""
        elif name not in LEARNERS:
            raise ScanlearnError(
                f"{word}: '{name}' is no learner{did_you_mean(name, LEARNERS)}; write a folder, or "
                f"FOLDER:LEARNER with one of {', '.join(LEARNERS)}"
            )
        folders.append(Path(folder).expanduser())
        learners.add(name)
    if len(learners) > 1:
        raise ScanlearnError(f"{','.join(words)}: the networks of one side have one learner")
    twice = [str(folder) for folder in folders if folders.count(folder) > 1]
    if twice:
        raise ScanlearnError(f"{twice[0]} is named twice in one side; name other seeds")
    networks = [read_kept(folder) for folder in folders]
    # By pretraining seed, where their cards say it: two sides are paired so.
    seeds = [str(kept.metrics.get("named", {}).get("pretraining seed", "")) for kept in networks]
    if all(seed.isdecimal() for seed in seeds):
        order = sorted(range(len(seeds)), key=lambda place: int(seeds[place]))
        networks = [networks[place] for place in order]
    return Side("", tuple(networks), learners.pop())


def _named_sides(sides: Sequence[Side]) -> tuple[Side, ...]:
    """Returns the sides named by their folders, as much of the paths as tells them apart."""
    if len(sides) < 2:
        raise ScanlearnError(
            "difference compares two outputs of evaluate or more; name their folders, with commas "
            "between networks of one recipe"
        )
    counts = {len(side.networks) for side in sides} - {1}
    if len(counts) > 1:
        raise ScanlearnError(
            f"sides have {' and '.join(map(str, sorted(counts)))} networks: they are paired by "
            "pretraining seed, so give equally many of each, or one"
        )
    paths = [[kept.folder.absolute() for kept in side.networks] for side in sides]
    for depth in range(1, 1 + max(len(path.parts) for each in paths for path in each)):
        names = []
        for side, folders in zip(sides, paths, strict=True):
            ends = ["/".join(path.parts[-depth:]) for path in folders]
            shared = _common_start(ends) if len(ends) > 1 else ""
            learner = f" ({learner_name(side.learner)})" if side.learner else ""
            others = f" and {len(ends) - 1} more" if len(ends) > 1 else ""
            names.append((shared if len(shared) > 1 else ends[0] + others) + learner)
        if len(set(names)) == len(names):
            return tuple(replace(side, name=name) for side, name in zip(sides, names, strict=True))
    raise ScanlearnError(f"{paths[0][0]} is compared with itself; name another output")


def _common_start(names: Sequence[str]) -> str:
    """Returns what names begin with alike, less the number of a seed at its end."""
    shortest = min(names, key=len)
    is_same = [len({name[:end] for name in names}) == 1 for end in range(1, len(shortest) + 1)]
    return shortest[: sum(is_same)].rstrip("-_. /0123456789")


def _check_same(sides: Sequence[Side]) -> None:
    """Refuses outputs that are not of the same scans, labels, folds and label seeds.

    Raises:
        ScanlearnError: Names the two folders, and what differs.
    """
    networks = [kept for side in sides for kept in side.networks]
    first = networks[0]
    for other in networks[1:]:
        a, b = first.scores, other.scores
        for what, is_same, values in _compared(first, other):
            if not is_same:
                raise ScanlearnError(
                    f"{first.folder} and {other.folder} are of other {what}"
                    f"{values}: evaluate both on the same scans with the same settings"
                )
        assert a.truth.task == b.truth.task, "targets and classes agree"


def _compared(first: Kept, other: Kept) -> Iterator[tuple[str, bool, str]]:
    """Yields what two outputs must share, whether they do, and what each has in words."""
    a, b = first.scores, other.scores

    def told(of: Callable[[Kept], object]) -> str:
        return f" ({of(first)} and {of(other)})"

    asked = [_labels(kept).get("target") for kept in (first, other)]
    yield "targets", asked[0] == asked[1], told(lambda kept: _labels(kept).get("target"))
    sizes = told(lambda kept: f"{len(kept.scores.truth):,}")
    yield "scans", a.made_from == b.made_from, sizes if len(a.truth) != len(b.truth) else ""
    is_same = a.classes == b.classes and a.truth.task == b.truth.task
    yield "classes", is_same, told(lambda k: f"{k.scores.truth.name} {', '.join(k.scores.classes)}")
    yield "labels", np.array_equal(a.truth.matrix, b.truth.matrix), ""
    yield "patients", np.array_equal(a.patients, b.patients), ""
    seeds = told(lambda kept: kept.scores.num_label_seeds)
    yield "label seeds", a.num_label_seeds == b.num_label_seeds, seeds
    folds = told(lambda kept: kept.scores.num_folds)
    yield "folds", a.num_folds == b.num_folds, folds
    yield "folds", np.array_equal(a.fold_of, b.fold_of), ""
    shared = [budget for budget in a.budgets if budget in b.budgets]
    subsets = [
        np.array_equal(
            a.train_scans[a.budgets.index(budget)], b.train_scans[b.budgets.index(budget)]
        )
        for budget in shared
    ]
    yield "training subsets", all(subsets), ""


def _labels(kept: Kept) -> Mapping[str, object]:
    labels: Mapping[str, object] = kept.metrics.get("inputs", {}).get("labels", {})
    return labels


def _aligned_learners(sides: Sequence[Side]) -> tuple[list[str], dict[str, list[Scores]]]:
    """Returns the learners of the table, and the scores of each side by them.

    Sides that are scored by learners of their own have one row, named by all of these.
    """
    shared = [
        name
        for name in sides[0].networks[0].scores.learners
        if all(name in kept.scores.learners for side in sides for kept in side.networks)
    ]
    if shared and not any(side.learner for side in sides):
        return shared, {side.name: [kept.scores for kept in side.networks] for side in sides}
    own = {}
    for side in sides:
        known = side.networks[0].scores.learners
        if not side.learner and len(known) > 1:
            raise ScanlearnError(
                f"{side.networks[0].folder} has the learners {', '.join(known)}; name one, as in "
                f"{side.networks[0].folder}:{known[0]}, since the sides are not scored by the same"
            )
        own[side.name] = side.learner or known[0]
        for kept in side.networks:
            if own[side.name] not in kept.scores.learners:
                raise ScanlearnError(
                    f"{kept.folder} was not scored by {own[side.name]}; it has "
                    f"{', '.join(kept.scores.learners)}"
                )
    title = " / ".join(dict.fromkeys(own.values()))
    aligned = {
        side.name: [_only(kept.scores, own[side.name], title) for kept in side.networks]
        for side in sides
    }
    return [title], aligned


def _only(scores: Scores, learner: str, title: str) -> Scores:
    """Returns the scores of one learner, under another name."""
    place = [scores.learners.index(learner)]
    return replace(
        scores,
        learners=(title,),
        values=scores.values[place],
        thresholds=scores.thresholds[place],
        refits=None if scores.refits is None else scores.refits[place],
        cut_refits=None if scores.cut_refits is None else scores.cut_refits[place],
    )


def _shared_budgets(sides: Sequence[Side]) -> list[str]:
    """Returns the label budgets that all have, the largest first."""
    of_each = [kept.scores.budgets for side in sides for kept in side.networks]
    shared = [name for name in of_each[0] if all(name in budgets for budgets in of_each)]
    if not shared:
        listed = "; ".join(dict.fromkeys(", ".join(budgets) for budgets in of_each))
        raise ScanlearnError(f"the outputs have no label budget in common: {listed}")
    return sorted(shared, key=lambda name: -np.inf if name == "all" else -int(name))


def _by_task(scores: Scores, target: str) -> dict[str, Scores]:
    """Returns the scores by task: the target and, of three grades or more, each cut of them."""
    cuts = range(1, len(scores.classes)) if scores.truth.task == "ordinal" else ()
    if len(cuts) < 2:
        return {target: scores}
    of_cuts = {f"{target}, {_cut_name(scores, code)}": at_least(scores, code) for code in cuts}
    return {target: scores} | of_cuts


def _cut_name(scores: Scores, code: int) -> str:
    return f"{scores.classes[code]} or higher"


def at_least(scores: Scores, code: int) -> Scores:
    """Returns the scores of grades as those of two classes: lower, and this grade or higher.

    The score is the sum of the probabilities of the grades from this one on.
    """
    above = at_or_above(scores.truth.matrix)[:, code - 1]
    values = scores.values[..., code:].sum(axis=-1)
    learned = scores.learned
    if learned is not None:
        # Of a subset with more than one grade, those are learned that it holds.
        is_cut = learned[..., :code].any(axis=-1) & learned[..., code:].any(axis=-1)
        learned = np.stack([is_cut, is_cut], axis=-1)
    return replace(
        scores,
        classes=(f"below {scores.classes[code]}", _cut_name(scores, code)),
        truth=Truth(np.stack([1 - above, above], axis=1), synthetic=scores.truth.synthetic),
        values=np.stack([1 - values, values], axis=-1),
        thresholds=np.full((*scores.thresholds.shape[:-1], 2), np.nan),
        learned=learned,
        refits=None if scores.cut_refits is None else scores.cut_refits[..., [code - 1] * 2],
        cut_refits=None,
    )


def _with_first(names: Sequence[str], first: str | None, what: str) -> list[str]:
    """Returns the names, that of the primary comparison first."""
    if first is None:
        return list(names)
    if first not in names:
        raise ScanlearnError(
            f"{what} is '{first}', which not all outputs have{did_you_mean(first, names)}; choose "
            f"from {', '.join(names)}"
        )
    return [first, *(name for name in names if name != first)]


def _estimate(
    places: Sequence[Place], scores: Mapping[tuple[str, str], Sequence[Scores]], replicates: int
) -> dict[Cell, list[Estimate]]:
    estimates: dict[Cell, list[Estimate]] = {}
    weights = patient_weights(next(iter(scores.values()))[0], replicates=replicates)
    total = len(places) * sum(map(len, scores.values())) // len({task for task, _ in scores})
    with track(total, "resampling patients") as progress:
        for task, learner, budget in places:
            for (of_task, side), members in scores.items():
                if of_task != task:
                    continue
                for member in members:
                    found = estimate(member, learner, budget, weights)
                    estimates.setdefault((task, learner, budget, side), []).append(found)
                    progress.advance()
    return estimates


def _facts(kept: Kept) -> dict[str, str]:
    metrics, scores = kept.metrics, kept.scores
    seeds = scores.num_label_seeds
    return {
        "Labeled": str(metrics.get("counted", f"{len(scores.truth):,} scans")),
        "Tested on": f"{metrics.get('tested_on', f'{scores.num_folds} folds')}, {seeds} label "
        f"seed{'s' if seeds > 1 else ''}",
    }


def _notes(sides: Sequence[Side], differences: Sequence[ArmDifference]) -> Iterator[str]:
    """Yields what a reader must know of the outputs and of the intervals."""
    told: dict[str, dict[str, None]] = {}
    for row in differences:
        if row.note:
            told.setdefault(row.note, {})[learner_name(row.learner)] = None
    yield from (f"{', '.join(names)}: {note}" for note, names in told.items())
    seeds = [
        {str(kept.metrics.get("named", {}).get("pretraining seed")) for kept in side.networks}
        for side in sides
        if len(side.networks) > 1
    ]
    if any(each != seeds[0] for each in seeds):
        yield (
            "the sides have other pretraining seeds: their networks are paired in the order of the "
            "seeds, as if they were drawn apart"
        )


def auroc_text(score: Score) -> str:
    """``0.842 (0.811 to 0.870)``."""
    if score.auroc is None:
        return "undefined"
    if score.low is None or score.high is None:
        return f"{score.auroc:.3f}"
    return f"{score.auroc:.3f} ({score.low:.3f} to {score.high:.3f})"


def difference_text(row: ArmDifference) -> str:
    """``+0.027 (+0.011 to +0.043)``."""
    if row.difference is None:
        return "undefined"
    if row.low is None or row.high is None:
        return signed(row.difference)
    return f"{signed(row.difference)} ({signed(row.low)} to {signed(row.high)})"
