"""Measures without labels: one set of views for all networks, and nothing measured twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scanlearn.archive.reader import Archive
from scanlearn.core import ViewPlan
from scanlearn.features.extract import features_of
from scanlearn.features.fixed_views import Probing
from scanlearn.features.labelfree import lidar, rotation_accuracy
from scanlearn.views.generator import ViewGenerator
from scanlearn.views.scale import Scale
from scantune.study import label_free as module
from scantune.study.arms import load_network
from scantune.study.folder import StudyFolder
from scantune.study.label_free import measure_all
from scantune.study.plan import CompareConfig
from scantune.study.results import RunRow

Plan = Callable[..., CompareConfig]


@pytest.fixture
def runs() -> list[RunRow]:
    """One untrained network as if it were of two arms, and one that is not measured."""
    of_study = {"arm": "random", "initial_hash": "a", "final_hash": "b"}
    return [
        RunRow.model_validate({"seed": 0, **of_study}),
        RunRow.model_validate({"seed": 0, **of_study, "arm": "start"}),
        RunRow(arm="given", seed=0, initial_hash="", final_hash="c"),
    ]


@pytest.fixture
def study(plan: Plan) -> CompareConfig:
    arms = {"weak": {"scale": 0.5}, "strong": {"scale": 1}}
    return plan(arms=arms | {name: {"kind": "random"} for name in ("random", "start")})


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows by one each time that a network is measured."""
    calls: list[Any] = []
    measures_of = module.measures_of

    def measured(*arguments: Any) -> dict[str, float]:
        calls.append(arguments)
        return measures_of(*arguments)

    monkeypatch.setattr(module, "measures_of", measured)
    return calls


def test_all_networks_see_the_same_views_and_are_measured_once(
    study: CompareConfig, runs: list[RunRow], scan_archive: Archive, counted: list[Any]
) -> None:
    folder = StudyFolder(Path(study.output))
    rows, words = measure_all(study, folder, runs, scan_archive)
    assert [row.arm for row in rows] == ["random", "start"]
    assert rows[0].measures == rows[1].measures
    assert words == "10 views of 40 of 40 unlabeled scans, by recipe simclr at scale 0.5"
    # By hand, of views at .5 of the recipe.
    network = load_network(study, runs[0], folder.path, scan_archive)
    shown = (Scale.of(0.5), ViewPlan(2), 32, scan_archive.mean, scan_archive.std)
    probing = Probing(ViewGenerator("simclr", *shown), visible=False)
    views = probing.features(network, scan_archive)
    assert rows[0].measures["lidar"] == pytest.approx(lidar(views), rel=1e-6)
    turned = rotation_accuracy(probing.turned(network, scan_archive))
    assert rows[0].measures["rotation"] == pytest.approx(turned)
    assert len(counted) == 2
    assert measure_all(study, folder, runs, scan_archive) == (rows, words)
    assert len(counted) == 2
    # Another network in its place, or other scans, is measured anew.
    other = [runs[0].model_copy(update={"final_hash": "d"}), *runs[1:]]
    measure_all(study, folder, other, scan_archive)
    assert len(counted) == 3
    fewer = scan_archive.without(scan_archive.scan_ids[:1].tolist())
    assert measure_all(study, folder, other, fewer)[0][0].scans == 39
    assert len(counted) == 5


def test_nothing_is_measured_where_it_is_not_asked_for(
    study: CompareConfig, runs: list[RunRow], scan_archive: Archive, counted: list[Any]
) -> None:
    folder = StudyFolder(Path(study.output))
    off = study.model_copy(update={"label_free": False})
    assert measure_all(off, folder, runs, scan_archive) == ((), "")
    few = scan_archive.without(scan_archive.scan_ids[4:].tolist())
    assert measure_all(study, folder, runs, few) == ((), "")
    assert counted == []


def test_features_that_are_not_finite_end_no_study(
    study: CompareConfig,
    runs: list[RunRow],
    scan_archive: Archive,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*arguments: Any) -> np.ndarray:
        return np.full_like(features_of(*arguments), np.nan)

    monkeypatch.setattr("scanlearn.features.fixed_views.features_of", broken)
    folder = StudyFolder(Path(study.output))
    (row, *_), _ = measure_all(study, folder, runs[:1], scan_archive)
    assert (row.measures, row.problem) == ({}, "a feature is not finite")
