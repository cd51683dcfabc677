"""Common random numbers: uniforms counted from where a view stands, never from a generator.

A uniform depends on (seed, step, position of the scan in the global batch, view, parameter) and
on nothing else, so that every scale, rank count, device and resumed run draws the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float64, Int64, UInt64

from scanlearn.errors import ScanlearnError

# An index is a counter: append, never insert, or every seeded run changes.
UNIFORMS = (
    "area", "aspect", "top", "left", "flip",
    "jitter", "brightness", "contrast", "saturation", "hue", "order", "gray", "blur", "blur_sigma",
    "vflip", "rotation", "rotation_deg", "translation", "translation_y", "translation_x",
    "stretch", "stretch_ratio", "shear", "shear_y", "shear_x", "elastic",
    "solarize", "gamma", "gamma_exponent",
    "histogram_shift", "histogram_shift_1", "histogram_shift_2", "histogram_shift_3",
    "bias_field", "soft", "soft_sigma", "noise", "noise_std", "field",
    "posterise", "posterise_bits",
    "quarter_turns", "quarter_turns_number", "window", "window_width", "window_level",
    "stain", "stain_factor_1", "stain_factor_2", "stain_factor_3",
    "stain_offset_1", "stain_offset_2", "stain_offset_3",
    "illumination", "illumination_change", "low_resolution", "low_resolution_factor",
    "rician", "rician_std", "poisson", "poisson_std", "speckle", "speckle_std",
    "jpeg", "jpeg_quality",
)  # fmt: skip

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_64_BITS = 2**64 - 1


@dataclass(frozen=True)
class DrawKey:
    """Names the uniforms of one batch.

    Args:
        positions: ``[b]`` position of each scan in the global batch, over all ranks.

    Raises:
        ScanlearnError: The seed or the step is negative.
    """

    seed: int
    step: int
    positions: Int64[np.ndarray, " b"]

    def __post_init__(self) -> None:
        for name in ("seed", "step"):
            value = getattr(self, name)
            if not 0 <= value < 2**63:
                raise ScanlearnError(
                    f"{name}: {value} is not from 0 to 2^63 - 1; give one that is."
                )


def uniforms(key: DrawKey, views: int) -> Float64[np.ndarray, "b v p"]:
    """Returns the uniforms of a batch, in [0, 1), one per scan, view and entry of `UNIFORMS`.

    Source: the finaliser of SplitMix64, Steele, Lea and Flood, OOPSLA 2014, used as a hash of a
    counter: each number of the key is mixed in by one more round.
    """
    start = _mix_one(_mix_one(key.seed) ^ _mix_one(key.step + int(_GOLDEN)))
    positions = np.asarray(key.positions, dtype=np.uint64)
    return _numbered(mix(np.uint64(start) ^ mix(positions + _GOLDEN)), views)


def uniforms_of_seeds(
    seeds: Int64[np.ndarray, " b"], step: int, views: int
) -> Float64[np.ndarray, "b v p"]:
    """Returns the uniforms of as many batches of one scan, one for each seed, all at one step."""
    start = mix(mix(seeds.astype(np.uint64)) ^ np.uint64(_mix_one(step + int(_GOLDEN))))
    return _numbered(mix(start ^ np.uint64(_mix_one(int(_GOLDEN)))), views)


def _numbered(state: UInt64[np.ndarray, " b"], views: int) -> Float64[np.ndarray, "b v p"]:
    """The uniforms of each view, counted from the state of its scan."""
    counted = mix(state[:, None, None] ^ _counted(views)[:, None])
    counted = mix(counted ^ _counted(len(UNIFORMS)))
    # The upper 53 bits fill a double's mantissa: every value is exact and below 1.
    return (counted >> np.uint64(11)).astype(np.float64) * 2.0**-53


def mix(state: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    """Returns 64 bits hashed to 64 others: the finaliser of SplitMix64."""
    mixed = state + _GOLDEN
    # In place: a new array of more than 128 KiB comes back as pages to be faulted in.
    shifted = np.right_shift(mixed, np.uint64(30))
    mixed ^= shifted
    mixed *= _MIX_1
    mixed ^= np.right_shift(mixed, np.uint64(27), out=shifted)
    mixed *= _MIX_2
    mixed ^= np.right_shift(mixed, np.uint64(31), out=shifted)
    return mixed


@lru_cache(maxsize=64)
def _counted(number: int) -> UInt64[np.ndarray, " n"]:
    """The counters up to a number as they are mixed in: the same for every batch."""
    return mix(np.arange(number, dtype=np.uint64) + _GOLDEN)


def _mix_one(state: int) -> int:
    """`mix` of one number: in Python's own a tenth of the time of arrays that hold one."""
    mixed = (state + int(_GOLDEN)) & _64_BITS
    mixed = (mixed ^ mixed >> 30) * int(_MIX_1) & _64_BITS
    mixed = (mixed ^ mixed >> 27) * int(_MIX_2) & _64_BITS
    return mixed ^ mixed >> 31
