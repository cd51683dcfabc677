from __future__ import annotations

import pytest

from scantune.report import forest
from scantune.study import results as r


def difference(value: float | None, low: float | None, high: float | None) -> r.Difference:
    return r.Difference(
        task="t",
        learner="linear",
        budget="all",
        a="weak",
        b="strong",
        difference=value,
        low=low,
        high=high,
        p=0.5,
        p_holm=0.5,
        df=3,
        seeds=2,
        verdict="none",
    )


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ((0.027, 0.011, 0.043), "+0.027 (+0.011 to +0.043)"),
        ((-0.027, -0.043, 0.0), "−0.027 (−0.043 to 0.000)"),
        ((None, None, None), "undefined"),
    ],
)
def test_a_difference_is_written_with_its_sign_and_interval(
    given: tuple[float | None, float | None, float | None], text: str
) -> None:
    assert forest.difference_text(difference(*given)) == text


def test_the_axis_holds_zero_and_the_margin() -> None:
    low, high = forest.forest_range([difference(0.3, 0.2, 0.4)], 0.01)
    assert low < -0.01
    assert high > 0.4


def test_an_undefined_difference_is_an_empty_cell() -> None:
    cell = forest.forest_cell(difference(None, None, None), (-0.1, 0.1), 0.01, {})
    assert "<circle" not in cell
    assert "undefined" in cell
