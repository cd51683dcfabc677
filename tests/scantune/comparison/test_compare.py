from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scanlearn.errors import ScanlearnError
from scantune.comparison.compare import compare, summary_lines
from scantune.study import results as r
from scantune.study.plan import CompareConfig
from scantune.study.planned import look_in_words

compare_file = importlib.import_module("scantune.comparison.compare")

YAML = """\
unlabeled: phantom:patients=8,seed=3,size=48x48
labels: phantom:patients=24,seed=4,size=48x48
tasks: [pallor]
arms: {weak: {scale: 0.5}, strong: {scale: 1}}
seeds: [0]
pretrain:
  backbone: {name: test_resnet}
  views: {size: 32}
  batch_size: 8
  steps: 2
evaluation: {learners: [knn], budgets: [all], folds: 2, label_seeds: 1, replicates: 200}
primary: {learner: knn}
"""


def made_up(score: Callable[..., r.Score]) -> r.Results:
    primary = r.Primary(task="pallor", learner="knn", budget="all", a="weak", b="strong")
    archive = r.Counted(scans=4, patients=2, hash="0")
    facts: dict[str, Any] = dict.fromkeys(
        ("setup", "runs", "differences", "view_statistics", "sheets", "warnings"), ()
    )
    return r.Results(
        title="t",
        created="2026-01-01T00:00:00+00:00",
        evidence_note="no evidence",
        versions={},
        command="c",
        config="",
        margin=0.01,
        verdict=r.Verdict(kind="none", sentence="No difference shown.", primary=primary),
        unlabeled=archive,
        labels=archive,
        tasks=(r.TaskCount(name="pallor", classes=("0", "1"), scans=4, patients=2, counts={}),),
        arms=(r.ArmRow(name="weak", kind="random"), r.ArmRow(name="strong", kind="random")),
        matched=r.Matched(ok=True),
        table=(
            score("weak", 0.75, low=0.7, high=0.8, learner="knn"),
            score("strong", learner="knn"),
        ),
        rejected=r.Rejected(),
        timing={},
        **facts,
    )


def test_the_terminal_gets_table_verdict_and_evidence_note(score: Callable[..., r.Score]) -> None:
    lines = summary_lines(made_up(score))
    text = "\n".join(lines)
    assert "AUROC (95 % interval): pallor, kNN" in lines
    assert "0.750 (0.700-0.800)" in text
    assert "undefined" in text
    assert lines[-2:] == ["No difference shown.", "no evidence"]


def test_the_terminal_says_the_verdict_in_plain_words_too(fake_results: r.Results) -> None:
    lines = summary_lines(fake_results)
    place = lines.index(fake_results.verdict.sentence)
    assert lines[place + 1].startswith("Of 100 pairs of one scan with lesion and one without, weak")
    assert lines[place + 3].startswith("For comparison: the scan as a thumbnail")


def test_overrides_belong_to_a_file() -> None:
    config = CompareConfig(unlabeled="a", labels="b", tasks=("t",), output="o")
    with pytest.raises(ScanlearnError, match="overrides"):
        compare(config, ["seeds=[1]"])


def test_an_unknown_plan_is_refused() -> None:
    with pytest.raises(ScanlearnError, match="neither a file nor a shipped one"):
        compare("no-such-plan")


@pytest.mark.long
def test_a_comparison_ends_in_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SCANLEARN_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "tiny.yaml"
    path.write_text(YAML)
    report = compare(path, [f"output={tmp_path / 'study'}"])
    text = report.read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    assert "data:image/png;base64," in text
    assert (report.parent / "results.csv").is_file()
    printed = capsys.readouterr().out
    assert f"Report: {report}" in printed
    assert "One pretraining seed" in printed


@pytest.mark.parametrize(
    ("kinds", "looked"),
    [
        (("none", "better"), (3, 5)),
        (("equivalent",), (3,)),
        (("none", "none", "none"), (3, 5, 7)),
    ],
)
def test_seeds_are_added_until_the_primary_comparison_is_settled(
    kinds: tuple[r.Outcome, ...],
    looked: tuple[int, ...],
    tmp_path: Path,
    score: Callable[..., r.Score],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[CompareConfig] = []
    results = made_up(score)

    def read(folder: Path) -> r.Results:
        verdict = results.verdict.model_copy(update={"kind": kinds[len(asked) - 1]})
        return results.model_copy(update={"verdict": verdict})

    monkeypatch.setattr(compare_file, "run_study", lambda config: asked.append(config) or tmp_path)
    monkeypatch.setattr(compare_file, "read_results", read)
    monkeypatch.setattr(compare_file.page, "write", lambda folder: folder / "report.html")
    (tmp_path / "plan.yaml").write_text(YAML.replace("seeds: [0]", "seeds: auto\nmax_seeds: 7"))
    compare(tmp_path / "plan.yaml", [f"output={tmp_path / 'study'}"])
    assert [len(config.seeds) for config in asked] == list(looked)
    assert {config.looks for config in asked} == {(3, 5, 7)}
    assert asked[0].alpha == pytest.approx(0.0205, abs=0.001)
    text = look_in_words(asked[-1])
    assert f"Look {len(looked)} of 3 planned at 3, 5 and 7 seeds" in text
