"""`scanlearn embed`: the embeddings of scans as a Parquet table, and a page to look at them."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32
from pydantic import Field

from scanlearn.archive.reader import Archive
from scanlearn.backbones.settings import check_backbone
from scanlearn.config.calls import checked
from scanlearn.console import counted, doing, loading, say, track, warn_user
from scanlearn.errors import ScanlearnError
from scanlearn.files import (
    disk_errors,
    features_folder,
    folder_mode,
    make_folder,
    remove_torn,
    write_atomically,
)
from scanlearn.locks import held, inside
from scanlearn.packing.settings import PackSettings
from scanlearn.packing.sources import check_source, open_archive
from scanlearn.pages import page_template, png_address
from scanlearn.tables.settings import DEFAULT_TABLE, Table

if TYPE_CHECKING:
    from scanlearn.backbones.backbone import Backbone
    from scanlearn.backbones.card import Card

TABLE_FILE, PAGE_FILE, SHEET_FILE = "embeddings.parquet", "map.html", "neighbours.png"
# Rows of the table that are written, and read, at once.
_ROW_GROUP = 4096
Batches = Generator[
    tuple[Float32[np.ndarray, "b d"], Float32[np.ndarray, "b t d"] | None], None, None
]


@dataclass(frozen=True)
class _Facts:
    """What embeddings were made with; also in the metadata of the table, as JSON."""

    backbone: str
    weights: str
    archive: str
    pool: str
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    framing: str


@checked
def embed(
    backbone: Annotated[str | Path, Field(description="A backbone folder, a run, or timm's.")],
    source: Annotated[str | Path, Field(description="An archive, a folder or a table.")],
    *,
    output: Annotated[
        Path,
        Field(
            description=f"Folder for {TABLE_FILE}, {PAGE_FILE} and {SHEET_FILE}.",
            examples=["embeddings"],
        ),
    ],
    pool: Annotated[
        Literal["backbone", "class", "mean"],
        Field(
            description="One vector a scan: the backbone's own features, as evaluate scores them; "
            "a transformer's class token; or the mean of its patches, or of a convolutional "
            "network's places."
        ),
    ] = "backbone",
    patches: Annotated[
        bool,
        Field(description="Whether the table holds the vectors of all patches of a scan, too."),
    ] = False,
    columns: Annotated[
        Literal["all"] | tuple[str, ...],
        Field(description="Label columns that stand in the table; or all."),
    ] = (),
    colour: Annotated[
        str | None, Field(description="Label column that colours the map; null: one colour.")
    ] = None,
    map_scans: Annotated[
        int, Field(ge=0, description="Most scans on the map, spread evenly; 0 draws none.")
    ] = 2000,
    queries: Annotated[
        int, Field(ge=0, description="Scans whose nearest neighbours are drawn; 0: none.")
    ] = 8,
    size: Annotated[
        int | None, Field(ge=8, description="Side of a view in pixels; null is the backbone's.")
    ] = None,
    batch_size: Annotated[int, Field(ge=1, description="Scans at a time.")] = 256,
    seed: Annotated[int, Field(ge=0, description="Which scans are drawn, and the map.")] = 0,
    table: Table = DEFAULT_TABLE,
) -> Path:
    """Write the embeddings of scans to a table, with a map and nearest neighbours.

    A row of the table is a scan: its hash, that of its patient, the label columns asked for, and
    its embedding. The map is t-SNE's, the neighbours are scans of other patients.

    Returns:
        The table, ``embeddings.parquet``.

    Raises:
        ScanlearnError: The backbone, the scans, a column or an option cannot be used, or the disk
            is full.

    Example:
        >>> embed("runs/simclr", "scans", output=Path("embeddings"))     # doctest: +SKIP
    """
    output = Path(output).expanduser()
    if output.is_file() or output.suffix == ".parquet":
        raise ScanlearnError(
            f"output: '{output}' is to be a folder, for {TABLE_FILE}, {PAGE_FILE} and {SHEET_FILE}"
        )
    folder = Path(backbone).expanduser() / "backbone"
    backbone = folder if (folder / "card.json").is_file() else backbone
    check_backbone(backbone)
    check_source(source)
    # Here, since the settings are read without torch and timm, which take seconds.
    with loading("torch", "timm"):
        from scanlearn.backbones.backbone import weights_hash
        from scanlearn.backbones.device import preferred_device
        from scanlearn.backbones.weights import load_backbone
        from scanlearn.features.extract import squeezed_note
        from scanlearn.features.preprocessing import packing_of

    card = load_backbone(backbone)[1]
    # As evaluate packs them: one table is one archive in the cache for both.
    packing = packing_of(card, str(backbone)).model_dump(exclude_unset=True)
    archive = open_archive(source, settings=PackSettings.of_table(table, **packing))
    names = archive.label_columns if columns == "all" else tuple(columns)
    names = (*names, *([colour] if colour is not None and colour not in names else []))
    labels = {name: archive.labels(name) for name in names}
    network, card = load_backbone(backbone, channels=archive.shape[0])
    for note in squeezed_note(card, archive):
        warn_user(f"{backbone}: {note}")
    network = network.to(preferred_device())
    facts = _Facts(
        network.name, weights_hash(network), archive.content_hash, pool, size or card.size,
        card.mean, card.std, "pad",
    )  # fmt: skip
    with held(inside(output), output):
        remove_torn(output)
        with closing(_batches(network, archive, card, facts, patches, batch_size)) as batches:
            embeddings = _write_table(output / TABLE_FILE, archive, labels, batches, facts)
        say(f"{len(archive):,} embeddings of {embeddings.shape[1]:,}: {output / TABLE_FILE}")
        values = None if colour is None else labels[colour]
        _write_page(output, archive, embeddings, colour, values, facts, (map_scans, queries), seed)
    if archive.num_rejected:
        where = archive.path / "rejected.csv"
        told = f"{counted(archive.num_rejected, 'scan')} could not be read and got no row"
        warn_user(f"{told}; see {where}")
    return output / TABLE_FILE


def _batches(
    network: Backbone, archive: Archive, card: Card, facts: _Facts, patches: bool, batch_size: int
) -> Batches:
    """Yields the embeddings, with the patches where they are asked for, in the archive's order."""
    from scanlearn.features.extract import check_channels, check_finite, extract, whole_scans
    from scanlearn.features.tokens import tokens_of

    rows = np.arange(len(archive), dtype=np.int64)
    if facts.pool == "backbone" and not patches:
        features = extract(
            network, archive, size=facts.size, mean=card.mean, std=card.std,
            batch_size=batch_size, cache=features_folder(),
        )  # fmt: skip
        for start in range(0, len(rows), _ROW_GROUP):
            yield features[start : start + _ROW_GROUP], None
        return
    check_channels(network, archive)
    device = next(network.parameters()).device
    views = whole_scans(archive, rows, facts.size, card.mean, card.std, batch_size, device)
    start = 0
    with track(len(rows), "embeddings") as progress:
        pool: Any = facts.pool
        for embedding, tokens in tokens_of(network, views, "fp32", pool):
            check_finite(embedding, archive, rows[start : start + len(embedding)])
            start += len(embedding)
            progress.advance(len(embedding))
            yield embedding, tokens if patches else None


def _write_table(
    path: Path,
    archive: Archive,
    labels: dict[str, np.ndarray],
    batches: Batches,
    facts: _Facts,
) -> Float32[np.ndarray, "n d"]:
    """Writes the table batch by batch, whole or not at all, and returns the embeddings."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    texts = {"scan_id": archive.scan_ids, "patient": archive.patients, **labels}
    kept, writer, start = [], None, 0
    with disk_errors(path):
        make_folder(path.parent)
        try:
            aside.touch(mode=0o666 & folder_mode())
            for embedding, patches in batches:
                rows = slice(start, start + len(embedding))
                columns = {name: pa.array(each[rows], pa.string()) for name, each in texts.items()}
                columns["embedding"] = _lists(embedding)
                if patches is not None:
                    columns["patches"] = _lists(patches.reshape(len(patches), -1))
                part = pa.table(columns)
                if writer is None:
                    shape = () if patches is None else patches.shape[1:]
                    told = {"scanlearn": json.dumps({**asdict(facts), "patches": shape})}
                    writer = pq.ParquetWriter(
                        aside, part.schema.with_metadata(told), use_dictionary=list(texts)
                    )
                writer.write_table(part.cast(writer.schema))
                kept.append(embedding)
                start = rows.stop
            assert writer is not None, "an archive holds a scan"
            writer.close()
            with aside.open("rb") as file:
                os.fsync(file.fileno())
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    return np.concatenate(kept)


def _lists(values: Float32[np.ndarray, "b k"]) -> pa.FixedSizeListArray:
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _write_page(
    output: Path,
    archive: Archive,
    embeddings: Float32[np.ndarray, "n d"],
    column: str | None,
    values: np.ndarray | None,
    facts: _Facts,
    most: Sequence[int],
    seed: int,
) -> None:
    from scanlearn.archive.sheets import png, sampled_rows
    from scanlearn.features import neighbours as looking

    map_scans, num_queries = most
    groups = None if values is None else looking.Groups.of(values)
    drawing = found = sheet = None
    rows = sampled_rows(len(archive), map_scans, seed=seed) if map_scans else np.arange(0)
    is_mapped = len(rows) >= looking.LEAST_SCANS
    if map_scans and not is_mapped:
        say(f"no map: it takes {looking.LEAST_SCANS} scans, and there are {len(rows)}")
    if is_mapped:
        with doing(f"laying out the map of {len(rows):,} scans"):
            places = looking.layout(embeddings[rows], seed=seed)
        shown = None if groups is None else groups.at(rows)
        drawing = looking.draw_map(places, shown, [n[:12] for n in archive.scan_ids[rows]])
        if shown is not None:
            found = looking.agreement(embeddings[rows], archive.patients[rows], shown)
    if num_queries:
        with doing("drawing nearest neighbours"):
            chosen = sampled_rows(len(archive), num_queries, seed=seed)
            near = looking.nearest(embeddings, archive.patients, chosen)
            sheet = png(looking.draw_neighbours(near, archive, groups, column))
            write_atomically(output / SHEET_FILE, sheet)
    if drawing is None and sheet is None:
        return
    page = page_template("scanlearn.features", "map.html.j2").render(
        num_scans=len(archive), num_mapped=len(rows), features=embeddings.shape[1], facts=facts,
        drawing=drawing, column=column, groups=groups, agreement=found,
        num_blank=0 if groups is None else groups.count(-1),
        sheet=None if sheet is None else png_address(sheet),
        is_synthetic=archive.synthetic_phantom,
        patients_known=archive.patients_known,
    )  # fmt: skip
    write_atomically(output / PAGE_FILE, page)
    say(f"page: {output / PAGE_FILE}")
    if found is not None:
        say(
            f"the nearest scan of another patient has the same value of {column} for "
            f"{found.share:.1%} of {found.num_scans:,} scans; by chance it would for "
            f"{found.chance:.1%}"
        )
