from __future__ import annotations

import re
from typing import Any

import pytest

from scantune.reports import writeup
from scantune.study import results as r


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("better", "+7.0 pairs in 100 (+4.6 to +9.4), is more than other patients or another"),
        ("higher", "was only shown in these two networks"),
        ("equivalent", "less than 1 in 100"),
        ("none", "anything from +4.6 to +9.4 pairs in 100. This does not show that they are equ"),
    ],
)
def test_the_verdict_is_said_in_pairs_of_scans(
    fake_results: r.Results, kind: str, words: str
) -> None:
    update: dict[str, Any] = {"kind": kind}
    verdict = fake_results.verdict.model_copy(update=update)
    seeds = 1 if kind == "higher" else 2
    differences = tuple(
        each.model_copy(update={"seeds": seeds}) for each in fake_results.differences
    )
    changed = {"verdict": verdict, "differences": differences}
    said = writeup.plain_words(fake_results.model_copy(update=changed))
    assert said[0] == (
        "Of 100 pairs of one scan with lesion and one without, weak puts 78.0 in the right order "
        "and strong 71.0; guessing 50."
    )
    assert words in said[1]
    assert said[2].startswith("For comparison: the scan as a thumbnail 56.0, an untrained network")


@pytest.mark.parametrize(
    ("classes", "pair"),
    [
        (("no", "Yes"), "one scan with lesion and one without"),
        (("negative", "positive"), "one scan with lesion and one without"),
        (("bacteria", "virus"), "one scan of virus and one of bacteria"),
        (("I", "II", "III"), "one scan of a class and one of another"),
    ],
)
def test_classes_that_say_whether_it_is_there_are_called_so(
    fake_results: r.Results, classes: tuple[str, ...], pair: str
) -> None:
    tasks = tuple(each.model_copy(update={"classes": classes}) for each in fake_results.tasks)
    said = writeup.plain_words(fake_results.model_copy(update={"tasks": tasks}))
    assert said[0].startswith(f"Of 100 pairs of {pair}, weak puts")


def test_the_methods_paragraph_says_what_was_run_and_nothing_else(fake_results: r.Results) -> None:
    text = writeup.methods_paragraph(fake_results)
    for words in (
        "4,000 scans of 2,000 patients (method: SimCLR, temperature 0.5; network: resnet10t",
        "identity (s = 0), weak (s = 0.5), strong (s = 1)",
        "2 pretraining seeds",
        "weak against strong on lesion with linear probe and all labels",
        "torch 2.15.0",
    ):
        assert words in text
    assert "quadratic" not in text
    unmatched = fake_results.model_copy(update={"matched": r.Matched(ok=False)})
    assert "began from the same weights" not in writeup.methods_paragraph(unmatched)


def test_checklists_answer_from_results_and_leave_the_rest_open(fake_results: r.Results) -> None:
    tripod, claim = writeup.checklists(fake_results)
    (performance,) = [each for each in tripod.filled if each.item == "23a"]
    assert "weak 0.780 (0.755 to " in performance.text
    assert "17 ethical approval" in tripod.open
    (external,) = [each for each in claim.filled if each.item == "33"]
    assert external.text.startswith("No external test set")
    assert not {each.item for each in tripod.filled} & {text.split()[0] for text in tripod.open}
    # The update of 2024 has 44 items.
    items = [int(each.item) for each in claim.filled]
    for text in claim.open:
        first, last = re.match(r"(\d+)(?: to (\d+))? ", text).groups()  # type: ignore[union-attr]
        items += range(int(first), int(last or first) + 1)
    assert sorted(items) == list(range(1, 45))
