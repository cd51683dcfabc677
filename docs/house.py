"""Draws docs/house.svg: the folders of both packages, and which imports which.

    python docs/house.py

The arrows come from the imports in the sources, folded by folder. An arrow that follows from two
others is left out: training imports features, features imports views, so no arrow joins training
and views. What folders share stands at the bottom, without arrows.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "house.svg"
SOURCES = ("ssl", "finetune")

# Column and row of each folder, and of each single file that is more than a shared type.
PLACES = {
    "scantune.cli": (3, 0),
    "scantune.evaluation": (0, 4),
    "scantune.comparison": (2, 1),
    "scantune.reports": (2, 2),
    "scantune.study": (2, 3),
    "scantune.scoring": (0, 5),
    "scantune.learners": (0, 6),
    "scantune.statistics": (1, 6),
    "scantune.scores": (0, 7),
    "scantune.splits": (1, 7),
    "scantune.labels": (0, 8),
    "scanlearn.cli": (3, 9),
    "scanlearn.training": (2, 10),
    "scanlearn.features": (1, 11),
    "scanlearn.methods": (3, 11),
    "scanlearn.audit": (0, 12),
    "scanlearn.views": (1, 12),
    "scanlearn.packing": (1, 13),
    "scanlearn.backbones": (3, 13),
    "scanlearn.phantom": (0, 14),
    "scanlearn.tables": (1, 14),
    "scanlearn.archive": (0, 15),
    "scanlearn.config": (3, 16),
    "scanlearn.readers": (0, 16),
}
# Single files that hold what folders share; they have no arrows.
GROUND = {
    "scanlearn": (
        *("core", "errors", "console", "files", "locks", "compiling", "provenance", "threads"),
        "cluster",
        *("pages", "svg", "palette"),
    ),
    "scantune": ("wording",),
}

WIDTH, MARGIN, BOX_WIDTH, BOX_HEIGHT, GAP = 480, 14, 100, 30, 32
PITCH = BOX_HEIGHT + GAP
# Between the two packages, where arrows run from one to the other.
SEAM = 24
FIRST_ROW = {"scantune": 0, "scanlearn": 9}
NUM_ROWS = 17

STYLE = """
  svg { color-scheme: light dark; font: 15px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
  .page { fill: #ffffff; }
  .package { fill: #f1f4f8; stroke: #d5dce5; }
  .box { fill: #ffffff; stroke: #5b6b7d; }
  .file { stroke-dasharray: 3 3; }
  .arrow { fill: none; stroke: #5b6b7d; stroke-width: 1.4; }
  .head { fill: #5b6b7d; }
  text { fill: #17212b; text-anchor: middle; }
  .name { font-weight: 600; text-anchor: start; }
  .note { fill: #4c5a69; font-size: 12px; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; }
    .package { fill: #161c25; stroke: #303a47; }
    .box { fill: #0d1117; stroke: #8b9bb0; }
    .arrow { stroke: #8b9bb0; }
    .head { fill: #8b9bb0; }
    text { fill: #e6edf3; }
    .note { fill: #a9b6c5; }
  }
"""


@dataclass(frozen=True)
class Module:
    """A source file.

    Args:
        name: Its dotted name.
        imports: Dotted names of all that it imports, inside functions and for types alone too.
    """

    name: str
    path: Path
    imports: frozenset[str]


def read_modules(root: Path = ROOT) -> list[Module]:
    """Returns every module of both packages."""
    modules = []
    for source in (root / name for name in SOURCES):
        for path in sorted(source.rglob("*.py")):
            dotted = ".".join(path.relative_to(source).with_suffix("").parts)
            modules.append(Module(dotted.removesuffix(".__init__"), path, _imports(path)))
    return modules


def _imports(path: Path) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def module_imports(modules: list[Module]) -> dict[str, set[str]]:
    """Returns for each module the modules of both packages that it imports."""
    names = {module.name for module in modules}
    return {
        module.name: {name if name in names else name.rpartition(".")[0] for name in module.imports}
        & names
        for module in modules
    }


def folder_imports(modules: list[Module]) -> dict[str, set[str]]:
    """Returns for each place in the picture the places it imports; the ground is left out."""
    imports: dict[str, set[str]] = {}
    for module in modules:
        here = _place(module.name)
        if here is not None:
            places = {_place(name) for name in module.imports if name.startswith("scan")}
            imports.setdefault(here, set()).update(places - {None, here})  # type: ignore[arg-type]
    return imports


def _place(dotted: str) -> str | None:
    """The folder, or the file beside the folders, that a module belongs to."""
    package, *rest = dotted.split(".")
    if package not in FIRST_ROW or not rest:
        return None
    return None if rest[0] in GROUND[package] else f"{package}.{rest[0]}"


def arrows(imports: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Returns the imports that do not follow from others, sorted."""

    def below(place: str) -> set[str]:
        return imports[place].union(*(below(lower) for lower in imports[place]))

    return sorted(
        (upper, lower)
        for upper, lowers in imports.items()
        for lower in lowers
        if not any(lower in below(other) for other in lowers - {lower})
    )


def _top_left(place: str) -> tuple[float, float]:
    column, row = PLACES[place]
    step = (WIDTH - 4 * MARGIN - BOX_WIDTH) / 3
    seam = SEAM if row >= FIRST_ROW["scanlearn"] else 0
    return 2 * MARGIN + column * step, 2 * MARGIN + row * PITCH + seam


def _arrow(upper: str, lower: str) -> str:
    """A curve into the column of the lower box within one gap, then straight down to it."""
    left, top = _top_left(upper)
    x, y = left + BOX_WIDTH / 2, top + BOX_HEIGHT
    left, top = _top_left(lower)
    end_x, end_y = left + BOX_WIDTH / 2, top - 5
    turn = y + GAP - 5
    curve = f"M{x:g} {y:g}C{x:g} {y + 20:g} {end_x:g} {turn - 20:g} {end_x:g} {turn:g}V{end_y:g}"
    head = f"M{end_x - 4:g} {end_y - 2:g}h8l-4 7z"
    return f'<path class="arrow" d="{curve}"/><path class="head" d="{head}"/>'


def draw(modules: list[Module]) -> str:
    """Returns the picture.

    Raises:
        ValueError: A folder has no place, or an import goes up.
    """
    imports = folder_imports(modules)
    if missing := set(imports) - set(PLACES):
        raise ValueError(f"no place for {', '.join(sorted(missing))}: add it to PLACES")
    joined = arrows(imports)
    for upper, lower in joined:
        if PLACES[upper][1] >= PLACES[lower][1]:
            raise ValueError(f"{upper} imports {lower}, which does not stand below it")
    height = 3 * MARGIN + NUM_ROWS * PITCH + SEAM + 22
    # As wide as a paragraph; on a telephone it shrinks to the screen.
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
        f' height="{height}" role="img" aria-labelledby="title words">',
        '<title id="title">The folders of scantune and scanlearn, and their imports</title>',
        '<desc id="words">' + "; ".join(f"{a} imports {b}" for a, b in joined) + ".</desc>",
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}"/>',
    ]
    split = FIRST_ROW["scanlearn"]
    for package, (row, stop) in {"scantune": (0, split), "scanlearn": (split, NUM_ROWS)}.items():
        top = MARGIN + row * PITCH + (SEAM if row else 0)
        lines.append(
            f'<rect class="package" x="{MARGIN}" y="{top}" width="{WIDTH - 2 * MARGIN}"'
            f' height="{(stop - row) * PITCH}" rx="10"/>'
        )
        name_row = 0 if package == "scantune" else NUM_ROWS - 1
        x, y = (2 * MARGIN, 0) if package == "scantune" else (WIDTH / 2 - 16, SEAM)
        source = "finetune" if package == "scantune" else "ssl"
        y += 2 * MARGIN + name_row * PITCH + 20
        lines.append(f'<text class="name" x="{x:g}" y="{y:g}">{source}/{package}</text>')
    lines += [_arrow(upper, lower) for upper, lower in joined]
    files = {module.name for module in modules if module.path.name != "__init__.py"}
    for place in sorted(imports):
        left, top = _top_left(place)
        kind = "box file" if place in files else "box"
        lines.append(
            f'<rect class="{kind}" x="{left:g}" y="{top:g}" width="{BOX_WIDTH}"'
            f' height="{BOX_HEIGHT}" rx="6"/>'
            f'<text x="{left + BOX_WIDTH / 2:g}" y="{top + 20:g}">{place.split(".")[1]}</text>'
        )
    top = 2 * MARGIN + NUM_ROWS * PITCH + SEAM
    shared = [name for names in GROUND.values() for name in names]
    for number, names in enumerate((shared[:5], shared[5:])):
        y = top + 12 + 17 * number
        words = ", ".join(names) if number else f"shared by the folders: {', '.join(names)},"
        lines.append(f'<text class="note" x="{WIDTH / 2:g}" y="{y:g}">{words}</text>')
    return "\n".join([*lines, "</svg>", ""])


def main() -> None:
    """Draws the picture anew."""
    PICTURE.write_text(draw(read_modules()), encoding="utf-8")


if __name__ == "__main__":
    main()
