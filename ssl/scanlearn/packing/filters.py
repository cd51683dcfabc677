"""Which files of a source are packed: patterns on DICOM tags and on columns of a table."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass

from scanlearn.errors import ScanlearnError, did_you_mean
from scanlearn.readers.dicom_tags import keywords, value_representation
from scanlearn.tables.identifying import is_identifying

ScanLabels = Mapping[str, str | None]
Tags = Mapping[str, tuple[str, ...]]
# Values that are no text: sequences, and runs of bytes.
_WITHOUT_TEXT = ("SQ", "OB", "OD", "OF", "OL", "OV", "OW", "UN", "OB or OW")


@dataclass(frozen=True)
class Rule:
    """One line of a filter, such as ``keep.Modality``; the pattern matches case-folded values."""

    setting: str
    name: str
    is_keep: bool
    pattern: re.Pattern[str]


@dataclass(frozen=True)
class Selection:
    """The filter of a source.

    Args:
        rules: Applied in this order; the first that leaves a file out is the reason.
        columns: Label columns of the table; a column wins over a tag of the same name.
    """

    rules: tuple[Rule, ...] = ()
    columns: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Tags and columns that are asked for, each once."""
        return tuple(dict.fromkeys(rule.name for rule in self.rules))

    @property
    def tags(self) -> tuple[str, ...]:
        """DICOM keywords that headers are asked for."""
        return tuple(name for name in self.names if name not in self.columns)

    def values(self, name: str, labels: ScanLabels, tags: Tags) -> tuple[str, ...]:
        """Returns what a file has under a name: the column's value, or all of a tag's."""
        if name not in self.columns:
            return tags.get(name, ())
        label = labels.get(name)
        return () if label is None else (label.strip(),)

    def left_out_by(self, labels: ScanLabels, tags: Tags | None) -> str | None:
        """Returns the setting that leaves a file out, None where it stays.

        Only columns decide about a file that cannot be read, whose tags are None: it is set aside
        with its reason.
        """
        for rule in self.rules:
            if tags is None and rule.name not in self.columns:
                continue
            values = self.values(rule.name, labels, tags or {})
            # Of several values any may match, or all of them as DICOM writes them.
            candidates = (*values, "\\".join(values)) if values else ()
            is_match = any(rule.pattern.match(value.casefold()) for value in candidates)
            if is_match != rule.is_keep:
                return rule.setting
        return None


def make_selection(
    keep: Mapping[str, tuple[str, ...]],
    drop: Mapping[str, tuple[str, ...]],
    columns: tuple[str, ...],
) -> Selection:
    """Returns a checked filter.

    Args:
        keep: Shell-style patterns by tag or column; a file must match one of each.
        drop: Patterns of which it must match none.

    Raises:
        ScanlearnError: A name is neither a DICOM keyword nor a column, or would name a person.
    """
    rules = []
    for kind, patterns in (("keep", keep), ("drop", drop)):
        for name, allowed in patterns.items():
            setting = f"{kind}.{name}"
            if name not in columns:
                _check_keyword(setting, name, columns)
            translated = (fnmatch.translate(pattern.casefold()) for pattern in allowed)
            rules.append(Rule(setting, name, kind == "keep", re.compile("|".join(translated))))
    return Selection(tuple(rules), columns)


def _check_keyword(setting: str, name: str, columns: tuple[str, ...]) -> None:
    kind = value_representation(name)
    if kind is None:
        near = did_you_mean(name, [*columns, *keywords()])
        listed = f"; the columns are {', '.join(columns)}" if columns else ""
        raise ScanlearnError(
            f"{setting}: {name!r} is neither a DICOM keyword nor a column of the table{near}"
            f"{listed}"
        )
    # Patterns stand in archive.json, which names nobody: a filter on a person would.
    if is_identifying(name):
        raise ScanlearnError(
            f"{setting}: {name!r} can identify a person, and filters are stored in the archive;"
            " list the files to pack in a table instead"
        )
    if kind in _WITHOUT_TEXT:
        raise ScanlearnError(
            f"{setting}: {name!r} holds no text (its type is {kind}); choose another keyword"
        )
