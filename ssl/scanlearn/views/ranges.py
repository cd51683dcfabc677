"""Ranges: what may be drawn for a view, by parameter, and the draw that uniforms stand for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float64, Int

from scanlearn.views.draw import Draw
from scanlearn.views.operations.operation import Quantiles
from scanlearn.views.operations.table import OPERATIONS, PARAMETERS
from scanlearn.views.uniforms import UNIFORMS

# Draws by which what an operation gives is told to be always the same.
_TRIALS = 32


class ViewRanges(Mapping[str, float]):
    """What may be drawn for one view: the numbers of a recipe at one setting of the dial.

    A frozen mapping from the parameters of all operations to numbers, which are attributes too.

    Args:
        numbers: By parameter; one that is left out is the identity.

    Example:
        >>> ViewRanges(crop_min=0.2).crop_min, ViewRanges()["crop_min"]
        (0.2, 1.0)
    """

    # Without a dictionary of its own no attribute can be set.
    __slots__ = ("_numbers",)

    def __init__(self, **numbers: float) -> None:
        assert PARAMETERS.keys() >= numbers.keys(), numbers
        self._numbers = {
            name: float(numbers.get(name, parameter.identity))
            for name, parameter in PARAMETERS.items()
        }

    def __getitem__(self, parameter: str) -> float:
        return self._numbers[parameter]

    def __getattr__(self, parameter: str) -> float:
        if parameter.startswith("_") or parameter not in self._numbers:
            raise AttributeError(f"ViewRanges has no {parameter!r}")
        return self._numbers[parameter]

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def __repr__(self) -> str:
        changed = (
            f"{name}={number:g}"
            for name, number in self.items()
            if number != PARAMETERS[name].identity
        )
        return f"ViewRanges({', '.join(changed)})"


@dataclass(frozen=True)
class Ranges:
    """What may be drawn for every view of a scan.

    Args:
        views: One entry for all views, or one per view; the last serves all further views.
    """

    views: tuple[ViewRanges, ...]

    def draw(
        self, uniforms: Float64[np.ndarray, "b v p"], valid_box: Int[np.ndarray, "b 4"]
    ) -> Draw:
        """Returns the draw that the uniforms stand for: each through its quantile function.

        The same uniforms at another scale give the same draw, grown or shrunk. See `Quantiles`.
        """
        shape = uniforms.shape[:2]
        spans = self._spans(shape[1])
        quantiles = Quantiles(spans, uniforms, np.asarray(valid_box, dtype=np.float64))
        fields = dict(self._constant(shape))
        for operation in OPERATIONS:
            if operation.name not in self._idle(shape[1]):
                fields.update(operation.draw(quantiles))
        # The 53 bits of a double in [0, 1).
        field_key = (quantiles.uniform("field") * 2.0**53).astype(np.uint64)
        return Draw(**fields, field_key=field_key)

    @cached_property
    def _kept(self) -> dict[tuple[Any, ...], Any]:
        """What does not depend on the uniforms, by what it is and how many views it is for.

        An image at a time, most of the time of a draw went into operations that never happen.
        """
        return {}

    def _spans(self, views: int) -> dict[str, Float64[np.ndarray, " v"]]:
        key = ("spans", views)
        if key not in self._kept:
            last = len(self.views) - 1
            self._kept[key] = {
                name: np.array([self.views[min(view, last)][name] for view in range(views)])
                for name in PARAMETERS
            }
        kept: dict[str, Float64[np.ndarray, " v"]] = self._kept[key]
        return kept

    def _idle(self, views: int) -> dict[str, Mapping[str, np.ndarray[Any, Any]]]:
        """What operations that never happen draw in each view, if that is the same in all scans."""
        key = ("idle", views)
        if key not in self._kept:
            spans = self._spans(views)
            trial = np.random.default_rng(0).random((_TRIALS, views, len(UNIFORMS)))
            quantiles = Quantiles(spans, trial, np.tile([0.0, 0.0, 1.0, 1.0], (_TRIALS, 1)))
            idle = {}
            for operation in OPERATIONS:
                probability = spans.get(f"{operation.part_of or operation.name}_p")
                if probability is not None and not probability.any():
                    drawn = operation.draw(quantiles)
                    if all((array == array[:1]).all() for array in drawn.values()):
                        idle[operation.name] = {name: array[0] for name, array in drawn.items()}
            self._kept[key] = idle
        kept: dict[str, Mapping[str, np.ndarray[Any, Any]]] = self._kept[key]
        return kept

    def _constant(self, shape: tuple[int, ...]) -> Mapping[str, np.ndarray[Any, Any]]:
        """The fields of operations that never happen, for so many scans and views."""
        key = ("constant", *shape)
        if key not in self._kept:
            scans, views = shape
            self._kept[key] = {
                name: np.broadcast_to(array, (scans, *array.shape))
                for drawn in self._idle(views).values()
                for name, array in drawn.items()
            }
        kept: Mapping[str, np.ndarray[Any, Any]] = self._kept[key]
        return kept
