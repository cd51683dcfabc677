"""What networks are worth without labels, measured on one fixed set of views, and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from scanlearn.archive.reader import Archive
from scanlearn.backbones.backbone import Backbone
from scanlearn.config.reading import read_json
from scanlearn.console import say
from scanlearn.core import ViewPlan
from scanlearn.errors import NotFiniteError
from scanlearn.features.fixed_views import Probing
from scanlearn.features.labelfree import rotation_accuracy
from scanlearn.features.panel import VIEWS, Panel
from scanlearn.files import make_folder, write_atomically
from scanlearn.training.settings import SharedViews
from scanlearn.views.generator import ViewGenerator
from scanlearn.views.recipes import Recipe
from scanlearn.views.scale import Scale
from scanlearn.views.settings import RenderSettings
from scantune.study.arms import load_network
from scantune.study.folder import StudyFolder
from scantune.study.plan import CompareConfig
from scantune.study.results import LabelFree, RunRow
from scantune.study.sharing import SharedPiece, make_all
from scantune.study.summary import finite

# Of the views of all networks that are measured; the middle of those a search probes.
COMMON_SCALE = 0.5
# Of each scan: those of the panel, and four turns.
VIEWS_OF_EACH = VIEWS + 4
# Raised where the same network and scans would be measured otherwise.
_VERSION = 1
# The rotation probe has five folds of scans.
_LEAST_SCANS = 5


def common_views(
    views: SharedViews, recipe: Recipe, unlabeled: Archive, scale: float = COMMON_SCALE
) -> Probing:
    """Returns one set of views for all networks, whatever scale each was trained at."""
    settings = RenderSettings(scale_blur=views.scale_blur)
    shown = (Scale.of(scale), ViewPlan(2), views.size, unlabeled.mean, unlabeled.std)
    return Probing(ViewGenerator(recipe, *shown, settings=settings), views=VIEWS)


def measures_of(network: Backbone, unlabeled: Archive, probing: Probing) -> dict[str, float]:
    """Returns the panel of a network and, as ``rotation``, the accuracy of a rotation probe.

    Raises:
        ScanlearnError: A feature is not finite, or there are too few scans.
    """
    panel = Panel.of(probing.features(network, unlabeled))
    return {**asdict(panel), "rotation": rotation_accuracy(probing.turned(network, unlabeled))}


def measure_all(
    config: CompareConfig,
    folder: StudyFolder,
    runs: Sequence[RunRow],
    unlabeled: Archive,
    left_out: Collection[str] = (),
) -> tuple[tuple[LabelFree, ...], str]:
    """Measures every network of the arms without labels, or reads back what is kept of it.

    A network that is given, or trained on the labels alone, is not measured: another normalisation
    and size of views would be another distribution.

    Args:
        config: The plan under the modality that was taken.
        left_out: Operations of the policy that the scans do not allow.

    Returns:
        A row per network, and the common views in words; nothing where the plan asks for none, or
        has too few scans.
    """
    rows = [run for run in runs if run.initial_hash]
    if not config.label_free or len(unlabeled) < _LEAST_SCANS:
        return (), ""
    views = config.pretrain.views
    recipe = config.pretrain.build_recipe(left_out=left_out)
    probing = common_views(views, recipe, unlabeled)
    shown = {
        "version": _VERSION,
        "recipe": recipe.name,
        "left_out": sorted(left_out),
        "views": views.model_dump(mode="json"),
        "scale": COMMON_SCALE,
        "of_each": probing.views,
        "scans": unlabeled.content_hash,
    }
    found: dict[tuple[str, int], LabelFree] = {}

    def measure(row: RunRow) -> None:
        made_from = hashlib.sha256(json.dumps([shown, row.final_hash]).encode()).hexdigest()
        path = folder.label_free(f"{row.arm}-seed-{row.seed}")
        kept = _read(path)
        if kept is None or kept.made_from != made_from:
            network = load_network(config, row, folder.path, unlabeled)
            with folder.timed("label-free"):
                measures, problem = _measured(network, unlabeled, probing)
            kept = LabelFree(
                arm=row.arm,
                seed=row.seed,
                scans=len(probing.rows(unlabeled, network.num_features)),
                measures=measures,
                problem=problem,
                made_from=made_from,
            )
            make_folder(path.parent)
            write_atomically(path, kept.model_dump_json(indent=1) + "\n")
            say(f"measured {row.arm} with seed {row.seed} without labels")
        found[row.arm, row.seed] = kept

    make_all(
        [
            SharedPiece(
                f"the label-free measures of {run.arm} with seed {run.seed}",
                folder.label_free(f"{run.arm}-seed-{run.seed}"),
                partial(measure, run),
            )
            for run in rows
        ]
    )
    measured = tuple(found[run.arm, run.seed] for run in rows)
    scans = max((each.scans for each in measured), default=0)
    return measured, (
        f"{probing.views} views of {scans:,} of {len(unlabeled):,} unlabeled scans, by recipe "
        f"{recipe.name} at scale {COMMON_SCALE:g}"
    )


def _read(path: Path) -> LabelFree | None:
    if not path.is_file():
        return None
    return read_json(
        path,
        LabelFree,
        what="does not hold measures without labels",
        remedy="delete it to have the network measured again",
    )


def _measured(
    network: Backbone, unlabeled: Archive, probing: Probing
) -> tuple[dict[str, float | None], str]:
    """Returns the measures, or why there are none: features that overflow end no study."""
    try:
        found = measures_of(network, unlabeled, probing)
    except NotFiniteError:
        return {}, "a feature is not finite"
    return {name: finite(value) for name, value in found.items()}, ""
