"""The labeled scans of an evaluation: one archive, or one to train on and one to test on."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scanlearn.archive.identity import names_nobody
from scanlearn.archive.reader import Archive
from scanlearn.archive.spellings import respelled_within
from scanlearn.console import counted, say, warn_user
from scanlearn.errors import ScanlearnError
from scanlearn.packing.settings import PackSettings
from scanlearn.packing.sources import open_archive
from scantune.labels.classes import Target
from scantune.labels.external import join, open_external, read_external
from scantune.labels.labeled_set import LabeledSet, read_labels, scorable

# Words for the class of scans without a finding.
_ABSENT = (
    *("0", "no", "n", "nein", "non", "false", "absent", "negative", "neg", "none"),
    *("normal", "healthy", "control", "benign"),
)
BOTH_SIDES = "one person's scans may train and be tested"


@dataclass(frozen=True)
class Question:
    """What is asked of the labels; each is as of `evaluate`."""

    target: Target
    classes: tuple[str, ...] | None = None
    ordinal: bool = False
    multilabel: bool | None = None
    split_column: str | None = None
    synthetic_column: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that are named: labels, whatever they look like."""
        targets = (self.target,) if isinstance(self.target, str) else tuple(self.target)
        named = (*targets, self.split_column, self.synthetic_column)
        return tuple(name for name in named if name is not None)


@dataclass(frozen=True)
class LabeledArchives:
    """A labeled set with its archives."""

    archives: tuple[Archive, ...]
    labeled: LabeledSet

    @property
    def described(self) -> dict[str, Any]:
        """What was asked of which scans, by name and hash."""
        return {
            "archive": self.archives[0].content_hash,
            "test": self.archives[1].content_hash if len(self.archives) > 1 else None,
            "target": self.labeled.target,
            "task": self.labeled.truth.name,
            "classes": list(self.labeled.classes),
            "synthetic": self.labeled.num_synthetic,
        }

    @property
    def caveats(self) -> tuple[str, ...]:
        """Sentences that a person should read beside the numbers."""
        notes = list(self.labeled.notes)
        caveat = self.labeled.count().caveat
        if caveat:
            notes.append(f"{caveat}: {BOTH_SIDES}")
        for source, archive in enumerate(self.archives):
            of_archive = self.labeled.sources == source if len(self.archives) > 1 else slice(None)
            respelled = respelled_within(archive, self.labeled.rows[of_archive])
            if respelled is not None:
                notes.append(
                    f"{respelled.told(is_owner=False)}; they count as different people, so one"
                    " person may be in both training and test: write their numbers in one way"
                )
        if any(archive.synthetic_phantom for archive in self.archives):
            notes.append("these scans are drawn by a program: no evidence about real scans")
        rejected = sum(archive.num_rejected for archive in self.archives)
        if rejected:
            notes.append(f"could not be read and left out: {counted(rejected, 'scan')}")
        return tuple(notes)


def open_archives(
    labels: str | Path,
    test: str | Path | None,
    packing: PackSettings,
    single: Collection[str] = (),
) -> tuple[Archive, ...]:
    """Returns the archive of labeled scans, and that of an external test set where there is one.

    Args:
        single: Columns that must have one value for each scan, see `single_columns`.
    """
    archive = open_archive(labels, settings=packing, single=single)
    if test is None:
        return (archive,)
    return archive, open_external(test, archive, packing, single)


def single_columns(
    targets: Iterable[Target], multilabel: bool | None, *others: str | None
) -> tuple[str, ...]:
    """Returns the columns of which rows of one scan may not differ: all but listed findings."""
    of_classes = (each for each in targets if isinstance(each, str) and not multilabel)
    of_findings = (name for each in targets if not isinstance(each, str) for name in each)
    named = (name for name in others if name is not None)
    return tuple(dict.fromkeys((*of_classes, *of_findings, *named)))


def read_question(
    archives: tuple[Archive, ...],
    asked: Question,
    labels: str | Path,
    test: str | Path | None = None,
) -> LabeledArchives:
    """Reads the labels of archives that are open, and says what they hold.

    Raises:
        ScanlearnError: They cannot be used, or a patient or a picture is in both.
    """
    if test is not None and asked.split_column is not None:
        raise ScanlearnError("test and split_column both say which scans are tested; leave one out")
    notes = archives[0].info.get("notes", {})
    labeled = read_labels(archives[0], source=Path(labels).name, notes=notes, **vars(asked))
    _say_labeled(labeled, labeled.target)
    if asked.classes is None:
        _warn_of_order(labeled)
        _warn_of_unknown(labeled)
    if test is None:
        return LabeledArchives(archives, scorable(labeled))
    external = read_external(
        archives[1],
        labeled,
        asked.target,
        is_chosen=asked.classes is not None,
        synthetic_column=asked.synthetic_column,
        source=Path(test).name,
    )
    _say_labeled(external, f"test set, {labeled.target}")
    return LabeledArchives(archives, join(labeled, external, (archives[0], archives[1])))


def _warn_of_order(labeled: LabeledSet) -> None:
    """Warns where the class that measures are about is the one without the finding."""
    names = list(labeled.counts)
    if len(names) == 2 and names[1].casefold() in _ABSENT and names[0].casefold() not in _ABSENT:
        first, second = names
        warn_user(
            f"{labeled.target}: sensitivity, specificity, AUPRC and probabilities are those of "
            f"'{second}', the second of its two classes; classes=[{second},{first}] (of a "
            f"comparison: evaluation.classes) makes them those of '{first}'"
        )


def _warn_of_unknown(labeled: LabeledSet) -> None:
    """Warns of a class that is called as if nothing were known of its scans."""
    for name, number in labeled.counts.items():
        if labeled.truth.task != "multilabel" and names_nobody(name):
            warn_user(
                f"{labeled.target}: '{name}' ({counted(number, 'scan')}) is taken for a class; if "
                "it says that a scan's class is not known, leave these cells blank"
            )


def _say_labeled(labeled: LabeledSet, title: str) -> None:
    unknown = labeled.unknown
    masked = {name: f" ({count:,} unknown)" for name, count in unknown.items() if count}
    counts = (f"{name}: {n:,}{masked.get(name, '')}" for name, n in labeled.counts.items())
    left_out = {
        "without a label left out": labeled.num_blank,
        "uncertain (-1) left out": labeled.num_uncertain,
        "synthetic, for training only": labeled.num_synthetic,
    }
    count = labeled.count()
    kind = {"multiclass": "", "ordinal": " by grade", "multilabel": " by finding"}
    by = kind[labeled.truth.task]
    say(
        f"{title}: {count.in_words}{';' if by and count.unknown else ''}{by} ({', '.join(counts)})"
        + "".join(f"; {count:,} {reason}" for reason, count in left_out.items() if count)
    )
    uncertain = sum(labeled.uncertain)
    if masked:
        say(
            f"unknown findings are masked: {sum(unknown.values()) - uncertain:,} blank, "
            f"{uncertain:,} uncertain (-1)"
        )
    if count.unknown:
        found = "no patient column was found: each scan counts as its own patient"
        if count.patients:
            found = (
                f"{count.unknown:,} of {count.scans:,} scans name no patient and count as their own"
            )
        warn_user(
            f"{found}, so one person may be in both training and test; name the column with "
            "patient_column=, or the part of the paths with patient_pattern="
        )
