"""Multinomial logistic regression along a path of penalties, quick on collinear features.

Features of a frozen network are close to collinear, where the usual solvers take hundreds of
steps. Here they are rotated onto their principal axes once, and each axis is scaled by the
curvature of the loss along it, so that most fits take tens of steps. One that takes longer goes on
along axes of the curvature where it has come to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy.linalg import LinAlgError, cholesky, solve_triangular
from scipy.optimize import OptimizeResult, minimize

# Largest gradient of the mean loss, on axes of unit curvature, at which a fit stops. A weak penalty
# leaves little curvature at the solution: at 1e-3 probabilities were off by up to .6.
_TOLERANCE = 1e-7
_MAX_STEPS = 10_000
# A search that rounding ends a little earlier is still within .001 of every probability.
_ENOUGH = 1e-6

# An axis with less than this share of the mean variance is held at zero by every penalty in use.
_NEGLIGIBLE = 1e-9
# Steps for each class after which a fit goes on along axes of the curvature there. To find these
# takes as long as some twenty; of more weights than this their matrix would take 32 MB.
_ROUND, _MOST_CURVED = 30, 2048


@dataclass(frozen=True)
class PrincipalAxes:
    """Standardises features by the training scans and rotates them onto their axes.

    Args:
        mean: ``[d]`` of the training scans.
        matrix: ``[d e]``; a dimension that hardly moves has a row of zeros.
    """

    mean: Float[np.ndarray, " d"]
    matrix: Float[np.ndarray, "d e"]

    @classmethod
    def of(cls, train: Shaped[np.ndarray, "t d"]) -> PrincipalAxes:
        """Returns the axes of the training scans.

        A rotation changes nothing for an L2 penalty, and the solution lies in the row space of the
        training features: at most t axes are needed.
        """
        train = np.asarray(train, np.float64)
        mean, std = train.mean(axis=0), train.std(axis=0)
        alive = is_alive(train, std)
        if not alive.any():
            return cls(mean, np.zeros((train.shape[1], 1)))
        scaled = (train[:, alive] - mean[alive]) / std[alive]
        if scaled.shape[1] <= scaled.shape[0]:
            variance, axes = np.linalg.eigh(scaled.T @ scaled / len(scaled))
            axes = axes[:, variance > _NEGLIGIBLE * variance.mean()]
        else:
            variance, left = np.linalg.eigh(scaled @ scaled.T / len(scaled))
            kept = variance > _NEGLIGIBLE * variance.mean()
            axes = scaled.T @ (left[:, kept] / np.sqrt(variance[kept] * len(scaled)))
        matrix = np.zeros((train.shape[1], axes.shape[1]))
        matrix[alive] = axes / std[alive, None]
        return cls(mean, matrix)

    def project(self, features: Shaped[np.ndarray, "n d"]) -> Float[np.ndarray, "n e"]:
        """Returns features on the axes, ``[n e]``."""
        return np.asarray((np.asarray(features, np.float64) - self.mean) @ self.matrix)


def is_alive(
    train: Float[np.ndarray, "t d"], std: Float[np.ndarray, " d"]
) -> Bool[np.ndarray, " d"]:
    """Returns which features vary over the training scans.

    One that hardly moves is dead: dividing by its rounding noise would wake it. A feature is
    measured by its own size: by that of the largest, features in smaller units were left out.
    """
    return np.asarray(std > 1e-6 * np.abs(train).max(axis=0, initial=0.0))


class PenaltyPath:
    """Minimises the mean cross-entropy + ||W||^2 / (2 C t) at one C after another.

    Each fit starts from the last one's solution. The intercepts are not penalised. Two classes
    share one weight vector, more have one each, as in scikit-learn, whose C this is.

    Args:
        z: ``[t e]`` features, from `PrincipalAxes`.
        y: ``[t]`` classes, at least two of them.
        num_classes: k; some may be absent from ``y``.
        shares: ``[t]`` how many scans each row counts for; None counts each as one. Rows of one
            ``z`` and different classes make a soft label.

    Attributes:
        converged: Whether the last fit came close enough to its solution.
    """

    def __init__(
        self,
        z: Float[np.ndarray, "t e"],
        y: Int[np.ndarray, " t"],
        num_classes: int,
        shares: Float[np.ndarray, " t"] | None = None,
    ) -> None:
        self._present, codes = np.unique(y, return_inverse=True)
        self._num_classes = num_classes
        self._z = np.concatenate([z, np.ones((len(z), 1))], axis=1)
        self._shares = 1.0 if shares is None else shares[:, None]
        self._num_scans = float(len(z) if shares is None else shares.sum())
        self._target = self._shares * np.eye(len(self._present))[codes]
        # The last row is the intercepts, which start at the log of the class shares.
        start = np.log(self._target.sum(axis=0) / self._num_scans)
        columns = start[1:] - start[0] if len(start) == 2 else start
        self._weights = np.zeros((self._z.shape[1], len(columns)))
        self._weights[-1] = columns
        self.converged = False
        self._spread = (self._shares * self._z**2).sum(axis=0)[:, None] / self._num_scans
        self._is_hard = False

    def fit(self, c: float) -> PenaltyPath:
        """Moves to the solution at inverse penalty ``c`` and returns itself; sets `converged`."""
        # What took long at the last C takes long at this one.
        factor = self._curvature(c) if self._is_hard else None
        left, is_at_end = _MAX_STEPS, False
        while not is_at_end:
            is_few = self._weights.size <= _MOST_CURVED
            steps = min(left, _ROUND * self._weights.shape[1]) if is_few else left
            solution = self._descend(c, factor, steps)
            left -= solution.nit
            # The status of scipy where the steps are used up.
            is_at_end = solution.status != 1 or left <= 0
            if not is_at_end:
                factor = self._curvature(c)
        self.converged = bool(np.abs(solution.jac).max() <= _ENOUGH)
        self._is_hard = factor is not None
        return self

    def _descend(
        self, c: float, factor: Float[np.ndarray, "m m"] | None, steps: int
    ) -> OptimizeResult:
        """Moves downhill for some steps, on axes of a curvature or on scaled principal ones."""
        t, k = self._num_scans, self._target.shape[1]
        penalty = self._penalty(c)
        # Curvature of the loss at W = 0, where every class has probability 1/k.
        scale = 1 / np.sqrt((k - 1) / k**2 * self._spread + penalty)
        start = self._weights

        def to_weights(flat: Float[np.ndarray, " q"]) -> Float[np.ndarray, "e q"]:
            if factor is None:
                return np.asarray(start + flat.reshape(start.shape) * scale)
            moved = np.asarray(
                solve_triangular(factor, flat, lower=True, trans="T", check_finite=False)
            )
            return start + moved.reshape(start.shape[::-1]).T

        def loss_and_slope(flat: Float[np.ndarray, " q"]) -> tuple[float, Float[np.ndarray, " q"]]:
            weights = to_weights(flat)
            log_p = _log_softmax(self._z @ weights)
            loss = -(log_p * self._target).sum() / t + (penalty * weights**2).sum() / 2
            residual = (self._shares * np.exp(log_p) - self._target)[:, -weights.shape[1] :]
            slope = self._z.T @ np.ascontiguousarray(residual) / t + penalty * weights
            if factor is None:
                return float(loss), (slope * scale).ravel()
            along = solve_triangular(factor, slope.T.ravel(), lower=True, check_finite=False)
            return float(loss), np.asarray(along)

        solution = minimize(
            loss_and_slope,
            np.zeros(start.size),
            jac=True,
            method="L-BFGS-B",
            options={"gtol": _TOLERANCE, "ftol": 0.0, "maxiter": steps, "maxfun": 2 * steps + 20},
        )
        self._weights = to_weights(solution.x)
        return solution

    def _curvature(self, c: float) -> Float[np.ndarray, "m m"] | None:
        """Returns the lower factor of the loss's second derivatives here, or None.

        ``[(e+1)q (e+1)q]``, one class after the other; there is none where rounding makes them
        indefinite.
        """
        weights, size = self._weights, len(self._weights)
        p = np.exp(_log_softmax(self._z @ weights))[:, -weights.shape[1] :]
        curvature = np.empty((weights.size, weights.size))
        for one in range(p.shape[1]):
            for other in range(one + 1):
                share = self._shares * p[:, [one]] * ((one == other) - p[:, [other]])
                rows, columns = (slice(at * size, (at + 1) * size) for at in (one, other))
                curvature[rows, columns] = self._z.T @ (self._z * share) / self._num_scans
        # A shift of all intercepts alike changes nothing: that direction has no curvature.
        least = _NEGLIGIBLE * curvature.trace() / weights.size
        diagonal = np.tile(self._penalty(c)[:, 0], p.shape[1]) + least
        curvature[np.diag_indices_from(curvature)] += diagonal
        try:
            return np.asarray(cholesky(curvature, lower=True, check_finite=False))
        except LinAlgError:
            return None

    def _penalty(self, c: float) -> Float[np.ndarray, "e 1"]:
        penalty = np.full((self._z.shape[1], 1), 1 / (c * self._num_scans))
        penalty[-1] = 0
        return penalty

    def coefficients(self) -> tuple[Float[np.ndarray, "e k"], Float[np.ndarray, " k"]]:
        """Returns weights and intercepts of every class, whose softmax `predict` returns.

        Of two classes the first has zeros. A class without a training scan has an intercept of
        minus infinity.
        """
        columns = self._weights
        if columns.shape[1] < len(self._present):
            columns = np.concatenate([np.zeros((len(columns), 1)), columns], axis=1)
        weights = np.zeros((len(columns) - 1, self._num_classes))
        intercepts = np.full(self._num_classes, -np.inf)
        weights[:, self._present], intercepts[self._present] = columns[:-1], columns[-1]
        return weights, intercepts

    def predict(self, z: Float[np.ndarray, "u e"]) -> Float[np.ndarray, "u k"]:
        """Returns the probability of each class, 0 for a class without a training scan."""
        probabilities = np.zeros((len(z), self._num_classes))
        logits = z @ self._weights[:-1] + self._weights[-1]
        probabilities[:, self._present] = np.exp(_log_softmax(logits))
        return probabilities


def _log_softmax(logits: Float[np.ndarray, "t q"]) -> Float[np.ndarray, "t k"]:
    """Returns log-probabilities; a single column is the second of two classes against the first."""
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    logits = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))
