"""Embeddings looked at: a map in two dimensions, and the nearest scans of other patients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64, Shaped
from markupsafe import Markup
from PIL import Image

from scanlearn import svg
from scanlearn.archive.reader import Archive
from scanlearn.archive.sheets import BLUE, FAINT, Line, Section, Tile, fitted, grid, picture
from scanlearn.palette import NUM_HUES, hue

# Source: van der Maaten and Hinton 2008, section 3: perplexity 5 to 50, features reduced to 30
# directions by PCA before; scikit-learn's default and its advice of 50.
PERPLEXITY = 30.0
_DIRECTIONS = 50
# Directions that differ by less are one: t-SNE's first places would be 0 / 0.
_SAME = 1e-6
# Fewer scans than this make no map.
LEAST_SCANS = 8
_NEAREST = 6
_BLANK = "blank"
# Neighbours in this order can be told apart most easily: blue, orange and violet for three groups.
_HUES = (0, 2, 4, 1, 3, 5)
_QUANTILES = 5
_WIDTH, _HEIGHT, _MARGIN, _RADIUS = 720.0, 540.0, 14.0, 3.2
_SIDE, _GAP = 132, 16


@dataclass(frozen=True)
class Groups:
    """A column, as groups of scans that colours tell apart.

    Args:
        names: At most as many as there are hues.
        codes: ``[n]`` the group of each scan; -1 where the column is blank.
    """

    names: tuple[str, ...]
    codes: Int64[np.ndarray, " n"]

    @classmethod
    def of(cls, values: Shaped[np.ndarray, " n"]) -> Groups:
        """Returns the values as groups; of many numbers the fifths, else the commonest values."""
        counts = Counter(str(value) for value in values if value is not None)
        distinct = sorted(counts, key=lambda name: (-counts[name], name))
        numbers = _numbers(distinct)
        if len(distinct) <= NUM_HUES:
            names = sorted(distinct, key=None if numbers is None else numbers.__getitem__)
        elif numbers is not None:
            return cls._fifths(values, numbers)
        else:
            names = [*distinct[: NUM_HUES - 1], f"{len(distinct) - NUM_HUES + 1:,} other values"]
        place = {name: code for code, name in enumerate(names)}
        codes = [-1 if v is None else place.get(str(v), len(names) - 1) for v in values]
        return cls(tuple(names), np.array(codes, np.int64))

    @classmethod
    def _fifths(cls, values: Shaped[np.ndarray, " n"], numbers: dict[str, float]) -> Groups:
        plain = np.array([np.nan if value is None else numbers[str(value)] for value in values])
        edges = np.unique(
            np.nanquantile(plain, np.linspace(0, 1, _QUANTILES + 1), method="nearest")
        )
        codes = np.clip(np.searchsorted(edges, plain, side="right") - 1, 0, len(edges) - 2)
        codes[np.isnan(plain)] = -1
        names = tuple(f"{a:g} to {b:g}" for a, b in pairwise(edges))
        return cls(names, codes.astype(np.int64))

    def count(self, code: int) -> int:
        """Returns how many scans are of a group."""
        return int((self.codes == code).sum())

    def colour(self, code: int) -> str:
        """Returns the CSS colour of a group."""
        return hue(_HUES[code]) if code >= 0 else "var(--muted)"

    def name(self, row: int) -> str:
        """Returns the group of a scan, in words."""
        code = int(self.codes[row])
        return _BLANK if code < 0 else self.names[code]

    def at(self, rows: Int64[np.ndarray, " k"]) -> Groups:
        """Returns the groups of some scans."""
        return Groups(self.names, self.codes[rows])


def _numbers(names: Sequence[str]) -> dict[str, float] | None:
    """Returns what texts are as numbers; None where one is none."""
    try:
        return {name: float(name) for name in names}
    except ValueError:
        return None


def unit(embeddings: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    """Returns embeddings of length 1, whose products are their cosine similarities."""
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.asarray(embeddings / np.maximum(lengths, 1e-12), dtype=np.float32)


def layout(embeddings: Float[np.ndarray, "n d"], *, seed: int) -> Float32[np.ndarray, "n 2"]:
    """Returns a place on a map for each scan, by t-SNE of the directions of its embedding.

    Source: van der Maaten and Hinton, Visualizing Data using t-SNE, JMLR 2008; scikit-learn's.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    vectors = unit(embeddings)
    if np.ptp(vectors, axis=0).max() < _SAME:
        return np.zeros((len(vectors), 2), np.float32)  # A collapsed network: one place for all.
    directions = min(_DIRECTIONS, *vectors.shape)
    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    # Its steps are short: beside other processes OpenMP's threads mostly wait for each other.
    with threadpool_limits(1):
        reduced = PCA(directions, svd_solver="full").fit_transform(vectors)
        places = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
    return np.asarray(places, dtype=np.float32)


def draw_map(
    places: Float[np.ndarray, "n 2"], groups: Groups | None, names: Sequence[str]
) -> Markup:
    """Returns the map as SVG: a dot a scan, coloured by its group, hollow where that is blank."""
    across = svg.Axis(*svg.padded(places[:, 0].tolist()), _MARGIN, _WIDTH - _MARGIN)
    up = svg.Axis(*svg.padded(places[:, 1].tolist()), _HEIGHT - _MARGIN, _MARGIN)
    dots = []
    for row, (x, y) in enumerate(places.tolist()):
        code = 0 if groups is None else int(groups.codes[row])
        told = names[row] if groups is None else f"{groups.name(row)}: {names[row]}"
        colour = hue(0) if groups is None else groups.colour(code)
        dots.append(
            svg.dot(across.at(x), up.at(y), _RADIUS, colour=colour, hollow=code < 0, hint=told)
        )
    return svg.figure(_WIDTH, _HEIGHT, "Map of the embeddings: each dot is a scan", dots)


@dataclass(frozen=True)
class Nearest:
    """The scans whose embeddings are most alike.

    Args:
        queries: ``[q]`` rows that were asked about.
        rows: ``[q k]`` their nearest rows, the nearest first; -1 where there are no more.
        similarity: ``[q k]`` cosine of the angle between the embeddings.
    """

    queries: Int64[np.ndarray, " q"]
    rows: Int64[np.ndarray, "q k"]
    similarity: Float32[np.ndarray, "q k"]


def nearest(
    embeddings: Float[np.ndarray, "n d"],
    patients: Shaped[np.ndarray, " n"],
    queries: Int64[np.ndarray, " q"],
    count: int = _NEAREST,
) -> Nearest:
    """Returns the nearest scans of other patients, by cosine similarity."""
    vectors = unit(embeddings)
    count = min(count, len(vectors))
    rows = np.full((len(queries), count), -1, np.int64)
    similarity = np.full((len(queries), count), -np.inf, np.float32)
    for place, query in enumerate(queries.tolist()):
        alike = vectors @ vectors[query]
        alike[patients == patients[query]] = -np.inf
        best = np.argsort(-alike, kind="stable")[:count]
        is_there = np.isfinite(alike[best])
        rows[place, is_there], similarity[place, is_there] = best[is_there], alike[best][is_there]
    return Nearest(queries, rows, similarity)


def draw_neighbours(
    found: Nearest, archive: Archive, groups: Groups | None, column: str | None
) -> Image.Image:
    """Returns a sheet: each row a scan, then its nearest, with similarity and group below."""

    def tile(row: int, first: Line) -> Tile:
        label = [] if groups is None else [Line(groups.name(row), 12, FAINT)]
        return Tile(fitted(picture(archive, row), _SIDE), (first, *label))

    cells = []
    for query, rows, similarity in zip(found.queries, found.rows, found.similarity, strict=True):
        cells.append([tile(int(query), Line("scan", 13, BLUE))])
        for row, alike in zip(rows.tolist(), similarity.tolist(), strict=True):
            blank = Tile(Image.new("L", (1, 1)), (Line("no other patient", 12, FAINT),))
            cells.append([tile(row, Line(f"{alike:.3f}", 13)) if row >= 0 else blank])
    told = f"; below each its {column}" if column else ""
    heading = (
        Line("Nearest neighbours", 20),
        Line(
            f"Each row: a scan, then the nearest of other patients by cosine similarity{told}",
            13,
            FAINT,
        ),
    )
    columns = found.rows.shape[1] + 1
    return grid([Section(heading, cells)], columns=columns, size=(_SIDE, _SIDE), gap=_GAP)


@dataclass(frozen=True)
class Agreement:
    """How often the nearest scan of another patient is of the same group.

    Args:
        chance: The same for a scan of another patient drawn at random.
        num_scans: Scans whose group is known and that have such a neighbour.
    """

    share: float
    chance: float
    num_scans: int


def agreement(
    embeddings: Float[np.ndarray, "n d"], patients: Shaped[np.ndarray, " n"], groups: Groups
) -> Agreement | None:
    """Returns how well groups keep together; None where no two patients have a known group."""
    known = np.flatnonzero(groups.codes >= 0)
    vectors, codes = unit(embeddings[known]), groups.codes[known]
    _, people = np.unique(patients[known], return_inverse=True)
    is_other: Bool[np.ndarray, "k k"] = people[:, None] != people[None, :]
    counted = is_other.any(1)
    if not counted.any():
        return None
    alike = np.where(is_other, vectors @ vectors.T, -np.inf)
    same = codes[:, None] == codes[None, :]
    best = alike.argmax(1)
    hits = same[np.arange(len(best)), best][counted]
    by_chance = (same & is_other).sum(1)[counted] / is_other.sum(1)[counted]
    return Agreement(float(hits.mean()), float(by_chance.mean()), int(counted.sum()))
