"""Draws: the numbers a batch of views is made from, as data.

Drawing and rendering are apart. A draw can be counted from a key, printed, saved, replayed and
laid beside the draw of another scale; rendering it is a pure function.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt64

from scanlearn.errors import ScanlearnError


@dataclass(frozen=True)
class Draw:
    """What was drawn for ``v`` views of ``b`` scans."""

    # Top, left, bottom and right in pixels of the canvas, not rounded.
    crop_box: Float64[np.ndarray, "b v 4"]
    # Whether the view is mirrored left to right, and top to bottom.
    flip: Bool[np.ndarray, "b v"]
    vflip: Bool[np.ndarray, "b v"]
    # Rotation of the content about the view's centre, counter-clockwise; 0 none.
    rotation_deg: Float64[np.ndarray, "b v"]
    # How far the content moves down and right, as shares of the view's side.
    translation: Float64[np.ndarray, "b v 2"]
    # Logarithm of how much wider than high the content becomes; 0 none.
    stretch: Float64[np.ndarray, "b v"]
    # Angles by which vertical and horizontal lines lean, as (y, x); 0 none.
    shear_deg: Float64[np.ndarray, "b v 2"]
    # Largest displacement by the elastic field, as a share of the side; 0 none.
    elastic: Float64[np.ndarray, "b v"]
    # Whether the next four apply: factors, of which 1, and a share of the colour circle, of which
    # 0 changes nothing.
    jitter: Bool[np.ndarray, "b v"]
    brightness: Float64[np.ndarray, "b v"]
    contrast: Float64[np.ndarray, "b v"]
    saturation: Float64[np.ndarray, "b v"]
    hue: Float64[np.ndarray, "b v"]
    # The order of the four: 0 brightness, 1 contrast, 2 saturation, 3 hue.
    order: Int64[np.ndarray, "b v 4"]
    # Whether colour is removed.
    gray: Bool[np.ndarray, "b v"]
    # Exponent on the unit range, 1 changes nothing.
    gamma: Float64[np.ndarray, "b v"]
    # By how much the gray values .25, .5 and .75 move; 0 none.
    histogram_shift: Float64[np.ndarray, "b v 3"]
    # Whether the view is blurred, and the standard deviation in pixels of a 224-px view.
    blur: Bool[np.ndarray, "b v"]
    blur_sigma: Float64[np.ndarray, "b v"]
    # Whether values from one half upwards are inverted.
    solarize: Bool[np.ndarray, "b v"]
    # Largest coefficient of the bias field's polynomial; 0 none.
    bias_field: Float64[np.ndarray, "b v"]
    # Standard deviation of the acquisition's blur, in pixels of the view; 0 none.
    soft_sigma: Float64[np.ndarray, "b v"]
    # Standard deviation of the noise on the unit range; 0 none.
    noise_std: Float64[np.ndarray, "b v"]
    # Names the random fields of the view.
    field_key: UInt64[np.ndarray, "b v"]
    # From here on a file written before there was the operation is read as without it.
    # Bits that are kept of 8; 8 changes nothing.
    posterise_bits: Float64[np.ndarray, "b v"] = field(metadata={"absent": 8.0})
    # Turns by a quarter of a circle, counter-clockwise.
    quarter_turns: Int64[np.ndarray, "b v"] = field(metadata={"absent": 0})
    # By how much the window becomes wider and moves up, as shares of its width; 0 none.
    window_width: Float64[np.ndarray, "b v"] = field(metadata={"absent": 0.0})
    window_level: Float64[np.ndarray, "b v"] = field(metadata={"absent": 0.0})
    # What the optical densities of haematoxylin, eosin and DAB are multiplied by, and what is
    # then added; 1 and 0 none.
    stain_factor: Float64[np.ndarray, "b v 3"] = field(metadata={"absent": 1.0, "shape": (3,)})
    stain_offset: Float64[np.ndarray, "b v 3"] = field(metadata={"absent": 0.0, "shape": (3,)})
    # By how much the light changes from its centre to the farthest corner; darker above 0.
    illumination: Float64[np.ndarray, "b v"] = field(metadata={"absent": 0.0})
    # Side of the coarser picture over that of the view; 1 none.
    low_resolution: Float64[np.ndarray, "b v"] = field(metadata={"absent": 1.0})
    # Standard deviations: of each of the two parts of Rician noise, of Poisson noise where a view
    # is 1, and of the factor of speckle; 0 none.
    rician_std: Float64[np.ndarray, "b v"] = field(metadata={"absent": 0.0})
    poisson_std: Float64[np.ndarray, "b v"] = field(metadata={"absent": 0.0})
    speckle_std: Float64[np.ndarray, "b v"] = field(metadata={"absent": 0.0})
    # Of the JPEG file that the view went through; 100, as good as none, is left out.
    jpeg_quality: Float64[np.ndarray, "b v"] = field(metadata={"absent": 100.0})
    # Largest elastic displacement in millimetres, in place of the share where a scan's spacing is
    # known; and a further one down or up only, as a share of the side; 0 none.
    elastic_mm: Float64[np.ndarray, "b v"] = field(metadata={"absent": 0.0})
    elastic_axial: Float64[np.ndarray, "b v"] = field(metadata={"absent": 0.0})
    # What the noise's standard deviation is at least, where Hounsfield units are known; 0 none.
    noise_hu: Float64[np.ndarray, "b v"] = field(metadata={"absent": 0.0})

    def __len__(self) -> int:
        return int(self.flip.shape[0])

    def take(self, rows: Int64[np.ndarray, " k"] | slice) -> Draw:
        """Returns the draws of the scans in ``rows``; a slice of them without a copy."""
        return Draw(**{name: array[rows] for name, array in vars(self).items()})

    def save(self, path: Path | str) -> None:
        """Writes the draw as an npz file, to be replayed."""
        with Path(path).open("wb") as file:
            np.savez(file, allow_pickle=False, **vars(self))

    @classmethod
    def load(cls, path: Path | str) -> Draw:
        """Returns a saved draw, equal to the bit.

        Raises:
            ScanlearnError: The file holds no draw.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = dict(stored)
                for field_ in fields(cls):
                    if "absent" in field_.metadata and field_.name not in arrays:
                        shape = (*arrays["flip"].shape, *field_.metadata.get("shape", ()))
                        arrays[field_.name] = np.full(shape, field_.metadata["absent"])
                return cls(**{field_.name: arrays[field_.name] for field_ in fields(cls)})
        except Exception as error:  # of many unrelated classes, down to the tokenizer's
            raise ScanlearnError(
                f"{path}: not a saved draw ({error}); give a file written by Draw.save."
            ) from error
