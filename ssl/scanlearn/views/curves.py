"""Curves and rows: a parameter along the dial, and where each of its numbers is from."""

from __future__ import annotations

from dataclasses import dataclass

from scanlearn.views.operations.operation import SubDial
from scanlearn.views.operations.table import OPERATION_OF, PARAMETERS
from scanlearn.views.scale import MAX_SCALE, Scale

OFF = "off"
BY_HAND = "by hand"
# What a source begins with that is a policy's.
POLICY = "policy "
VIEW_KINDS = ("global 1", "global 2", "local")


@dataclass(frozen=True)
class Curve:
    """One parameter of one view as a function of the scale: piecewise linear through its knots.

    Args:
        identity: Value at 0, where nothing happens; weak at .5, strong at 1.
        limit: Value that is never passed beyond 1.
        reaches_limit: Whether the limit is reached linearly at 1.5. Otherwise the last slope
            goes on, or, where the last segment is flat, the value grows as ``strong * s``.
        strong_source: Where that value is from; `OFF` for a parameter that a recipe lacks.

    Source: docs/dial.md, the dial.
    """

    identity: float
    weak: float
    strong: float
    limit: float
    reaches_limit: bool = False
    weak_source: str = ""
    strong_source: str = ""

    @property
    def is_fixed(self) -> bool:
        """Whether weak and strong are the same."""
        return self.weak == self.strong

    @property
    def is_idle(self) -> bool:
        """Whether the value is the identity's all along."""
        return self.weak == self.strong == self.limit == self.identity

    def at(self, s: float) -> float:
        """Returns the value at scale ``s``, 0 to 1.5; the knots come back exactly."""
        if s <= 0.5:
            return _between(self.identity, self.weak, s / 0.5)
        if s <= 1:
            return _between(self.weak, self.strong, (s - 0.5) / 0.5)
        if self.reaches_limit:
            return _between(self.strong, self.limit, (s - 1) / (MAX_SCALE - 1))
        slope = self.strong if self.is_fixed else (self.strong - self.weak) / 0.5
        value = self.strong + slope * (s - 1)
        return min(value, self.limit) if slope > 0 else max(value, self.limit)

    def source(self, s: float) -> str:
        """Says where the value at scale ``s`` comes from."""
        if self.strong_source == OFF:
            return OFF
        if s in (0, 0.5, 1):
            return {0: "identity", 0.5: self.weak_source, 1: self.strong_source}[s]
        if s > 0.5 and self.at(s) == self.strong:
            return self.strong_source
        origin, is_policy = self.strong_source.split(":")[0], self.strong_source.startswith(POLICY)
        is_set = is_policy or origin == BY_HAND
        if s < 1:
            place = "between identity and weak" if s < 0.5 else "between weak and strong"
        else:
            place = "beyond strong" if is_set else "beyond the recipe"
        return f"{origin}, {place}" if is_set else place


def _between(low: float, high: float, share: float) -> float:
    return low if share == 0 else high if share == 1 else low + (high - low) * share


@dataclass(frozen=True)
class Row:
    """One line of a recipe.

    Args:
        parameter: A name of `PARAMETERS`.
        curves: One curve for all views, or one for each of `VIEW_KINDS`; the last serves all
            further views.
    """

    parameter: str
    curves: tuple[Curve, ...]

    @classmethod
    def off(cls, parameter: str) -> Row:
        """Returns the row of a parameter that a recipe lacks: the identity everywhere."""
        value = PARAMETERS[parameter].identity
        curve = Curve(value, value, value, value, weak_source=OFF, strong_source=OFF)
        return cls(parameter, (curve,))

    @property
    def dial(self) -> SubDial:
        """The sub-dial that moves it."""
        return OPERATION_OF[self.parameter].dial

    @property
    def is_off(self) -> bool:
        """Whether the recipe lacks the parameter in every view."""
        return all(curve.strong_source == OFF for curve in self.curves)

    @property
    def is_idle(self) -> bool:
        """Whether every view has the identity's value all along."""
        return all(curve.is_idle for curve in self.curves)

    def curve(self, view: int) -> Curve:
        """Returns the curve of one view."""
        return self.curves[min(view, len(self.curves) - 1)]

    def value(self, scale: Scale, view: int) -> float:
        """Returns the parameter's value for one view at a setting of the dial."""
        return self.curve(view).at(getattr(scale, self.dial))

    def source(self, scale: Scale) -> str:
        """Says where the values at this setting come from, view by view where that differs."""
        sources = [curve.source(getattr(scale, self.dial)) for curve in self.curves]
        named = dict(zip(VIEW_KINDS, sources, strict=False))
        if len(set(sources)) == 1:
            return sources[0]
        if len(sources) == 3 and sources[0] == sources[1]:
            named = {"global": sources[0], "local": sources[2]}
        return "; ".join(f"{view} {source}" for view, source in named.items())
