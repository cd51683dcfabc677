"""A packed scan as a viewer shows it, for sheets that a person looks at."""

from __future__ import annotations

import numpy as np
from PIL import Image

from scanlearn.scans.reader import Archive


def picture(archive: Archive, row: int, *, padding: int | None = None) -> Image.Image:
    """Returns a scan with its value range applied, gray or in colour, 8 bits.

    Args:
        archive: Where it is packed.
        row: Its row.
        padding: Gray level, 0 to 255, of the canvas outside the scan's box; None shows the box
            alone.
    """
    batch = archive.gather(np.array([row]))
    low, high = batch.value_range[0].tolist()
    top, left, bottom, right = batch.valid_box[0].tolist()
    pixels = batch.pixels[0].numpy()[:, top:bottom, left:right].astype(np.float32)
    octets = np.rint(255 * np.clip((pixels - low) / (high - low), 0.0, 1.0)).astype(np.uint8)
    in_colour = len(octets) == 3
    image = Image.fromarray(octets.transpose(1, 2, 0) if in_colour else octets[0])
    if padding is None:
        return image
    _, height, width = archive.shape
    mode = "RGB" if in_colour else "L"
    canvas = Image.new(mode, (width, height), (padding,) * 3 if in_colour else padding)
    canvas.paste(image, (left, top))
    return canvas


def fitted(image: Image.Image, side: int) -> Image.Image:
    """Returns a picture made larger or smaller, at its aspect, to fill a square of a side."""
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)
