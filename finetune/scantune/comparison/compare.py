"""From a plan to the answer: runs the comparison, writes the report, prints the table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scanlearn.config import load_config
from scanlearn.config.calls import checked
from scanlearn.console import say
from scanlearn.errors import ScanlearnError
from scanlearn.locks import held, inside
from scantune.comparison.launch import launch
from scantune.reports import report as page
from scantune.reports import selection
from scantune.reports.writeup import plain_words
from scantune.study.dose import dose_headline, joint_sentences
from scantune.study.folder import StudyFolder
from scantune.study.plan import CompareConfig
from scantune.study.results import Matched, Results, Score, read_results
from scantune.study.run import run_study
from scantune.wording import budget_name, learner_name


@checked
def compare(config: CompareConfig | str | Path, overrides: Sequence[str] = ()) -> Path:
    """Compare augmentation scales: pretrain, score and report every arm.

    Says which scale is better, or that no difference is shown. The same call again goes on
    where it was stopped; finished arms and scores are kept. Started beside one that is at work, it
    shares the work.

    Args:
        config: The plan; or a YAML file, or the name of a shipped one, to read it from.
        overrides: ``key=value`` words that win over the file; only with a file or name.

    Returns:
        The report, ``report.html`` in the study's folder; with a launcher, where it will be.

    Raises:
        ScanlearnError: The plan, the scans or the labels cannot be used, the folder holds
            another study, or the disk is full.

    Example:
        >>> compare("demo", ["output=runs/demo"])  # doctest: +SKIP
    """
    if not isinstance(config, CompareConfig):
        config = load_config(CompareConfig, config, overrides, kind="compare")
    elif overrides:
        raise ScanlearnError("overrides change a file; give them to load_config instead")
    if config.launcher is not None:
        return launch(config, _shared)
    study = StudyFolder(Path(config.output).expanduser())
    for num_seeds in config.looks:
        if num_seeds in study.unsettled(config) and num_seeds != config.looks[-1]:
            continue  # Looked at before, by this command or another.
        look = config if config.max_seeds is None else config.at_look(num_seeds)
        # Commands that share the study leave one look after the other.
        folder = run_study(look.model_copy(update={"wait": config.wait or look is not config}))
        if read_results(folder).verdict.kind != "none":
            break
    with held(inside(folder), folder, wait=True):
        report = page.write(folder)
    results = read_results(folder)
    say("")
    for line in summary_lines(results):
        say(line)
    say(f"Report: {report}")
    return report


def _shared(settings: dict[str, Any]) -> Path:
    """One command that shares a study, as a task of a cluster."""
    return compare(CompareConfig.model_validate(settings))


def summary_lines(results: Results) -> list[str]:
    """The verdict and the table of AUROCs with their intervals, for a terminal."""
    primary = results.verdict.primary
    budgets = selection.budgets(results)
    cells = {(s.task, s.learner, s.budget, s.arm): s for s in results.table}
    arms = selection.ordered_arms(results)
    width = max(len(arm.name) for arm in arms)
    lines: list[str] = []
    for task in selection.tasks(results):
        for learner in selection.learners(results):
            lines.append(f"AUROC (95 % interval): {task.name}, {learner_name(learner)}")
            head = "".join(f"{budget_name(budget):>22}" for budget in budgets)
            lines.append(f"  {'':{width}}{head}")
            for arm in arms:
                row = (cells.get((task.name, learner, budget, arm.name)) for budget in budgets)
                lines.append(f"  {arm.name:{width}}" + "".join(f"{_cell(s):>22}" for s in row))
            lines.append("")
    lines += [results.verdict.sentence, *results.after_results, *plain_words(results)]
    for curve in selection.primary_dose(results):
        lines.append(
            f"{curve.group}: {dose_headline(curve)}" if curve.group else dose_headline(curve)
        )
    lines += [
        " ".join([*([f"{c.group}:"] if c.group else []), "Together:", *joint_sentences(c)])
        for c in results.joint_dose
        if c.task == primary.task
    ]
    others = [d for d in results.differences if not d.primary]
    num_shown = sum(d.verdict not in ("equivalent", "none") for d in others)
    if others:
        lines.append(
            f"Of {len(others)} further comparisons, {num_shown} show a difference after Holm's "
            f"correction for their number; {primary.a} against {primary.b} was {results.named}. "
            "The report has them all."
        )
    lines += matched_lines(results.matched)
    if results.evidence_note:
        lines.append(results.evidence_note)
    return lines


def matched_lines(matched: Matched) -> list[str]:
    """What the proof found: what is not the same in all arms, or was not recorded."""
    found = [*matched.problems, *matched.partial, *matched.notes]
    if not found:
        return []
    if not matched.ok:
        head = "The arms are not matched:"
    elif matched.partial:
        head = "The arms are matched as far as their runs recorded it:"
    else:
        head = "The arms are matched within each seed; a reader should know:"
    return [head, *(f"  {text}" for text in found)]


def _cell(score: Score | None) -> str:
    if score is None:
        return "-"
    if score.auroc is None or score.low is None or score.high is None:
        return "undefined"
    return f"{score.auroc:.3f} ({score.low:.3f}-{score.high:.3f})"
