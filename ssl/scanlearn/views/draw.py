"""Draws: the numbers a batch of views is made from, as data.

Drawing and rendering are apart. A draw can be counted from a key, printed, saved, replayed and
laid beside the draw of another scale; rendering it is a pure function.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import permutations
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64

from scanlearn.core import ScanlearnError
from scanlearn.views.crops import accepted_boxes
from scanlearn.views.uniforms import PARAMETERS

BLUR_SIGMA_MIN = 0.1
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
_ORDERS = np.array(list(permutations(range(4))), dtype=np.int64)
_INDEX = {name: index for index, name in enumerate(PARAMETERS)}


@dataclass(frozen=True)
class Draw:
    """What was drawn for ``v`` views of ``b`` scans.

    Args:
        crop_box: Top, left, bottom and right in pixels of the canvas, not rounded.
        flip: Whether the view is mirrored left to right.
        jitter: Whether the four factors below apply.
        brightness: Factor, 1 changes nothing.
        contrast: Factor, 1 changes nothing.
        saturation: Factor, 1 changes nothing.
        hue: Shift as a share of the colour circle, 0 changes nothing.
        order: The order of the four: 0 brightness, 1 contrast, 2 saturation, 3 hue.
        gray: Whether colour is removed.
        blur: Whether the view is blurred.
        blur_sigma: Standard deviation of the blur, in pixels of a 224-px view.
    """

    crop_box: Float64[np.ndarray, "b v 4"]
    flip: Bool[np.ndarray, "b v"]
    jitter: Bool[np.ndarray, "b v"]
    brightness: Float64[np.ndarray, "b v"]
    contrast: Float64[np.ndarray, "b v"]
    saturation: Float64[np.ndarray, "b v"]
    hue: Float64[np.ndarray, "b v"]
    order: Int64[np.ndarray, "b v 4"]
    gray: Bool[np.ndarray, "b v"]
    blur: Bool[np.ndarray, "b v"]
    blur_sigma: Float64[np.ndarray, "b v"]

    @property
    def num_views(self) -> int:
        """Views drawn for each scan."""
        return int(self.flip.shape[1])

    def __len__(self) -> int:
        return int(self.flip.shape[0])

    def take(self, rows: Int64[np.ndarray, " k"]) -> Draw:
        """Returns the draws of the scans in ``rows``."""
        return Draw(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def save(self, path: Path | str) -> None:
        """Writes the draw as an npz file, to be replayed."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        with Path(path).open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path | str) -> Draw:
        """Returns a saved draw, equal to the bit.

        Raises:
            ScanlearnError: The file holds no draw.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls(**{field.name: stored[field.name] for field in fields(cls)})
        except (KeyError, ValueError, OSError) as error:
            raise ScanlearnError(
                f"{path}: not a saved draw ({error}); give a file written by Draw.save."
            ) from error


@dataclass(frozen=True)
class ViewRanges:
    """What may be drawn for one view: the numbers of a recipe at one setting of the dial.

    Args:
        crop_min: Smallest crop, as a share of the area of the scan.
        crop_max: Largest crop, as a share of the area of the scan.
        log_aspect: Half range of the logarithm of the crop's width over its height.
        own_aspect: Where the centre of that range lies: 1 the scan's own aspect, 0 a square.
        flip_p: Probability that the view is mirrored left to right.
        jitter_p: Probability that brightness, contrast, saturation and hue change at all.
        brightness: Factors are drawn from ``[max(0, 1 - brightness), 1 + brightness]``.
        contrast: The same for contrast.
        saturation: The same for saturation.
        hue: Largest shift either way, as a share of the colour circle.
        gray_p: Probability that colour is removed.
        blur_p: Probability of a Gaussian blur.
        blur_sigma: Its largest standard deviation in pixels of a 224-px view; the smallest
            is .1.
    """

    crop_min: float
    crop_max: float
    log_aspect: float
    own_aspect: float
    flip_p: float
    jitter_p: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    gray_p: float
    blur_p: float
    blur_sigma: float


@dataclass(frozen=True)
class Ranges:
    """What may be drawn for every view of a scan.

    Args:
        views: One entry for all views, or one per view; the last serves all further views.
    """

    views: tuple[ViewRanges, ...]

    def draw(
        self, uniforms: Float64[np.ndarray, "b v p"], valid_box: Int[np.ndarray, "b 4"]
    ) -> Draw:
        """Returns the draw that the uniforms stand for: each through its quantile function.

        The same uniforms at another scale give the same draw, grown or shrunk.

        Args:
            uniforms: One number in [0, 1) per scan, view and entry of `PARAMETERS`.
            valid_box: Top, left, bottom and right of each scan on its canvas, in pixels.

        Source: ranges of the jitter factors, torchvision's ColorJitter.
        """
        num_views = uniforms.shape[1]

        def u(name: str) -> Float64[np.ndarray, "b v"]:
            return uniforms[..., _INDEX[name]]

        def span(name: str) -> Float64[np.ndarray, " v"]:
            last = len(self.views) - 1
            return np.array([getattr(self.views[min(v, last)], name) for v in range(num_views)])

        def factor(name: str) -> Float64[np.ndarray, "b v"]:
            low = np.maximum(0.0, 1 - span(name))
            drawn: Float64[np.ndarray, "b v"] = low + u(name) * (1 + span(name) - low)
            return drawn

        box = np.asarray(valid_box, dtype=np.float64)
        own = np.log((box[:, 3] - box[:, 1]) / (box[:, 2] - box[:, 0]))[:, None]
        return Draw(
            crop_box=accepted_boxes(
                uniforms[..., [_INDEX[name] for name in ("area", "aspect", "top", "left")]],
                span("crop_min"),
                span("crop_max"),
                (own * span("own_aspect"), span("log_aspect")),
                box,
            ),
            flip=u("flip") < span("flip_p"),
            jitter=u("jitter") < span("jitter_p"),
            brightness=factor("brightness"),
            contrast=factor("contrast"),
            saturation=factor("saturation"),
            hue=(2 * u("hue") - 1) * span("hue"),
            order=_ORDERS[(u("order") * len(_ORDERS)).astype(np.int64)],
            gray=u("gray") < span("gray_p"),
            blur=u("blur") < span("blur_p"),
            blur_sigma=BLUR_SIGMA_MIN + u("blur_sigma") * (span("blur_sigma") - BLUR_SIGMA_MIN),
        )
