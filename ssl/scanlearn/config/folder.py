"""The output folder of long work: begun with its ``config.yaml``, gone on with by the same one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from scanlearn.config.reading import dump_plain, read_yaml
from scanlearn.config.settings import Settings
from scanlearn.errors import ScanlearnError
from scanlearn.files import disk_errors, make_folder, without_home, write_atomically

CONFIG_FILE = "config.yaml"
_NAMED = 3


def open_folder(
    folder: Path,
    config: Settings,
    *,
    kind: str,
    ignored: frozenset[str] = frozenset(),
    is_begun: bool = True,
) -> bool:
    """Creates an output folder with its configuration, or checks that it holds this very one.

    A key that an earlier version did not know counts as its default.

    Args:
        kind: What the folder holds, as a message calls it, such as "run".
        ignored: Dotted keys that may differ from an earlier start: they do not change the result.
        is_begun: Whether an earlier start made anything; the settings of one that did not, which a
            leak or a lack of memory stopped, are replaced.

    Returns:
        Whether settings of an earlier start were replaced.

    Raises:
        ScanlearnError: The folder holds other work or other files, or cannot be written.
    """
    path, now = folder / CONFIG_FILE, _without_home(config.model_dump(mode="json"))
    if path.is_file():
        differing = sorted(_differing(read_kept(path, type(config)), now, ignored))
        if differing and not is_begun:
            replace_kept(folder, config)
            return True
        if differing:
            named = ", ".join(differing[:_NAMED]) + (", ..." if len(differing) > _NAMED else "")
            raise ScanlearnError(
                f"{folder} already holds a different {kind} ({named}): name another output folder, "
                f"or restore these keys to continue that {kind}"
            )
        return False
    if folder.exists() and (not folder.is_dir() or any(_foreign(folder))):
        raise ScanlearnError(
            f"{folder} exists and is not the folder of a {kind} (it has no {CONFIG_FILE}): name an "
            "output folder that is empty or does not exist"
        )
    with disk_errors(folder):
        make_folder(folder)
    write_atomically(path, dump_plain(now))
    return False


def read_kept(path: Path, model: type[Settings]) -> object:
    """Returns the settings of an earlier start, plain, with the defaults of keys that are new."""
    return _without_home(_completed(read_yaml(path, str(path))[0], model))


def replace_kept(folder: Path, config: Settings) -> None:
    """Writes the settings with which the work in a folder goes on, in place of those before."""
    text = dump_plain(_without_home(config.model_dump(mode="json")))
    write_atomically(folder / CONFIG_FILE, text)


def differences(folder: Path, config: Settings, ignored: frozenset[str] = frozenset()) -> list[str]:
    """Returns the keys that differ from those of an earlier start, each with both values."""
    now = _without_home(config.model_dump(mode="json"))
    return sorted(_differing(read_kept(folder / CONFIG_FILE, type(config)), now, ignored))


def _without_home(value: Any) -> Any:
    """Returns settings with ``~`` for the home folder: runs are handed on with their settings."""
    if isinstance(value, Mapping):
        return {key: _without_home(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_home(item) for item in value]
    return without_home(value) if isinstance(value, str) else value


def _completed(before: object, model: type[Settings]) -> object:
    """Adds the defaults of keys that are new; leaves alone what this version cannot read."""
    try:
        return model.model_validate(before).model_dump(mode="json")
    except ValidationError:
        return before


def _foreign(folder: Path) -> Iterator[Path]:
    """Yields what a start that was killed before its ``config.yaml`` does not leave behind."""
    for entry in folder.iterdir():
        is_empty_folder = entry.is_dir() and not any(entry.iterdir())
        if not entry.name.startswith(".") and not is_empty_folder:
            yield entry


def _differing(
    before: object, now: object, ignored: frozenset[str], prefix: str = ""
) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in {**before, **now}:
            name = f"{prefix}{key}"
            if name not in ignored:
                yield from _differing(before.get(key), now.get(key), ignored, f"{name}.")
    elif before != now:
        yield f"{prefix[:-1]} was {before}, is {now}"
