"""What a scan looks like in a few numbers, to find the same picture again among a million.

A fingerprint holds a hash of the pixels, equal for equal pixels only, and a spectrum: the lowest
frequencies of a small gray picture, which a crop by a few pixels, another brightness or another
compression hardly change. A flip or a quarter turn of the scan only changes signs in it and swaps
its axes.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float16, Float32, Int64, UInt64
from torch import Tensor
from torch.nn.functional import interpolate

from scanlearn.archive.reader import Archive
from scanlearn.console import Progressor
from scanlearn.core import ScanBatch

SIDE = 64
FREQUENCIES = 8
NUM_COEFFICIENTS = FREQUENCIES**2 - 1
# Bit 0 flips left and right, bit 1 top and bottom, bit 2, before these, swaps rows and columns.
TURNS = (
    *("as it is", "mirrored", "upside down", "half turn"),
    *("transposed", "quarter turn right", "quarter turn left", "transposed, half turn"),
)
# Standard deviation of a small picture, as a share of its value range, below which it shows
# nothing: two gray levels of 255. Any two such pictures may look alike.
_LEAST_CONTRAST = 2 / 255
_LUMA = (0.299, 0.587, 0.114)
_MAX_BATCH_BYTES = 16 * 2**20
_MAX_BATCH = 256
_SAMPLED = 128


@dataclass(frozen=True)
class Fingerprints:
    """Fingerprints of ``n`` scans: 134 bytes each.

    Args:
        digests: ``[n]`` hash of the pixels inside the valid box, and of their number and depth;
            0 for a scan of a single value.
        spectra: ``[n 63]`` cosine coefficients of the small gray picture from low to high
            vertical, then horizontal frequency, without its mean and for a length of 1 over all
            frequencies; 0 throughout for a scan without contrast.
        sample: ``[k 64 64]`` small gray pictures of some scans, from which it is learned how
            copies of one scan differ; at most 128.
    """

    digests: UInt64[np.ndarray, " n"]
    spectra: Float16[np.ndarray, "n 63"]
    sample: Float32[Tensor, "k s s"]

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def has_contrast(self) -> Bool[np.ndarray, " n"]:
        """Whether there is anything to be seen, ``[n]``."""
        has_contrast: Bool[np.ndarray, " n"] = (self.spectra != 0).any(axis=1)
        return has_contrast


def fingerprint(
    archive: Archive, rows: Int64[np.ndarray, " n"], progress: Progressor
) -> Fingerprints:
    """Returns the fingerprints of the scans in ``rows``, a batch in memory at a time."""
    digests = np.empty(len(rows), np.uint64)
    spectra = np.empty((len(rows), NUM_COEFFICIENTS), np.float16)
    sample = []
    is_sampled = np.zeros(len(rows), np.bool_)
    is_sampled[some_of(len(rows), _SAMPLED)] = True
    size = batch_size(archive)
    for start in range(0, len(rows), size):
        batch = archive.gather(rows[start : start + size])
        digests[start : start + size] = digests_of(batch)
        small = small_pictures(batch)
        spectra[start : start + size] = spectra_of(small)
        sample.append(small[torch.from_numpy(is_sampled[start : start + size])])
        progress.advance(len(batch))
    return Fingerprints(digests, spectra, torch.cat([torch.zeros(0, SIDE, SIDE), *sample]))


def some_of(number: int, most: int) -> Int64[np.ndarray, " k"]:
    """Returns at most so many places of a number of scans, ascending, the same each time.

    Drawn, not every other one: scans often lie in turns, such as right and left eyes.
    """
    return np.sort(np.random.default_rng(0).permutation(number)[:most])


def batch_size(archive: Archive) -> int:
    """Returns how many scans to read at a time: 16 MiB, at most 256 scans."""
    scan_bytes: int = math.prod(archive.shape) * archive.dtype.itemsize
    return max(1, min(_MAX_BATCH, _MAX_BATCH_BYTES // scan_bytes))


def digests_of(batch: ScanBatch) -> UInt64[np.ndarray, " b"]:
    """Returns a hash of the pixels of each scan inside its valid box, ``[b]``.

    Gray that is repeated in every channel hashes as one channel does. With 64 bits two different
    scans among a million share a hash with a probability of 3e-8.
    """
    pixels, boxes = batch.pixels.numpy(), batch.valid_box.tolist()
    digests = np.zeros(len(batch), np.uint64)
    for row, (top, left, bottom, right) in enumerate(boxes):
        scan = pixels[row, :, top:bottom, left:right]
        if (scan[1:] == scan[:1]).all():
            scan = scan[:1]
        if scan.min() == scan.max():
            continue
        digest = hashlib.blake2b(repr((scan.shape, scan.dtype.str)).encode(), digest_size=8)
        digest.update(np.ascontiguousarray(scan).data)
        # 0 is kept for scans without content.
        digests[row] = max(1, int.from_bytes(digest.digest(), "little"))
    return digests


def small_pictures(batch: ScanBatch) -> Float32[Tensor, "b s s"]:
    """Returns each scan's valid box as a gray square of 64 pixels, ``[b 64 64]``.

    The aspect is not kept: a copy that was squashed into another shape is still a copy. The mean
    is 0 and the standard deviation 1; a scan without contrast is 0 throughout.
    """
    stored = batch.pixels.numpy()
    small = torch.zeros(len(batch), SIDE, SIDE)
    boxes, members = np.unique(batch.valid_box.numpy(), axis=0, return_inverse=True)
    for number, (top, left, bottom, right) in enumerate(boxes.tolist()):
        rows = np.flatnonzero(members.reshape(-1) == number)
        pixels = stored[rows, :, top:bottom, left:right].astype(np.float32)
        gray = _gray(torch.from_numpy(pixels))
        small[rows] = interpolate(gray, (SIDE, SIDE), mode="bilinear", antialias=True)[:, 0]
    small -= small.mean((1, 2), keepdim=True)
    spread = small.square().mean((1, 2)).sqrt()
    span = (batch.value_range[:, 1] - batch.value_range[:, 0]).float()
    shows = spread >= _LEAST_CONTRAST * span
    return small * torch.where(shows, 1 / spread, 0.0)[:, None, None]


def _gray(pixels: Float32[Tensor, "b c h w"]) -> Float32[Tensor, "b 1 h w"]:
    if pixels.shape[1] == len(_LUMA):
        # As a product of matrices, a fifth of the time of a weighted sum.
        weighted = torch.tensor(_LUMA) @ pixels.flatten(2)
        return weighted.view(len(pixels), 1, *pixels.shape[2:])
    return pixels.mean(1, keepdim=True)


def spectra_of(small: Float32[Tensor, "b s s"]) -> Float16[np.ndarray, "b 63"]:
    """Returns the cosine coefficients of small pictures, ``[b 63]``: the lowest eight by eight.

    Source: Ahmed, Natarajan, Rao, "Discrete Cosine Transform", IEEE Trans. Computers 1974; the
    lowest 8 x 8 as a perceptual hash: Zauner, "Implementation and Benchmarking of Perceptual Image
    Hash Functions", 2010.
    """
    cosines = _cosines()
    spectra = (cosines @ small @ cosines.T).reshape(len(small), -1)[:, 1:] / SIDE
    return spectra.numpy().astype(np.float16)


def _cosines() -> Float32[Tensor, "f s"]:
    frequency, place = torch.arange(FREQUENCIES)[:, None], torch.arange(SIDE)[None]
    cosines = torch.cos(math.pi * (place + 0.5) * frequency / SIDE) * math.sqrt(2 / SIDE)
    cosines[0] /= math.sqrt(2)
    return cosines


def turn_pictures(pictures: Float32[Tensor, "b s s"], turn: int) -> Float32[Tensor, "b s s"]:
    """Returns square pictures flipped or turned; ``turn`` is a place in `TURNS`."""
    if turn & 4:
        pictures = pictures.transpose(1, 2)
    flipped = [axis for axis, bit in ((2, 1), (1, 2)) if turn & bit]
    return pictures.flip(flipped) if flipped else pictures


def turn_spectra(spectra: Float16[np.ndarray, "n 63"], turn: int) -> Float16[np.ndarray, "n 63"]:
    """Returns the spectra of scans flipped or turned; ``turn`` is a place in `TURNS`."""
    down, across = np.divmod(np.arange(1, FREQUENCIES**2), FREQUENCIES)
    if turn & 4:
        spectra = spectra[:, across * FREQUENCIES + down - 1]
    # A cosine of odd frequency changes its sign when it is mirrored, an even one stays.
    odd = (turn & 1) * across + (turn >> 1 & 1) * down
    turned: Float16[np.ndarray, "n 63"] = spectra * np.where(odd % 2, -1, 1).astype(np.float16)
    return turned
