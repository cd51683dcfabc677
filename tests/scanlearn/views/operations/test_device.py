"""What devices add, against closed forms and slow loops from the papers."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import ive
from scipy.stats import poisson, rice

from scanlearn.core import ScanBatch
from scanlearn.views.draw import Draw
from scanlearn.views.operations.fields import illumination_field, poisson_field
from scanlearn.views.operations.jpeg import compress
from scanlearn.views.ranges import Ranges, ViewRanges
from scanlearn.views.render import render
from scanlearn.views.settings import RenderSettings
from scanlearn.views.uniforms import DrawKey, uniforms

MakeBatch = Callable[..., ScanBatch]
SIDE = 128
AMOUNTS = {
    "illumination": 0.4, "low_resolution": 0.4, "rician_std": 0.1, "poisson_std": 0.05,
    "speckle_std": 0.2, "jpeg_quality": 30.0, "window_width": 0.3, "window_level": 0.1,
    "stain_factor": 1.2, "stain_offset": 0.05, "quarter_turns": 3,
}  # fmt: skip


def _drawn(batch: ScanBatch, **given: object) -> Draw:
    u = uniforms(DrawKey(0, 0, np.arange(len(batch))), 1)
    plain = Ranges((ViewRanges(),)).draw(u, batch.valid_box.numpy())
    arrays = {
        name: np.broadcast_to(value, getattr(plain, name).shape).astype(getattr(plain, name).dtype)
        for name, value in given.items()
    }
    return replace(plain, **arrays)


def _flat(value: float, scans: int = 4, channels: int = 1) -> ScanBatch:
    return ScanBatch(
        pixels=torch.full((scans, channels, SIDE, SIDE), value),
        valid_box=torch.tensor([[0, 0, SIDE, SIDE]] * scans),
        mask=None,
        spacing_mm=torch.full((scans, 2), float("nan")),
        value_range=torch.tensor([[0.0, 1.0]] * scans),
        ids=torch.arange(scans),
    )


def _view(batch: ScanBatch, **given: object) -> torch.Tensor:
    return render(batch, _drawn(batch, **given), 0, SIDE).double()


@pytest.mark.parametrize(("value", "std"), [(0.0, 0.05), (0.1, 0.1), (0.5, 0.02), (0.4, 0.1)])
def test_rician_noise_has_the_moments_of_the_rice_distribution(value: float, std: float) -> None:
    found = _view(_flat(value), rician_std=std)
    # The Laguerre form: sqrt(pi/2) L_1/2(-t), and E[y^2] = x^2 + 2 std^2.
    t = value**2 / (2 * std**2)
    laguerre = (1 + t) * ive(0, t / 2) + t * ive(1, t / 2)
    mean = std * math.sqrt(math.pi / 2) * laguerre
    assert mean == pytest.approx(rice.mean(value / std, scale=std))
    count = found.numel()
    deviation = math.sqrt(value**2 + 2 * std**2 - mean**2)
    assert float(found.mean()) == pytest.approx(mean, abs=5 * deviation / math.sqrt(count))
    assert float(found.var()) == pytest.approx(deviation**2, rel=0.03)


@pytest.mark.parametrize("mean", [0.1, 0.7, 1.5, 3.99, 4.0, 6.0, 20.0, 300.0, 1e4])
def test_poisson_counts_have_the_distribution_of_poisson(mean: float) -> None:
    counts = poisson_field(
        np.arange(16, dtype=np.uint64), torch.full((16, 1, SIDE, SIDE), mean)
    ).double()
    n = counts.numel()
    assert torch.equal(counts, counts.round())
    assert float(counts.mean()) == pytest.approx(mean, abs=5 * math.sqrt(mean / n))
    # The fourth central moment is mean + 3 mean^2.
    spread = math.sqrt((mean + 2 * mean**2) / n)
    assert float(counts.var()) == pytest.approx(mean, abs=5 * spread + 1e-3 * mean)
    skewness = float(((counts - mean) ** 3).mean()) / mean**1.5
    assert skewness == pytest.approx(mean**-0.5, abs=0.03 + 0.05 * mean**-0.5)
    if mean < 10:
        found = np.bincount(counts.flatten().long().numpy(), minlength=30)[:30] / n
        expected = poisson.pmf(np.arange(30), mean)
        assert np.abs(found - expected).max() < 5 * math.sqrt(0.25 / n) + 1e-3


def test_a_poisson_count_is_the_quantile_of_its_uniform_and_grows_with_the_mean() -> None:
    keys = np.zeros(60, dtype=np.uint64)
    means = torch.linspace(0, 12, 60)
    counts = poisson_field(keys, means.view(60, 1, 1, 1).expand(60, 1, 64, 64).contiguous())
    assert (counts[0] == 0).all()
    falls = (counts.diff(dim=0) < 0).float().mean()
    assert falls < 1e-4


@pytest.mark.parametrize(("value", "std"), [(0.2, 0.03), (0.7, 0.0316), (0.5, 0.01), (0.01, 0.05)])
def test_variance_of_photons_rises_with_their_mean(value: float, std: float) -> None:
    found = _view(_flat(value), poisson_std=std)
    assert float(found.mean()) == pytest.approx(value, rel=0.03)
    assert float(found.var()) == pytest.approx(value * std**2, rel=0.04)
    counts = found / std**2
    assert (counts - counts.round()).abs().max() < 0.01


@pytest.mark.parametrize("decibels", [60.0, 40.0])
@pytest.mark.parametrize("std", [0.05, 0.15])
def test_speckle_multiplies_amplitudes(std: float, decibels: float) -> None:
    factors = []
    for value in (0.4, 0.7):
        batch = _flat(value)
        settings = RenderSettings(dynamic_range_db=decibels)
        shown = render(batch, _drawn(batch, speckle_std=std), 0, SIDE, settings).double()
        amplitude, plain = (10 ** ((d - 1) * decibels / 20) for d in (shown, torch.tensor(value)))
        factors.append(amplitude / plain)
    for factor in factors:
        assert float(factor.mean()) == pytest.approx(1, abs=0.01)
        assert float(factor.std()) == pytest.approx(std, rel=0.02)
    # The same factors whatever they multiply.
    assert (factors[0] - factors[1]).abs().max() < 1e-4
    assert (_view(_flat(0.0), speckle_std=std) == 0).all()


@pytest.mark.parametrize("change", [0.3, -0.2])
def test_light_falls_with_the_square_of_the_distance(change: float) -> None:
    keys = np.arange(20, dtype=np.uint64)
    field = illumination_field(keys, torch.full((20,), change), 65).double()[:, 0]
    axis = np.linspace(-1, 1, 65)
    columns, rows = np.meshgrid(axis, axis)
    design = np.stack([np.ones(65**2), (columns**2 + rows**2).ravel(), columns.ravel(),
                       rows.ravel()], axis=1)  # fmt: skip
    centres = []
    for one in field.numpy():
        (level, curve, *slopes), *_ = np.linalg.lstsq(design, one.ravel(), rcond=None)
        centre = -np.array(slopes) / (2 * curve)
        farthest = ((1 + np.abs(centre)) ** 2).sum()
        away = (columns - centre[0]) ** 2 + (rows - centre[1]) ** 2
        assert np.allclose(one, 1 - change * away / farthest, atol=1e-5)
        assert level == pytest.approx(1 - change * (centre**2).sum() / farthest, abs=1e-4)
        centres.append(centre)
    assert np.abs(centres).max() <= 1 + 1e-3
    assert np.std(centres) > 0.3


def _pillow(pixels: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    picture = pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1)
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    read = np.asarray(Image.open(file)).astype(np.float64)
    return read[None] if len(pixels) == 1 else np.moveaxis(read, -1, 0)


@pytest.mark.parametrize("quality", [10, 50, 70, 95])
@pytest.mark.parametrize(("channels", "tolerance"), [(1, 0.5), (3, 1.5)])
@pytest.mark.parametrize("texture", [0.0, 0.15])
def test_jpeg_is_pillows_jpeg(
    texture: float, channels: int, tolerance: float, quality: int
) -> None:
    y, x = np.mgrid[:53, :75] / 64
    planes = [
        0.5 + 0.25 * np.sin(6 * x + 2 * c) * np.cos(5 * y + c) + texture * np.sin(70 * x + 55 * y)
        for c in range(channels)
    ]
    pixels = np.rint(255 * np.clip(planes, 0, 1)).astype(np.uint8)
    expected = _pillow(pixels, quality)
    found = compress(torch.from_numpy(pixels / 255.0).float()[None], np.array([float(quality)]))
    values = found[0].double().numpy() * 255
    assert np.allclose(values, values.round(), atol=1e-3)
    assert np.abs(values - expected).mean() < tolerance
    # Far nearer to Pillow's file than that is to the picture, where a file loses anything.
    if texture and quality <= 70:
        assert np.abs(values - expected).mean() < np.abs(expected - pixels).mean() / 4


def _hed_by_hand(colour: np.ndarray, factor: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """scikit-image's rgb2hed and hed2rgb, pixel by pixel, without its clipping of stains at 0.

    It counts densities in natural logarithms over that of 1e-6: six of ours to one of its.
    """
    rgb_from_hed = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
    hed_from_rgb = np.linalg.inv(rgb_from_hed)
    log_adjust = np.log(1e-6)
    found = np.empty_like(colour)
    for i in range(len(colour)):
        density = np.log(np.maximum(colour[i], 1e-6)) / log_adjust
        stains = [sum(density[j] * hed_from_rgb[j, k] for j in range(3)) for k in range(3)]
        changed = [factor[k] * stains[k] + offset[k] / 6 for k in range(3)]
        for j in range(3):
            log = -sum(changed[k] * -log_adjust * rgb_from_hed[k, j] for k in range(3))
            found[i, j] = min(max(math.exp(log), 0), 1)
    return found


@pytest.mark.parametrize(
    ("factor", "offset"),
    [((1.2, 1, 1), (0, 0, 0)), ((1, 0.8, 1), (0.05, 0, 0)), ((0.9, 1.1, 1.2), (-0.02, 0.1, 0.03))],
)
def test_stains_are_mixed_as_scikit_image_mixes_them(
    make_batch: MakeBatch, factor: tuple[float, ...], offset: tuple[float, ...]
) -> None:
    batch = make_batch(2, 3, (16, 16))
    draw = _drawn(batch, stain_factor=np.array(factor), stain_offset=np.array(offset))
    found = render(batch, draw, 0, 16).double()
    colours = (batch.pixels.double() / 255).permute(0, 2, 3, 1).reshape(-1, 3).numpy()
    expected = _hed_by_hand(colours, np.array(factor), np.array(offset))
    assert np.abs(found.permute(0, 2, 3, 1).reshape(-1, 3).numpy() - expected).max() < 1e-4


def test_stains_leave_one_channel_alone(make_batch: MakeBatch) -> None:
    batch = make_batch(2, 1, (16, 16))
    draw = _drawn(batch, stain_factor=1.2, stain_offset=0.1)
    assert torch.equal(render(batch, draw, 0, 16), render(batch, _drawn(batch), 0, 16))


@pytest.mark.parametrize(
    ("value", "width", "level", "expected"),
    [(0.5, 0, 0.1, 0.4), (0.25, 0.25, 0, 0.3), (0.6, -0.2, 0.05, 0.5625), (0.02, 0, 0.1, 0)],
)
def test_a_window_is_moved_by_shares_of_its_width(
    value: float, width: float, level: float, expected: float
) -> None:
    found = _view(_flat(value, 1), window_width=width, window_level=level)
    assert float(found.mean()) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("stored", "width", "level", "expected"),
    # Packed in 100 to 200; by hand: (stored - low) / (high - low) of the moved window.
    [
        (90, 0.5, 0, (90 - 75) / 150),
        (60, 0.5, 0, 0),
        (205, 0, 0.1, 0.95),
        (97, 0, -0.1, 0.07),
        (230, 0.2, 0.1, 1),
        (97, 0, 0, 0),
    ],
)
def test_a_moved_window_shows_what_the_packed_one_cut_off(
    stored: float, width: float, level: float, expected: float
) -> None:
    batch = replace(_flat(stored), value_range=torch.tensor([[100.0, 200.0]] * 4))
    found = _view(batch, window_width=width, window_level=level)
    assert float(found.mean()) == pytest.approx(expected, abs=1e-6)
    # A scan beside it that keeps its window keeps its values to the bit.
    some = np.array([width, 0, width, 0])[:, None]
    mixed, plain = _view(batch, window_width=some), _view(batch)
    assert torch.equal(mixed[1::2], plain[1::2])


@pytest.mark.parametrize(("factor", "side"), [(0.5, 16), (0.75, 24), (0.3, 10), (0.99, 32)])
def test_low_resolution_is_the_nearest_pixel_and_a_cubic(
    make_batch: MakeBatch, factor: float, side: int
) -> None:
    batch = make_batch(1, 1, (32, 32))
    unit = (batch.pixels[0, 0].double() / 255).numpy()
    near = [math.floor((i + 0.5) * 32 / side) for i in range(side)]

    def enlarged(line: np.ndarray) -> np.ndarray:
        total = np.zeros((32, *line.shape[1:]))
        for i in range(32):
            place = (i + 0.5) * side / 32 - 0.5
            for k in range(math.floor(place) - 1, math.floor(place) + 3):
                t = abs(place - k)
                weight = 1.5 * t**3 - 2.5 * t**2 + 1 if t <= 1 else (
                    -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2)  # fmt: skip
                total[i] += weight * line[min(max(k, 0), side - 1)]
        return total

    expected = np.clip(enlarged(enlarged(unit[np.ix_(near, near)]).T).T, 0, 1)
    found = render(batch, _drawn(batch, low_resolution=factor), 0, 32)[0, 0]
    assert np.abs(found.numpy() - expected).max() < 1e-5


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_are_exact_and_alike_with_and_without_a_grid(
    make_batch: MakeBatch, turns: int
) -> None:
    batch = make_batch(2, 3, (64, 64))
    upright = render(batch, _drawn(batch), 0, 64)
    turned = render(batch, _drawn(batch, quarter_turns=turns), 0, 64)
    assert torch.equal(turned, upright.rot90(turns, (-2, -1)))
    through_grid = render(batch, _drawn(batch, quarter_turns=turns, stretch=1e-9), 0, 64)
    assert (through_grid - turned).abs().max() < 1e-4
    by_degrees = render(batch, _drawn(batch, rotation_deg=90.0 * turns), 0, 64)
    assert (by_degrees - turned).abs().max() < 1e-4


def test_the_apex_stays_where_it_is() -> None:
    # A bright beam down from the middle of the upper edge of a scan with padding above.
    pixels = torch.zeros(1, 1, 96, 96)
    pixels[..., 16:, 44:52] = 1.0
    batch = replace(_flat(0.0, 1), pixels=pixels, valid_box=torch.tensor([[16, 0, 96, 96]]))
    draw = _drawn(batch, rotation_deg=15.0)
    apex, centre = (
        render(batch, draw, 0, 96, RenderSettings(pivot=pivot))[0, 0]
        for pivot in ("apex", "centre")
    )
    top = int(draw.crop_box[0, 0, 0])
    row = 16 - top + 4
    for view, moved in ((apex, 0.0), (centre, -(48 - row) * math.tan(math.radians(15)))):
        line = view[row].double()
        middle = float((line * torch.arange(96)).sum() / line.sum()) + 0.5
        slope = 4 * math.tan(math.radians(15)) if moved == 0 else 0
        assert middle == pytest.approx(48 + moved + slope, abs=1.5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", sorted(AMOUNTS))
def test_a_view_does_not_depend_on_its_neighbours_and_nothing_is_added_outside(
    make_batch: MakeBatch, name: str, channels: int
) -> None:
    rows, columns = torch.meshgrid(torch.arange(40), torch.arange(40), indexing="ij")
    inside = (rows - 20) ** 2 + (columns - 20) ** 2 < 15**2
    batch = make_batch(11, channels, (40, 40), mask=inside.expand(11, 40, 40))
    draw = _drawn(batch, **{name: AMOUNTS[name]})
    together = render(batch, draw, 0, 37)
    alone = render(batch.take(np.array([7])), draw.take(slice(7, 8)), 0, 37)
    assert torch.equal(together[7:8], alone)
    # Turns take the field of view along.
    white = replace(batch, pixels=torch.full_like(batch.pixels, 255))
    turned = {name: draw.quarter_turns} if name == "quarter_turns" else {}
    outside = render(white, _drawn(batch, **turned), 0, 37) == 0
    assert outside.any()
    assert (together[outside] == 0).all()
    assert float(together.min()) >= 0
    assert float(together.max()) <= 1
    plain = render(batch, _drawn(batch), 0, 37)
    if channels == 3 or not name.startswith("stain"):
        assert (together - plain).abs().mean() > 1e-4


# Width of the window in HU or None, drawn share of it and HU; and the standard deviation by hand.
CT_NOISE = [
    (80.0, 0.02, 3.0, 3 / 80),
    (400.0, 0.005, 3.0, 3 / 400),
    (400.0, 0.02, 3.0, 0.02),
    (1500.0, 0.02, 3.0, 0.02),
    (400.0, 0.0, 3.0, 3 / 400),
    (None, 0.02, 3.0, 0.02),
]


@pytest.mark.parametrize(("width", "share", "hu", "expected"), CT_NOISE)
def test_noise_in_ct_has_at_least_so_many_hounsfield_units(
    width: float | None, share: float, hu: float, expected: float
) -> None:
    batch = _flat(0.5)
    if width is not None:
        stored = torch.full((4, 1, SIDE, SIDE), 32768.0 + 50)
        ends = torch.tensor([[32818 - width / 2, 32818 + width / 2]] * 4)
        batch = replace(batch, pixels=stored, value_range=ends, hu_per_value=1.0)
    view = _view(batch, noise_std=share, noise_hu=hu)
    count = view.numel()
    assert float(view.mean()) == pytest.approx(0.5, abs=5 * expected / math.sqrt(count))
    assert float(view.std()) == pytest.approx(expected, rel=0.02)


def test_the_drawn_noise_is_the_larger_of_share_and_hounsfield_units() -> None:
    batch = _flat(0.5, 500)
    u = uniforms(DrawKey(0, 0, np.arange(500)), 1)
    draw = Ranges((ViewRanges(noise_p=0.5, noise_std=0.02, noise_hu=3.0),)).draw(
        u, batch.valid_box.numpy()
    )
    # One uniform for both: where the share is u .02, there are u 3 HU.
    assert draw.noise_hu == pytest.approx(draw.noise_std / 0.02 * 3)
    assert (draw.noise_hu > 0).mean() == pytest.approx(0.5, abs=0.1)
