"""Pairs of scans that are copies: found through an index, never by comparing all with all.

First sorted bands propose: a band is a choice of bits of the perceptual hash, and scans that agree
in all bits of some band are looked at further. Then pixels decide: a pair counts when the
correlation of the two small pictures, after the best small shift and stretch, reaches a bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float16, Float32, Int64, Shaped, UInt64
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

from scanlearn.archive.reader import Archive
from scanlearn.audit.fingerprint import (
    NUM_COEFFICIENTS,
    SIDE,
    TURNS,
    batch_size,
    small_pictures,
    turn_pictures,
    turn_spectra,
)
from scanlearn.console import Progressor

# A pair is proposed where at most this many of the 63 bits differ, and its spectra, standardised
# over the scans at hand, have at least this cosine.
MAX_DISTANCE = 18
LEAST_COSINE = 0.7
# Neighbours looked at in a band that many scans agree in, such as frames of one sequence.
MAX_NEIGHBOURS = 64
NUM_BANDS = 32
_LEAST_BITS, _MOST_BITS = 8, 24
_QUERIES = 2**14
# Below this many scans medians and spreads say little; all pairs may then be proposed.
_FEWEST_SCANS = 32
_SAMPLED = 2**14
_LEAST_SPREAD = 0.005
# Largest shift tried, in pixels of a picture, and what is left out of the comparison at each edge.
MAX_SHIFT = 4
# Largest stretch: what undoes a crop of 3 % at each edge.
MAX_STRETCH = 0.07
# Below it a picture is another one, however well it is laid over.
_WORTH_REFINING = 0.9
_STEPS = 4
_AROUND = 7
# Contrast of detail below which it is taken for noise, such as that of a JPEG; a picture's is 1.
_NOISE = 0.1
_INNER = SIDE - 2 * MAX_SHIFT
_CENTRE = (SIDE - 1) / 2


@dataclass(frozen=True)
class Proposals:
    """Places of pairs in two sets of scans; the second scan, turned, looks like the first."""

    first: Int64[np.ndarray, " p"]
    second: Int64[np.ndarray, " p"]
    turn: Int64[np.ndarray, " p"]

    def __len__(self) -> int:
        return len(self.first)

    def take(self, which: Bool[np.ndarray, " p"]) -> Proposals:
        """Returns some of them."""
        return Proposals(self.first[which], self.second[which], self.turn[which])


def equal_pairs(
    first: Shaped[np.ndarray, " n"], second: Shaped[np.ndarray, " m"]
) -> tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"]]:
    """Returns the places of equal values: each of ``second`` with the first such of ``first``."""
    if not len(first):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    values, place = np.unique(first, return_index=True)
    at = np.minimum(np.searchsorted(values, second), len(values) - 1)
    equal = np.flatnonzero(values[at] == second)
    return place[at[equal]].astype(np.int64), equal.astype(np.int64)


def equal_across(
    values: Shaped[np.ndarray, " n"], groups: Int64[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"]]:
    """Returns the places of equal values in different groups.

    Of all places with one value, those outside the group of the first are paired with the first.
    """
    first, second = equal_pairs(values, values)
    across = groups[first] != groups[second]
    return first[across], second[across]


def propose(
    first: Float16[np.ndarray, "n 63"], second: Float16[np.ndarray, "m 63"], progress: Progressor
) -> Proposals:
    """Returns pairs of scans whose hashes are close, however the second is flipped or turned.

    The time grows with the number of scans, as sorting does: a scan is compared with at most 64
    neighbours in each of 32 bands. Scans without contrast are left out.
    """
    middle, spread = _middle_and_spread(first, second)
    kept, asked = (np.flatnonzero(spectra.any(axis=1)) for spectra in (first, second))
    hashes_of_first = _packed(first > middle)[kept]
    turned = [_packed(turn_spectra(second, turn) > middle)[asked] for turn in range(len(TURNS))]
    # As many as leave about one scan to agree with by chance.
    num_bits = min(max((len(kept) - 1).bit_length(), _LEAST_BITS), _MOST_BITS)
    rng = np.random.default_rng(0)
    pairs = np.zeros(0, np.int64)
    for _ in range(NUM_BANDS):
        band = _Band(hashes_of_first, rng.permutation(NUM_COEFFICIENTS), num_bits)
        codes = [pairs]
        for turn, hashes in enumerate(turned):
            for start in range(0, len(asked), _QUERIES):
                place, query = band.neighbours(hashes[start : start + _QUERIES])
                query += start
                near = np.bitwise_count(hashes_of_first[place] ^ hashes[query]) <= MAX_DISTANCE
                one, other = kept[place[near]], asked[query[near]]
                spectra = (first[one], turn_spectra(second[other], turn))
                alike = _cosines(*((s - middle) / spread for s in spectra)) >= LEAST_COSINE
                pair = one[alike] * len(second) + other[alike]
                codes.append(pair * len(TURNS) + turn)
        pairs = np.unique(np.concatenate(codes))
        progress.advance()
    pair, turn_of = np.divmod(pairs, len(TURNS))
    return Proposals(*np.divmod(pair, max(len(second), 1)), turn_of)


def _middle_and_spread(
    first: Float16[np.ndarray, "n 63"], second: Float16[np.ndarray, "m 63"]
) -> tuple[Float16[np.ndarray, " 63"], Float32[np.ndarray, " 63"]]:
    """Returns the median of each coefficient, which parts it into two bits, and its spread.

    Aligned scans, such as chest X-rays, agree in the sign of most coefficients. Their medians make
    every bit tell as much as it can.
    """
    both = [
        spectra[:: 1 + len(spectra) // _SAMPLED].astype(np.float32) for spectra in (first, second)
    ]
    sample = np.concatenate([spectra[spectra.any(axis=1)] for spectra in both])
    if len(sample) < _FEWEST_SCANS:
        return np.zeros(NUM_COEFFICIENTS, np.float16), np.ones(NUM_COEFFICIENTS, np.float32)
    middle, spread = np.median(sample, axis=0).astype(np.float16), sample.std(axis=0)
    # Where all scans look alike, as in one clip, the median would part copies by their noise.
    middle[spread < _LEAST_SPREAD] = 0
    return middle, np.maximum(spread, _LEAST_SPREAD)


def _cosines(
    one: Float32[np.ndarray, "p 63"], other: Float32[np.ndarray, "p 63"]
) -> Float32[np.ndarray, " p"]:
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines: Float32[np.ndarray, " p"] = (one * other).sum(axis=1) / np.maximum(norms, 1e-6)
    return cosines


def _packed(bits: Bool[np.ndarray, "n 63"]) -> UInt64[np.ndarray, " n"]:
    """Returns ``[n]`` the bits as numbers, the first bit the highest."""
    octets = np.ascontiguousarray(np.packbits(bits, axis=1))
    return octets.view(">u8")[:, 0].astype(np.uint64)


def _unpacked(hashes: UInt64[np.ndarray, " n"]) -> Bool[np.ndarray, "n 63"]:
    octets = hashes.astype(">u8")[:, None].view(np.uint8)
    return np.unpackbits(octets, axis=1, count=NUM_COEFFICIENTS).view(np.bool_)


class _Band:
    """Scans ordered by their bits: those that agree in the first ``num_bits`` are neighbours."""

    def __init__(
        self, hashes: UInt64[np.ndarray, " n"], bit_order: Int64[np.ndarray, " 63"], num_bits: int
    ) -> None:
        self._bit_order = bit_order
        keys = _packed(_unpacked(hashes)[:, bit_order])
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]
        self._below = np.uint64(2 ** (64 - num_bits) - 1)

    def neighbours(
        self, hashes: UInt64[np.ndarray, " m"]
    ) -> tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"]]:
        """Returns pairs of a scan and a query that agree in the band: the places of both."""
        keys = _packed(_unpacked(hashes)[:, self._bit_order])
        low = np.searchsorted(self._keys, keys & ~self._below, side="left")
        high = np.searchsorted(self._keys, keys | self._below, side="right")
        at = np.searchsorted(self._keys, keys)
        start = np.clip(at - MAX_NEIGHBOURS // 2, low, np.maximum(low, high - MAX_NEIGHBOURS))
        counts = np.minimum(high - start, MAX_NEIGHBOURS)
        query = np.repeat(np.arange(len(keys)), counts)
        inside = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
        return self._order[np.repeat(start, counts) + inside], query


def correlations(
    first: Archive, second: Archive, proposals: Proposals, progress: Progressor
) -> Float32[np.ndarray, "2 p"]:
    """Returns the correlations of pixels and of detail, after the best small shift and stretch.

    ``proposals`` names rows of both archives, and the turn that the second scan needs.
    """
    both = np.empty((2, len(proposals)), np.float32)
    size = min(batch_size(first), batch_size(second))
    for start in range(0, len(proposals), size):
        part = slice(start, start + size)
        one = _pictures(first, proposals.first[part])
        other = _pictures(second, proposals.second[part])
        turns = proposals.turn[part]
        for turn in np.unique(turns).tolist():
            rows = np.flatnonzero(turns == turn)
            turned = turn_pictures(other[rows], turn)
            r_and_detail = aligned_correlations(one[rows], turned)
            both[:, start + rows] = torch.stack(r_and_detail).numpy()
        progress.advance(len(one))
    return both


def _pictures(archive: Archive, rows: Int64[np.ndarray, " p"]) -> Float32[Tensor, "p s s"]:
    """Returns the small pictures of rows, some of which come more than once."""
    single, place = np.unique(rows, return_inverse=True)
    return small_pictures(archive.gather(single))[torch.from_numpy(place)]


def aligned_correlations(
    one: Float32[Tensor, "p s s"], other: Float32[Tensor, "p s s"]
) -> tuple[Float32[Tensor, " p"], Float32[Tensor, " p"]]:
    """Returns how the middle of one picture correlates with the part of the other most like it.

    The middle is without 4 of 64 pixels at each edge. The other is shifted by up to 4 pixels and
    stretched by up to 7 %, each down and across. A picture without contrast correlates with
    nothing: 0.

    Returns:
        ``[p]`` highest correlation of the pixels; ``[p]`` correlation of their detail in the same
        place, 0 where the former is below .9. Detail is what is left without the mean of 7 x 7
        pixels, for equal contrast everywhere: the shading and the rim of two fundus photographs
        agree to .99 where their vessels do not.
    """
    r, shift = _best_shift(one, other)
    detail = torch.zeros_like(r)
    close = torch.nonzero(r >= _WORTH_REFINING)[:, 0]
    if len(close):
        r[close], detail[close] = _refined(_middle(one[close]), other[close], shift[close])
    return r, detail


def _middle(pictures: Float32[Tensor, "p s s"]) -> Float32[Tensor, "p i i"]:
    inner = pictures[:, MAX_SHIFT:-MAX_SHIFT, MAX_SHIFT:-MAX_SHIFT]
    return inner - inner.mean((1, 2), keepdim=True)


def _best_shift(
    one: Float32[Tensor, "p s s"], other: Float32[Tensor, "p s s"]
) -> tuple[Float32[Tensor, " p"], Float32[Tensor, "p 2"]]:
    """Returns the best correlation over whole pixels, and how far the other lies down and right."""
    middle = _middle(one)
    template = torch.zeros_like(one)
    template[:, :_INNER, :_INNER] = middle
    # Every shift at once, as a product of transforms; the template is small enough not to wrap.
    places = 2 * MAX_SHIFT + 1
    transforms = torch.fft.rfft2(other) * torch.fft.rfft2(template).conj()
    products = torch.fft.irfft2(transforms, s=one.shape[1:])[:, :places, :places]
    mean, power = (avg_pool2d(x[:, None], _INNER, 1)[:, 0] for x in (other, other.square()))
    spread = (power - mean.square()).clamp(min=0) * _INNER**2
    norms = (middle.square().sum((1, 2))[:, None, None] * spread).sqrt()
    # In units where a whole picture has norm 64; what is far less is rounding.
    has_contrast = norms > 1e-3 * SIDE**2
    all_shifts = torch.where(has_contrast, products / norms.clamp(min=1e-6), 0.0)
    r, place = all_shifts.flatten(1).max(1)
    shift = torch.stack([place // places, place % places], 1) - MAX_SHIFT
    return r, shift.float()


def _refined(
    middle: Float32[Tensor, "p i i"], other: Float32[Tensor, "p s s"], shift: Float32[Tensor, "p 2"]
) -> tuple[Float32[Tensor, " p"], Float32[Tensor, " p"]]:
    """Returns the best correlation on the way to the best shift and stretch, and its detail's.

    Source: Lucas, Kanade, "An Iterative Image Registration Technique", IJCAI 1981; contrast and
    brightness are fitted along.
    """
    wanted = (middle / middle.square().mean((1, 2), keepdim=True).sqrt()).flatten(1)
    moved = torch.cat([shift, torch.zeros_like(shift)], 1)
    limits = torch.tensor([MAX_SHIFT, MAX_SHIFT, MAX_STRETCH, MAX_STRETCH])
    ramp = torch.arange(_INNER) - (_INNER - 1) / 2
    best, like = torch.full((len(middle),), -1.0), torch.zeros_like(middle)
    for _ in range(_STEPS):
        seen = _resampled(other, moved, ramp)
        r = _correlation(middle, seen)
        like = torch.where((r > best)[:, None, None], seen, like)
        best = torch.maximum(best, r)
        down, across = torch.gradient(seen, dim=(1, 2))
        slopes = (down, across, down * ramp[:, None], across * ramp, seen, torch.ones_like(seen))
        columns = torch.stack([slope.flatten(1) for slope in slopes], 2)
        square = columns.mT @ columns
        # A hair on the diagonal keeps a picture without slopes solvable.
        square += torch.diag_embed(1e-4 * square.diagonal(dim1=1, dim2=2) + 1e-3)
        fitted = torch.linalg.solve(square, (columns.mT @ wanted[:, :, None])[:, :, 0])
        step = fitted[:, :4] / fitted[:, 4:5].clamp(min=0.1)
        moved = torch.clamp(moved + step, -limits, limits)
    return best, _correlation(_detail(middle), _detail(like))


def _correlation(
    one: Float32[Tensor, "p i i"], other: Float32[Tensor, "p i i"]
) -> Float32[Tensor, " p"]:
    one, other = (x.flatten(1) - x.mean((1, 2))[:, None] for x in (one, other))
    norms = torch.linalg.vector_norm(one, dim=1) * torch.linalg.vector_norm(other, dim=1)
    r: Tensor = (one * other).sum(1) / norms.clamp(min=1e-6)
    return r


def _detail(pictures: Float32[Tensor, "p i i"]) -> Float32[Tensor, "p i i"]:
    """Returns pictures without the mean of their surroundings, for equal contrast throughout."""

    def around(x: Float32[Tensor, "p i i"]) -> Float32[Tensor, "p i i"]:
        mean = avg_pool2d(x[:, None], _AROUND, 1, _AROUND // 2, count_include_pad=False)
        return mean[:, 0]

    fine = pictures - around(pictures)
    return fine / (around(fine.square()).sqrt() + _NOISE)


def _resampled(
    other: Float32[Tensor, "p s s"], moved: Float32[Tensor, "p 4"], ramp: Float32[Tensor, " i"]
) -> Float32[Tensor, "p i i"]:
    """Returns the part that lies under the middle after shifts and stretches, down and across."""
    places = _CENTRE + moved[:, :2, None] + (1 + moved[:, 2:, None]) * ramp
    down, across = ((2 * places + 1) / SIDE - 1).unbind(1)
    size = (len(other), _INNER, _INNER)
    grid = torch.stack([across[:, None, :].expand(size), down[:, :, None].expand(size)], 3)
    drawn = grid_sample(
        other[:, None], grid, mode="bicubic", padding_mode="border", align_corners=False
    )
    return drawn[:, 0]
