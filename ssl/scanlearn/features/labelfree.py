"""What features are worth, judged without labels: ranks, spectra and distances, in plain numpy.

Two forms of features are judged. ``features`` are ``[n d]``, one view of each scan; ``views`` are
``[n v d]``, several views of each scan: a scan is then a class, and its views are its samples.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Shaped

# Of LiDAR's within-scan scatter, as a share of the mean variance of a feature.
RIDGE = 1e-4
# The part of the spectrum in which a power law is looked for, counted from 1.
FIRST_EIGENVALUE = 11
LAST_EIGENVALUE = 100
# Eigenvalues below this share of the largest are rounding.
_NEGLIGIBLE = 1e-12
# Of the rotation probe.
_FOLDS = 5
# Distances worked on at a time.
_BLOCK_DISTANCES = 1 << 22


def rankme(features: Shaped[np.ndarray, "n d"]) -> float:
    """Returns the effective rank of the features: exp(entropy of their singular values' shares).

    From 1, where all scans lie on one line through the origin, to min(n, d); 0 where every feature
    is 0. Features are not centred.

    Args:
        features: ``[n d]``, n best several times d.

    Raises:
        ValueError: A feature is not finite.

    Source: Garrido, Balestriero, Najman, LeCun, "RankMe", ICML 2023, equation 1. Its constant 1e-7,
    added to each share so that a logarithm exists, is not needed: p log p is 0 at p = 0.

    Example:
        >>> round(rankme(np.eye(5)), 6)
        5.0
    """
    features = _checked(features, 2).astype(np.float64)
    return effective_rank(np.linalg.svd(features, compute_uv=False))


def lidar(views: Shaped[np.ndarray, "n v d"], ridge: float = RIDGE) -> float:
    """Returns the effective rank of what tells scans apart and survives a change of view.

    exp(entropy) of the eigenvalues of Sw^-1/2 Sb Sw^-1/2, where Sb is the scatter of the scans'
    means and Sw that of views about them. At most min(n - 1, d); 0 where all scans look alike.

    Args:
        views: ``[n v d]``, at least 2 scans of at least 2 views; n should exceed d.
        ridge: Added to the diagonal of Sw, as a share of the mean variance of a feature.

    Raises:
        ValueError: A feature is not finite, or there is one scan or one view only.

    Source: Thilak et al., "LiDAR: Sensing Linear Probing Performance in Joint Embedding SSL
    Architectures", ICLR 2024, section 4. There the ridge is an absolute number; relative to the
    variance, features multiplied by a constant keep their value.
    """
    views = _checked(views, 3)
    n, v, d = _several(views)
    means = np.stack([scan.mean(axis=0, dtype=np.float64) for scan in views])
    centred = means - means.mean(axis=0)
    between = centred.T @ centred / (n - 1)
    within = np.zeros((d, d))
    for view in range(v):
        off = views[:, view].astype(np.float64) - means
        within += off.T @ off / (n * (v - 1))
    variance = (np.trace(between) + np.trace(within)) / d
    # Equal features differ by their rounding alone.
    if variance <= _NEGLIGIBLE * float(np.square(means).mean()):
        return 0.0
    within[np.diag_indices(d)] += ridge * variance
    root = np.linalg.cholesky(within)
    half = np.linalg.solve(root, between)
    eigenvalues = np.linalg.eigvalsh(np.linalg.solve(root, half.T))
    return effective_rank(np.clip(eigenvalues, 0.0, None))


def alpha_req(
    features: Shaped[np.ndarray, "n d"],
    first: int = FIRST_EIGENVALUE,
    last: int = LAST_EIGENVALUE,
) -> float:
    """Returns alpha of the power law i^-alpha that the covariance's eigenvalues follow.

    About 1 is good; more means that few directions carry the variance, less that noise fills many.
    NaN where fewer than two eigenvalues differ from 0.

    A line is fitted to the logarithms, each eigenvalue weighing 1 / i, so that every stretch of
    the logarithmic axis counts alike. In a spectrum of m < ``last`` eigenvalues the line ends at
    m, and begins no later than in its middle.

    Args:
        first: The eigenvalue to begin with, counted from 1: the largest few follow no law.

    Raises:
        ValueError: A feature is not finite.

    Source: Agrawal, Mondal, Ghosh, Richards, "alpha-ReQ", NeurIPS 2022; weights and first
    eigenvalue are those of Stringer et al., Nature 571, 2019, from whom that paper has the fit.
    """
    features = _checked(features, 2).astype(np.float64)
    centred = features - features.mean(axis=0)
    spectrum = np.linalg.svd(centred, compute_uv=False) ** 2
    size = float(np.square(features).sum())
    kept = spectrum[spectrum > _NEGLIGIBLE * max(size, spectrum[0])]
    last = min(last, len(kept))
    first = max(1, min(first, last // 2))
    if last - first < 1:
        return float("nan")
    index = np.arange(first, last + 1)
    x, y, weight = np.log(index), np.log(kept[first - 1 : last]), 1 / index
    x = x - np.average(x, weights=weight)
    return float(-(weight * x * y).sum() / (weight * x * x).sum())


def alignment(views: Shaped[np.ndarray, "n v d"]) -> float:
    """Returns the mean squared distance between two views of a scan, features of length 1.

    From 0, where all views of a scan are alike, to 4; 2 is that of unrelated views.

    Raises:
        ValueError: A feature is not finite, or there is one view only.

    Source: Wang and Isola, "Understanding Contrastive Representation Learning through Alignment
    and Uniformity on the Hypersphere", ICML 2020, section 4.1.1, alpha = 2.
    """
    views = _checked(views, 3)
    v = views.shape[1]
    if v < 2:
        raise ValueError("one view of each scan only; alignment needs two or more")
    total = 0.0
    for scan in views:
        unit = unit_rows(scan)
        centre = unit.mean(axis=0)
        total += 2 * float(np.square(unit - centre).sum()) / (v - 1)
    return total / len(views)


def uniformity(features: Shaped[np.ndarray, "n d"]) -> float:
    """Returns log E exp(-2 |f(x) - f(y)|^2) over pairs of scans, features of length 1.

    0 where all scans look alike; -4 where they are orthogonal to one another; the lower, the more
    evenly they fill the sphere.

    Raises:
        ValueError: A feature is not finite, or there is one scan only.

    Source: Wang and Isola, ICML 2020, section 4.1.2, t = 2.
    """
    unit = unit_rows(_checked(features, 2))
    n = len(unit)
    if n < 2:
        raise ValueError("one scan only; uniformity needs two or more")
    total = 0.0
    for start, squared in _squared_distances(unit):
        near = np.exp(-2 * squared)
        rows = np.arange(len(near))
        near[rows, start + rows] = 0.0
        total += float(near.sum())
    return float(np.log(total / (n * (n - 1))))


def embedding_std(features: Shaped[np.ndarray, "n d"]) -> float:
    """Returns the spread of the features: about 1 when healthy, 0 when all scans look alike.

    The mean over dimensions of the standard deviation of L2-normalised features, times
    ``sqrt(d)``, which makes it independent of the dimension.

    Raises:
        ValueError: A feature is not finite.

    Source: Chen and He, "Exploring Simple Siamese Representation Learning", CVPR 2021,
    section 4.1 (there without the factor ``sqrt(d)``).
    """
    unit = unit_rows(_checked(features, 2))
    return float(unit.std(axis=0).mean() * unit.shape[1] ** 0.5)


def silhouette(views: Shaped[np.ndarray, "n v d"]) -> float:
    """Returns the mean silhouette of views, a scan being their cluster, features of length 1.

    For each view (b - a) / max(a, b), where a is its mean distance to the other views of its scan
    and b the mean distance to those of the nearest other scan: 1 where scans lie far apart, 0
    where they overlap, below 0 where views lie among those of another scan. The more scans, the
    nearer the nearest: values compare at equal numbers of scans only.

    Raises:
        ValueError: A feature is not finite, or there is one scan or one view only.

    Source: Rousseeuw, Journal of Computational and Applied Mathematics 20, 1987; of the views of
    scans in Cheng et al., MIDL 2025.
    """
    views = _checked(views, 3)
    n, v, d = _several(views)
    unit = unit_rows(views.reshape(n * v, d))
    total = 0.0
    for start, squared in _squared_distances(unit):
        rows = np.arange(len(squared))
        # A view's distance to itself is 0, and its rounding would not be.
        squared[rows, start + rows] = 0.0
        to_scan = np.sqrt(squared).reshape(-1, n, v).sum(axis=2)
        scan = (start + rows) // v
        inside = to_scan[rows, scan] / (v - 1)
        to_scan[rows, scan] = np.inf
        outside = to_scan.min(axis=1) / v
        larger = np.maximum(inside, outside)
        total += float(np.divide(outside - inside, larger, where=larger > 0, out=larger * 0).sum())
    return total / (n * v)


def rotation_accuracy(turned: Shaped[np.ndarray, "n q d"], ridge: float = 1e-2) -> float:
    """Returns how often a linear probe tells by how many quarter turns a scan was turned.

    Or which of q other changes was made to it, such as the patches that were swapped. From 1 / q
    by chance to 1. Five folds by scan, features standardised, least squares on the changes with a
    ridge.

    Args:
        turned: ``[n q d]``, features of each scan turned by 0 to q - 1 quarters, or changed
            otherwise; five scans or more.
        ridge: Added to the diagonal of the features' covariance, as a share of its mean.

    Raises:
        ValueError: A feature is not finite, or there are fewer than five scans.

    Source: Reed, Metzger, Srinivas, Darrell, Keutzer, "SelfAugment", CVPR 2021: over augmentations
    the accuracy of a linear rotation probe goes with that of the labels.
    """
    turned = _checked(turned, 3).astype(np.float64)
    n, q, d = turned.shape
    if n < _FOLDS:
        raise ValueError(f"{n} scans only; a rotation probe needs {_FOLDS} or more")
    code = np.arange(q)
    hits = 0
    for fold in range(_FOLDS):
        is_test = np.arange(n) % _FOLDS == fold
        train = turned[~is_test].reshape(-1, d)
        mean, spread = train.mean(axis=0), train.std(axis=0)
        scale = np.divide(1.0, spread, out=np.zeros(d), where=spread > 0)
        x = (train - mean) * scale
        y = np.tile(np.eye(q) - 1 / q, (len(x) // q, 1))
        weights = np.linalg.solve(x.T @ x / len(x) + ridge * np.eye(d), x.T @ y / len(x))
        said = ((turned[is_test] - mean) * scale @ weights).argmax(axis=2)
        hits += int((said == code).sum())
    return float(hits / (n * q))


def unit_rows(features: Shaped[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Returns the rows at length 1, in float64; a row of zeros stays one."""
    features = np.asarray(features, dtype=np.float64)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(length > 0, length, 1.0)


def effective_rank(weights: Float[np.ndarray, " k"]) -> float:
    """Returns exp(entropy of the weights' shares): from 1 to how many there are; 0 for no weight.

    Args:
        weights: ``[k]``, not negative, such as singular values.
    """
    total = weights.sum(dtype=np.float64)
    if total <= 0:
        return 0.0
    share = weights[weights > 0] / total
    return float(np.exp(-(share * np.log(share)).sum()))


def _squared_distances(
    points: Float[np.ndarray, "m d"],
) -> Iterator[tuple[int, Float[np.ndarray, "b m"]]]:
    """Yields the first row of each block, and the squared distances of its rows to all points."""
    length = np.square(points).sum(axis=1)
    block = max(1, _BLOCK_DISTANCES // len(points))
    for start in range(0, len(points), block):
        rows = slice(start, start + block)
        squared = length[rows, None] + length[None] - 2 * (points[rows] @ points.T)
        yield start, np.clip(squared, 0.0, None, out=squared)


def _checked(features: Shaped[np.ndarray, "..."], ndim: int) -> Shaped[np.ndarray, "..."]:
    features = np.asarray(features)
    if features.ndim != ndim or not features.size:
        raise ValueError(f"features have shape {features.shape}; {ndim} axes, none empty, needed")
    whole = np.isfinite(features).reshape(len(features), -1).all(axis=1)
    if not whole.all():
        raise ValueError(f"a feature in row {int(np.argmin(whole))} is not a finite number")
    return features


def _several(views: Shaped[np.ndarray, "n v d"]) -> tuple[int, int, int]:
    n, v, d = views.shape
    if n < 2 or v < 2:
        raise ValueError(f"{n} scans of {v} views; two or more of both are needed")
    return n, v, d
