"""The interval of a share of scans, such as a sensitivity, over patients."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy.special import ndtri

from scanlearn.metrics import mean_of_defined

_LEVEL = 0.95


def share_replicates(
    hits: Bool[np.ndarray, " n"], weights: Shaped[np.ndarray, "r n"]
) -> Float[np.ndarray, " r"]:
    """Returns the weighted share of hits under each of many weightings of the same scans.

    Args:
        hits: ``[n]`` scans that are counted, such as positives, and whether each is called.
        weights: ``[r n]``, not negative, such as how often a resample drew each scan.

    Returns:
        ``[r]``; NaN where a replicate holds no scan.
    """
    drawn = weights.astype(np.float32)
    total = drawn.sum(axis=1)
    share: np.ndarray = np.full(len(weights), np.nan)
    np.divide(drawn @ hits.astype(np.float32), total, out=share, where=total > 0)
    return share


def share_interval(
    share: float, replicates: Float[np.ndarray, "a r"], num_patients: int, num_scans: int
) -> tuple[float, float]:
    """Returns the 95 % interval of a share of scans of several patients.

    It is Wilson's, for as many independent scans as would vary as much as the share varies
    between patient resamples, at most ``num_scans``. A resample of a share of 0 or 1 never
    varies; there each patient counts for one scan.

    Args:
        share: In [0, 1], mean over models; NaN where undefined.
        replicates: ``[a r]`` of each model under the same patient resamples.
        num_patients: Patients whose scans are counted.
        num_scans: Scans that are counted.

    Returns:
        Lower and upper end; NaN where undefined.

    Source: Wilson 1927; with the effective number of a clustered sample: Franco, Little, Louis,
    Slud, Journal of Survey Statistics and Methodology 7(3), 2019, which recommends it.
    """
    resampled = mean_of_defined(replicates)
    resampled = resampled[~np.isnan(resampled)]
    if np.isnan(share) or len(resampled) < 2:
        return float("nan"), float("nan")
    variance = float(resampled.var(ddof=1))
    varying = share * (1 - share)
    size = float(num_patients)
    if varying > 1e-9 and variance > 0:
        size = min(varying / variance, float(num_scans))
    z = float(ndtri((1 + _LEVEL) / 2))
    middle = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * np.sqrt(varying / size + z**2 / (4 * size**2))
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))
