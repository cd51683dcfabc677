"""Ranges: what may be drawn for a view, and the quantile functions that draw it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import permutations

import numpy as np
from jaxtyping import Bool, Float64, Int

from scanlearn.views.crops import accepted_boxes
from scanlearn.views.draw import Draw
from scanlearn.views.uniforms import PARAMETERS

BLUR_SIGMA_MIN = 0.1
# Every operation and the fields of `ViewRanges` that are its own.
OPERATIONS: Mapping[str, tuple[str, ...]] = {
    "crop": ("crop_min", "crop_max", "log_aspect", "own_aspect"),
    "flip": ("flip_p",),
    "vflip": ("vflip_p",),
    "rotation": ("rotation_p", "rotation_deg"),
    "translation": ("translation_p", "translation"),
    "stretch": ("stretch_p", "stretch"),
    "shear": ("shear_p", "shear_deg"),
    "elastic": ("elastic_p", "elastic"),
    "jitter": ("jitter_p",),
    "brightness": ("brightness",),
    "contrast": ("contrast",),
    "saturation": ("saturation",),
    "hue": ("hue",),
    "gray": ("gray_p",),
    "gamma": ("gamma_p", "gamma"),
    "histogram_shift": ("histogram_shift_p", "histogram_shift"),
    "blur": ("blur_p", "blur_sigma"),
    "solarize": ("solarize_p",),
    "bias_field": ("bias_field_p", "bias_field"),
    "soft": ("soft_p", "soft_sigma"),
    "noise": ("noise_p", "noise_std"),
}

_ORDERS = np.array(list(permutations(range(4))), dtype=np.int64)
_INDEX = {name: index for index, name in enumerate(PARAMETERS)}


@dataclass(frozen=True)
class ViewRanges:
    """What may be drawn for one view: the numbers of a recipe at one setting of the dial.

    The defaults are the identity. ``..._p`` is the probability that an operation is done at all;
    other numbers are the largest that is drawn, from a uniform distribution about no change.

    Args:
        crop_min: Smallest crop, as a share of the area of the scan.
        crop_max: Largest crop, as a share of the area of the scan.
        log_aspect: Half range of the logarithm of the crop's width over its height.
        own_aspect: Where the centre of that range lies: 1 the scan's own aspect, 0 a square.
        flip_p: Mirrored left to right.
        vflip_p: Mirrored top to bottom.
        rotation_p: Rotated.
        rotation_deg: Largest rotation either way, in degrees.
        translation_p: Shifted.
        translation: Largest shift either way, as a share of the view's side.
        stretch_p: Stretched.
        stretch: Largest logarithm of width over height, either way.
        shear_p: Sheared.
        shear_deg: Largest shear either way, in degrees.
        elastic_p: Deformed.
        elastic: Largest displacement, as a share of the view's side.
        jitter_p: Brightness, contrast, saturation and hue change at all.
        brightness: Factors are drawn from ``[max(0, 1 - brightness), 1 + brightness]``.
        contrast: The same for contrast.
        saturation: The same for saturation.
        hue: Largest shift either way, as a share of the colour circle.
        gray_p: Colour is removed.
        gamma_p: Gray values are raised to a power.
        gamma: Largest logarithm of that power, either way.
        histogram_shift_p: The curve of gray values is bent.
        histogram_shift: Largest shift of one of its points, as a share of the unit range.
        blur_p: Blurred.
        blur_sigma: Largest standard deviation in pixels of a 224-px view; the smallest is .1.
        solarize_p: Values from one half upwards are inverted.
        bias_field_p: Multiplied by a smooth field.
        bias_field: Largest coefficient of the polynomial in its exponent, either way.
        soft_p: Blurred by the acquisition.
        soft_sigma: Largest standard deviation in pixels of the view; the smallest is 0.
        noise_p: Noise is added.
        noise_std: Largest standard deviation on the unit range; the smallest is 0.
    """

    crop_min: float = 1.0
    crop_max: float = 1.0
    log_aspect: float = 0.0
    own_aspect: float = 1.0
    flip_p: float = 0.0
    vflip_p: float = 0.0
    rotation_p: float = 0.0
    rotation_deg: float = 0.0
    translation_p: float = 0.0
    translation: float = 0.0
    stretch_p: float = 0.0
    stretch: float = 0.0
    shear_p: float = 0.0
    shear_deg: float = 0.0
    elastic_p: float = 0.0
    elastic: float = 0.0
    jitter_p: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    gray_p: float = 0.0
    gamma_p: float = 0.0
    gamma: float = 0.0
    histogram_shift_p: float = 0.0
    histogram_shift: float = 0.0
    blur_p: float = 0.0
    blur_sigma: float = BLUR_SIGMA_MIN
    solarize_p: float = 0.0
    bias_field_p: float = 0.0
    bias_field: float = 0.0
    soft_p: float = 0.0
    soft_sigma: float = 0.0
    noise_p: float = 0.0
    noise_std: float = 0.0


@dataclass(frozen=True)
class Ranges:
    """What may be drawn for every view of a scan.

    Args:
        views: One entry for all views, or one per view; the last serves all further views.
    """

    views: tuple[ViewRanges, ...]

    def draw(
        self,
        uniforms: Float64[np.ndarray, "b v p"],
        valid_box: Int[np.ndarray, "b 4"],
    ) -> Draw:
        """Returns the draw that the uniforms stand for: each through its quantile function.

        The same uniforms at another scale give the same draw, grown or shrunk.

        Args:
            uniforms: One number in [0, 1) per scan, view and entry of `PARAMETERS`.
            valid_box: Top, left, bottom and right of each scan on its canvas, in pixels.

        Source: ranges of the jitter factors, torchvision's ColorJitter.
        """
        quantile = _Quantiles(self.views, uniforms)
        span, happens = quantile.span, quantile.happens
        box = np.asarray(valid_box, dtype=np.float64)
        own = np.log((box[:, 3] - box[:, 1]) / (box[:, 2] - box[:, 0]))[:, None]
        return Draw(
            crop_box=accepted_boxes(
                quantile.of("area", "aspect", "top", "left"),
                span("crop_min"),
                span("crop_max"),
                (own * span("own_aspect"), span("log_aspect")),
                box,
            ),
            flip=happens("flip"),
            vflip=happens("vflip"),
            rotation_deg=quantile.either_way("rotation", "rotation_deg", "rotation_deg"),
            translation=quantile.pair("translation", "translation"),
            stretch=quantile.either_way("stretch", "stretch", "stretch_ratio"),
            shear_deg=quantile.pair("shear", "shear_deg"),
            elastic=happens("elastic") * span("elastic"),
            jitter=happens("jitter"),
            brightness=quantile.factor("brightness"),
            contrast=quantile.factor("contrast"),
            saturation=quantile.factor("saturation"),
            hue=(2 * quantile.of("hue")[..., 0] - 1) * span("hue"),
            order=_ORDERS[(quantile.of("order")[..., 0] * len(_ORDERS)).astype(np.int64)],
            gray=happens("gray"),
            gamma=np.exp(quantile.either_way("gamma", "gamma", "gamma_exponent")),
            histogram_shift=np.stack(
                [
                    quantile.either_way(
                        "histogram_shift", "histogram_shift", f"histogram_shift_{k}"
                    )
                    for k in (1, 2, 3)
                ],
                axis=-1,
            ),
            blur=happens("blur"),
            blur_sigma=BLUR_SIGMA_MIN
            + quantile.of("blur_sigma")[..., 0] * (span("blur_sigma") - BLUR_SIGMA_MIN),
            solarize=happens("solarize"),
            bias_field=happens("bias_field") * span("bias_field"),
            soft_sigma=quantile.upwards("soft", "soft_sigma"),
            noise_std=quantile.upwards("noise", "noise_std"),
            # The 53 bits of a double in [0, 1).
            field_key=(quantile.of("field")[..., 0] * 2.0**53).astype(np.uint64),
        )


class _Quantiles:
    """Pushes uniforms through the ranges of each view."""

    def __init__(
        self, views: tuple[ViewRanges, ...], uniforms: Float64[np.ndarray, "b v p"]
    ) -> None:
        self._uniforms = uniforms
        count = uniforms.shape[1]
        chosen = [views[min(view, len(views) - 1)] for view in range(count)]
        self._spans = {
            field.name: np.array([getattr(view, field.name) for view in chosen])
            for field in fields(ViewRanges)
        }

    def of(self, *names: str) -> Float64[np.ndarray, "b v k"]:
        return self._uniforms[..., [_INDEX[name] for name in names]]

    def span(self, name: str) -> Float64[np.ndarray, " v"]:
        return self._spans[name]

    def happens(self, operation: str) -> Bool[np.ndarray, "b v"]:
        happening: Bool[np.ndarray, "b v"] = self.of(operation)[..., 0] < self.span(
            f"{operation}_p"
        )
        return happening

    def factor(self, name: str) -> Float64[np.ndarray, "b v"]:
        low = np.maximum(0.0, 1 - self.span(name))
        drawn: Float64[np.ndarray, "b v"] = low + self.of(name)[..., 0] * (
            1 + self.span(name) - low
        )
        return drawn

    def either_way(self, operation: str, span: str, name: str) -> Float64[np.ndarray, "b v"]:
        drawn = (2 * self.of(name)[..., 0] - 1) * self.span(span)
        return np.where(self.happens(operation), drawn, 0.0)

    def pair(self, operation: str, span: str) -> Float64[np.ndarray, "b v 2"]:
        ways = (self.either_way(operation, span, f"{operation}_{axis}") for axis in "yx")
        return np.stack(list(ways), axis=-1)

    def upwards(self, operation: str, span: str) -> Float64[np.ndarray, "b v"]:
        drawn = self.of(span)[..., 0] * self.span(span)
        return np.where(self.happens(operation), drawn, 0.0)
