from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from scanlearn.errors import ScanlearnError
from scantune.comparison.search import search
from scantune.comparison.search_plan import SearchConfig
from scantune.comparison.search_results import (
    Reported,
    answer_sentence,
    read_search,
    summary_lines,
)
from scantune.comparison.search_rules import (
    Choice,
    choose,
    curve_over_rungs,
    kept,
    rival,
)
from scantune.statistics.few_patients import Sides
from scantune.statistics.intervals import Estimate
from scantune.statistics.ranks import label_free_rank

Search = Callable[..., SearchConfig]
SCALES = {"s0": 0.0, "s0.5": 0.5, "s1": 1.0, "s1.5": 1.5}


def estimates(
    aurocs: list[float], spread: float = 0.02, own: float = 0.005
) -> dict[str, list[Estimate]]:
    """One seed of scales whose patient resamples share a part and have one of their own each."""
    rng = np.random.default_rng(0)
    shared = rng.normal(0, spread, 500)
    found: dict[str, list[Estimate]] = {}
    for name, auroc in zip(SCALES, aurocs, strict=False):
        replicates = auroc + shared + rng.normal(0, own / np.sqrt(2), 500)
        found[name] = [
            Estimate(
                auroc=auroc,
                per_fold=np.array([[auroc]]),
                replicates=replicates,
                num_patients=400,
                undefined=0,
                sides=(Sides("ill", 200, 200),),
                refits=None,
                is_crossed=False,
            )
        ]
    return found


def seeds(*of_seed: list[float]) -> dict[str, list[Estimate]]:
    """Several seeds of the same scales."""
    made = [estimates(aurocs) for aurocs in of_seed]
    return {name: [each[name][0] for each in made] for name in made[0]}


@pytest.mark.parametrize(
    ("aurocs", "chosen", "alike"),
    [
        # The best is half a standard error above the next: the smaller of the two is taken.
        ([0.70, 0.7975, 0.80, 0.76], "s0.5", ("s0.5", "s1")),
        ([0.70, 0.75, 0.80, 0.76], "s1", ("s1",)),
        ([0.80, 0.75, 0.70, 0.76], "s0", ("s0",)),
        ([0.80, 0.80, 0.80, 0.80], "s0", ("s0", "s0.5", "s1", "s1.5")),
    ],
)
def test_the_smallest_scale_within_one_standard_error_is_chosen(
    aurocs: list[float], chosen: str, alike: tuple[str, ...]
) -> None:
    found = choose(SCALES, estimates(aurocs))
    assert (found.chosen, found.alike) == (chosen, alike)
    assert found.is_flat is (len(alike) == 4)
    assert sum(found.sureness.values()) == pytest.approx(1)
    assert found.sureness[chosen] > 0.5


def test_one_that_is_far_ahead_is_chosen_in_every_resample() -> None:
    assert choose(SCALES, estimates([0.6, 0.7, 0.8, 0.9])).sureness["s1.5"] == 1


@pytest.mark.parametrize(
    ("aurocs", "count", "expected"),
    [
        # Far apart: by AUROC alone, whatever the ranks.
        ([0.6, 0.9, 0.7, 0.8], 2, ["s0.5", "s1.5"]),
        # The second and third are a tie, and the rank of s0 is the highest.
        ([0.7990, 0.9, 0.8, 0.6], 2, ["s0", "s0.5"]),
        ([0.6, 0.9, 0.7, 0.8], 4, ["s0", "s0.5", "s1", "s1.5"]),
        ([float("nan"), 0.9, 0.7, 0.8], 3, ["s0.5", "s1", "s1.5"]),
    ],
)
def test_the_best_go_on_and_ranks_without_labels_settle_ties(
    aurocs: list[float], count: int, expected: list[str]
) -> None:
    ranks = {"s0": 4.0, "s0.5": 3.0, "s1": 2.0, "s1.5": 1.0}
    assert kept(estimates(aurocs), ranks, count) == expected


@pytest.mark.parametrize(
    ("second", "chosen"),
    [
        # Both seeds say so: .010 above by .001, the variance of the mean of .010 and .012.
        ([0.800, 0.812], "s0.5"),
        # They disagree by .016: s2 / 2 is .008 squared, more than the mean difference of .002.
        ([0.800, 0.794], "s0"),
    ],
)
def test_another_seed_must_say_the_same(second: list[float], chosen: str) -> None:
    found = seeds([0.80, 0.810], second)
    assert choose(SCALES, found).chosen == chosen


def test_the_rival_is_the_best_or_the_next_of_those_as_good() -> None:
    for aurocs, expected in (
        ([0.70, 0.7975, 0.80, 0.76], "s1"),
        ([0.80, 0.799, 0.7995, 0.70], "s1"),
        ([0.70, 0.75, 0.80, 0.76], None),
    ):
        found = estimates(aurocs)
        assert rival(choose(SCALES, found), found) == expected


def test_rungs_share_a_curve_in_which_later_ones_count() -> None:
    scales = {f"s{s:g}": s for s in (0, 0.25, 0.5, 0.75, 1, 1.25)}
    truth = {name: 0.8 - 0.2 * (s - 0.5) ** 2 for name, s in scales.items()}

    def rung(level: float, names: list[str]) -> dict[str, Estimate]:
        made = estimates([0.8])["s0"][0]
        return {n: replace(made, auroc=truth[n] + level, replicates=made.replicates) for n in names}

    first, last = rung(0, list(scales)), rung(0.05, ["s0.25", "s0.5", "s0.75"])
    found = curve_over_rungs(scales, [first, last], 0.01)
    assert found is not None
    # A parabola at the level of the last rung, whichever scales reached it.
    assert found.auroc == pytest.approx(0.85 - 0.2 * (found.at - 0.5) ** 2, abs=1e-6)
    assert (found.best, found.is_flat) == (pytest.approx(0.5), False)
    # One network that fell behind later is half as far behind in the mean of its two rungs.
    last["s0.75"] = replace(last["s0.75"], auroc=last["s0.75"].auroc - 0.1)
    fallen = curve_over_rungs(scales, [first, last], 0.01)
    assert fallen is not None
    assert fallen.best < 0.5
    assert curve_over_rungs({"s0": 0.0, "s1": 1.0}, [rung(0, ["s0", "s1"])], 0.01) is None


def test_ranks_are_means_over_measures() -> None:
    found = label_free_rank({"a": (9.0, 0.3), "b": (8.0, 0.3), "c": (float("nan"), 0.1)})
    assert found == {"a": 2.75, "b": 2.25, "c": 1.0}


TINY: dict[str, Any] = {
    "unlabeled": "phantom:patients=16,seed=3,size=48x48",
    "labels": "phantom:patients=24,seed=4,size=48x48",
    "target": "pallor",
    "scales": [0, 0.5, 1],
    "rungs": [0.2, 0.6, 1],
    "keep": [2, 1],
    "pretrain": {
        "backbone": {"name": "test_resnet"},
        "views": {"size": 32},
        "batch_size": 8,
        "steps": 5,
        "device": "cpu",
    },
    "evaluation": {"learners": ["ncm"], "folds": 2, "replicates": 200},
}


@pytest.fixture
def plan(tmp_path: Path) -> Search:
    def make(**replaced: Any) -> SearchConfig:
        return SearchConfig.model_validate({**TINY, "output": str(tmp_path / "search"), **replaced})

    return make


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scales": [0, 1, 0.5]}, "scales ascend, and 0, 1, 0.5 do not"),
        ({"scales": [0, 1, 2]}, r"a scale is 0 to 1\.5"),
        ({"rungs": [0.1, 0.5], "keep": [1]}, "rungs ascend from above 0 to 1"),
        ({"keep": [2]}, "keep has 1 numbers; 3 rungs need 2"),
        ({"keep": [2, 3]}, "keep never rises"),
        ({"evaluation": {"learners": ["finetune"]}}, "finetune trains a network for every fit"),
        ({"evaluation": {"learners": ["linear", "knn"]}}, "at most 1 item"),
        ({"apart": True, "pretrain": {"views": {"modality": "auto"}}}, "apart needs to know"),
        ({"evaluation": {"test": "a.csv"}}, "external test set, which a search never looks at"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(
    plan: Search, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        plan(**changes)


def test_a_search_ends_in_one_scale_and_is_gone_on_with(
    plan: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = plan()
    results = search(config)
    assert read_search(tmp_path / "search") == results
    first, second, last = ([row for row in results.rungs if row.step == step] for step in (1, 3, 5))
    assert [row.scale for row in first] == [0, 0.5, 1]
    assert [row.arm for row in second] == [row.arm for row in first if row.fate == "kept"]
    assert [row.arm for row in last] == [row.arm for row in second if row.fate == "kept"]
    assert [row.scale for row in last if row.fate == "chosen"] == [results.scale]
    # Each run is trained as far as the last rung that it reached, and no further.
    reached = {row.arm: row.step for row in results.rungs}
    assert results.steps == sum(reached.values())
    assert results.grid_steps == 3 * 3 * 5
    assert (Path(results.backbone) / "model.safetensors").is_file()
    assert [each.patients for each in results.choices] == ["all patients", "half 1", "half 2"]
    assert results.reported is not None
    assert "what the other half chose" in results.reported.how
    assert any(line.startswith("Cost: ") for line in summary_lines(results))

    # Nothing is trained or fitted again; a measure that is gone cannot be had any more.
    monkeypatch.setattr("scantune.comparison.search_networks.fit_learners", None)
    monkeypatch.setattr("scantune.comparison.search_networks.train_until", None)
    again = search(config)
    assert again.model_copy(update={"created": results.created}) == results


def next_rival(choice: Choice, estimates: dict[str, list[Estimate]]) -> str:
    """Calls another scale close, whatever a few steps make of it."""
    return next(name for name in estimates if name != choice.chosen)


def test_a_close_choice_is_confirmed_with_another_seed_as_far_as_the_cost_allows(
    plan: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that any two are close, and quarter turns of every network too easy.
    monkeypatch.setattr("scantune.comparison.search.rival", next_rival)
    monkeypatch.setattr("scantune.comparison.search_networks._SATURATED", 0.0)
    # Rungs take 11 of 45 steps (1 + 1 + 1, then 2 + 2, then 2 + 2); a second seed of two scales 10.
    results = search(plan(max_cost=23 / 45, rungs=[0.2, 0.6, 1], keep=[2, 2]))
    confirmed = results.confirmed
    assert confirmed is not None
    assert (confirmed.step, confirmed.seeds, confirmed.steps) == (5, (1,), 10)
    assert [row.arm for row in confirmed.rows] == list(confirmed.arms)
    reached = {row.arm: row.step for row in results.rungs}
    assert results.steps == sum(reached.values()) + 10
    assert results.choices[0].chosen in confirmed.arms
    assert "trained again with another seed, 5 of 5 steps each" in confirmed.sentence
    lines = "\n".join(summary_lines(results))
    assert confirmed.sentence in lines
    assert lines.count("another seed\n") == 2
    # Swapped patches ranked, which the page and the terminal tell.
    assert all(row.patches is not None for row in results.rungs)
    assert "which two patches were swapped" in lines.replace("\n", " ")
    page = (tmp_path / "search" / "search.html").read_text()
    assert "which two patches were swapped" in page
    assert f"Take scale {results.scale:g}" in page
    assert str(tmp_path) not in page
    assert page.count('<table class="rung') == 4

    # The rungs are kept, and one step is left: too little for any.
    less = search(plan(max_cost=12 / 45, keep=[2, 2]))
    assert less.confirmed is not None
    assert less.confirmed.step == 0
    assert (
        "were not trained with another seed: steps left of max_cost: 1," in less.confirmed.sentence
    )


@pytest.mark.long
def test_a_scale_that_collapses_with_another_seed_is_not_taken(
    plan: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    import scantune.comparison.search_networks as module

    measured, count = module.Networks._without_labels, [0]

    def collapsing(self: Any, network: Any, spread: float, *, is_last: bool) -> Any:
        count[0] += 1
        # Three, two and two networks of the rungs; then the smaller of the pair.
        return measured(self, network, 0.01 if count[0] == 8 else spread, is_last=is_last)

    monkeypatch.setattr(module.Networks, "_without_labels", collapsing)
    monkeypatch.setattr("scantune.comparison.search.rival", next_rival)
    results = search(plan(max_cost=1, keep=[2, 2]))
    assert results.confirmed is not None
    smaller, larger = results.confirmed.arms
    assert results.choices[0].chosen == larger
    assert results.confirmed.sentence.endswith(f"{smaller.removeprefix('s')} collapsed")
    assert [row.fate for row in results.confirmed.rows] == ["collapsed", "kept"]


@pytest.mark.long
def test_a_killed_search_ends_as_one_that_was_not(
    plan: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = search(plan(output=str(tmp_path / "whole")))

    class Killed(BaseException):
        pass

    import scantune.comparison.search_networks as module

    fit, calls = module.fit_learners, [0]

    def killed(*args: Any) -> Any:
        calls[0] += 1
        if calls[0] == 6:
            raise Killed
        return fit(*args)

    config = plan()
    monkeypatch.setattr(module, "fit_learners", killed)
    with pytest.raises(Killed):
        search(config)
    results = search(config)
    same = {"created": whole.created, "backbone": whole.backbone}
    assert results.model_copy(update=same) == whole


@pytest.mark.long
def test_a_collapsed_scale_is_left_out_and_all_collapsed_end_the_search(
    plan: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import scantune.comparison.search_networks as module

    measured = module.Networks._without_labels

    def collapsing(self: Any, network: Any, spread: float, *, is_last: bool) -> Any:
        count[0] += 1
        return measured(self, network, 0.01 if count[0] <= most[0] else spread, is_last=is_last)

    count, most = [0], [1]
    monkeypatch.setattr(module.Networks, "_without_labels", collapsing)
    results = search(plan())
    assert [row.fate for row in results.rungs[:1]] == ["collapsed"]
    assert "s0" not in results.choices[0].sureness
    count[0], most[0] = 0, 99
    with pytest.raises(ScanlearnError, match="every scale collapsed after 1 steps"):
        search(plan(output=str(tmp_path / "other")))


@pytest.mark.long
def test_crop_and_photometric_are_tried_apart_at_the_end(plan: Search) -> None:
    pretrain = {**TINY["pretrain"], "views": {"size": 32, "modality": None}}
    config = plan(apart=True, rungs=[0.4, 1], keep=[1], pretrain=pretrain)
    results = search(config)
    chosen = f"s{results.scale:g}"
    beside = config.beside(chosen)
    assert all(scale.geometry == results.scale for scale in beside.values())
    levers = {
        (scale.crop != results.scale, scale.photometric != results.scale)
        for scale in beside.values()
    }
    assert levers == {(True, False), (False, True)}
    assert [row.arm for row in results.rungs if row.step == 2][3:] == list(beside)
    assert results.apart is not None
    best = [row.arm for row in results.rungs if row.fate == "chosen"][-1]
    assert f"arms/{best}/seed-0" in results.backbone
    assert ("no other place" in results.apart) is (best == chosen)


def test_with_a_given_split_the_test_patients_choose_nothing(
    plan: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import scantune.comparison.search_networks as module

    seen: list[tuple[int, bool]] = []
    fit = module.fit_learners

    def watched(backbone: Any, scans: Any, *rest: Any) -> Any:
        seen.append((len(scans.labeled), scans.labeled.split is None))
        return fit(backbone, scans, *rest)

    monkeypatch.setattr(module, "fit_learners", watched)
    read = module.read_tasks

    def split(*args: Any) -> Any:
        ((name, labeled),) = read(*args).items()
        codes = np.unique(labeled.patients)
        is_test = np.isin(labeled.patients, codes[: len(codes) // 3])
        return {name: replace(labeled, split=np.where(is_test, "test", "train"))}

    monkeypatch.setattr(module, "read_tasks", split)
    results = search(plan())
    assert [each.patients for each in results.choices] == ["all patients"]
    assert results.reported is not None
    assert "test patients of the given split" in results.reported.how
    # Training patients alone choose; the whole set is scored once for the report.
    num_train, num_all = 32, 48
    assert seen[:2] == [(num_train, True), (num_all, False)]


@pytest.mark.parametrize(
    ("low", "high", "is_at_chance"), [(0.44, 0.52, True), (0.5, 0.6, True), (0.51, 0.6, False)]
)
def test_a_choice_that_scores_chance_is_called_that(
    low: float, high: float, is_at_chance: bool
) -> None:
    answer = Choice(best="s1", chosen="s1", alike=("s1",), sureness={"s1": 0.97})
    reported = Reported(auroc=(low + high) / 2, low=low, high=high, note="", how="by halves")
    assert reported.is_at_chance == is_at_chance
    told = answer_sentence({"s1": 1.0}, answer, [1.0], reported)
    assert told.startswith("No scale is shown to tell the classes apart: AUROC") == is_at_chance
    assert ("by halves, which is chance. Scale 1, which 97%" in told) == is_at_chance
    assert told.startswith("Take scale 1, which 97% of patient resamples") != is_at_chance
