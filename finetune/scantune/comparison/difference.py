"""`difference`: which of several backbones or learners scores higher on the same labeled scans."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from scanlearn.config.calls import checked
from scanlearn.config.loading import check_settings
from scanlearn.console import say
from scantune.comparison import difference_page
from scantune.comparison.difference_settings import DifferenceConfig, DifferenceOptions
from scantune.comparison.sides import Differences, auroc_text, difference_text, tested
from scantune.wording import budget_name, learner_name


@checked
def difference(
    *outputs: str | Path | Sequence[str | Path], **options: Unpack[DifferenceOptions]
) -> Differences:
    """Test outputs of evaluate on the same scans against each other.

    Prints AUROCs and paired differences. The first pair is the primary comparison; Holm's
    correction covers all others.

    Args:
        outputs: Folders that `evaluate` wrote. Networks of one recipe with other pretraining seeds
            are one side: a list of folders, or a text with commas between them. Two sides of
            several networks each are paired by pretraining seed, and must have equally many.
        options: The settings of `DifferenceConfig`, as ``scantune config difference`` prints them.

    Raises:
        ScanlearnError: An output cannot be read, or is of other scans, labels, folds or label
            seeds.

    Example:
        >>> difference("scores/imagenet", "scores/own", output="own")    # doctest: +SKIP
    """
    return difference_with(outputs, check_settings(DifferenceConfig, options, "difference"))


def difference_with(
    outputs: Sequence[str | Path | Sequence[str | Path]], settings: DifferenceConfig
) -> Differences:
    """Does what `difference` does, by settings that are checked."""
    found = tested(outputs, settings)
    _say(found)
    if settings.output is not None:
        say(f"written: {difference_page.write(found, settings.output.expanduser())}")
    return found


def _say(found: Differences) -> None:
    """Prints the table of AUROCs, the differences and the verdict."""
    for name, value in found.facts.items():
        say(f"{name.lower()}: {value}")
    width = max(len(side.name) for side in found.sides)
    for row in found.table:
        place = f"{row.task}, {learner_name(row.learner)}, {budget_name(row.budget)}"
        say(f"{row.arm:<{width}}  AUROC {auroc_text(row)}  {place}")
    for pair in found.differences:
        place = f"{pair.task}, {learner_name(pair.learner)}, {budget_name(pair.budget)}"
        p = "" if pair.p is None else f"  p {pair.p:.2g}"
        p += "" if pair.p_holm is None else f" (Holm {pair.p_holm:.2g})"
        p += "" if pair.delong_p is None else f", DeLong {pair.delong_p:.2g}"
        say(f"{pair.a} - {pair.b}: {difference_text(pair)}{p}  {place}")
    say(found.verdict.sentence)
    for note in found.notes:
        say(f"note: {note}")
