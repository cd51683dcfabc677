from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from scanlearn.backbones.backbone import Backbone, BackboneConfig, build_backbone
from scanlearn.packing.sources import open_archive
from scantune.labels.labeled_set import LabeledSet, read_labels
from scantune.labels.truth import Truth
from scantune.learners.learner import LabeledScans

PHANTOM = "phantom:patients=60,seed=4,size=32x32"


@pytest.fixture(scope="package")
def scans(tmp_path_factory: pytest.TempPathFactory) -> LabeledScans:
    """Two scans of each of 60 patients, in two classes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCANLEARN_CACHE", str(tmp_path_factory.mktemp("cache")))
        archive = open_archive(PHANTOM)
    return LabeledScans(
        (archive,), read_labels(archive, "texture"), (32, archive.mean, archive.std)
    )


@pytest.fixture
def findings(scans: LabeledScans) -> LabeledScans:
    """The same scans with two findings, the second often unknown."""
    labeled = scans.labeled
    first = labeled.truth.classes.astype(np.int8)
    second = np.where(np.arange(len(labeled)) % 3, 1 - first, -1).astype(np.int8)
    truth = Truth(np.column_stack([first, second]), "multilabel")
    both = LabeledSet("findings", ("a", "b"), truth, labeled.patients, labeled.rows)
    return LabeledScans(scans.archives, both, scans.view)


@pytest.fixture(scope="package")
def backbone() -> Callable[[str], Backbone]:
    """Makes an untrained backbone for the scans, each name once."""
    made: dict[str, Backbone] = {}

    def make(name: str) -> Backbone:
        if name not in made:
            made[name] = build_backbone(BackboneConfig(name=name), 3, 0, size=32).eval()
        return made[name]

    return make


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"
