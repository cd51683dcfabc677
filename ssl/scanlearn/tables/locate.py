"""Which file each path of a table means, where it is not the one that the path spells."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PureWindowsPath

from scanlearn.console import say, warn_user
from scanlearn.errors import ScanlearnError
from scanlearn.readers.containers import is_there

# Rows that are looked for on disk before a folder is taken for the one that paths start from.
_PROBED_ROWS = 200
_NAMED_FOLDERS = 3
_DOUBLE_ENDING = ".nii.gz"


def locate(
    cells: Sequence[str | None],
    source: Path,
    root: Path | str | None,
    scans_below: Callable[[Path], Iterator[str]],
) -> tuple[Path, list[str | None]]:
    """Returns the folder that the paths of a table start from, and each path from there.

    A path means the file that it spells. Where there is none: the same with slashes for
    backslashes, without blanks around it, in the other form of accents, or from the folder above
    (a table in ``CheXpert-v1.0-small`` begins its paths with that name). Else it is looked for
    below the folder, whatever the case, by its name or, where that has no ending, by the one file
    of that stem; what lies in another folder than the path says is told. A path that leads
    nowhere stays as it is.

    Args:
        cells: Paths as they stand in the table; None where blank.
        root: Folder that the paths start from; None tries the table's own and its ``images``.
        scans_below: Lists the paths of the scans below a folder.

    Raises:
        ScanlearnError: No path leads to a file, one fits several, or ``root`` is no folder.
    """
    folder = source.absolute().parent
    bases = [folder, folder / "images"]
    if root is not None:
        bases = [Path(root).expanduser()]
        if not bases[0].is_dir():
            raise ScanlearnError(
                f"{root}: is no folder; root is the folder that the paths start from"
            )
    probed = [cell for cell in cells[:_PROBED_ROWS] if cell]
    base = next((each for each in bases if any(is_there(each / cell) for cell in probed)), bases[0])
    written = dict.fromkeys(cell for cell in cells if cell)
    files = {cell: path for cell in written if (path := _as_spelt(base, cell)) is not None}
    missing = [cell for cell in written if cell not in files and _parts(cell.strip())]
    if missing:
        # A path that names a folder is not looked for in others where some are as they say.
        search = _Search(base, source, scans_below, missing, only_whole=bool(files))
        files |= {cell: path for cell in missing if (path := search.find(cell)) is not None}
        search.say_where()
    if not files:
        folders = " or ".join(str(each) for each in bases)
        example = probed[0] if probed else "blank"
        raise ScanlearnError(
            f"{source}: none of its first {len(probed)} paths is a file in {folders} (the first is"
            f" {example!r}); give root=FOLDER, the folder that the paths start from (of a"
            " study pack.root, or label_columns.root for the labels alone)"
        )
    return base, [files.get(cell, cell) if cell else None for cell in cells]


def _as_spelt(base: Path, cell: str) -> str | None:
    """Returns a path in the spelling that leads to a file; None where none does."""
    return next((path for path in _spellings(base, cell) if _is_there(base, path)), None)


def _is_there(base: Path, path: str) -> bool:
    # Of strings, for speed; what is in a container is no file.
    is_file = os.path.isfile(os.path.join(base, path))  # noqa: PTH113, PTH118
    return is_file or is_there(base / path)


def _spellings(base: Path, cell: str) -> Iterator[str]:
    text = cell.strip()
    yield from (cell, text)
    parts = _parts(text)
    above = Path(os.path.abspath(base)).parts  # noqa: PTH100 - a link's own name, and no ".." left
    starts = [n for n in range(len(parts)) if n == 0 or tuple(parts[:n]) == above[-n:]]
    if PureWindowsPath(text).anchor:
        starts.remove(0)  # It begins at another computer's root, not at this folder.
    for start in starts:
        path = "/".join(parts[start:])
        yield from dict.fromkeys((path, *(_form(form, path) for form in ("NFC", "NFD"))))


def _form(form: str, path: str) -> str:
    return unicodedata.normalize("NFC" if form == "NFC" else "NFD", path)


def _parts(text: str) -> list[str]:
    """Returns the folders and the name of a path with slashes or backslashes, from no drive."""
    path = PureWindowsPath(text)
    return list(path.parts[1:] if path.anchor else path.parts)


def _key(part: str) -> str:
    return unicodedata.normalize("NFC", part).casefold()


def _without_ending(name: str) -> str:
    if name.endswith(_DOUBLE_ENDING):
        return name.removesuffix(_DOUBLE_ENDING)
    return name.rpartition(".")[0]


@dataclass
class _Search:
    """The files below a folder whose names a table has, and where paths were found."""

    base: Path
    source: Path
    scans_below: Callable[[Path], Iterator[str]]
    missing: Sequence[str]
    only_whole: bool
    deeper: Counter[str] = field(default_factory=Counter)
    elsewhere: Counter[str] = field(default_factory=Counter)
    example: tuple[str, str] = ("", "")

    def __post_init__(self) -> None:
        self._by_name: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        wanted = {_key(_parts(cell.strip())[-1]) for cell in self.missing}
        for path in self.scans_below(self.base):
            name = _key(path.rpartition("/")[2])
            if name in wanted:
                self._by_name.setdefault(name, []).append(path)
            if (stem := _without_ending(name)) in wanted:
                self._by_stem.setdefault(stem, []).append(path)

    def find(self, cell: str) -> str | None:
        """Returns the one file that a path can mean, None where there is none."""
        names = _parts(cell.strip())
        parts = [_key(name) for name in names]
        for by_name in (self._by_name, self._by_stem):
            candidates = {path: _shared(parts, path) for path in by_name.get(parts[-1], ())}
            most = max(candidates.values(), default=0)
            best = [path for path, shared in candidates.items() if shared == most]
            is_whole = most == len(parts)
            # Where the folder that it names is there, another one holds another scan.
            if not best or not (is_whole or self._may_be_elsewhere(names)):
                continue
            if len(best) > 1:
                raise ScanlearnError(
                    f"{self.source}: the path {cell!r} fits {len(best)} files below {self.base},"
                    f" {best[0]} and {best[1]}; give root=FOLDER, the folder that the paths start"
                    " from (of a study pack.root, or label_columns.root for the labels alone), or"
                    " whole paths"
                )
            self._note(cell, best[0], is_whole=is_whole)
            return best[0]
        return None

    def _may_be_elsewhere(self, names: list[str]) -> bool:
        # Not of Path, which raises where a name is too long.
        return not (self.only_whole or os.path.isdir(os.path.join(self.base, *names[:-1])))  # noqa: PTH112, PTH118

    def _note(self, cell: str, path: str, *, is_whole: bool) -> None:
        folder = path.rpartition("/")[0] or "."
        if not is_whole:
            self.example = self.example if self.elsewhere else (cell, path)
            self.elsewhere[folder] += 1
        elif path.count("/") >= len(_parts(cell.strip())):
            self.deeper[folder] += 1

    def say_where(self) -> None:
        """Tells once which paths were found in other folders than they name."""
        if self.deeper:
            say(
                f"{self.source.name}: {self.deeper.total():,} of its paths were found further below"
                f" {self.base}, in {_folders(self.deeper)}"
            )
        if self.elsewhere:
            cell, path = self.example
            warn_user(
                f"{self.source.name}: {self.elsewhere.total():,} of its paths name a folder that"
                f" is not there; files of these names were taken from {_folders(self.elsewhere)}"
                f" (the first, {cell!r}, is {path}); give root=FOLDER if these are other scans"
            )


def _shared(parts: list[str], path: str) -> int:
    """Returns how many names, from the last upwards, a path shares with a file of its name."""
    pairs = zip(parts[-2::-1], map(_key, path.split("/")[-2::-1]), strict=False)
    return 1 + sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _folders(counts: Counter[str]) -> str:
    commonest = [f"{folder} ({n:,})" for folder, n in counts.most_common(_NAMED_FOLDERS)]
    others = len(counts) - len(commonest)
    return ", ".join(commonest) + (f" and {others:,} more folders" if others else "")
