"""The drawing primitives of all plots on pages, as inline SVG.

Colours are CSS classes and variables, so that one drawing serves light, dark and print; the style
stands in ``colours.html.j2`` for pages and is repeated in a file of its own by `standalone`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from markupsafe import Markup

from scanlearn.palette import LIGHT

Point = tuple[float, float]

STYLE = (
    "svg text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;fill:var(--ink)}"
    "svg .small{font-size:11px}svg .strong{font-weight:600}svg .muted{fill:var(--muted)}"
    "svg .label{fill:var(--c)}svg .on{fill:var(--paper)}svg .num{font-variant-numeric:tabular-nums}"
    "svg .grid{stroke:var(--rule)}svg .axis{stroke:var(--muted)}svg .band{fill:var(--band)}"
    "svg .line{fill:none;stroke:var(--c)}svg .whisker{opacity:.55}"
    "svg .area{fill:var(--c);stroke:none}"
    "svg .fill{fill:var(--c);stroke:var(--paper);stroke-width:1}"
    "svg .hollow{fill:var(--paper);stroke:var(--c)}"
)


@dataclass(frozen=True)
class Axis:
    """Maps values from ``low`` to ``high`` to pixels from ``start`` to ``end``.

    Args:
        start: May lie above ``end``, for a vertical axis.
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
        """At most ``most`` values inside the axis, 1, 2 or 5 times a power of ten apart."""
        rough = (self.high - self.low) / max(1, most - 1)
        power = 10.0 ** math.floor(math.log10(rough))
        wide_enough = rough * (1 - 1e-9)
        step = next(power * times for times in (1, 2, 5, 10) if power * times >= wide_enough)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return tuple(round(index * step, 10) for index in range(first, last + 1))


def padded(values: Sequence[float]) -> tuple[float, float]:
    """The range of the values, 6 % of it wider on both sides and never narrower than 0.02."""
    low, high = min(values), max(values)
    pad = max((high - low) * 0.06, (0.02 - (high - low)) / 2, 1e-9)
    return low - pad, high + pad


def figure(width: float, height: float, label: str, body: Sequence[Markup]) -> Markup:
    """An SVG drawing of the given size in CSS pixels, named ``label`` for a screen reader."""
    head = Markup(
        '<svg role="img" aria-label="{0}" viewBox="0 0 {1:g} {2:g}" width="{1:g}" height="{2:g}">'
    ).format(label, width, height)
    return head + Markup("").join(body) + Markup("</svg>")


def standalone(drawing: Markup) -> str:
    """The drawing as a file of its own, in its light colours on white."""
    # Not all programs that open SVG know CSS variables.
    plain = _COLOURED.sub(_painted, str(drawing))
    opening, rest = plain.split(">", 1)
    name_space = ' xmlns="http://www.w3.org/2000/svg"'
    paper = '<rect width="100%" height="100%" fill="var(--paper)"/>'
    text = f"{opening}{name_space}><style>{STYLE}</style>{paper}{rest}"
    for name, colour in LIGHT.items():
        text = text.replace(f"var({name})", colour)
    return text


def as_png(drawing: Markup) -> bytes:
    """The drawing as a PNG of twice its size in pixels, as `standalone` shows it.

    Its font is the one that matplotlib brings, so that every machine draws the same.
    """
    from resvg_py import svg_to_bytes

    found = find_spec("matplotlib")
    assert found is not None, "a dependency"
    assert found.submodule_search_locations is not None, "a package"
    fonts = Path(found.submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf"
    family = "DejaVu Sans"
    # Its renderer knows no families that a browser alone knows.
    text = standalone(drawing).replace(
        "system-ui,-apple-system,'Segoe UI',Roboto,sans-serif", f"'{family}'"
    )
    return svg_to_bytes(
        svg_string=text,
        zoom=_PNG_ZOOM,
        skip_system_fonts=True,
        font_files=[str(fonts / name) for name in ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf")],
        font_family=family,
        sans_serif_family=family,
    )


_PNG_ZOOM = 2.0
_COLOURED = re.compile(r'class="([^"]*)"([^>]*) style="--c:([^"]*)"')


def _painted(match: re.Match[str]) -> str:
    css, between, colour = match.groups()
    paint = "stroke" if {"line", "hollow"} & set(css.split()) else "fill"
    return f'class="{css}"{between} style="{paint}:{colour}"'


def placed(drawing: Markup, x: float, y: float) -> Markup:
    """A drawing of `figure` inside another, its upper left corner at (x, y)."""
    place = Markup('<svg x="{:.1f}" y="{:.1f}" ').format(x, y)
    return place + Markup(str(drawing).removeprefix("<svg "))


def text(
    x: float, y: float, content: str, *, css: str = "", anchor: str = "start", colour: str = ""
) -> Markup:
    """A line of text whose baseline starts, centres or ends at (x, y)."""
    return Markup('<text x="{:.1f}" y="{:.1f}" class="{}" text-anchor="{}"{}>{}</text>').format(
        x, y, css, anchor, _colour(colour), content
    )


def turned_text(
    x: float, y: float, content: str, *, css: str = "muted small", anchor: str = "middle"
) -> Markup:
    """A line of text that reads upwards; it starts, centres or ends at (x, y)."""
    return Markup(
        '<text transform="translate({:.1f} {:.1f}) rotate(-90)" class="{}" text-anchor="{}">'
        "{}</text>"
    ).format(x, y, css, anchor, content)


def line(
    start: Point, end: Point, *, css: str, width: float = 1.0, colour: str = "", dash: str = ""
) -> Markup:
    """A straight line."""
    return Markup(
        '<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}" stroke-width="{:g}"{}{}/>'
    ).format(*start, *end, css, width, _dashes(dash), _colour(colour))


def polyline(
    points: Sequence[Point], *, colour: str, width: float = 1.6, dash: str = "", hint: str = ""
) -> Markup:
    """A line through the points; nothing for fewer than two."""
    if len(points) < 2:
        return Markup("")
    return Markup(
        '<polyline points="{}" class="line" stroke-width="{:g}" stroke-linejoin="round"{}{}>'
        "{}</polyline>"
    ).format(_path(points), width, _dashes(dash), _colour(colour), _hint(hint))


def area(points: Sequence[Point], *, colour: str, opacity: float) -> Markup:
    """A filled polygon."""
    return Markup('<polygon points="{}" class="area" fill-opacity="{:g}"{}/>').format(
        _path(points), opacity, _colour(colour)
    )


def dot(
    x: float, y: float, radius: float, *, colour: str, hollow: bool = False, hint: str = ""
) -> Markup:
    """A filled or hollow dot; ``hint`` is shown on hover."""
    return Markup(
        '<circle cx="{:.1f}" cy="{:.1f}" r="{:g}" class="{}" stroke-width="1.6"{}>{}</circle>'
    ).format(x, y, radius, "hollow" if hollow else "fill", _colour(colour), _hint(hint))


def box(
    x: float,
    y: float,
    width: float,
    height: float,
    *,
    css: str,
    colour: str = "",
    opacity: float = 1.0,
    hint: str = "",
) -> Markup:
    """A filled rectangle; ``hint`` is shown on hover."""
    return Markup(
        '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" class="{}" '
        'fill-opacity="{:.3g}"{}>{}</rect>'
    ).format(x, y, width, height, css, opacity, _colour(colour), _hint(hint))


def grid(up: Axis, left: float, right: float, most: int = 6) -> list[Markup]:
    """Horizontal grid lines, with their values at the left."""
    return [
        part
        for value in up.ticks(most)
        for part in (
            line((left, up.at(value)), (right, up.at(value)), css="grid"),
            text(left - 6, up.at(value) + 4, f"{value:g}", css="muted small", anchor="end"),
        )
    ]


def ticks_below(across: Axis, y: float, most: int = 5) -> list[Markup]:
    """The values of a horizontal axis, on a line at ``y``."""
    return [
        text(across.at(value), y, f"{value:g}", css="muted small", anchor="middle")
        for value in across.ticks(most)
    ]


def shortened(name: str, letters: int) -> str:
    """The name without its middle where it is long: numbered names differ at the end.

    Example:
        >>> shortened("diabetic retinopathy 2", 14)
        'diabetic…thy 2'
    """
    tail = letters // 3
    return name if len(name) <= letters else f"{name[: letters - tail - 1]}…{name[-tail:]}"


def _colour(colour: str) -> Markup:
    return Markup(' style="--c:{}"').format(colour) if colour else Markup("")


def _dashes(dash: str) -> Markup:
    return Markup(' stroke-dasharray="{}"').format(dash) if dash else Markup("")


def _hint(hint: str) -> Markup:
    return Markup("<title>{}</title>").format(hint) if hint else Markup("")


def _path(points: Sequence[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


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
