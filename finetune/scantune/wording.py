"""What pages, figures and the terminal call things, and what they may say of a design."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from scanlearn.archive.count import Count
from scantune.labels.labeled_set import Design
from scantune.learners.table import LEARNERS


def learner_name(learner: str) -> str:
    """Returns the learner in words; an unknown one as it is."""
    return LEARNERS[learner].title if learner in LEARNERS else learner


def budget_name(budget: str | int) -> str:
    """Returns the label budget in words."""
    return "all labels" if budget == "all" else f"{budget} labels"


def dial_text(dials: Mapping[str, float]) -> str:
    """Returns ``s = 0.5``; the sub-dials by name where they differ."""
    shared = {name: value for name, value in dials.items() if name != "acquisition"}
    acquisition = dials.get("acquisition", 0.0)
    if len(set(shared.values())) == 1:
        text = f"s = {next(iter(shared.values())):g}"
        return f"{text}, acquisition {acquisition:g}" if acquisition else text
    return ", ".join(f"{name} {value:g}" for name, value in dials.items())


def signed(value: float) -> str:
    """``+0.027`` or ``−0.027``, with a true minus."""
    return ("+" if value >= 0 else "−") + f"{abs(value):.3f}"


@dataclass(frozen=True)
class DesignWords:
    """What may be said of scores by which scans were tested.

    ``{units}`` stands for patients, or for scans where no patient is known.

    Args:
        tested: Which scans are tested, as a noun; ``{folds}`` is their number.
        separate: That no patient trains and is tested, where all patients are known.
        covers: Of what the intervals speak.
        untested: What was not tested.
    """

    tested: str
    separate: str
    covers: str
    untested: str


# One sentence for all designs said "not of another hospital" of tests on another hospital.
DESIGNS: Mapping[Design, DesignWords] = MappingProxyType(
    {
        "folds": DesignWords(
            "{folds} folds of {units}",
            "No model scores a scan of a patient it was trained on.",
            "other {units} like these. They do not speak of another hospital, or of networks "
            "pretrained again.",
            "Other hospitals, devices and tasks were not tested",
        ),
        "split": DesignWords(
            "the test side of a given split",
            "No model scores a scan of a patient it was trained on.",
            "other {units} like those of the test side. They do not speak of networks pretrained "
            "again, and of another hospital only where the split keeps one apart.",
            "Nothing but the test side of the given split was tested: no other hospital, device or "
            "task",
        ),
        "test": DesignWords(
            "an external test set",
            "No patient of the external test set has a labeled training scan.",
            "other {units} like those of the external test set. They do not speak of scans from "
            "elsewhere, or of networks pretrained again.",
            "Hospitals, devices and tasks other than those of the external test set were not "
            "tested",
        ),
    }
)


def design_name(design: Design, count: Count, folds: int) -> str:
    """Returns which scans are tested, as ``5 folds of patients``."""
    return DESIGNS[design].tested.format(folds=folds, units=count.units)


def is_separate(design: Design, count: Count, *, is_compared: bool = True) -> str:
    """Returns what is known about patients who train and are tested, as a sentence.

    Args:
        is_compared: Whether a patient of labels and external test set would be recognised.
    """
    if design == "test" and not is_compared:
        return (
            "Whether a patient of the external test set has training scans was not checked; no two "
            "scans of the two sets are equal."
        )
    if count.unknown:
        caveat = count.caveat
        return (
            f"{caveat[0].upper()}{caveat[1:]}: scans of one person may train a model and be scored "
            "by it, which raises scores and narrows intervals."
        )
    return DESIGNS[design].separate


def interval_covers(design: Design, count: Count) -> str:
    """Returns of what intervals of one network speak.

    Args:
        count: Of the tested scans.
    """
    covers = DESIGNS[design].covers.format(units=count.units)
    return f"Intervals are over {count.units}: they say what would be scored on {covers}"
