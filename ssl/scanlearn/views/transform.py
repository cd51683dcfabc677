"""The views as a transform of one image, for any torch Dataset.

The image becomes a batch of one scan and is rendered as batches are in pretraining: a loader of
another library gets exactly the views that this one trains on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8, UInt16
from PIL import Image
from torch import Tensor
from torch.utils.data import get_worker_info

from scanlearn.config.calls import checked
from scanlearn.core import ScanBatch, ViewPlan
from scanlearn.errors import ScanlearnError
from scanlearn.views.adjusting import Given
from scanlearn.views.ahead import SEEDS, Ahead, next_seeds, orders_of
from scanlearn.views.extras import Extra
from scanlearn.views.generator import ViewGenerator
from scanlearn.views.modality import AnyModality
from scanlearn.views.operations.colour import gray
from scanlearn.views.recipes import Recipe, find_recipe
from scanlearn.views.scale import Scale, Written
from scanlearn.views.settings import DEFAULT_SETTINGS, RenderSettings
from scanlearn.views.uniforms import DrawKey

Picture = Image.Image | np.ndarray[Any, Any] | Tensor
PixelTensor = UInt8[Tensor, "c h w"] | UInt16[Tensor, "c h w"] | Float[Tensor, "c h w"]

_TWO_VIEWS = ViewPlan(2)
_GRAY_MODES = ("1", "L", "LA", "La")
_DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
# What rounding may add to a value of 0 or 1.
_ROUNDING = 1e-6


class ViewTransform:
    """Makes the augmented views of one image: a transform as torchvision's datasets take them.

    Returns a list of float tensors ``[c s s]``, the global views first, then the local ones, on the
    unit range or, with mean and std, standardised.

    Each call draws a key from ``generator`` or, without one, from torch's default generator: a
    DataLoader seeds that differently in every worker and epoch, and torch.manual_seed repeats it.

    Args:
        scale: The setting of the dial: a number, a name, or sub-dials.
        size: Side of a global view in pixels.
        local_size: Side of a local view in pixels; None for 96/224 of ``size``.
        mean: Per channel on the unit range, or one for all; None leaves the unit range. ``std`` is
            given with it.
        channels: 1 or 3, to which images are brought: colour becomes its luma, gray is repeated;
            None leaves them as they are.
        modality: Kind of scan, whose policy changes the recipe: a name, such as "xray", or one of
            your own as ``{"name": "thyroid", "like": "ultrasound", "operations": {...}}``; None
            for the recipe alone. See docs/modalities.md.
        operations: Operations to switch off or set by hand, as `Recipe.adjusted`; they stand above
            the modality's.
        extras: Operations of your own, done last.
        generator: Draws the keys. In the workers of a DataLoader, which hold equal copies of it,
            the worker's seed is mixed in.

    Raises:
        ScanlearnError: The recipe, the scale, the plan, the modality or a number cannot be used.

    Example:
        >>> transform = ViewTransform("simclr", "weak", size=64, modality="xray")
        >>> [view.shape for view in transform(np.zeros((80, 100), np.uint8))]
        [torch.Size([1, 64, 64]), torch.Size([1, 64, 64])]
    """

    @checked
    def __init__(
        self,
        recipe: Recipe | str = "simclr",
        scale: Scale | Written = 1.0,
        *,
        size: int = 224,
        plan: ViewPlan = _TWO_VIEWS,
        local_size: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        channels: Literal[1, 3] | None = None,
        modality: AnyModality | None = None,
        operations: Mapping[str, Given] | None = None,
        extras: Sequence[Extra] = (),
        settings: RenderSettings = DEFAULT_SETTINGS,
        generator: torch.Generator | None = None,
    ) -> None:
        if (mean is None) != (std is None):
            raise ScanlearnError("transform: only one of mean and std given; give both or neither.")
        if mean is not None and std is not None and len(mean) != len(std):
            raise ScanlearnError(
                f"transform: {len(mean)} means and {len(std)} standard deviations; give as many "
                "of one as of the other."
            )
        if channels not in (None, 1, 3):
            raise ScanlearnError(
                f"transform: channels {channels!r} is not 1 or 3; give one of them."
            )
        self._channels = channels
        self.extras = tuple(extras)
        self._views = ViewGenerator(
            find_recipe(recipe).under(modality).adjusted(operations or {}),
            Scale.parse(scale),
            plan,
            size,
            # Without them the unit range stays as it is, to the bit.
            (0.0,) if mean is None else mean,
            (1.0,) if std is None else std,
            local_size=local_size,
            extras=self.extras,
            settings=settings,
        )
        self._generator = generator
        self._ahead: Ahead | None = None

    def __call__(
        self,
        image: Picture,
        *,
        valid_box: Sequence[int] | None = None,
        mask: Picture | None = None,
        value_range: tuple[float, float] | None = None,
    ) -> list[Float[Tensor, "c s s"]]:
        """Returns the views of one image, on its device; see `batch_of_one` for what it takes.

        Raises:
            ScanlearnError: The image, the box, the mask or the range cannot be used.
        """
        batch = batch_of_one(image, valid_box, mask, value_range, self._channels)
        channels, means = batch.pixels.shape[1], len(self._views.mean)
        if means not in (1, channels):
            raise ScanlearnError(
                f"transform: mean and std have {means} values, the image {channels} channels; "
                "give one value for each channel."
            )
        seed, step = self._next_key()
        if self.extras or batch.pixels.device.type != "cpu":
            views = self._views(batch, DrawKey(seed, step, np.zeros(1, dtype=np.int64)))
            return [view[0] for view in (*views.global_views, *views.local_views)]
        from scanlearn.views.fused import render_orders  # numba takes a second to import

        orders, self._ahead = orders_of(
            self._views, batch, seed, step, self._ahead, partial(next_seeds, self._generator)
        )
        return render_orders(batch, orders)

    @checked
    def one(self, view: int = 0) -> OneView:
        """Returns a transform that makes only one of the views, drawn on its own each time.

        For code that calls a transform once per view, such as lightly's `MultiViewTransform`:
        ``MultiViewTransform([transform.one(0), transform.one(1)])``.

        Args:
            view: Index of the view in what `__call__` returns: its ranges and its size are used.

        Raises:
            ScanlearnError: There is no such view.
        """
        plan, count = self._views.plan, self._views.num_views
        if not 0 <= view < count:
            raise ScanlearnError(
                f"transform: view {view} is not one of the {count} views; give 0 to {count - 1}."
            )
        is_local = view >= plan.global_views
        rows = tuple(replace(row, curves=(row.curve(view),)) for row in self._views.recipe.rows)
        return OneView(
            ViewTransform(
                replace(self._views.recipe, rows=rows),
                self._views.scale,
                size=self._views.local_size if is_local else self._views.size,
                plan=ViewPlan(1),
                mean=self._views.mean,
                std=self._views.std,
                extras=[
                    replace(extra, views="all") for extra in self.extras if extra.applies_to(view)
                ],
                channels=self._channels,
                settings=self._views.settings,
                generator=self._generator,
            )
        )

    def __repr__(self) -> str:
        views, policy = self._views, self._views.recipe.policy
        modality = f"modality={policy.name!r}, " if policy else ""
        return (
            f"ViewTransform({views.recipe.name!r}, {views.scale!s}, size={views.size}, {modality}"
            f"views={views.plan.global_views}+{views.plan.local_views})"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_ahead": None}

    def _next_key(self) -> tuple[int, int]:
        """The seed and the step of the next image."""
        device = "cpu" if self._generator is None else self._generator.device
        seed = int(torch.randint(SEEDS, (), generator=self._generator, device=device))
        worker = get_worker_info()
        # Workers, and every epoch's new ones, start from one copy of a generator that was given.
        is_copy = self._generator is not None and worker is not None
        return seed, worker.seed % SEEDS if is_copy and worker is not None else 0


class OneView:
    """Makes one view of an image; `ViewTransform.one` returns it."""

    def __init__(self, transform: ViewTransform) -> None:
        self._transform = transform

    def __call__(self, image: Picture, **about: Any) -> Float[Tensor, "c s s"]:
        """Returns one view; takes what `ViewTransform` takes."""
        return self._transform(image, **about)[0]

    def __repr__(self) -> str:
        return f"OneView({self._transform!r})"


def batch_of_one(
    image: Picture,
    valid_box: Sequence[int] | None,
    mask: Picture | None,
    value_range: tuple[float, float] | None,
    channels: Literal[1, 3] | None = None,
) -> ScanBatch:
    """Returns a picture as a batch of one scan, on the picture's device.

    Args:
        image: A PIL image (gray, 16 bits, palette or colour; alpha is dropped and says nothing
            about the valid box), an array ``[h w]`` or ``[h w c]``, or a tensor ``[h w]`` or
            ``[c h w]``, with one or three channels of uint8, uint16 or floats in [0, 1].
        valid_box: Top, left, bottom, right of the scan on the image in pixels, bottom and right
            exclusive; what lies outside is padding. None for the whole image.
        mask: ``[h w]``, not 0 inside the field of view; None where all of it is.
        value_range: The values that mean 0 and 1; None for the range of the type, which for
            floats is 0 and 1.
        channels: To which the picture is brought; None leaves it as it is.

    Raises:
        ScanlearnError: One of them cannot be used.
    """
    pixels = _in_channels(_pixels(image), channels)
    height, width = pixels.shape[1:]
    device = pixels.device
    return ScanBatch(
        pixels=pixels[None],
        valid_box=_stated(_box(valid_box, height, width), device),
        mask=None if mask is None else _mask(mask, height, width).to(device)[None],
        spacing_mm=_stated((math.nan, math.nan), device),
        value_range=_stated(_range(pixels, value_range), device),
        ids=_stated(0, device),
    )


@lru_cache(maxsize=1024)
def _stated(values: int | tuple[int, ...] | tuple[float, ...], device: torch.device) -> Tensor:
    """Numbers as a batch of one scan has them: the same object for the same numbers."""
    return torch.tensor([values], device=device)


def _pixels(image: Picture) -> PixelTensor:
    stored, layout = _stored(image), "[c h w]" if isinstance(image, Tensor) else "[h w c]"
    pixels = stored[None] if stored.ndim == 2 else stored
    if pixels is stored and pixels.ndim == 3 and layout == "[h w c]":
        pixels = pixels.permute(2, 0, 1)
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or pixels.numel() == 0:
        raise ScanlearnError(
            f"image: shape {list(stored.shape)} is no scan; give [h w] or {layout} with 1 or 3 "
            "channels and at least one pixel."
        )
    if pixels.is_floating_point():
        pixels = pixels.to(torch.float32)
    elif pixels.dtype not in (torch.uint8, torch.uint16):
        raise ScanlearnError(
            f"image: type {pixels.dtype} has no known value range; give uint8, uint16 or floats in "
            "[0, 1]."
        )
    return pixels


def _in_channels(pixels: PixelTensor, channels: int | None) -> PixelTensor:
    if channels is None or len(pixels) == channels:
        return pixels
    if channels == 3:
        return pixels.expand(3, -1, -1)
    luma = gray(pixels.to(torch.float32)[None])[0]
    # The weights sum to .9999: white would not be white.
    luma = luma / gray(luma.new_ones(1, 3, 1, 1))[0]
    whole = luma.round() if not pixels.is_floating_point() else luma
    # torch rounds to uint16 by way of another type only.
    return whole.to(torch.int32).to(pixels.dtype) if whole is not luma else luma


def _stored(image: Picture) -> Tensor:
    """Returns the values as a plain tensor, their axes in the order of the picture."""
    if isinstance(image, Tensor):
        return image.detach().as_subclass(Tensor)
    if isinstance(image, Image.Image):
        return _from_pillow(image)
    if isinstance(image, np.ndarray) and image.dtype.kind in "uif":
        # A copy in the machine's byte order: a view of a read-only array makes torch warn.
        return torch.from_numpy(image.astype(image.dtype.newbyteorder("=")))
    given = f"{type(image).__name__} {getattr(image, 'dtype', '')}".strip()
    raise ScanlearnError(
        f"image: {given} is no picture; give a PIL image, or an array or tensor of uint8, uint16 "
        "or floats in [0, 1]."
    )


def _from_pillow(image: Image.Image) -> Tensor:
    if image.mode in _DEEP_MODES:
        deep = np.array(image)
        if deep.size and not 0 <= deep.min() <= deep.max() <= np.iinfo(np.uint16).max:
            raise ScanlearnError(
                f"image: values {deep.min()} to {deep.max()} are more than 16 bits; give an array "
                "of floats in [0, 1]."
            )
        return torch.from_numpy(deep.astype(np.uint16))
    if image.mode == "F":
        return torch.from_numpy(np.array(image))
    mode = "L" if image.mode in _GRAY_MODES else "RGB"
    return torch.from_numpy(np.array(image if image.mode == mode else image.convert(mode)))


def _range(pixels: Tensor, given: tuple[float, float] | None) -> tuple[float, float]:
    if pixels.is_floating_point():
        low, high = (float(end) for end in pixels.aminmax())
        if not np.isfinite([low, high]).all():
            raise ScanlearnError(
                "image: values are not finite (NaN or infinite); give finite values."
            )
        if given is None and (low < -_ROUNDING or high > 1 + _ROUNDING):
            raise ScanlearnError(
                f"image: floats from {low:g} to {high:g} lie outside [0, 1]; scale them to it, or "
                "give value_range, the values that mean 0 and 1."
            )
    if given is None:
        return 0.0, 1.0 if pixels.is_floating_point() else float(torch.iinfo(pixels.dtype).max)
    ends = np.ravel(given)
    if not (len(ends) == 2 and np.isfinite(ends).all() and ends[0] < ends[1]):
        raise ScanlearnError(
            f"value_range: {given} is no range; give two finite values, the lower first."
        )
    return float(ends[0]), float(ends[1])


def _box(given: Sequence[int] | None, height: int, width: int) -> tuple[int, int, int, int]:
    if given is None:
        return 0, 0, height, width
    values = [int(value) for value in (given if isinstance(given, Sequence) else np.ravel(given))]
    if len(values) == 4:
        top, left, bottom, right = values
        if 0 <= top < bottom <= height and 0 <= left < right <= width:
            return top, left, bottom, right
    raise ScanlearnError(
        f"valid_box: {values} does not lie on an image of {height} x {width} pixels; give top, "
        "left, bottom, right, with bottom and right exclusive."
    )


def _mask(given: Picture, height: int, width: int) -> Tensor:
    mask = given if isinstance(given, Tensor) else torch.from_numpy(np.array(given))
    inside = mask.detach().as_subclass(Tensor) != 0
    if inside.shape != (height, width):
        raise ScanlearnError(
            f"mask: shape {list(inside.shape)} for an image of {height} x {width} pixels; give "
            "[h w] of the same size."
        )
    if not inside.any():
        raise ScanlearnError("mask: nothing lies inside it; give None for the whole image.")
    return inside
