from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from scanlearn.core import ScanBatch
from scanlearn.views.draw import Draw
from scanlearn.views.recipes import RECIPES
from scanlearn.views.render import change, render, render_views
from scanlearn.views.scale import Scale
from scanlearn.views.settings import DEFAULT_SETTINGS, RenderSettings
from scanlearn.views.uniforms import DrawKey, uniforms

MakeBatch = Callable[..., ScanBatch]
Blur = Callable[[torch.Tensor, float], torch.Tensor]
SIMCLR = RECIPES["simclr"]


def _draw(batch: ScanBatch, s: float, first: int = 0) -> Draw:
    u = uniforms(DrawKey(0, 0, np.arange(first, first + len(batch))), 2)
    return SIMCLR.at(Scale.of(s)).draw(u, batch.valid_box.numpy())


def _reference(batch: ScanBatch, draw: Draw, scan: int, size: int, blurred: Blur) -> Tensor:
    """One view by torchvision's own functions, and scipy's blur, on the same parameters."""
    top, left, bottom, right = draw.crop_box[scan, 0].astype(int).tolist()
    x = batch.pixels[scan].float() / 255
    box = [top, left, bottom - top, right - left]
    x = functional.resized_crop(x, *box, size=[size, size], antialias=True)
    if draw.flip[scan, 0]:
        x = functional.horizontal_flip(x)
    if draw.jitter[scan, 0]:
        operations: list[Callable[[Tensor], Tensor]] = [
            lambda x: functional.adjust_brightness(x, float(draw.brightness[scan, 0])),
            lambda x: functional.adjust_contrast(x, float(draw.contrast[scan, 0])),
            lambda x: functional.adjust_saturation(x, float(draw.saturation[scan, 0])),
            lambda x: functional.adjust_hue(x, float(draw.hue[scan, 0])),
        ]
        for operation in draw.order[scan, 0]:
            x = operations[operation](x)
    if draw.gray[scan, 0] and x.shape[0] == 3:
        x = functional.rgb_to_grayscale(x, 3)
    if draw.blur[scan, 0]:
        sigma = float(draw.blur_sigma[scan, 0]) * size / 224
        x = blurred(x, sigma)
    return x


@pytest.mark.parametrize("channels", [1, 3])
def test_a_view_is_torchvisions_on_the_same_parameters(
    channels: int, make_batch: MakeBatch, blurred: Blur
) -> None:
    batch = make_batch(48, channels, (120, 100), (0, 0, 110, 90))
    draw = _draw(batch, 1.0)
    draw = replace(draw, crop_box=np.round(draw.crop_box))
    views = render(batch, draw, 0, 32)
    # torchvision crops beyond no scan.
    inside = (draw.crop_box[:, 0, 2:] <= np.array([110, 90])).all(-1)
    assert inside.sum() > 30
    for scan in np.flatnonzero(inside):
        expected = _reference(batch, draw, scan, 32, blurred)
        assert (views[scan] - expected).abs().max() < 2 / 255


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("canvas", "box"),
    [
        ((320, 320), (0, 0, 320, 320)),
        ((320, 320), (0, 0, 320, 256)),
        ((130, 320), (0, 0, 130, 320)),
        ((330, 140), (6, 4, 326, 134)),
        ((20, 30), (0, 0, 20, 30)),
    ],
)
def test_scale_zero_is_the_whole_valid_box_in_its_own_aspect_and_nothing_else(
    canvas: tuple[int, int],
    box: tuple[int, int, int, int],
    channels: int,
    dtype: torch.dtype,
    make_batch: MakeBatch,
) -> None:
    batch = make_batch(3, channels, canvas, box, padding=255, dtype=dtype)
    first, second = render_views(batch, _draw(batch, 0), (0, 1), 64)
    assert torch.equal(first, second)
    top, left, bottom, right = box
    scan = batch.pixels.float()[..., top:bottom, left:right] / batch.value_range[0, 1]
    side = max(scan.shape[-2:])
    above, before = ((side - extent) // 2 for extent in scan.shape[-2:])
    square = torch.zeros(3, channels, side, side)
    square[..., above : above + bottom - top, before : before + right - left] = scan
    assert (first - functional.resize(square, [64, 64], antialias=True)).abs().max() < 1e-5


@pytest.mark.parametrize("s", [0.0, 0.2, 0.5, 1.0])
def test_beyond_a_scan_that_is_not_square_a_view_is_black_whatever_is_done_to_it(
    s: float, make_batch: MakeBatch
) -> None:
    batch = make_batch(64, 1, (60, 150), (0, 0, 50, 130), padding=255)
    batch = replace(batch, pixels=batch.pixels.clamp(min=100))
    draw = _draw(batch, s)
    draw = replace(draw, noise_std=np.full((64, 2), 0.2), solarize=np.ones((64, 2), bool))
    view = render(batch, draw, 0, 32)
    height = draw.crop_box[:, 0, 2] - draw.crop_box[:, 0, 0]
    bar = np.floor(np.maximum(0, (height - 50) / 2) / height * 32 - 1).astype(int).clip(min=0)
    assert (s == 0) <= (bar > 0).all()
    assert (bar > 0).any()
    for scan, rows in enumerate(bar.tolist()):
        assert (view[scan, :, :rows] == 0).all()
        assert (view[scan, :, 32 - rows :] == 0).all()
    # The square around the scan, drawn on a canvas that holds it, gives the very same.
    larger = torch.full((64, 1, 300, 300), 255, dtype=torch.uint8)
    larger[..., 100:160, 90:240] = batch.pixels
    shift = np.array([100, 90, 100, 90])
    moved = replace(batch, pixels=larger, valid_box=batch.valid_box + torch.from_numpy(shift))
    there = render(moved, replace(draw, crop_box=draw.crop_box + shift), 0, 32)
    assert (there - view).abs().max() < 1e-5


def test_a_scan_mirrored_at_its_edges_fills_a_view_beyond_it(make_batch: MakeBatch) -> None:
    batch = make_batch(4, 1, (40, 100))
    batch = replace(batch, pixels=batch.pixels.clamp(min=50))
    settings = RenderSettings(background="reflect")
    assert render(batch, _draw(batch, 0), 0, 50, settings).min() > 0.15


def test_bars_beside_a_scan_stay_black_where_only_what_is_turned_is_mirrored(
    make_batch: MakeBatch,
) -> None:
    batch = make_batch(4, 1, (40, 100))
    batch = replace(batch, pixels=batch.pixels.clamp(min=50))
    settings = RenderSettings(background="reflect_moved")
    draw = _draw(batch, 0)
    assert torch.equal(render(batch, draw, 0, 50, settings), render(batch, draw, 0, 50))
    turned = replace(draw, rotation_deg=np.full_like(draw.rotation_deg, 30.0))
    assert render(batch, turned, 0, 50).min() == 0
    assert render(batch, turned, 0, 50, settings).min() > 0.15


def test_scale_zero_at_the_size_of_the_scan_is_the_scan_to_the_bit(make_batch: MakeBatch) -> None:
    batch = make_batch(3, 3, (64, 64))
    assert torch.equal(render(batch, _draw(batch, 0), 0, 64), batch.pixels.float() / 255)


@pytest.mark.parametrize("s", [0, 0.3, 1.0, 1.5])
def test_padding_never_enters_a_view(s: float, make_batch: MakeBatch) -> None:
    box = (5, 9, 77, 80)
    views = []
    for padding in (0, 255):
        batch = make_batch(32, 1, (96, 96), box, padding=padding)
        views.append(render(batch, _draw(batch, s), 0, 32))
    assert torch.equal(*views)


def test_sixteen_bits_give_what_eight_give(make_batch: MakeBatch) -> None:
    eight, sixteen = make_batch(16), make_batch(16, dtype=torch.uint16)
    assert sixteen.pixels.dtype == torch.uint16
    views = [render(batch, _draw(batch, 1.0), 0, 32) for batch in (eight, sixteen)]
    assert (views[0] - views[1]).abs().max() < 2e-6


def test_the_value_range_maps_stored_values_to_the_unit_range(make_batch: MakeBatch) -> None:
    batch = replace(make_batch(2, canvas=(32, 32)), value_range=torch.tensor([[50.0, 150.0]] * 2))
    view = render(batch, _draw(batch, 0), 0, 32)
    assert torch.allclose(view, ((batch.pixels.float() - 50) / 100).clamp(0, 1), atol=1e-6)


def test_equal_channels_of_a_gray_draw_match_one_channel(make_batch: MakeBatch) -> None:
    single = make_batch(16)
    triple = replace(single, pixels=single.pixels.repeat(1, 3, 1, 1))
    draw = _draw(single, 1.0)
    views = render(triple, draw, 0, 32)
    # The weights of torchvision's luma sum to .9999, hence the tolerance.
    assert (views - render(single, draw, 0, 32)).abs().max() < 5e-4


@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("size", [32, 230])
def test_a_view_does_not_depend_on_its_batch(
    size: int, is_masked: bool, make_batch: MakeBatch
) -> None:
    rows, columns = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    disc = ((rows - 48) ** 2 + (columns - 45) ** 2 < 42**2).expand(16, 96, 96)
    batch = make_batch(16, 3, box=(0, 0, 96, 80), mask=disc if is_masked else None)
    draw = _draw(batch, 1.0)
    whole = render(batch, draw, 0, size)
    for chosen in (np.arange(4), np.arange(5, 16), *np.arange(16)[:, None]):
        part = render(batch.take(chosen), draw.take(chosen), 0, size)
        assert torch.equal(part, whole[torch.from_numpy(chosen)])


def test_rendering_changes_neither_scans_nor_draw_and_repeats(make_batch: MakeBatch) -> None:
    batch = make_batch(8, 3)
    pixels, draw = batch.pixels.clone(), _draw(batch, 1.0)
    box = draw.crop_box.copy()
    first = render(batch, draw, 1, 32)
    assert torch.equal(first, render(batch, draw, 1, 32))
    assert torch.equal(batch.pixels, pixels)
    assert np.array_equal(draw.crop_box, box)
    assert torch.equal(render_views(batch, draw, (0, 1), 32)[1], first)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("s", [0, 0.5, 1.5])
def test_views_keep_shape_type_and_unit_range(
    s: float, channels: int, make_batch: MakeBatch
) -> None:
    batch = make_batch(32, channels)
    view = render(batch, _draw(batch, s), 0, 24)
    assert view.shape == (32, channels, 24, 24)
    assert view.dtype == torch.float32
    assert view.min() >= 0
    assert view.max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_outside_the_field_of_view_a_view_is_black_whatever_is_stored_there(
    channels: int, make_batch: MakeBatch
) -> None:
    rows, columns = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    disc = ((rows - 48) ** 2 + (columns - 48) ** 2 < 40**2).expand(24, 96, 96)
    plain = make_batch(24, channels, mask=disc)
    stained = plain.pixels.clone()
    stained[~disc[:, None].expand_as(stained)] = 200
    draw = _draw(plain, 1.0)
    view = render(plain, draw, 0, 32)
    assert torch.equal(view, render(replace(plain, pixels=stained), draw, 0, 32))
    everything = replace(draw, crop_box=np.tile([0.0, 0, 96, 96], (24, 2, 1)))
    corner = render(plain, everything, 0, 32)[..., :3, :3]
    assert (corner == 0).all()


def test_a_mask_that_covers_all_changes_nothing(make_batch: MakeBatch) -> None:
    batch = make_batch(24, 3)
    masked = replace(batch, mask=torch.ones(24, 96, 96, dtype=torch.bool))
    draw = _draw(batch, 1.0)
    assert (render(batch, draw, 0, 32) - render(masked, draw, 0, 32)).abs().max() < 1e-5


def test_a_small_step_of_the_scale_is_a_small_step_of_the_view(make_batch: MakeBatch) -> None:
    batch = make_batch(24)
    # The choices that switch on and off are held: what is left must move smoothly.
    held = {name: np.zeros((24, 2), bool) for name in ("flip", "gray")}
    held |= {name: np.ones((24, 2), bool) for name in ("jitter", "blur")}
    for s in (0.0, 0.25, 0.5, 1.0, 1.4):
        near, far = (
            render(batch, replace(_draw(batch, s + step), **held), 0, 32) for step in (0, 1e-4)
        )
        assert (near - far).abs().max() < 0.01


def test_rendering_works_in_another_thread(make_batch: MakeBatch) -> None:
    batch = make_batch(4)
    draw, found = _draw(batch, 1.0), []
    worker = threading.Thread(target=lambda: found.append(render(batch, draw, 0, 32)))
    worker.start()
    worker.join()
    assert torch.equal(found[0], render(batch, draw, 0, 32))


@pytest.mark.gpu
def test_the_gpu_renders_what_the_cpu_renders(make_batch: MakeBatch) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    batch = make_batch(48, 3)
    draw = _draw(batch, 1.0)
    found = render(batch.to("cuda"), draw, 0, 32)
    assert found.is_cuda
    assert (found.cpu() - render(batch, draw, 0, 32)).abs().max() < 1e-4


def test_a_blur_may_keep_its_width_in_a_small_view(make_batch: MakeBatch, blurred: Blur) -> None:
    batch = make_batch(2, 1, (224, 224))
    draw = replace(_draw(batch, 0), blur=np.ones((2, 2), bool), blur_sigma=np.full((2, 2), 2.0))
    sharp = render(batch, _draw(batch, 0), 0, 56)
    scaled = render(batch, draw, 0, 56)
    unscaled = render(batch, draw, 0, 56, RenderSettings(scale_blur=False))
    # Stated at 224 px, a sigma of 2 is .5 at 56 px.
    assert (scaled - blurred(sharp, 0.5)).abs().max() < 1e-4
    assert (unscaled - blurred(sharp, 2)).abs().max() < 1e-4
    assert (unscaled - sharp).std() > 1.5 * (scaled - sharp).std()


def test_stored_values_come_to_the_unit_range_and_stay_in_it(make_batch: MakeBatch) -> None:
    batch = replace(make_batch(2, 3), value_range=torch.tensor([[0.0, 255.0], [60.0, 180.0]]))
    planes = batch.pixels.float()
    change(planes, batch, _draw(batch, 0), 0, DEFAULT_SETTINGS)
    stored = batch.pixels.float()
    assert torch.equal(planes[0], stored[0] / 255)
    assert torch.allclose(planes[1], ((stored[1] - 60) / 120).clamp(0, 1))


def test_the_published_order_is_gray_then_blur_then_solarize(
    make_batch: MakeBatch, blurred: Blur
) -> None:
    batch = make_batch(1, 3, (64, 64))
    yes = np.ones((1, 2), bool)
    draw = replace(
        _draw(batch, 0), gray=yes, blur=yes, blur_sigma=np.full((1, 2), 4.0), solarize=yes
    )
    planes = batch.pixels.float()
    change(planes, batch, draw, 0, DEFAULT_SETTINGS)
    x = functional.rgb_to_grayscale(batch.pixels / 255, 3)
    x = blurred(x, 4.0 * 64 / 224)
    # Solarizing jumps at one half, on either side of which rounding may put a pixel.
    far = (x - 0.5).abs() > 1e-4
    assert (planes - functional.solarize(x, 0.5))[far].abs().max() < 1e-4
    assert far.float().mean() > 0.99
