"""What a study found in plain words, and what a paper about it needs to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scantune.reports.plots import interval_text
from scantune.reports.selection import at_place
from scantune.study.results import ArmDifference, ClassEffect, Results, TaskCount
from scantune.wording import DESIGNS, budget_name, is_separate, learner_name, signed

_ALPHA = 0.05
# Classes that say no more than whether a scan has what the task is called.
_ABSENT_AND_PRESENT = (
    *(("0", "1"), ("no", "yes"), ("n", "y"), ("false", "true"), ("absent", "present")),
    *(("negative", "positive"), ("neg", "pos"), ("non", "oui")),
)


def primary_difference(results: Results) -> ArmDifference | None:
    """The one comparison that was named in advance."""
    return next((each for each in results.differences if each.primary), None)


def _primary_task(results: Results) -> TaskCount:
    return min(results.tasks, key=lambda task: task.name != results.verdict.primary.task)


def _pair_of_scans(task: TaskCount) -> str:
    if len(task.classes) > 2:
        return "one scan of a class and one of another"
    first, second = (*task.classes, "", "")[:2]
    if (first.casefold(), second.casefold()) in _ABSENT_AND_PRESENT:
        return f"one scan with {task.name} and one without"
    return f"one scan of {second} and one of {first}"


def class_effect_sentence(effects: Sequence[ClassEffect]) -> str:
    """Whether the difference of the primary pair differs between classes; empty where untested."""
    tested = [each for each in effects if each.p is not None]
    if not tested:
        return ""
    pair, count = f"{tested[0].a} − {tested[0].b}", len(tested)
    least = min(each.p for each in tested if each.p is not None)
    where = " of these two networks" if tested[0].seeds == 1 else ""
    if least >= _ALPHA:
        return (
            f"That the difference {pair}{where} is larger in some of the {count} classes than in "
            f"others is not shown (corrected p {least:.2g})."
        )
    apart = [each for each in tested if each.p is not None and each.p < _ALPHA]
    if count == 2:
        named = " and ".join(f"{_signed(each)} in {each.name}" for each in apart)
        return (
            f"The difference {pair}{where} is not the same in both classes: {named} "
            f"(p {max(least, 0.001):.2g})."
        )
    named = ", ".join(f"{each.name} ({_signed(each)})" for each in apart)
    return (
        f"The difference {pair}{where} is not the same in all {count} classes: it stands apart "
        f"from the mean of the others in {named} (least corrected p {max(least, 0.001):.2g})."
    )


def _signed(effect: ClassEffect) -> str:
    return "undefined" if effect.difference is None else signed(effect.difference)


def plain_words(results: Results) -> list[str]:
    """The verdict for a reader who uses no statistics, a sentence each."""
    named, primary, scores = (
        results.verdict.primary,
        primary_difference(results),
        at_place(results, results.verdict.primary.task),
    )
    a, b = scores.get(named.a), scores.get(named.b)
    if primary is None or a is None or b is None or a.auroc is None or b.auroc is None:
        return []
    said = [
        f"Of 100 pairs of {_pair_of_scans(_primary_task(results))}, {named.a} puts "
        f"{100 * a.auroc:.1f} in the right order and {named.b} {100 * b.auroc:.1f}; guessing 50."
    ]
    margin = 100 * results.margin
    if primary.difference is None or primary.low is None or primary.high is None:
        return [*said, f"Whether that is chance cannot be said: {primary.note or 'undefined'}."]
    ends = f"{_hundredths(primary.low)} to {_hundredths(primary.high)}"
    kind = results.verdict.kind
    if kind in ("better", "worse"):
        said.append(
            f"The difference, {_hundredths(primary.difference)} pairs in 100 ({ends}), is more "
            "than other patients or another pretraining run would explain."
        )
    elif kind in ("higher", "lower"):
        said.append(
            f"The difference, {_hundredths(primary.difference)} pairs in 100 ({ends}), is more "
            f"than other patients would explain, but it was only shown {primary.holds_for}."
        )
    elif kind == "equivalent":
        said.append(
            f"They differ by less than {margin:g} in 100, which was {results.named} as too little "
            "to matter."
        )
    else:
        said.append(
            f"That may be chance: the true difference may be anything from {ends} pairs in 100. "
            "This does not show that they are equally good."
        )
    references = {
        "thumbnail": "the scan as a thumbnail",
        "random": "an untrained network",
        "scratch": "a network trained on the labels alone",
        "backbone": "given weights",
    }
    others = [
        f"{references[arm.kind]}{f' ({arm.name})' if arm.name != arm.kind else ''} "
        f"{100 * score.auroc:.1f}"
        for arm in results.arms
        if arm.kind in references
        and arm.name not in (named.a, named.b)
        and (score := scores.get(arm.name)) is not None
        and score.auroc is not None
    ]
    return [*said, f"For comparison: {', '.join(others)}."] if others else said


def _hundredths(value: float) -> str:
    text = f"{100 * abs(value):.1f}"
    return text if not float(text) else ("+" if value > 0 else "−") + text


def methods_paragraph(results: Results) -> str:
    """A paragraph for the methods section of a paper, of what was run and nothing else."""
    named, lead = results.verdict.primary, _primary_task(results)
    facts: dict[str, list[str]] = {}
    for fact in results.setup:
        facts.setdefault(fact.name.partition(" (")[0], []).append(fact.value)
    fact_of = {name: "; ".join(values) for name, values in facts.items()}
    setting = [
        f"{name.lower()}: {fact_of[name]}"
        for name in ("Method", "Network", "Views", "Modality", "Training")
        if name in fact_of
    ]
    trained = [f"{arm.name} ({arm.scale_text})" for arm in results.arms if arm.scale is not None]
    references = [arm.name for arm in results.arms if arm.scale is None]
    seeds = len(results.seeds)
    sentences = [
        f"Networks were pretrained without labels on {results.unlabeled.count.in_words} "
        f"({'; '.join(setting)}).",
        f"Arms differed in the scale of augmentation (0 none, 1 the published recipe): "
        f"{', '.join(trained)}; each was trained with {seeds} pretraining seed"
        f"{'s' if seeds > 1 else ''} and taken at its last step.",
    ]
    if results.matched.ok:
        sentences.append(
            "Within a seed, arms of one method began from the same weights, saw the same scans in "
            "the same order and drew the same random numbers"
            + (", as far as was recorded." if results.matched.partial else ".")
        )
    else:
        sentences.append("Arms were not matched in all other respects, as the report lists.")
    if references:
        sentences.append(f"References were {', '.join(references)}.")
    for task in results.tasks:
        counts = ", ".join(f"{name} {count:,}" for name, count in task.counts.items())
        sentences.append(f"Task {task.name}: {task.count.in_words} (scans by label: {counts}).")
    budgets = dict.fromkeys(budget_name(score.budget) for score in results.table)
    between = " and between pretraining seeds (moderated, Smyth 2004)" if seeds > 1 else ""
    sentences += [
        f"Evaluation: {fact_of.get('Evaluation', 'as the configuration says')}; label budgets: "
        f"{', '.join(budgets)}.",
        is_separate(lead.design, lead.count, is_compared=lead.is_compared),
        "The outcome was the area under the ROC curve (AUROC), computed within each test fold on "
        "one fitted model and averaged.",
        f"Intervals are 95 % and rest on the variance over {lead.count.units}{between}, "
        "with Student's t and Satterthwaite's degrees of freedom.",
        f"The primary comparison, {results.named}, was {named.a} against {named.b} on "
        f"{named.task} with {learner_name(named.learner)} and {budget_name(named.budget)}; all "
        f"other p-values were corrected by Holm's method. Differences within ±{results.margin:g} "
        "AUROC were called equivalent where two one-sided tests said so.",
    ]
    if results.dose:
        sentences.append(
            "AUROC over the scale was fitted by a quadratic, by a natural cubic spline where that "
            "lay too far off, with the covariance over patients and the variance between seeds."
        )
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    return " ".join([*sentences, f"Software: {versions}."])


@dataclass(frozen=True)
class ChecklistItem:
    """One item of a reporting guideline: what the study says to it."""

    item: str
    topic: str
    text: str


@dataclass(frozen=True)
class Checklist:
    """The items of a guideline that the results answer, and those left to the authors."""

    name: str
    source: str
    filled: tuple[ChecklistItem, ...]
    open: tuple[str, ...]


def checklists(results: Results) -> tuple[Checklist, ...]:
    """TRIPOD+AI and CLAIM, filled as far as results can."""
    text = _answers(results)
    return tuple(
        Checklist(
            name,
            source,
            tuple(ChecklistItem(item, topic, text[key]) for item, topic, key in filled),
            tuple(left.split("; ")),
        )
        for name, source, filled, left in (_TRIPOD, _CLAIM)
    )


def _answers(results: Results) -> dict[str, str]:
    named, lead = results.verdict.primary, _primary_task(results)
    scores = at_place(results, named.task)
    facts = "; ".join(f"{fact.name}: {fact.value}" for fact in results.setup)
    aurocs = [f"{arm} {interval_text(score)}" for arm, score in scores.items()]
    sets = (
        f"unlabeled: {results.unlabeled.count.in_words}; labeled: {results.labels.count.in_words}"
    )
    if results.test is not None:
        sets += f"; external test: {results.test.count.in_words}"
    counts = "; ".join(
        f"{task.name}: " + ", ".join(f"{name} {count:,}" for name, count in task.counts.items())
        for task in results.tasks
    )
    of_classes = "; average precision, sensitivity and specificity of classes"
    rejected = results.rejected
    primary = primary_difference(results)
    width = (
        "no interval of the primary difference"
        if primary is None or primary.low is None or primary.high is None
        else f"the 95 % interval of the primary difference is {signed(primary.low)} to "
        f"{signed(primary.high)}"
    )
    sizes = " × ".join(map(str, results.labels.shape or ()))
    shape = f"Scans packed as {sizes} (channels, height, width). " if sizes else ""
    return {
        "data": f"{sets[0].upper()}{sets[1:]}. Where they come from is left to the authors.",
        "preparation": f"{shape}{facts}.",
        "outcome": f"Label columns and classes: {counts}. How labels were made is left to the "
        "authors.",
        "size": f"Not planned by this program; {width}.",
        "missing": "Scans without a label, with an uncertain one or that could not be read are "
        f"left out: {rejected.unlabeled} unlabeled, {rejected.labels} labeled and {rejected.test} "
        "test scans could not be read; the report's warnings count the others.",
        "partition": f"Tested on {_tested(lead)}. "
        + is_separate(lead.design, lead.count, is_compared=lead.is_compared),
        "level": is_separate(lead.design, lead.count, is_compared=lead.is_compared),
        "model": facts + ".",
        "initial": "Within a seed all arms of a method start from the same weights, whose hash the "
        "report gives."
        if results.matched.ok
        else "See the table of matched arms.",
        "final": "Each network is taken at its last step, never at its best by a labeled score.",
        "ensemble": "None: AUROCs are averaged over models, scores are not.",
        "measures": "AUROC with 95 % intervals; paired differences with p-values, corrected by "
        f"Holm but for the primary one; equivalence within ±{results.margin:g}"
        f"{of_classes if results.classes else ''}.",
        "imbalance": f"Scans by label: {counts}.",
        "external": "An external test set was used."
        if results.test is not None
        else f"No external test set. {DESIGNS[lead.design].untested}.",
        "code": f"scanlearn {results.versions.get('scanlearn', '')}; the command and the whole "
        "configuration are below.",
        "software": ", ".join(f"{name} {version}" for name, version in results.versions.items()),
        "flow": f"{sets[0].upper()}{sets[1:]}; unreadable: {rejected.unlabeled}, {rejected.labels} "
        f"and {rejected.test}.",
        "numbers": f"{sets[0].upper()}{sets[1:]}. Scans by label: {counts}.",
        "subsets": "Label budgets: "
        + ", ".join(dict.fromkeys(budget_name(score.budget) for score in results.table))
        + ", nested within a label seed.",
        "performance": f"{named.task}, {learner_name(named.learner)}, {budget_name(named.budget)}: "
        f"{'; '.join(aurocs[:12])}{'; …' if len(aurocs) > 12 else ''}.",
        "limitations": "See “What this does not show”.",
    }


def _tested(lead: TaskCount) -> str:
    # The number of folds is among the facts of the evaluation.
    return DESIGNS[lead.design].tested.format(folds="", units=lead.count.units).strip()


_Guideline = tuple[str, str, Sequence[tuple[str, str, str]], str]

_TRIPOD: _Guideline = (
    "TRIPOD+AI",
    "Collins et al. 2024",
    (
        ("5a", "Data", "data"),
        ("7", "Data preparation", "preparation"),
        ("8a", "Outcome", "outcome"),
        ("10", "Sample size", "size"),
        ("11", "Missing data", "missing"),
        ("12a", "Analytical methods: use of the data", "partition"),
        ("12c", "Analytical methods: model", "model"),
        ("12e", "Analytical methods: performance", "measures"),
        ("13", "Class imbalance", "imbalance"),
        ("16", "Training versus evaluation", "external"),
        ("18f", "Code sharing", "code"),
        ("20a", "Participants: flow", "flow"),
        ("21", "Model development: numbers in each analysis", "numbers"),
        ("23a", "Model performance", "performance"),
        ("26", "Limitations", "limitations"),
    ),
    "1 title; 2 abstract; 3a to 3c background; 4 objectives; 5b dates; 6a to 6c participants; "
    "8b and 8c assessment of the outcome; 9a to 9c predictors; 12b, 12d, 12f and 12g analysis; "
    "14 fairness; 15 model output; 17 ethical approval; 18a to 18e open science; 19 patient and "
    "public involvement; 20b and 20c participants; 22 model specification; "
    "23b heterogeneity; 24 updating; 25 interpretation; 27a to 27c usability",
)
_CLAIM: _Guideline = (
    "CLAIM",
    "the update of 2024, Tejani et al.",
    (
        ("9", "Data preprocessing", "preparation"),
        ("10", "Subsets of the data", "subsets"),
        ("12", "Missing data", "missing"),
        ("19", "Partitions", "partition"),
        ("20", "Level at which they are disjoint", "level"),
        ("21", "Sample size", "size"),
        ("22", "Model", "model"),
        ("23", "Software", "software"),
        ("24", "Initial parameters", "initial"),
        ("25", "Training", "preparation"),
        ("26", "Choice of the final model", "final"),
        ("27", "Ensembles", "ensemble"),
        ("28", "Metrics", "measures"),
        ("29", "Significance and uncertainty", "measures"),
        ("33", "External data", "external"),
        ("35", "Numbers included and excluded", "flow"),
        ("37", "Performance", "performance"),
        ("40", "Limitations", "limitations"),
    ),
    "1 title; 2 abstract; 3 background; 4 objectives; 5 prospective or retrospective; 6 study "
    "goal; 7 data sources; 8 eligibility; 11 de-identification; 13 image acquisition; "
    "14 to 18 reference standard; 30 robustness; 31 explainability; 32 internal data; "
    "34 registration; 36 demographics; 38 diagnostic performance; 39 failure analysis; "
    "41 implications; 42 protocol; 43 availability; 44 funding",
)
