from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from scantune.reports import report as page
from scantune.reports.label_free import label_free_groups
from scantune.reports.selection import at_place
from scantune.study import results as r

# LiDAR and a panel's alpha of three arms whose AUROCs are .78 (weak), .71 (strong) and less.
SEEDS = (0, 1)


def measured(lidar: dict[str, float], **others: dict[str, float]) -> tuple[r.LabelFree, ...]:
    """Both seeds of each arm, one above and one below its mean."""
    return tuple(
        r.LabelFree(
            arm=arm,
            seed=seed,
            scans=1000,
            measures={
                "lidar": value + 0.5 - seed,
                **{name: of_arm[arm] for name, of_arm in others.items()},
            },
        )
        for arm, value in lidar.items()
        for seed in SEEDS
    )


@pytest.mark.parametrize(
    ("lidar", "rho", "picked"),
    [
        ({"identity": 5, "weak": 30, "strong": 20}, 1.0, "weak"),
        ({"identity": 30, "weak": 5, "strong": 20}, -1.0, "identity"),
        ({"identity": 20, "weak": 20, "strong": 20}, float("nan"), "identity"),
    ],
)
def test_lidar_is_set_against_auroc(
    fake_results: r.Results, lidar: dict[str, float], rho: float, picked: str
) -> None:
    results = fake_results.model_copy(update={"label_free": measured(lidar)})
    scores = at_place(results, results.verdict.primary.task)
    order = sorted(("identity", "weak", "strong"), key=lambda arm: scores[arm].auroc or 0)
    assert order == ["identity", "strong", "weak"]
    (group,) = label_free_groups(results, scores)
    (found,) = group.agreements()
    assert found.rho == pytest.approx(rho, nan_ok=True)
    assert found.picked == picked
    lost = (scores["weak"].auroc or 0) - (scores[picked].auroc or 0)
    assert found.lost == pytest.approx(lost)
    # Of 3! orders two are as far from 0.
    assert found.p == pytest.approx(float("nan") if rho != rho else 2 / 6, nan_ok=True)


def test_what_is_better_by_theory_turns_a_measure(fake_results: r.Results) -> None:
    up = {"identity": 1.0, "strong": 2.0, "weak": 3.0}
    measures = {
        "alignment": up,
        "rotation": up,
        "alpha": {"identity": 3.0, "strong": 1.5, "weak": 1.1},
    }
    results = fake_results.model_copy(update={"label_free": measured(up, **measures)})
    (group,) = label_free_groups(results, at_place(results, results.verdict.primary.task))
    rho = {each.measure: each.rho for each in group.agreements()}
    assert rho == pytest.approx(
        {
            "LiDAR": 1,
            "Rotation probe": 1,
            "Alignment": -1,
            "Decay of the spectrum": 1,
            "LiDAR and rotation, mean rank": 1,
        }
    )


def test_the_report_says_what_lidar_would_have_taken(
    study_folder: Callable[..., Path],
) -> None:
    rows = measured({"identity": 30, "weak": 5, "strong": 20})
    views = "10 views of 1,000 of 4,000 unlabeled scans, by recipe simclr at scale 0.5"
    folder = study_folder(label_free=rows, label_free_views=views)
    text = page.write(folder).read_text(encoding="utf-8")
    assert "Measures without labels against AUROC" in text
    assert "LiDAR is highest in identity, whose AUROC is" in text
    assert "no evidence that it predicts AUROC, nor that it does not" in text
    assert views in text
    assert (folder / "figures" / "label_free_1.svg").is_file()
    lines = (folder / "label_free.csv").read_text().splitlines()
    assert lines[:2] == ["arm,seed,lidar,problem", "identity,0,30.5,"]
    # Results of before have none.
    assert "Measures without labels" not in page.write(study_folder()).read_text(encoding="utf-8")


def test_an_arm_without_measures_is_left_out(fake_results: r.Results) -> None:
    broken = r.LabelFree(arm="identity", seed=0, scans=0, measures={}, problem="not finite")
    rows = (*measured({"weak": 30, "strong": 20}), broken)
    results = fake_results.model_copy(update={"label_free": rows})
    # Of the two that are left nothing can be said.
    assert label_free_groups(results, at_place(results, results.verdict.primary.task)) == []
