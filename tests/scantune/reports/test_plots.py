from __future__ import annotations

from collections.abc import Callable

import pytest

from scantune.reports import plots
from scantune.study import results as r

Difference = Callable[..., r.ArmDifference]


def test_references_are_gray_and_trained_arms_are_not(fake_results: r.Results) -> None:
    colours = plots.palette(fake_results)
    assert colours["random"] == colours["thumbnail"] == "var(--ref)"
    assert len({colours[name] for name in ("identity", "weak", "strong")}) == 3


def test_auroc_axis_stays_a_probability(fake_results: r.Results) -> None:
    wide = [s.model_copy(update={"low": 0.0, "high": 1.0}) for s in fake_results.table]
    assert plots.auroc_range(wide) == (0.0, 1.0)
    low, high = plots.auroc_range(fake_results.table)
    assert 0 < low < high <= 1


def test_every_arm_is_named_at_the_end_of_its_curve(fake_results: r.Results) -> None:
    colours = plots.palette(fake_results)
    drawing = plots.label_curves("lesion", "linear", fake_results.table, (0.4, 1.0), colours)
    assert all(f">{name}</text>" in drawing for name in colours)
    assert drawing.count("<polyline") == len(colours)


def test_a_loss_that_is_not_a_number_is_left_out(fake_results: r.Results) -> None:
    curve = r.TrainingCurve(step=(1, 2, 3), loss=(3.0, None, 2.0), embedding_std=(None, None, None))
    runs = [fake_results.runs[1].model_copy(update={"curve": curve})]
    colours = plots.palette(fake_results)
    assert "<polyline" in (plots.traces(runs, "loss", colours) or "")
    assert plots.traces(runs, "embedding_std", colours) is None


def test_long_curves_are_thinned_to_what_can_be_seen(fake_results: r.Results) -> None:
    steps = tuple(range(5000))
    curve = r.TrainingCurve(
        step=steps, loss=tuple(float(s) for s in steps), embedding_std=(1.0,) * 5000
    )
    runs = [fake_results.runs[1].model_copy(update={"curve": curve})]
    drawing = plots.traces(runs, "loss", plots.palette(fake_results))
    assert drawing is not None
    assert len(drawing) < 8000


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ((0.027, 0.011, 0.043), "+0.027 (+0.011 to +0.043)"),
        ((-0.027, -0.043, 0.0), "−0.027 (−0.043 to 0.000)"),
        ((None, None, None), "undefined"),
    ],
)
def test_a_difference_is_written_with_its_sign_and_interval(
    difference: Difference, given: tuple[float | None, float | None, float | None], text: str
) -> None:
    assert plots.difference_text(difference(*given)) == text


def test_the_axis_holds_zero_and_the_margin(difference: Difference) -> None:
    low, high = plots.forest_range([difference(0.3, 0.2, 0.4)], 0.01)
    assert low < -0.01
    assert high > 0.4


def test_an_undefined_difference_is_an_empty_cell(difference: Difference) -> None:
    cell = plots.forest_cell(difference(None, None, None), (-0.1, 0.1), 0.01, {})
    assert "<circle" not in cell
    assert "undefined" in cell
