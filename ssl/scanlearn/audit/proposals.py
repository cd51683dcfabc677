"""Pairs of scans that may be copies: found through an index, never by comparing all with all.

Scans of one kind look alike: their rims and shading fill the lowest frequencies, where the copies
of one scan differ too, by a crop or a shift. So spectra are turned into coordinates in which small
shifts and stretches of one scan move all axes equally little, and all scans lie apart as far as
they can. There a sorted index over signs finds neighbours, and the nearest are proposed.

Source: linear discriminant analysis, the scans as classes of their own shifted copies: Fisher, "The
Use of Multiple Measurements in Taxonomic Problems", Annals of Eugenics 1936; sorted choices of
bits: Charikar, "Similarity Estimation Techniques from Rounding Algorithms", STOC 2002.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float16, Float32, Float64, Int64, UInt64
from scipy.stats import norm
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from scanlearn.audit.fingerprint import (
    NUM_COEFFICIENTS,
    SIDE,
    TURNS,
    Fingerprints,
    some_of,
    spectra_of,
    turn_spectra,
)
from scanlearn.console import Progressor

# A pair is proposed where its likeness is at least this, or what one pair a scan would reach by
# chance if that is more, and where it is among the highest of its second scan.
LEAST_LIKENESS = 0.6
MOST_PROPOSED = 8
_RANDOM_PAIRS = 2**14
# Neighbours looked at in a band that many scans agree in, such as frames of one sequence.
MAX_NEIGHBOURS = 64
NUM_BANDS = 32
_LEAST_BITS, _MOST_BITS = 8, 24
_QUERIES = 2**15
# Below this many scans their spread says little; all pairs may then be proposed.
_FEWEST_SCANS = 32
_SAMPLED = 2**14
# Copies by which it is learned how copies differ: shifted by up to so many pixels of 64, cropped to
# less by up to so much of the side, turned by up to so many radians, and darkened in a strip of up
# to so many pixels at one edge.
_COPIES = 12
_MOVED_PX, _CROPPED, _TURNED, _STRIP_PX = 1.5, 0.07, 0.0175, 3
# Deviation of a coefficient that compression alone brings.
_LEAST_SPREAD = 0.002


@dataclass(frozen=True)
class Proposals:
    """Places of pairs in two sets of scans; the second scan, turned, looks like the first."""

    first: Int64[np.ndarray, " p"]
    second: Int64[np.ndarray, " p"]
    turn: Int64[np.ndarray, " p"]

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True)
class _Space:
    """Coordinates of spectra: the most telling first, each of spread 1 over the scans.

    Args:
        precision: ``[k]`` one over the variance that copies of one scan have along each axis.
    """

    middle: Float32[np.ndarray, " 63"]
    axes: Float32[np.ndarray, "63 k"]
    precision: Float32[np.ndarray, " k"]

    @classmethod
    def of(cls, *sets: Fingerprints) -> _Space:
        """Fits the axes: spread of the scans against that of their shifted copies."""
        spectra = [
            each.spectra[rows[each.has_contrast[rows]]]
            for each in sets
            for rows in [some_of(len(each), _SAMPLED)]
        ]
        sample = np.concatenate(spectra).astype(np.float64)
        if len(sample) < _FEWEST_SCANS:
            every = np.eye(NUM_COEFFICIENTS, dtype=np.float32)
            return cls(0 * every[0], every, np.full_like(every[0], _LEAST_SPREAD**-2))
        middle = np.median(sample, axis=0)
        away = sample - middle
        between = away.T @ away / len(away)
        within = _spread_of_copies(torch.cat([each.sample for each in sets]))
        # In units of the copies' spread: the scans' own spread along each axis.
        unit = np.linalg.inv(np.linalg.cholesky(within)).T
        spread, directions = np.linalg.eigh(unit.T @ between @ unit)
        spread, directions = spread[::-1], directions[:, ::-1]
        # Where scans differ less than copies of one, there is nothing to tell them apart by.
        num_axes = max(int((spread > 1).sum()), _MOST_BITS)
        precision = (spread + 1)[:num_axes]
        axes = (unit @ directions)[:, :num_axes] / np.sqrt(precision)
        return cls(*(x.astype(np.float32) for x in (middle, axes, precision)))

    @property
    def num_axes(self) -> int:
        return len(self.axes.T)

    def coordinates(self, spectra: Float16[np.ndarray, "n 63"]) -> Float32[np.ndarray, "n k"]:
        coordinates: Float32[np.ndarray, "n k"]
        coordinates = (spectra.astype(np.float32) - self.middle) @ self.axes
        return coordinates

    def likeness(
        self, one: Float32[np.ndarray, "p k"], other: Float32[np.ndarray, "p k"]
    ) -> Float32[np.ndarray, " p"]:
        """Returns the cosine of coordinates, or more where they differ no more than copies do.

        The second is for a set of copies alone, such as a clip: its cosines are those of noise.
        """
        cosine = _cosines(one, other)
        apart = ((one - other) ** 2 @ self.precision) / self.num_axes
        likeness: Float32[np.ndarray, " p"]
        likeness = np.maximum(cosine, 1 - (1 - LEAST_LIKENESS) * apart).astype(np.float32)
        return likeness


def _spread_of_copies(sample: Float32[Tensor, "n s s"]) -> Float64[np.ndarray, "63 63"]:
    """Returns the covariance of what small shifts, crops and turns change in spectra."""
    spectra = spectra_of(sample).astype(np.float64)
    random = torch.Generator().manual_seed(0)
    changes = []
    for _ in range(_COPIES):
        down, across, tall, wide, angle = torch.rand(5, generator=random).tolist()
        sine = _TURNED * (2 * angle - 1)
        moved = torch.tensor(
            [
                [1 - _CROPPED * wide, -sine, 2 * _MOVED_PX * (2 * across - 1) / SIDE],
                [sine, 1 - _CROPPED * tall, 2 * _MOVED_PX * (2 * down - 1) / SIDE],
            ]
        )
        grid = affine_grid(
            moved.expand(len(sample), 2, 3), [len(sample), 1, SIDE, SIDE], align_corners=False
        )
        copies = grid_sample(
            sample[:, None], grid, mode="bicubic", padding_mode="border", align_corners=False
        )[:, 0]
        _darken_edge(copies, random)
        copies = copies - copies.mean((1, 2), keepdim=True)
        norms = copies.square().mean((1, 2), keepdim=True).sqrt().clamp(min=1e-6)
        changes.append(spectra_of(copies / norms).astype(np.float64) - spectra)
    change = np.concatenate(changes)
    spread = change.T @ change / len(change)
    floor = 0.05 * np.trace(spread) / NUM_COEFFICIENTS + _LEAST_SPREAD**2
    covariance: Float64[np.ndarray, "63 63"] = spread + floor * np.eye(NUM_COEFFICIENTS)
    return covariance


def _darken_edge(pictures: Float32[Tensor, "n s s"], random: torch.Generator) -> None:
    """Darkens a strip at one edge, as a shift into black or another frame does."""
    axis, end, width, share = torch.rand(4, generator=random).tolist()
    width = int(width * (_STRIP_PX + 1))
    turned = pictures.transpose(1, 2) if axis < 0.5 else pictures
    strip = turned[:, :width] if end < 0.5 else turned[:, SIDE - width :]
    darkest = pictures.amin((1, 2), keepdim=True)
    strip.copy_(darkest + share * (strip - darkest))


def propose(
    first: Fingerprints,
    second: Fingerprints,
    progress: Progressor,
    may_pair: Callable[[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"]], Bool[np.ndarray, " p"]],
) -> Proposals:
    """Returns the pairs of scans that look most alike, however the second is flipped or turned.

    The time grows with the number of scans, as sorting does: a scan is compared with at most 64
    neighbours in each of 32 bands, and at most 8 pairs of each second scan are proposed, so that
    an archive of look-alikes costs no more than another. Scans without contrast are left out.

    Args:
        progress: Advanced by `num_rounds`.
        may_pair: Says of places in ``first`` and ``second`` which of them are worth proposing.
    """
    space = _Space.of(first, second)
    kept, asked = (np.flatnonzero(each.has_contrast) for each in (first, second))
    ours = space.coordinates(first.spectra[kept]).astype(np.float16)
    hashes = _packed(ours > 0)
    # As many as leave about one scan to agree with by chance.
    num_bits = min(max((len(kept) - 1).bit_length(), _LEAST_BITS), _MOST_BITS)
    least = max(LEAST_LIKENESS, _by_chance(space, first, second))
    chunks = [asked[start : start + _QUERIES] for start in range(0, len(asked), _QUERIES)]
    codes = [np.zeros(0, np.int64)]
    for queries in chunks:
        theirs = [
            space.coordinates(turn_spectra(second.spectra[queries], turn))
            for turn in range(len(TURNS))
        ]
        rng = np.random.default_rng(0)
        best = np.zeros(0, np.int64), np.zeros(0, np.float32)
        for _ in range(NUM_BANDS):
            band = _Band(hashes, _bit_order(rng, space.num_axes, num_bits), num_bits)
            more = [best]
            for turn, coordinates in enumerate(theirs):
                place, query = band.neighbours(_packed(coordinates > 0))
                one, other = kept[place], queries[query]
                allowed = may_pair(one, other)
                one, other, place, query = (x[allowed] for x in (one, other, place, query))
                likeness = space.likeness(ours[place].astype(np.float32), coordinates[query])
                is_like = likeness >= least
                pair = one[is_like] * len(second) + other[is_like]
                more.append((pair * len(TURNS) + turn, likeness[is_like]))
            pairs, likenesses = (np.concatenate(each) for each in zip(*more, strict=True))
            best = _most_alike(pairs, likenesses, len(second))
            progress.advance()
        codes.append(best[0])
    pair, turn_of = np.divmod(np.sort(np.concatenate(codes)), len(TURNS))
    return Proposals(*np.divmod(pair, max(len(second), 1)), turn_of)


def _by_chance(space: _Space, first: Fingerprints, second: Fingerprints) -> float:
    """Returns the cosine that a scan reaches with about one other in each turn, if all are normal.

    The more scans there are, the more alike the nearest of them are by chance.
    """
    rows = [np.flatnonzero(each.has_contrast) for each in (first, second)]
    if not all(len(chosen) for chosen in rows):
        return 0.0
    rng = np.random.default_rng(0)
    one, other = (
        space.coordinates(each.spectra[rng.choice(chosen, _RANDOM_PAIRS)])
        for each, chosen in zip((first, second), rows, strict=True)
    )
    cosine = _cosines(one, other)
    # Half the distance between the 16th and 84th percentile: a spread that copies do not widen.
    low, high = np.quantile(cosine, [0.1587, 0.8413])
    return float(norm.isf(min(0.5, 1 / len(rows[0]))) * (high - low) / 2)


def _cosines(
    one: Float32[np.ndarray, "p k"], other: Float32[np.ndarray, "p k"]
) -> Float32[np.ndarray, " p"]:
    squares = np.einsum("pk,pk->p", one, one) * np.einsum("pk,pk->p", other, other)
    cosines: Float32[np.ndarray, " p"]
    cosines = np.einsum("pk,pk->p", one, other) / np.sqrt(np.maximum(squares, 1e-12))
    return cosines


def num_rounds(second: Fingerprints) -> int:
    """Returns in how many steps `propose` goes on."""
    return NUM_BANDS * math.ceil(int(second.has_contrast.sum()) / _QUERIES)


def _most_alike(
    codes: Int64[np.ndarray, " p"], likenesses: Float32[np.ndarray, " p"], num_second: int
) -> tuple[Int64[np.ndarray, " q"], Float32[np.ndarray, " q"]]:
    """Returns the pairs most alike for each second scan, each pair and turn once."""
    codes, place = np.unique(codes, return_index=True)
    likenesses = likenesses[place]
    second = codes // len(TURNS) % max(num_second, 1)
    order = np.lexsort((-likenesses, second))
    second = second[order]
    rank = np.arange(len(second)) - np.searchsorted(second, second)
    chosen = order[rank < MOST_PROPOSED]
    return codes[chosen], likenesses[chosen]


def _packed(bits: Bool[np.ndarray, "n k"]) -> UInt64[np.ndarray, " n"]:
    """Returns ``[n]`` the bits as numbers, the first bit the highest."""
    octets = np.zeros((len(bits), 8), np.uint8)
    packed = np.packbits(bits, axis=1)
    octets[:, : packed.shape[1]] = packed
    return octets.view(">u8")[:, 0].astype(np.uint64)


def _unpacked(hashes: UInt64[np.ndarray, " n"], num_bits: int) -> Bool[np.ndarray, "n k"]:
    octets = hashes.astype(">u8")[:, None].view(np.uint8)
    return np.unpackbits(octets, axis=1, count=num_bits).view(np.bool_)


def _bit_order(rng: np.random.Generator, num_axes: int, num_bits: int) -> Int64[np.ndarray, " k"]:
    """Returns the axes in a random order, the most telling before the others."""
    telling = min(2 * num_bits, num_axes)
    rest = telling + rng.permutation(num_axes - telling)
    return np.concatenate([rng.permutation(telling), rest])


class _Band:
    """Scans ordered by their bits: those that agree in the first ``num_bits`` are neighbours."""

    def __init__(
        self, hashes: UInt64[np.ndarray, " n"], bit_order: Int64[np.ndarray, " k"], num_bits: int
    ) -> None:
        self._bit_order = bit_order
        keys = self._reordered(hashes)
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]
        self._below = np.uint64(2 ** (64 - num_bits) - 1)

    def _reordered(self, hashes: UInt64[np.ndarray, " m"]) -> UInt64[np.ndarray, " m"]:
        return _packed(_unpacked(hashes, len(self._bit_order))[:, self._bit_order])

    def neighbours(
        self, hashes: UInt64[np.ndarray, " m"]
    ) -> tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"]]:
        """Returns pairs of a scan and a query that agree in the band: the places of both."""
        keys = self._reordered(hashes)
        low = np.searchsorted(self._keys, keys & ~self._below, side="left")
        high = np.searchsorted(self._keys, keys | self._below, side="right")
        at = np.searchsorted(self._keys, keys)
        start = np.clip(at - MAX_NEIGHBOURS // 2, low, np.maximum(low, high - MAX_NEIGHBOURS))
        counts = np.minimum(high - start, MAX_NEIGHBOURS)
        query = np.repeat(np.arange(len(keys)), counts)
        inside = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
        return self._order[np.repeat(start, counts) + inside], query
