"""`audit`: does a network or a probe learn from test patients or test scans?

An unlabeled archive is compared with labeled sets, and a labeled set with itself across its split,
by three things: shared patients, equal pixels, and near-duplicates.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from scanlearn.archive.sheets import png
from scanlearn.config.calls import checked
from scanlearn.console import loading, say, warn_user
from scanlearn.errors import ScanlearnError
from scanlearn.files import write_atomically
from scanlearn.packing.settings import PackSettings
from scanlearn.packing.sources import check_source, open_archive
from scanlearn.tables.settings import DEFAULT_TABLE, Table

if TYPE_CHECKING:
    from scanlearn.audit.result import Audit


@checked
def audit(
    archive: Annotated[
        str | Path, Field(description="Scans for pretraining: an archive, a folder or a table.")
    ],
    labels: Annotated[
        Sequence[str | Path], Field(description="Labeled sets: archives, folders or tables.")
    ],
    *,
    split_column: Annotated[
        str | None,
        Field(description="Label column that says test or not; null takes folds by patient."),
    ] = None,
    output: Annotated[
        str | Path | None,
        Field(description="Folder for audit.json, audit.csv and audit.png; null writes nothing."),
    ] = None,
    shown: Annotated[int, Field(ge=0, description="Most pairs on the sheet.")] = 50,
    table: Table = DEFAULT_TABLE,
) -> Audit:
    """Look for test patients and test scans in the training scans.

    A pair of near-duplicates is proposed by a perceptual hash and counts when, after the best
    small shift and flip, the correlation of the pixels is .99 or more and that of their detail .8.

    Returns:
        The findings; ``is_invalid`` says that results on these labels cannot be trusted.

    Raises:
        ScanlearnError: A source cannot be used, no labeled set is given, or the split column is
            missing or marks nothing as test.

    Example:
        >>> audit("packed/scans", ["labels.csv"]).is_invalid       # doctest: +SKIP
    """
    if not labels:
        raise ScanlearnError("audit: no labeled set is given; name at least one after the archive")
    for source in (archive, *labels):
        check_source(source)
    # Here, since the settings are read without torch, which takes seconds.
    with loading("torch"):
        from scanlearn.audit.leaks import find_leaks, read_split
        from scanlearn.audit.result import SHEET_FILE, ScanSet
        from scanlearn.audit.sheet import draw_sheet

    packing = PackSettings.of_table(table)
    unlabeled = ScanSet.unlabeled("archive", open_archive(archive, settings=packing))
    labeled = []
    split_columns = () if split_column is None else (split_column,)
    packing = packing.model_copy(update={"allow_columns": split_columns})
    for number, source in enumerate(labels, 1):
        opened = open_archive(source, settings=packing, single=split_columns)
        name = "labels" if len(labels) == 1 else f"labels {number}"
        rows, split = read_split(opened, split_column)
        labeled.append(ScanSet.labeled(name, opened, rows=rows, split=split))
        if len(labels) > 1:
            say(f"{name}: {source}")
    result = find_leaks(unlabeled, labeled)
    for line in result.lines():
        say(line)
    for warning in result.warnings():
        warn_user(warning)
    if output is not None:
        folder = Path(output).expanduser()
        archives = {scans.name: scans.archive for scans in (unlabeled, *labeled)}
        result.write(folder, archives)
        sheet = draw_sheet(result, archives, shown)
        if sheet is not None:
            write_atomically(folder / SHEET_FILE, png(sheet))
        say(f"audit written to {folder}")
    return result
