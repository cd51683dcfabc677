"""The few drawing primitives the report's plots are made of, as inline SVG.

Colours are CSS classes, so that one drawing serves light, dark and print.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup

STANDALONE_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1b2430}.muted{fill:#5c6673}.small{font-size:11px}"
    ".strong{font-weight:600}.grid{stroke:#dfe3e8}.axis{stroke:#5c6673}.band{fill:#eef1f4}"
    ".line{fill:none;stroke:var(--c,#444)}.fill{fill:var(--c,#444)}.label{fill:var(--c,#444)}"
    ".hollow{fill:#fff;stroke:var(--c,#444)}"
)


@dataclass(frozen=True)
class Axis:
    """Maps values to pixels.

    Args:
        low: Value at ``start``.
        high: Value at ``end``; larger than ``low``.
        start: Pixel of ``low``; may lie above ``end`` for a vertical axis.
        end: Pixel of ``high``.
        log: Whether equal ratios take equal lengths; needs ``low > 0``.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Pixel of a value; values beyond the ends stay at the ends."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, self.low))
        share = (value - low) / (high - low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self, most: int = 5) -> tuple[float, ...]:
        """At most ``most`` round values inside the axis."""
        step = tick_step(self.high - self.low, most)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return tuple(round(index * step, 10) for index in range(first, last + 1))


def tick_step(span: float, most: int) -> float:
    """The smallest of 1, 2, 5 times a power of ten that cuts ``span`` into under ``most`` parts."""
    rough = span / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * times for times in (1, 2, 5, 10) if power * times >= rough * (1 - 1e-9))


def padded(values: list[float], share: float = 0.06, least: float = 0.02) -> tuple[float, float]:
    """The range of the values, a share of it wider on both sides and never narrower than least."""
    low, high = min(values), max(values)
    pad = max((high - low) * share, (least - (high - low)) / 2, 1e-9)
    return low - pad, high + pad


def figure(width: float, height: float, label: str, body: list[Markup]) -> Markup:
    """An SVG drawing of the given size in CSS pixels, named ``label`` for a screen reader."""
    head = Markup(
        '<svg role="img" aria-label="{0}" viewBox="0 0 {1:g} {2:g}" width="{1:g}" height="{2:g}">'
    ).format(label, width, height)
    return head + Markup("").join(body) + Markup("</svg>")


def standalone(drawing: Markup, colours: dict[str, str]) -> str:
    """The drawing as a file of its own, in its light colours on white."""
    text = str(drawing)
    for name, colour in colours.items():
        text = text.replace(f"var({name})", colour)
    opening, rest = text.split(">", 1)
    name_space = ' xmlns="http://www.w3.org/2000/svg"'
    return f"{opening}{name_space}><style>{STANDALONE_STYLE}</style>{rest}"


def text(
    x: float, y: float, content: str, *, css: str = "", anchor: str = "start", colour: str = ""
) -> Markup:
    """A line of text whose baseline starts, centres or ends at (x, y)."""
    style = Markup(' style="--c:{}"').format(colour) if colour else ""
    return Markup('<text x="{:.1f}" y="{:.1f}" class="{}" text-anchor="{}"{}>{}</text>').format(
        x, y, css, anchor, style, content
    )


def line(
    start: tuple[float, float],
    end: tuple[float, float],
    *,
    css: str,
    width: float = 1.0,
    colour: str = "",
    dash: str = "",
) -> Markup:
    """A straight line."""
    style = Markup(' style="--c:{}"').format(colour) if colour else ""
    dashes = Markup(' stroke-dasharray="{}"').format(dash) if dash else ""
    return Markup(
        '<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}" stroke-width="{:g}"{}{}/>'
    ).format(*start, *end, css, width, dashes, style)


def polyline(
    points: list[tuple[float, float]], *, colour: str, width: float = 1.6, dash: str = ""
) -> Markup:
    """A line through the points; nothing for fewer than two."""
    if len(points) < 2:
        return Markup("")
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashes = Markup(' stroke-dasharray="{}"').format(dash) if dash else ""
    return Markup(
        '<polyline points="{}" class="line" stroke-width="{:g}" stroke-linejoin="round"{} '
        'style="--c:{}"/>'
    ).format(path, width, dashes, colour)


def dot(
    x: float, y: float, radius: float, *, colour: str, hollow: bool = False, hint: str = ""
) -> Markup:
    """A filled or hollow dot; ``hint`` is shown on hover."""
    title = Markup("<title>{}</title>").format(hint) if hint else ""
    return Markup(
        '<circle cx="{:.1f}" cy="{:.1f}" r="{:g}" class="{}" stroke-width="1.6" style="--c:{}">'
        "{}</circle>"
    ).format(x, y, radius, "hollow" if hollow else "fill", colour, title)


def box(x: float, y: float, width: float, height: float, *, css: str) -> Markup:
    """A filled rectangle."""
    return Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" class="{}"/>').format(
        x, y, width, height, css
    )


def spread_labels(wanted: list[float], gap: float, low: float, high: float) -> list[float]:
    """Positions nearest the wanted ones, at least ``gap`` apart, inside [low, high] where they fit.

    Example:
        >>> spread_labels([10.0, 11.0], 12.0, 0.0, 100.0)
        [4.5, 16.5]
    """
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    groups: list[list[int]] = [[index] for index in order]

    def place(group: list[int]) -> float:
        span = gap * (len(group) - 1)
        middle = sum(wanted[index] for index in group) / len(group)
        return max(low, min(middle - span / 2, high - span))

    merged = True
    while merged:
        merged = False
        for first in range(len(groups) - 1):
            end = place(groups[first]) + gap * (len(groups[first]) - 1)
            if place(groups[first + 1]) - end < gap - 1e-9:
                groups[first : first + 2] = [groups[first] + groups[first + 1]]
                merged = True
                break
    placed = [0.0] * len(wanted)
    for group in groups:
        for rank, index in enumerate(group):
            placed[index] = place(group) + gap * rank
    return placed
