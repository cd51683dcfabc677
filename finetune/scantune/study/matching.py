"""The proof that the networks of a study match: they differ in nothing but the dial."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set

from scanlearn.training.conditions import (
    DIAL,
)
from scantune.study.results import Matched, Mismatch, RunRow, SeedMatch

_MATCHED = {
    "initial_hash": "initial weights",
    "order_hash": "data order",
    "uniforms_hash": "random draws",
    "steps": "steps",
}
# Earlier versions recorded none of these.
_RECORDED_SINCE = (
    *("device", "processor", "threads", "processes", "batch_size", "accumulate"),
    *("views.size", "views.recipe", "views.operations", "archive.scan_ids"),
)


def matched(rows: Sequence[RunRow]) -> Matched:
    """Compares all networks of a seed and group: weights, data, draws, and what each run recorded.

    Untrained networks are compared by their initial weights; references are not compared.
    """
    problems: list[str] = []
    partial: list[str] = []
    mismatches: list[Mismatch] = []
    per_seed: list[SeedMatch] = []
    notes: list[str] = []
    rows = [row for row in rows if row.initial_hash]
    for seed, group in sorted(dict.fromkeys((row.seed, row.group) for row in rows), key=_seed_of):
        of_seed = [row for row in rows if (row.seed, row.group) == (seed, group)]
        trained = [row for row in of_seed if row.steps > 0]
        shared: dict[str, str | int] = {}
        for key, words in _MATCHED.items():
            compared = of_seed if key == "initial_hash" else trained
            values = {row.arm: getattr(row, key) for row in compared}
            is_same = len(set(values.values())) == 1
            shared[key] = next(iter(values.values())) if is_same else "" if key != "steps" else 0
            if len(set(values.values())) > 1:
                shown = {arm: _shortened(value) for arm, value in values.items()}
                mismatches.append(Mismatch(seed=seed, key=words, values=shown, group=group))
        per_seed.append(SeedMatch.model_validate({"seed": seed, "group": group, **shared}))
        mismatches += _differing(seed, group, trained)
        problems += [
            f"seed {seed}: the record of {row.arm} is no proof: {row.record_problem}."
            for row in trained
            if row.record_problem
        ]
        earlier = [row for row in trained if not (row.is_recorded or row.record_problem)]
        if earlier:
            partial.append(_partial_in_words(seed, earlier))
    for group in dict.fromkeys(row.group for row in rows):
        known = {mismatch.key for mismatch in mismatches if mismatch.group == group}
        told = _notes([row for row in rows if row.group == group], known)
        notes += [f"{group}: {note}" if group else note for note in told]
    problems = [*(mismatch.in_words for mismatch in mismatches), *problems]
    return Matched(
        ok=not problems,
        problems=tuple(problems),
        per_seed=tuple(per_seed),
        mismatches=tuple(mismatches),
        partial=tuple(partial),
        notes=tuple(notes),
    )


def _seed_of(place: tuple[int, str]) -> int:
    return place[0]


def _differing(seed: int, group: str, trained: Sequence[RunRow]) -> list[Mismatch]:
    """Returns the conditions that are not those of all runs of a seed which recorded them."""
    found = []
    for key in _keys(trained):
        values = {row.arm: row.conditions[key] for row in trained if key in row.conditions}
        if len(set(values.values())) > 1:
            shown = {arm: _shortened(value) for arm, value in values.items()}
            found.append(Mismatch(seed=seed, key=key, values=shown, group=group))
    return found


def _keys(rows: Sequence[RunRow]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row.conditions if key != DIAL))


def _shortened(value: object) -> str:
    """Returns a hash's first digits, and anything else whole."""
    return re.sub(r"\b[0-9a-f]{40,64}\b", lambda found: found[0][:12], str(value))


def _partial_in_words(seed: int, earlier: Sequence[RunRow]) -> str:
    names = ", ".join(row.arm for row in earlier)
    lacking = set(_RECORDED_SINCE).difference(*(row.conditions for row in earlier))
    keys = ", ".join(key for key in _RECORDED_SINCE if key in lacking)
    return (
        f"seed {seed}: {names} did not record all when trained, as runs begun by an earlier "
        f"version; not recorded: {keys}."
    )


def _notes(rows: Sequence[RunRow], known: Set[str]) -> tuple[str, ...]:
    """Says what changed in all arms of a seed alike, and what differs between seeds."""
    trained = [row for row in rows if row.steps > 0]
    notes = []
    for key in _keys(trained):
        values: dict[str, list[int]] = {}
        for row in trained:
            if key in row.conditions and key not in known:
                values.setdefault(_shortened(row.conditions[key]), []).append(row.seed)
        changed = [value for value in values if ", from step " in value]
        if len(values) > 1 or changed:
            sides = (
                f"{value} (seed {', '.join(map(str, sorted(set(seeds))))})"
                for value, seeds in values.items()
            )
            notes.append(f"{key.replace('_', ' ')}: {'; '.join(sides)}.")
    return tuple(notes)
