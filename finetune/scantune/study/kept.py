"""Scores kept of one backbone and task: what a plan lacks of them, and what it takes from them.

They grow by learners, label budgets and label seeds, one *part* after the other: a learner at one
budget under one label seed. A grid of them has gaps where no plan asked for a part; its values are
NaN there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from scanlearn.features.auroc import mean_of_defined
from scantune.scores import Scores
from scantune.scoring import notes_of

# A note of earlier releases, which kept how often fits went wrong in words alone.
_OF_FITS = re.compile(r"(\S+): in \d+ of \d+ fits ")

# Arrays with an entry for each learner, budget and label seed, and what stands in a gap.
_GRIDS: dict[str, tuple[str, float]] = {
    "fold_of": ("j", -1),
    "values": ("lgj", np.nan),
    "thresholds": ("lgj", np.nan),
    "train_scans": ("gj", -1),
    "train_patients": ("gj", -1),
    "learned": ("gj", 1),
    "refits": ("lg", np.nan),
    "cut_refits": ("lg", np.nan),
    "seed_refits": ("lgj", np.nan),
}


# Of these ``seed_refits`` is what is kept.
_MEANS = ("refits", "cut_refits")


class Part(NamedTuple):
    """One learner at one label budget under one label seed."""

    learner: str
    budget: str
    label_seed: int


def parts_missing(
    kept: Scores | None, learners: Sequence[str], budgets: Sequence[str], label_seeds: int
) -> tuple[Part, ...]:
    """Returns the parts of a plan that are not kept, label seed by label seed.

    Where an earlier release kept refits as a mean over all label seeds, parts of that mean serve
    a plan of as many label seeds alone.
    """
    asked = _parts(learners, budgets, label_seeds)
    if kept is None:
        return tuple(asked)
    is_there, is_mean = _is_there(kept), _is_mean(kept, label_seeds)

    def is_missing(part: Part) -> bool:
        if part.learner not in kept.learners or part.budget not in kept.budgets:
            return True
        place = kept.learners.index(part.learner), kept.budgets.index(part.budget)
        if part.label_seed >= kept.num_label_seeds or not is_there[(*place, part.label_seed)]:
            return True
        return bool(is_mean[place]) and label_seeds != kept.num_label_seeds

    return tuple(filter(is_missing, asked))


def extended(kept: Scores | None, made: Scores, label_seed: int) -> Scores:
    """Returns kept scores with those of one more label budget under one label seed.

    Args:
        made: Of any learners, one budget and one label seed, as `score_learners` returns them;
            they replace what was kept of the same parts.
    """
    assert (len(made.budgets), made.num_label_seeds) == (1, 1)
    before = kept or replace(
        made, learners=(), budgets=(), settings=(), caveats=(), notes=(), fold_of=made.fold_of[:0]
    )
    learners = tuple(dict.fromkeys((*before.learners, *made.learners)))
    budgets = tuple(dict.fromkeys((*before.budgets, *made.budgets)))
    num_seeds = max(before.num_label_seeds, label_seed + 1)
    places = {
        "l": [learners.index(name) for name in made.learners],
        "g": [budgets.index(name) for name in made.budgets],
        "j": [label_seed],
    }
    sizes = {"l": len(learners), "g": len(budgets), "j": num_seeds}
    arrays: dict[str, Any] = {}
    for name, (axes, gap) in _GRIDS.items():
        old, new = None if kept is None else getattr(kept, name), getattr(made, name)
        like = new if new is not None else old
        if like is None:
            continue
        inner = like.shape[len(axes) :]
        arrays[name] = np.full((*(sizes[axis] for axis in axes), *inner), gap, like.dtype)
        if old is not None:
            arrays[name][tuple(map(slice, old.shape))] = old
        if new is not None and name not in _MEANS:
            arrays[name][np.ix_(*(places[axis] for axis in axes))] = new
    if kept is not None and num_seeds > kept.num_label_seeds:
        # A mean over fewer label seeds serves no plan any more.
        for row, column in np.argwhere(_is_mean(kept, kept.num_label_seeds)):
            arrays["values"][row, column, : kept.num_label_seeds] = np.nan
            arrays["refits"][row, column] = np.nan
    anew = {Part(name, made.budgets[0], label_seed) for name in made.learners}
    texts = dict(zip(before.learners, before.settings, strict=False))
    texts |= dict(zip(made.learners, made.settings, strict=False))
    return replace(
        before,
        **arrays,
        learners=learners,
        budgets=budgets,
        caveats=(*(each for each in before.caveats if each[:3] not in anew), *made.caveats),
        notes=tuple(note for note in before.notes if _fitted(note) not in made.learners),
        settings=tuple(texts.get(name, "") for name in learners),
        validation={},
    )


def selected(
    kept: Scores, learners: Sequence[str], budgets: Sequence[str], label_seeds: int
) -> Scores:
    """Returns the scores of a plan of which no part is missing."""
    places = {
        "l": [kept.learners.index(name) for name in learners],
        "g": [kept.budgets.index(name) for name in budgets],
        "j": range(label_seeds),
    }
    arrays: dict[str, Any] = {}
    for name, (axes, _) in _GRIDS.items():
        if (array := getattr(kept, name)) is not None:
            arrays[name] = array[np.ix_(*(places[axis] for axis in axes))]
    if "seed_refits" in arrays:
        means, k = mean_of_defined(np.moveaxis(arrays["seed_refits"], 2, 0)), len(kept.classes)
        is_mean = _is_mean(kept, label_seeds)[np.ix_(places["l"], places["g"])]
        for name, mean in (("refits", means[..., :k]), ("cut_refits", means[..., k:])):
            if is_mean.any() and name in arrays:
                mean[is_mean] = arrays[name][is_mean]
            arrays[name] = mean if mean.size else None
    # As if all had been fitted at once: label seed by label seed.
    caveats = [
        caveat
        for part in _parts(learners, budgets, label_seeds)
        for caveat in kept.caveats
        if caveat[:3] == part
    ]
    scores = replace(
        kept,
        **arrays,
        learners=tuple(learners),
        budgets=tuple(budgets),
        caveats=tuple(caveats),
        settings=tuple(kept.settings[row] for row in places["l"]) if kept.settings else (),
    )
    earlier = (note for note in kept.notes if _fitted(note) in scores.learners)
    return replace(scores, notes=(*notes_of(scores), *earlier))


def _parts(learners: Sequence[str], budgets: Sequence[str], label_seeds: int) -> Iterator[Part]:
    for seed in range(label_seeds):
        for budget in budgets:
            for learner in learners:
                yield Part(learner, budget, seed)


def _is_there(kept: Scores) -> Bool[np.ndarray, "l g j"]:
    is_tested = kept.fold_of >= 0
    return np.asarray(~(np.isnan(kept.values).any(axis=-1) & is_tested).any(axis=-1))


def _is_mean(kept: Scores, label_seeds: int) -> Bool[np.ndarray, "l g"]:
    """Whether refits are there as a mean over all label seeds, and not of each that is asked."""
    if kept.refits is None:
        return np.zeros(kept.values.shape[:2], np.bool_)
    is_refitted = np.isfinite(kept.refits).any(axis=(2, 3, 4))
    if kept.seed_refits is None:
        return np.asarray(is_refitted)
    of_seed = np.isfinite(kept.seed_refits).any(axis=(3, 4, 5))[:, :, :label_seeds].all(axis=2)
    return np.asarray(is_refitted & ~of_seed)


def _fitted(note: str) -> str | None:
    """Returns the learner of which a note of an earlier release tells how its fits went."""
    found = _OF_FITS.match(note)
    return None if found is None else found[1]
