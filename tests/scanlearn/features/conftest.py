from __future__ import annotations

import numpy as np
import pytest

from scanlearn.archive.layout import Origin, PackedScan
from scanlearn.archive.reader import Archive
from scanlearn.archive.writer import ArchiveWriter
from scanlearn.backbones.backbone import Backbone, BackboneConfig, build_backbone


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    path = tmp_path_factory.mktemp("archive") / "scans"
    generator = np.random.default_rng(0)
    with ArchiveWriter(path, shape=(1, 48, 48), dtype=np.uint8) as writer:
        for index in range(12):
            coarse = generator.integers(0, 256, (1, 6, 6), dtype=np.uint8)
            writer.add(
                PackedScan(coarse.repeat(8, 1).repeat(8, 2)), Origin(f"s{index}", f"p{index}")
            )
        return writer.close()


@pytest.fixture
def backbone() -> Backbone:
    return build_backbone(BackboneConfig(name="test_resnet"), 1, 0)
