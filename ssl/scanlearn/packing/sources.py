"""`open_archive`: wherever an archive is expected, a folder, a table or the phantom will do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path

from scanlearn.archive.layout import FORMAT_VERSION, is_archive
from scanlearn.archive.reader import Archive
from scanlearn.archive.summary import refresh_summary
from scanlearn.config.calls import checked
from scanlearn.console import say
from scanlearn.files import cache_folder, check_exists
from scanlearn.locks import beside, held
from scanlearn.packing.filters import make_selection
from scanlearn.packing.headers import canvas_by_shorter_side
from scanlearn.packing.pack import identities_for, manifest_of, pack_listed
from scanlearn.packing.parallel import num_cores
from scanlearn.packing.settings import PackSettings
from scanlearn.tables.join import join_labels, joined_archive

PHANTOM_PREFIX = "phantom:"
_MAX_NAME_LENGTH = 40


@checked
def open_archive(
    source: Path | str,
    *,
    settings: PackSettings | None = None,
    cache: Path | str | None = None,
    single: Collection[str] = (),
) -> Archive:
    """Returns the archive that a path or a phantom's description stands for.

    A folder of scans or a table is packed into the cache first, once for the same files and
    settings; a phantom is drawn there. A table whose ``root`` is an archive is joined to it.

    Args:
        source: An archive, a folder of scans, a table, or
            ``phantom:patients=600,seed=1,height=96,width=96``.
        settings: How a folder or table is packed; None for the defaults. An archive is not
            changed.
        cache: Folder for packed sources; None takes `cache_folder`.
        single: Columns of a table that must have one value for each scan.

    Raises:
        ScanlearnError: The source cannot be used, or the disk of the cache is full.
    """
    base = cache_folder() if cache is None else Path(cache).expanduser()
    if str(source).startswith(PHANTOM_PREFIX):
        return _open_phantom(str(source), base)
    path = Path(source).expanduser()
    if is_archive(path):
        return Archive(path)
    settings = settings or PackSettings()
    joined = joined_archive(path, settings)
    if joined is not None:
        return join_labels(path, Archive(joined), settings, settings.allow_columns, single)
    manifest = manifest_of(path, settings)
    if manifest.merged is not None:
        manifest.merged.refuse_conflicts(path, single)
    folder = path if path.is_dir() else path.parent
    identities = identities_for(manifest, settings)
    names = (identities.fingerprint, identities.issuer_hash)
    key = (manifest.content_hash(), settings.fingerprint(), *names)
    target = base / _name(folder.absolute().name, *key)
    if is_archive(target):
        archive = Archive(target)
        refresh_summary(archive)
        return archive
    say(f"packing {path} into the cache: {target}")
    # Nobody chose this place: where another command packs the same, both want it.
    return pack_listed(manifest, target, settings.model_copy(update={"wait": True}))


def chosen_canvas(source: Path | str, side: int, settings: PackSettings) -> int | tuple[int, int]:
    """Returns the canvas on which scans that are packed have a shorter side of ``side`` pixels.

    It is the square of that side where it is not to be chosen: for what is packed or drawn, cropped
    to the canvas or to the field of view.

    Raises:
        ScanlearnError: The source cannot be used.
    """
    path = Path(source).expanduser()
    is_packed = str(source).startswith(PHANTOM_PREFIX) or is_archive(path)
    is_packed = is_packed or joined_archive(path, settings) is not None
    if is_packed or settings.fit == "crop" or settings.field_of_view != "none":
        return side
    manifest = manifest_of(path, settings)
    selection = make_selection(settings.keep, settings.drop, manifest.label_columns)
    workers = settings.workers or num_cores()
    height, width = canvas_by_shorter_side(
        manifest, settings.reading(), selection, side, workers=workers
    )
    return height if height == width else (height, width)


def check_source(source: Path | str, where: str = "") -> None:
    """Refuses what `open_archive` would refuse at once: before anything heavy is imported.

    Args:
        where: The setting that names it, for the message.

    Raises:
        ScanlearnError: There is nothing at the path, or no such phantom.
    """
    if str(source).startswith(PHANTOM_PREFIX):
        from scanlearn.phantom.phantom import PhantomSpec

        PhantomSpec.parse(str(source).removeprefix(PHANTOM_PREFIX))
    else:
        check_exists(Path(source).expanduser(), where)


def _name(stem: str, *parts: object) -> str:
    text = json.dumps([FORMAT_VERSION, *parts], sort_keys=True)
    return f"{stem[:_MAX_NAME_LENGTH]}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _open_phantom(source: str, base: Path) -> Archive:
    from scanlearn.phantom import phantom as phantom

    spec = phantom.PhantomSpec.parse(source.removeprefix(PHANTOM_PREFIX))
    # The program that draws is part of the key: a phantom changed by an update is drawn anew.
    program = hashlib.sha256()
    for file in sorted(Path(phantom.__file__).parent.glob("*.py")):
        program.update(file.read_bytes())
    target = base / _name("phantom", repr(spec), program.hexdigest())
    if is_archive(target):
        return Archive(target)
    with held(beside(target), target, wait=True):
        if is_archive(target):
            return Archive(target)
        say(f"drawing {source} into the cache: {target}")
        return phantom.write_phantom(spec, target)
