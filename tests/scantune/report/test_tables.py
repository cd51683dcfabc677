from __future__ import annotations

import pytest

from scantune.report import tables
from scantune.study import results as r


def test_primary_pair_and_row_come_first(fake_results: r.Results) -> None:
    pairs = tables.pairs(fake_results)
    assert (pairs[0].a, pairs[0].b) == ("weak", "strong")
    assert pairs[0].rows[0][0].primary
    assert sum(pair.primary for pair in pairs) == 1


def test_all_labels_are_the_last_budget(fake_results: r.Results) -> None:
    assert tables.budgets(fake_results) == [50, 100, "all"]


def test_references_stand_above_trained_arms(fake_results: r.Results) -> None:
    names = [arm.name for arm in tables.ordered_arms(fake_results)]
    assert names == ["thumbnail", "random", "identity", "weak", "strong"]


def test_best_of_a_column_is_a_trained_arm(fake_results: r.Results) -> None:
    table = tables.auroc_table(fake_results, "pallor")
    marked = [arm.name for (arm, _), best in zip(table.rows, table.best, strict=True) if best[0]]
    assert marked == ["identity"]


def test_a_parameter_one_arm_lacks_is_a_dash(fake_results: r.Results) -> None:
    arms = list(fake_results.arms)
    arms[2] = arms[2].model_copy(update={"resolved": arms[2].resolved[:1]})
    dial = tables.dial_table(fake_results.model_copy(update={"arms": tuple(arms)}))
    assert [values[0] for _, values, _ in dial.rows[1:]] == ["–"] * 6


def test_a_cited_number_is_no_remark_and_any_other_is(fake_results: r.Results) -> None:
    def resolved(source: str) -> tuple[r.Parameter, ...]:
        return (r.Parameter(parameter="crop_min", value="0.2", source=source),)

    sources = ["published: A et al. 2020", "derived from B et al. 2025", "identity"]
    arms = [arm for arm in fake_results.arms if arm.kind == "pretrained"]
    told = [
        arm.model_copy(update={"resolved": resolved(source)})
        for arm, source in zip(arms, sources, strict=True)
    ]
    dial = tables.dial_table(fake_results.model_copy(update={"arms": tuple(told)}))
    ((title, values, remark),) = dial.rows
    assert title == "Smallest crop, of the area"
    assert values == ["0.2"] * 3
    assert remark == f"{told[1].name}: derived from B et al. 2025"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.2, "3.2 s"), (31, "31 s"), (212.0, "3 min 32 s"), (7325.0, "2 h 02 min")],
)
def test_durations_are_read_at_a_glance(seconds: float, text: str) -> None:
    assert tables.duration(seconds) == text
