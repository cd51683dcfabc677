"""Pairs of scans that are one: found through an index, never by comparing all with all.

Sorted bands propose: a band is a choice of bits of the perceptual hash, and scans that agree in
all bits of some band are looked at further. Pixels then decide: a pair counts when the correlation
of the two small pictures, after the best small shift and stretch, reaches a bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float16, Float32, Int64, Shaped, UInt64
from torch import Tensor

from scanlearn.runs import Progressor
from scanlearn.scans.alignment import aligned_correlations
from scanlearn.scans.fingerprint import (
    NUM_COEFFICIENTS,
    TURNS,
    batch_size,
    small_pictures,
    turn_pictures,
    turn_spectra,
)
from scanlearn.scans.reader import Archive

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


@dataclass(frozen=True)
class Proposals:
    """Pairs that may be one scan: ``p`` places in two sets of fingerprints.

    Args:
        first: ``[p]`` place in the first set.
        second: ``[p]`` place in the second set.
        turn: ``[p]`` how the second must be turned to look like the first.
    """

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
    found = np.flatnonzero(values[at] == second)
    return place[at[found]].astype(np.int64), found.astype(np.int64)


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

    Args:
        first: Spectra of the first set.
        second: Spectra of the second set.
        progress: Is told of each of the 32 bands.
    """
    middle, spread = _middle_and_spread(first, second)
    kept, asked = (np.flatnonzero(spectra.any(axis=1)) for spectra in (first, second))
    own = _packed(first > middle)[kept]
    turned = [_packed(turn_spectra(second, turn) > middle)[asked] for turn in range(len(TURNS))]
    # As many as leave about one scan to agree with by chance.
    num_bits = min(max((len(kept) - 1).bit_length(), _LEAST_BITS), _MOST_BITS)
    rng = np.random.default_rng(0)
    found = np.zeros(0, np.int64)
    for _ in range(NUM_BANDS):
        band = _Band(own, rng.permutation(NUM_COEFFICIENTS), num_bits)
        codes = [found]
        for turn, hashes in enumerate(turned):
            for start in range(0, len(asked), _QUERIES):
                place, query = band.neighbours(hashes[start : start + _QUERIES])
                query += start
                near = np.bitwise_count(own[place] ^ hashes[query]) <= MAX_DISTANCE
                one, other = kept[place[near]], asked[query[near]]
                spectra = (first[one], turn_spectra(second[other], turn))
                alike = _cosines(*((s - middle) / spread for s in spectra)) >= LEAST_COSINE
                pair = one[alike] * len(second) + other[alike]
                codes.append(pair * len(TURNS) + turn)
        found = np.unique(np.concatenate(codes))
        progress.advance()
    pair, turn_of = np.divmod(found, len(TURNS))
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
    """The scans in the order of their bits; those that agree in the first ones lie side by side.

    Args:
        hashes: ``[n]`` their bits.
        bit_order: The 63 bits in the order of this band.
        num_bits: How many of them must agree, from the first.
    """

    def __init__(
        self,
        hashes: UInt64[np.ndarray, " n"],
        bit_order: Int64[np.ndarray, " 63"],
        num_bits: int,
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

    Args:
        first: Where the first scans are; ``proposals`` names rows of it.
        second: Where the second scans are.
        proposals: Pairs, with the turn that the second scan needs.
        progress: Is told of the pairs.
    """
    found = np.empty((2, len(proposals)), np.float32)
    size = min(batch_size(first), batch_size(second))
    for start in range(0, len(proposals), size):
        part = slice(start, start + size)
        one = _pictures(first, proposals.first[part])
        other = _pictures(second, proposals.second[part])
        turns = proposals.turn[part]
        for turn in np.unique(turns).tolist():
            rows = np.flatnonzero(turns == turn)
            turned = turn_pictures(other[rows], turn)
            both = aligned_correlations(one[rows], turned)
            found[:, start + rows] = torch.stack(both).numpy()
        progress.advance(len(one))
    return found


def _pictures(archive: Archive, rows: Int64[np.ndarray, " p"]) -> Float32[Tensor, "p s s"]:
    """Returns the small pictures of rows, some of which come more than once."""
    single, place = np.unique(rows, return_inverse=True)
    return small_pictures(archive.gather(single))[torch.from_numpy(place)]
