"""Ranges: what may be drawn for a view, by parameter, and the draw that uniforms stand for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int

from scanlearn.views.draw import Draw
from scanlearn.views.operations.operation import Quantiles
from scanlearn.views.operations.table import OPERATIONS, PARAMETERS


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
        last = len(self.views) - 1
        views = [self.views[min(view, last)] for view in range(uniforms.shape[1])]
        quantiles = Quantiles(views, uniforms, np.asarray(valid_box, dtype=np.float64))
        fields: dict[str, np.ndarray[Any, Any]] = {}
        for operation in OPERATIONS:
            fields.update(operation.draw(quantiles))
        # The 53 bits of a double in [0, 1).
        field_key = (quantiles.uniform("field") * 2.0**53).astype(np.uint64)
        return Draw(**fields, field_key=field_key)
