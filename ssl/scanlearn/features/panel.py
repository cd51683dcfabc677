"""The label-free panel of a backbone: what it makes of one fixed set of views."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field

from scanlearn.backbones.settings import check_backbone
from scanlearn.config.calls import checked
from scanlearn.console import loading, say, warn_user
from scanlearn.errors import ScanlearnError
from scanlearn.features import labelfree as labelfree
from scanlearn.files import csv_cell, make_folder, write_atomically
from scanlearn.packing.settings import PackSettings
from scanlearn.packing.sources import check_source, open_archive
from scanlearn.tables.settings import DEFAULT_TABLE, Table
from scanlearn.views.adjusting import Operations
from scanlearn.views.modality import AUTO, Modality
from scanlearn.views.of_archive import check_operations, left_out_in_words, left_out_of
from scanlearn.views.recipes import find_recipe
from scanlearn.views.scale import Scale
from scanlearn.views.settings import RenderSettings

# Of each scan.
VIEWS = 10
# Of these the silhouette is made whatever the number of dimensions: it falls with more scans.
SILHOUETTE_SCANS = 1000

MEANINGS = {
    "rankme": "effective rank of the features; more is better, unless noise makes it",
    "lidar": "effective rank of what tells scans apart across views; more is better",
    "alpha": "decay of the spectrum; near 1 is good, more means few directions",
    "alignment": "squared distance between views of a scan; 0 all alike, 2 unrelated",
    "uniformity": "how evenly scans fill the sphere; 0 all alike, -4 all orthogonal",
    "embedding_std": "spread; 1 healthy, below .3 suspect, 0 collapsed",
    "silhouette": "views of a scan against the nearest other scan; 1 apart, 0 mixed",
}


@dataclass(frozen=True)
class Panel:
    """What features are worth, judged without labels, as `scanlearn.features.labelfree` says.

    Panels compare where scans, views and their seed are the same.
    """

    rankme: float
    lidar: float
    alpha: float
    alignment: float
    uniformity: float
    embedding_std: float
    silhouette: float

    @classmethod
    def of(cls, views: Float[np.ndarray, "n v d"]) -> Panel:
        """Returns the panel of the features of ``v`` views of ``n`` scans."""
        first = views[:, 0]
        return cls(
            rankme=labelfree.rankme(first),
            lidar=labelfree.lidar(views),
            alpha=labelfree.alpha_req(first),
            alignment=labelfree.alignment(views),
            uniformity=labelfree.uniformity(first),
            embedding_std=labelfree.embedding_std(first),
            silhouette=labelfree.silhouette(views[:SILHOUETTE_SCANS]),
        )


@checked
def panel(
    backbone: Annotated[str | Path, Field(description="A backbone folder.")],
    source: Annotated[str | Path, Field(description="An archive, a folder or a table.")],
    *,
    recipe: Annotated[
        str | None, Field(description="Recipe of the views; null is the backbone's.")
    ] = None,
    scale: Annotated[
        float | str | dict[str, float | str],
        Field(description="The dial of the views; the same for all backbones compared."),
    ] = 0.5,
    modality: Annotated[
        Modality,
        Field(
            description="Kind of scan, whose policy changes the recipe; auto is the backbone's, "
            "null the recipe alone."
        ),
    ] = AUTO,
    operations: Annotated[
        Operations, Field(description="Operations switched off or set by hand.")
    ] = {},  # noqa: B006  never written to
    scale_blur: Annotated[
        bool, Field(description="Blur shrinks with the view, as its sigma is stated at 224 px.")
    ] = True,
    views: Annotated[int, Field(ge=2, description="Views of each scan.")] = VIEWS,
    scans: Annotated[
        int | None,
        Field(ge=2, description="Scans; null is 1,000, or twice the features if that is more."),
    ] = None,
    size: Annotated[
        int | None, Field(ge=8, description="Side of a view in pixels; null is the backbone's.")
    ] = None,
    seed: Annotated[int, Field(ge=0, description="Which scans, and which draws.")] = 0,
    batch_size: Annotated[int, Field(ge=1, description="Scans at a time.")] = 64,
    output: Annotated[
        str | Path | None, Field(description="A .json or .csv to write as well; null: none.")
    ] = None,
    table: Table = DEFAULT_TABLE,
) -> Panel:
    """Measure a backbone without labels.

    Prints the table of what it makes of one fixed set of views.

    Raises:
        ScanlearnError: The backbone, the source, the recipe, the modality or an option cannot be
            used.
    """
    if output is not None and Path(output).suffix not in (".json", ".csv"):
        raise ScanlearnError(f"output: '{output}' must end in .json or .csv")
    check_backbone(backbone)
    check_source(source)
    # Here, since the settings are read without torch and timm, which take seconds.
    with loading("torch", "timm"):
        from scanlearn.backbones.backbone import weights_hash
        from scanlearn.backbones.device import preferred_device
        from scanlearn.backbones.weights import load_backbone
        from scanlearn.core import ViewPlan
        from scanlearn.features.extract import squeezed_note
        from scanlearn.features.fixed_views import Probing
        from scanlearn.views.generator import ViewGenerator

    card = load_backbone(backbone)[1]
    channels: Literal[1, 3] | None = 1 if card.channels == 1 else 3 if card.channels == 3 else None
    archive = open_archive(
        source, settings=PackSettings.of_table(table, channels=channels or "auto")
    )
    network, card = load_backbone(backbone, channels=archive.shape[0])
    for note in squeezed_note(card, archive):
        warn_user(f"{backbone}: {note}")
    name = recipe or card.recipe
    if name is None:
        raise ScanlearnError(
            f"{backbone}: its card names no recipe; choose the views' recipe, such as recipe=simclr"
        )
    check_operations(operations, archive)
    pure, named = find_recipe(name), card.views_modality if modality == AUTO else modality
    left_out = left_out_of(pure.under(named).adjusted(operations), archive)
    for words in left_out_in_words(left_out):
        say(words)
    generator = ViewGenerator(
        pure.under(named, tuple(left_out)).adjusted(operations),
        Scale.parse(scale),
        ViewPlan(2),
        size or card.size,
        card.mean,
        card.std,
        settings=RenderSettings(scale_blur=scale_blur),
    )
    probing = Probing(generator, scans, views, seed, batch_size)
    network = network.to(preferred_device())
    features = probing.features(network, archive)
    result = Panel.of(features)
    policy = generator.recipe.policy
    facts: dict[str, str | int] = {
        "architecture": network.name,
        "weights": weights_hash(network),
        "archive": archive.content_hash,
        "recipe": name,
        "modality": policy.name if policy else "none",
        "policy": generator.recipe.policy_text,
        "by_hand": generator.recipe.by_hand,
        "scale": str(generator.scale),
        "size": generator.size,
        "seed": seed,
        "scans": len(features),
        "views": views,
        "features": network.num_features,
    }
    _say(result, facts, str(backbone))
    if output is not None:
        _write(Path(output).expanduser(), result, facts)
    return result


def _say(panel: Panel, facts: dict[str, str | int], backbone: str) -> None:
    by_hand = f", by hand: {facts['by_hand']}" if facts["by_hand"] else ""
    modality = f" under modality {facts['modality']}" if facts["modality"] != "none" else ""
    say(
        f"{backbone} on {facts['scans']:,} scans x {facts['views']} views: "
        f"{facts['recipe']}{modality} at scale {facts['scale']}{by_hand}, "
        f"{facts['size']} px, seed {facts['seed']}"
    )
    for name, value in asdict(panel).items():
        say(f"{name:14} {value:8.3f}   {MEANINGS[name]}")
    if int(facts["scans"]) <= int(facts["features"]):
        say(
            f"fewer scans than features ({facts['features']}): rankme and lidar cannot exceed the "
            "number of scans"
        )


def _write(path: Path, panel: Panel, facts: dict[str, str | int]) -> None:
    make_folder(path.parent)
    if path.suffix == ".json":
        write_atomically(path, json.dumps({**facts, "panel": asdict(panel)}, indent=2) + "\n")
        return
    row = {**facts, **asdict(panel)}
    text = io.StringIO()
    table = csv.DictWriter(text, row, lineterminator="\n")
    table.writeheader()
    table.writerow({name: csv_cell(value) for name, value in row.items()})
    write_atomically(path, text.getvalue())
