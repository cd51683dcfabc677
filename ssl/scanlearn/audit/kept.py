"""What an audit has computed of some scans, kept in the cache: the next audit begins with it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from zipfile import BadZipFile

import numpy as np

from scanlearn.audit.result import ScanSet
from scanlearn.console import Progressor
from scanlearn.files import features_folder, features_prefix, make_folder, write_atomically

# Part of every name: raised when the same scans give other fingerprints or other pairs.
_VERSION = 1
Arrays = Mapping[str, np.ndarray]


def kept(
    what: str, sets: tuple[ScanSet, ...], make: Callable[[], Arrays], progress: Progressor | None
) -> Arrays:
    """Returns arrays made before of the same scans, else makes and keeps them.

    They lie among the features: of these, `withdraw` removes what belongs to an archive. A file
    that cannot be read is made anew.

    Args:
        what: What the arrays are; names them with the content of all ``sets``.
        progress: Advanced by the scans of ``sets`` if nothing has to be made.
    """
    digest = hashlib.sha256(f"{what} {_VERSION}".encode())
    for scans in sets:
        digest.update(scans.archive.content_hash.encode())
        for values in (scans.rows, scans.groups, scans.is_tested):
            digest.update(hashlib.sha256(np.ascontiguousarray(values).data).digest())
    name = f"{features_prefix(sets[0].archive.content_hash)}{what}-{digest.hexdigest()[:24]}.npz"
    path = features_folder() / name
    if path.is_file():
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)
        except (ValueError, OSError, EOFError, BadZipFile):
            arrays = {}
        if arrays:
            if progress is not None:
                progress.advance(sum(len(scans.rows) for scans in sets))
            return arrays
    made = make()
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **made)
    make_folder(path.parent)
    write_atomically(path, buffer.getvalue(), mode=0o600)
    return made
