"""TIFF pictures: what their tags say that Pillow passes over."""

from __future__ import annotations

import re
from typing import IO, Any

from PIL import ImagePalette, TiffTags
from PIL.TiffImagePlugin import TiffImageFile

from scanlearn.readers.scan import Undecodable

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS, _COMPRESSION, _PHOTOMETRIC, _MAX_VALUE = 258, 259, 262, 281
_PLANAR, _PREDICTOR, _SAMPLE_FORMAT = 284, 317, 339
_COLOR_MAP, _SUBSAMPLING, _REFERENCE = 320, 530, 532
_SIGNED = 2
# White is 0, black is 0, RGB, palette, CMYK, YCbCr; 6 is what JPEG inside a TIFF is taken for.
_PHOTOMETRICS, _YCBCR, _OLD_JPEG = (0, 1, 2, 3, 5, 6), 6, 6
_FULL_RANGE = (0, 255, 128, 255, 128, 255)
# What tells one layout from another, for who has to save the file anew.
_NAMED = (_PHOTOMETRIC, _BITS, _SAMPLE_FORMAT, 277, _PLANAR, _COMPRESSION, 266, 338)


class Tiff(TiffImageFile):
    """A TIFF as its tags say, or an error that names the tag that is the reason.

    Attributes:
        is_signed: Whether values of up to 16 bits have a sign, which Pillow drops where they have
            8.
        has_white_zero: Whether values of more than 8 bits still have to be inverted: Pillow leaves
            that out, and a scan was its own negative.
        significant_bits: Of 16, as MaxSampleValue or 12 packed bits say; None where none does.
    """

    is_signed: bool
    has_white_zero: bool
    significant_bits: int | None

    def __init__(self, file: IO[bytes]) -> None:
        if file.read(4) == b"MM\0+":
            raise Undecodable("is a BigTIFF in big-endian order; save it in little-endian order")
        file.seek(0)
        # Without its name, by which Pillow would map pixels into memory as if they were upright:
        # scans with an Orientation of 5 to 8 came out torn.
        super().__init__(file)

    def _setup(self) -> None:
        tags = self.tag_v2
        _check(self)
        bits = max(_all(self, _BITS))
        self.is_signed = bits <= 16 and set(_all(self, _SAMPLE_FORMAT)) == {_SIGNED}
        self.has_white_zero = bits > 8 and tags.get(_PHOTOMETRIC) == 0
        most = max(_all(self, _MAX_VALUE))
        self.significant_bits = bits if bits == 12 else int(most).bit_length() or None
        said = _said(self)
        if self.has_white_zero:
            tags[_PHOTOMETRIC] = 1
        try:
            super()._setup()
        except (SyntaxError, KeyError) as error:
            raise Undecodable(f"is a TIFF with {said}, which is not read together") from error
        colours = tags.get(_COLOR_MAP, ())
        if self.palette is not None and max(colours, default=256) < 256:
            # Some writers store 8 bits where 16 are due: such pictures were black.
            self.palette = ImagePalette.raw("RGB;L", colours)
        self.tile = [tile._replace(args=self._args(tile.args)) for tile in self.tile]

    def _args(self, args: Any) -> Any:
        """Returns the arguments of a tile's decoder, mended."""
        if not isinstance(args, tuple) or not isinstance(args[0], str):
            return args
        layout = args[0]
        if self.use_load_libtiff:
            # It gives values in the order of this machine; Pillow swapped signed ones again.
            layout = re.sub("B?S$", "NS", layout)
        elif layout in "RGB" and max(_all(self, _BITS)) == 16:
            # Planes of 16 bits were read as if they had 8: noise.
            layout += ";16L" if self.tag_v2.prefix == b"II" else ";16B"
        return (layout, *args[1:])


def _all(image: TiffImageFile, tag: int) -> tuple[int, ...]:
    value = image.tag_v2.get(tag, ())
    values = value if isinstance(value, tuple) else (value,)
    return tuple(each for each in values if isinstance(each, int)) or (0,)


def _check(image: TiffImageFile) -> None:
    """Refuses what Pillow would read as something else, by the name of the tag."""
    tags = image.tag_v2
    compression, photometric = tags.get(_COMPRESSION, 1), tags.get(_PHOTOMETRIC)
    if photometric is None and compression != _OLD_JPEG:
        raise Undecodable("has no PhotometricInterpretation, which says whether black is 0")
    is_raw, reason = compression == 1, None
    if photometric not in (None, *_PHOTOMETRICS):
        reason = (_PHOTOMETRIC, "save it as gray or RGB")
    elif is_raw and tags.get(_PREDICTOR, 1) != 1:
        reason = (_PREDICTOR, "which uncompressed pixels have not")
    elif is_raw and photometric == _YCBCR and tags.get(_SUBSAMPLING, (2, 2)) != (1, 1):
        reason = (_SUBSAMPLING, "which is read of JPEG only; save it as RGB")
    elif is_raw and photometric == _YCBCR and tags.get(_REFERENCE, _FULL_RANGE) != _FULL_RANGE:
        reason = (_REFERENCE, "save it as RGB")
    if reason is not None:
        tag, advice = reason
        raise Undecodable(f"is a TIFF with {_name(tag)} {tags.get(tag, (2, 2))}; {advice}")


def _said(image: TiffImageFile) -> str:
    tags = image.tag_v2
    return ", ".join(f"{_name(tag)} {str(tags[tag])[:40]}" for tag in _NAMED if tag in tags)


def _name(tag: int) -> str:
    return TiffTags.lookup(tag).name
