"""Ranges: what may be drawn for a view, and the quantile functions that draw it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import permutations

import numpy as np
from jaxtyping import Bool, Float64, Int

from scanlearn.views.draw import Draw
from scanlearn.views.operations.crop import accepted_boxes
from scanlearn.views.operations.parameters import BLUR_SIGMA_MIN, ViewRanges
from scanlearn.views.uniforms import UNIFORMS

_ORDERS = np.array(list(permutations(range(4))), dtype=np.int64)


_INDEX = {name: index for index, name in enumerate(UNIFORMS)}


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
