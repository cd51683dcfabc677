from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from scanlearn.phantom.camera import frame
from scanlearn.phantom.phantom import PhantomScan, PhantomSpec, draw_phantom
from scanlearn.phantom.tasks import TASKS, Strengths, add_lesions, draw_labels, striation, wash_out

SIDE = 64


@pytest.fixture(scope="module")
def phantom() -> list[PhantomScan]:
    """600 eyes of 300 patients; no seed that strengths were set on."""
    spec = PhantomSpec(patients=300, seed=77, height=SIDE, width=SIDE)
    return [draw_phantom(spec, index) for index in range(len(spec))]


@pytest.fixture(scope="module")
def thumbnails(phantom: list[PhantomScan]) -> np.ndarray:
    blocks = np.stack([scan.pixels for scan in phantom]).reshape(len(phantom), 3, 16, 4, 16, 4)
    return blocks.mean(axis=(3, 5)).reshape(len(phantom), -1) / 255


def thumbnail_auroc(thumbnails: np.ndarray, phantom: list[PhantomScan], task: str) -> float:
    """The best over penalties, so that no choice of ours hides what a thumbnail gives away."""
    y = np.array([scan.labels[task] for scan in phantom])
    patients = np.array([scan.patient for scan in phantom])
    aurocs = []
    for c in (1e-3, 1e-2, 1e-1):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=200))
        folds = []
        for train, test in GroupKFold(5).split(thumbnails, y, patients):
            model.fit(thumbnails[train], y[train])
            folds.append(roc_auc_score(y[test], model.predict_proba(thumbnails[test])[:, 1]))
        aurocs.append(float(np.mean(folds)))
    return max(aurocs)


@pytest.mark.parametrize(
    ("task", "low", "high"),
    # For null: four standard errors of an AUROC at chance among 600 eyes.
    [("lesion", 0, 0.65), ("null", 0.5 - 0.095, 0.5 + 0.095), ("pallor", 0.8, 1)],
)
def test_a_thumbnail_gives_pallor_away_but_no_lesion_and_no_task_without_signal(
    phantom: list[PhantomScan], thumbnails: np.ndarray, task: str, low: float, high: float
) -> None:
    assert low < thumbnail_auroc(thumbnails, phantom, task) < high


def test_labels_are_fair_coins_independent_of_each_other(phantom: list[PhantomScan]) -> None:
    rng = np.random.default_rng(5)
    labels = np.array([list(draw_labels(rng).values()) for _ in range(20_000)])
    assert labels.mean(axis=0) == pytest.approx([0.5] * len(TASKS), abs=0.015)
    assert np.corrcoef(labels.T) == pytest.approx(np.eye(len(TASKS)), abs=0.03)
    drawn = np.array([list(scan.labels.values()) for scan in phantom])
    assert np.corrcoef(drawn.T) == pytest.approx(np.eye(len(TASKS)), abs=0.15)


def test_labels_belong_to_the_eye_and_not_to_the_patient(phantom: list[PhantomScan]) -> None:
    drawn = np.array([list(scan.labels.values()) for scan in phantom])
    agree = (drawn[::2] == drawn[1::2]).mean(axis=0)
    assert agree == pytest.approx([0.5] * len(TASKS), abs=0.1)


def test_lesions_are_small_and_local(phantom: list[PhantomScan]) -> None:
    spec = PhantomSpec(patients=300, seed=77, height=SIDE, width=SIDE)
    hidden = replace(spec, strengths=replace(Strengths(), lesion=0.0))
    for index in range(40):
        # Contrast and blur of a camera spread a spot by a pixel or two.
        moved = draw_phantom(hidden, index).pixels.astype(int) - phantom[index].pixels
        changed = np.abs(moved).max(axis=0) > 8
        if phantom[index].labels["lesion"] == 0:
            assert not changed.any()
            continue
        rows, columns = np.nonzero(changed)
        assert 0.001 < changed.mean() < 0.05
        assert max(np.ptp(rows), np.ptp(columns)) < 0.7 * SIDE


def test_lesions_are_bright_and_dark() -> None:
    view = frame(128, 128, 1.0, 1.0)
    flat = np.full((3, 128, 128), 0.5, dtype=np.float32)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        picture = add_lesions(flat, view, rng, Strengths(), disc=(0.5, 0.0))
        assert (picture - flat).max() > 0.2
        assert (picture - flat).min() < -0.2


def test_pale_eyes_are_brighter_and_flatter() -> None:
    view = frame(48, 48, 1.0, 1.0)
    picture = np.random.default_rng(0).uniform(0.2, 0.8, (3, 48, 48)).astype(np.float32)
    pale, other = (wash_out(picture, view, Strengths(pallor=0.2), pale=p) for p in (True, False))
    inside = [picture[:, view.mask] for picture in (pale, other)]
    assert inside[0].mean() / inside[1].mean() == pytest.approx(np.exp(0.05), rel=1e-3)
    # Brightness multiplies contrast as well.
    flatter = np.log(inside[1].std(axis=1) / inside[0].std(axis=1))
    assert flatter == pytest.approx([0.2 - 0.05] * 3, abs=1e-3)


@pytest.mark.parametrize("upright", [False, True])
def test_the_striation_keeps_its_orientation_in_a_mirror(upright: bool) -> None:
    view, level = frame(96, 96, 1.0, 1.0), Strengths(tilt_deg=0.0)
    for seed in range(10):
        light = striation(view, np.random.default_rng(seed), level, upright=upright)
        assert light.mean() == pytest.approx(1.0, abs=0.03)
        for picture in (light, light[:, ::-1]):
            down, across = (float(np.abs(np.diff(picture, axis=axis)).mean()) for axis in (0, 1))
            assert (across > 1.5 * down) if upright else (down > 1.5 * across)


@pytest.mark.parametrize("upright", [False, True])
def test_level_stripes_are_those_of_the_phantom_before_they_were_tilted(
    upright: bool,
) -> None:
    view = frame(48, 40, 1.1, 0.84)
    level = Strengths(texture=0.14, tilt_deg=0.0)
    light = striation(view, np.random.default_rng(9), level, upright=upright)
    rng = np.random.default_rng(9)
    stripes, phase = rng.uniform(6.0, 8.0), rng.uniform(0.0, 2 * np.pi)
    wave, sway, start = rng.uniform(1.0, 2.0), rng.uniform(0.2, 0.5), rng.uniform(0.0, 2 * np.pi)
    for row, column in ((0, 0), (17, 31), (47, 39)):
        x, y = float(view.x[row, column]), float(view.y[row, column])
        across, along = (x, y) if upright else (y, x)
        winding = sway * np.sin(wave * np.pi * along + start)
        expected = 1 + 0.14 * np.sin(np.pi * stripes * across + phase + winding)
        assert light[row, column] == pytest.approx(expected, abs=1e-5)


def test_stripes_are_as_tilted_as_they_are_said_to_be() -> None:
    view, strengths = frame(64, 64, 1.0, 1.0), Strengths(tilt_deg=25.0)
    directions = []
    for seed in range(300):
        light = striation(view, np.random.default_rng(seed), strengths, upright=seed % 2 == 0)
        # The direction across the stripes, by the structure tensor.
        down, across = np.gradient(light)
        twice = np.arctan2(2 * (down * across).mean(), (across**2 - down**2).mean())
        directions.append(np.rad2deg(twice) / 2)
    upright = np.array(directions[::2])
    flat = (np.array(directions[1::2]) % 180) - 90
    assert abs(upright.mean()) < 7
    assert abs(flat.mean()) < 7
    assert np.concatenate([upright, flat]).std() == pytest.approx(25.0, abs=4)


@pytest.mark.parametrize(("tilt_deg", "most"), [(20.0, 0.997), (30.0, 0.933), (35.0, 0.867)])
def test_of_tilted_stripes_no_more_can_be_read_than_is_said(tilt_deg: float, most: float) -> None:
    tilts = np.random.default_rng(0).normal(0.0, tilt_deg, (2, 20_000))
    # How far a direction is from upright, 0 to 90 degrees, of upright stripes and of flat ones.
    upright, flat = (np.abs((tilts[k] + 90 * k + 90) % 180 - 90) for k in (0, 1))
    found = roc_auc_score(np.repeat([0, 1], 20_000), np.concatenate([upright, flat]))
    assert found == pytest.approx(most, abs=0.006)
    share = 2 * norm.cdf(90 / (2**0.5 * tilt_deg)) - 1
    assert share**2 == pytest.approx(most, abs=0.001)


def pictures(scans: list[PhantomScan]) -> torch.Tensor:
    pixels = torch.from_numpy(np.stack([scan.pixels for scan in scans])).float()
    return (pixels - pixels.mean(dim=(0, 2, 3), keepdim=True)) / 50


@pytest.mark.long
def test_a_small_supervised_network_learns_lesions() -> None:
    spec = PhantomSpec(patients=600, seed=78, height=64, width=64)
    scans = [draw_phantom(spec, index) for index in range(len(spec))]
    x, y = pictures(scans), torch.tensor([float(scan.labels["lesion"]) for scan in scans])
    torch.manual_seed(0)
    widths = (3, 12, 24, 48)
    blocks = [
        nn.Sequential(
            nn.Conv2d(before, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        for before, after in pairwise(widths)
    ]
    network = nn.Sequential(
        *blocks, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 1)
    )
    steps, batch, trained = 200, 48, 800
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    order = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(0, trained, (batch,), generator=order)
        views = torch.stack([x[row].flip(-1) if row % 2 else x[row] for row in rows])
        loss = nn.functional.binary_cross_entropy_with_logits(network(views).squeeze(1), y[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    network.eval()
    with torch.no_grad():
        scores = network(x[trained:]).squeeze(1).numpy()
    assert roc_auc_score(y[trained:].numpy(), scores) > 0.8
