from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from scanlearn.core import ScanBatch
from scanlearn.views.draw import Draw
from scanlearn.views.ranges import Ranges, ViewRanges
from scanlearn.views.render import render
from scanlearn.views.settings import RenderSettings
from scanlearn.views.uniforms import DrawKey, uniforms
from scanlearn.views.warp import affine_matrix, displacement, elastic_reach, is_warped

MakeBatch = Callable[..., ScanBatch]


def _draw(batch: ScanBatch, **ranges: float) -> Draw:
    u = uniforms(DrawKey(0, 0, np.arange(len(batch))), 2)
    return Ranges((ViewRanges(**ranges),)).draw(u, batch.valid_box.numpy())


def _set(batch: ScanBatch, **changes: Any) -> Draw:
    n = len(batch)
    arrays = {
        name: np.broadcast_to(np.asarray(value), (n, 2, *np.shape(value))).copy()
        for name, value in changes.items()
    }
    return replace(_draw(batch), **arrays)


@pytest.mark.parametrize(
    "change",
    [
        {"rotation_deg": 1.0}, {"translation": (0.1, 0.0)}, {"stretch": 0.1},
        {"shear_deg": (0.0, 2.0)}, {"elastic": 0.05}, {"elastic_mm": 5.0}, {"elastic_axial": 0.05},
    ],
)  # fmt: skip
def test_each_geometric_operation_warps(change: dict[str, Any], make_batch: MakeBatch) -> None:
    batch = make_batch(2)
    assert not is_warped(_draw(batch))[:, 0].any()
    assert is_warped(_set(batch, **change))[:, 0].all()


def test_a_quarter_turn_is_a_quarter_turn_to_the_pixel(make_batch: MakeBatch) -> None:
    batch = make_batch(2, 3, (48, 48))
    found = render(batch, _set(batch, rotation_deg=90.0), 0, 48)
    expected = torch.rot90(batch.pixels.float() / 255, 1, dims=(2, 3))
    assert (found - expected).abs().max() < 1e-4


def test_all_geometry_together_is_a_slow_loop_over_pixels(make_batch: MakeBatch) -> None:
    batch = make_batch(1, 1, (40, 40))
    draw = _set(
        batch, rotation_deg=12.0, translation=(0.05, -0.1), stretch=0.08, shear_deg=(2.0, 3.0),
        flip=True, crop_box=(4.0, 6.0, 36.0, 34.0),
    )  # fmt: skip
    found = render(batch, draw, 0, 32)[0, 0].numpy()
    scan = np.pad(batch.pixels[0, 0].numpy() / 255, 1)
    back = np.linalg.inv(affine_matrix(draw, 0)[0])
    for row in range(0, 32, 5):
        for column in range(0, 32, 3):
            seen = np.array([(column + 0.5) / 32 - 0.5 + 0.1, (row + 0.5) / 32 - 0.5 - 0.05])
            x, y = back @ seen
            x, y = 20 - 28 * x - 0.5, 20 + 32 * y - 0.5
            if not (0 <= x <= 39 and 0 <= y <= 39):
                continue
            left, top = int(np.floor(x)), int(np.floor(y))
            dx, dy = x - left, y - top
            corner = scan[top + 1 : top + 3, left + 1 : left + 3]
            expected = np.array([1 - dy, dy]) @ corner @ np.array([1 - dx, dx])
            assert found[row, column] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("size", [200, 128, 64, 33])
def test_a_warp_that_shrinks_is_as_smooth_as_a_crop_that_shrinks(
    size: int, make_batch: MakeBatch
) -> None:
    batch = make_batch(4, 1, (256, 256))
    noise = torch.rand(4, 1, 256, 256, generator=torch.Generator().manual_seed(0))
    batch = replace(batch, pixels=(noise * 255).to(torch.uint8))
    crop = render(batch, _draw(batch), 0, size)
    warp = render(batch, _set(batch, rotation_deg=1e-5), 0, size)
    inner = slice(2, -2)
    crop, warp = crop[..., inner, inner], warp[..., inner, inner]
    # White noise is the hardest content there is: what is left of it says how much is averaged.
    assert float(warp.std() / crop.std()) == pytest.approx(1, abs=0.2)


def test_on_smooth_content_a_tiny_warp_is_the_crop(make_batch: MakeBatch) -> None:
    batch = make_batch(4, 3, (320, 320), (0, 0, 320, 256))
    for size in (224, 64):
        crop = render(batch, _draw(batch), 0, size)
        warp = render(batch, _set(batch, rotation_deg=1e-5), 0, size)
        assert (crop - warp)[..., 2:-2, 2:-2].abs().mean() < 2e-3


@pytest.mark.parametrize("padding", [0, 255])
def test_what_a_rotation_brings_in_is_black_and_never_padding(
    padding: int, make_batch: MakeBatch
) -> None:
    batch, reference = (
        make_batch(4, 1, (96, 96), (10, 20, 90, 80), padding=value) for value in (padding, 0)
    )
    draw = _set(batch, rotation_deg=45.0, noise_std=0.1, solarize=True)
    view = render(batch, draw, 0, 64)
    assert (view[..., :4, :4] == 0).all()
    assert torch.equal(view, render(reference, draw, 0, 64))


def test_beyond_the_crop_a_rotation_shows_the_scan_not_black(make_batch: MakeBatch) -> None:
    batch = make_batch(2, 1, (96, 96))
    batch = replace(batch, pixels=torch.full_like(batch.pixels, 200))
    draw = _set(batch, rotation_deg=45.0, crop_box=(32.0, 32.0, 64.0, 64.0))
    assert (render(batch, draw, 0, 32) - 200 / 255).abs().max() < 1e-5


def test_a_reflected_background_leaves_no_black_and_no_padding(make_batch: MakeBatch) -> None:
    settings = RenderSettings(background="reflect")
    views = []
    for padding in (0, 255):
        batch = make_batch(2, 1, (96, 96), (10, 20, 90, 80), padding=padding)
        bright = batch.pixels.float().clamp(min=50).to(torch.uint8)
        outside = torch.ones(96, 96, dtype=torch.bool)
        outside[10:90, 20:80] = False
        batch = replace(batch, pixels=torch.where(outside, batch.pixels, bright))
        views.append(render(batch, _set(batch, rotation_deg=45.0), 0, 64, settings))
    assert torch.equal(*views)
    assert views[0].min() > 40 / 255


def test_a_warped_scan_does_not_depend_on_its_batch(make_batch: MakeBatch) -> None:
    batch = make_batch(8, 3)
    ranges = {"rotation_p": 0.5, "rotation_deg": 20.0, "crop_min": 0.2, "jitter_p": 0.8,
              "contrast": 0.5, "noise_p": 0.5, "noise_std": 0.1}  # fmt: skip
    draw = _draw(batch, **ranges)
    assert 0 < is_warped(draw)[:, 0].sum() < 8
    whole = render(batch, draw, 0, 32)
    for scan in range(8):
        rows = np.array([scan])
        assert torch.equal(render(batch.take(rows), draw.take(rows), 0, 32)[0], whole[scan])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_sixteen_bits_are_warped_as_eight_are(dtype: torch.dtype, make_batch: MakeBatch) -> None:
    batch = make_batch(4, 1, dtype=dtype)
    eight = make_batch(4, 1)
    draw = _set(batch, rotation_deg=10.0, elastic=0.05)
    assert (render(batch, draw, 0, 32) - render(eight, draw, 0, 32)).abs().max() < 1e-5


@pytest.mark.gpu
def test_the_gpu_warps_as_the_cpu_does(make_batch: MakeBatch) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    batch = make_batch(16, 3)
    draw = _set(batch, rotation_deg=10.0, elastic=0.05, noise_std=0.1, bias_field=0.3)
    found = render(batch.to("cuda"), draw, 0, 32)
    assert (found.cpu() - render(batch, draw, 0, 32)).abs().max() < 1e-3


# Height and width of a canvas pixel, crop box, quarter turns, millimetres; and by hand the largest
# displacement along x and y, as shares of the side of the view.
MILLIMETRES = [
    ((1.0, 1.0), (0, 0, 96, 96), 0, 4.8, (0.05, 0.05)),
    ((2.0, 0.5), (0, 0, 96, 96), 0, 4.8, (0.1, 0.025)),
    ((1.0, 1.0), (0, 0, 48, 96), 0, 2.4, (0.025, 0.05)),
    ((1.0, 1.0), (0, 0, 48, 96), 1, 2.4, (0.05, 0.025)),
    ((1.0, 1.0), (0, 0, 48, 96), 2, 2.4, (0.025, 0.05)),
    # A small crop: 10 of 16 mm would fold.
    ((0.5, 0.5), (32, 32, 64, 64), 0, 10.0, (0.1, 0.1)),
    # Unknown spacing: the share that was drawn, of the side.
    ((np.nan, np.nan), (0, 0, 48, 96), 0, 4.8, (0.02, 0.02)),
    ((1.0, 1.0), (0, 0, 96, 96), 0, 0.0, (0.02, 0.02)),
]


@pytest.mark.parametrize(("spacing", "box", "turns", "mm", "expected"), MILLIMETRES)
def test_millimetres_are_shares_of_the_side_by_spacing_and_crop(
    spacing: tuple[float, float], box: tuple[float, ...], turns: int, mm: float,
    expected: tuple[float, float], make_batch: MakeBatch,
) -> None:  # fmt: skip
    batch = make_batch(3)
    draw = _set(
        batch, crop_box=np.array(box, float), quarter_turns=turns, elastic=0.02, elastic_mm=mm
    )
    reach = elastic_reach(draw, 0, np.tile(spacing, (3, 1)))
    assert reach == pytest.approx(np.tile(expected, (3, 1)))
    if np.isfinite(spacing).all() and mm and max(expected) < 0.1:
        field = displacement(draw, 0, 64, torch.device("cpu"), np.tile(spacing, (3, 1)))
        height, width = (np.array(box[2:]) - box[:2]) * spacing
        sides = (height, width) if turns % 2 else (width, height)
        in_mm = field.abs().amax(dim=(0, 2, 3)).numpy() * sides
        assert (in_mm <= mm).all()
        assert (in_mm > mm / 4).all()


def test_a_scan_is_bent_by_its_own_spacing_and_without_one_as_before(
    make_batch: MakeBatch,
) -> None:
    batch = make_batch(3)
    spacing = torch.tensor([[1.0, 1.0], [0.5, 0.5], [torch.nan, torch.nan]])
    draw = _set(batch, elastic=0.02, elastic_mm=2.4)
    view = render(replace(batch, spacing_mm=spacing), draw, 0, 48)
    # 2.4 mm of 96 and of 48 mm; the share alone.
    for row, share in enumerate((0.025, 0.05, 0.02)):
        alone = render(batch, _set(batch, elastic=share), 0, 48)
        assert (view[row] - alone[row]).abs().max() < 1e-5
    assert torch.equal(view[2], render(batch, _set(batch, elastic=0.02), 0, 48)[2])


def test_axial_bending_moves_content_up_and_down_only(make_batch: MakeBatch) -> None:
    batch = make_batch(2, 1, (64, 64))
    ramp = torch.arange(64, dtype=torch.uint8)[None, None] * 4
    upright, flat = (
        replace(batch, pixels=pixels.expand(2, 1, 64, 64).contiguous())
        for pixels in (ramp[..., None], ramp[..., None, :])
    )
    draw = _set(batch, elastic_axial=0.05)
    field = displacement(draw, 0, 64, torch.device("cpu"))
    assert (field[:, 0] == 0).all()
    both = displacement(_set(batch, elastic=0.05), 0, 64, torch.device("cpu"))
    assert torch.equal(field[:, 1], both[:, 1])
    inner = slice(6, -6)
    # Columns of one value stay; on a ramp down the rows a view changes by the way moved.
    still = render(flat, draw, 0, 64)[..., inner, inner]
    assert (still - flat.pixels[..., inner, inner].float() / 255).abs().max() < 1e-5
    moved = render(upright, draw, 0, 64) - upright.pixels.float() / 255
    expected = field[:, 1:] * 64 * 4 / 255
    assert (moved - expected)[..., inner, inner].abs().max() < 1e-4
