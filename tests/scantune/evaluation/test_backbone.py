from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scanlearn.archive.reader import Archive
from scanlearn.backbones.backbone import BackboneConfig, build_backbone, weights_hash
from scanlearn.errors import ScanlearnError
from scanlearn.features.batch_norm import WholeScans
from scanlearn.packing.sources import open_archive
from scantune.evaluation.backbone import THUMBNAIL, open_backbone, packing_of_backbone
from scantune.evaluation.evaluate import evaluate


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return open_archive(
        "phantom:patients=3,seed=4,size=32x32", cache=tmp_path_factory.mktemp("cache")
    )


def test_the_thumbnail_has_no_network(archive: Archive) -> None:
    subject = open_backbone(THUMBNAIL, archive, None)
    assert subject.network is None
    assert subject.described == {"kind": "thumbnail", "size": 16}
    assert subject.features(archive, np.arange(2)).shape == (2, 3 * 16 * 16)
    assert open_backbone(THUMBNAIL, archive, 8).features(archive, np.arange(1)).shape == (1, 192)
    assert packing_of_backbone(THUMBNAIL) == {"channels": "auto"}


def test_an_untrained_network_is_the_one_of_its_seed(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCANLEARN_CACHE", str(tmp_path))
    subject, same, other = (
        open_backbone(f"random:test_resnet{seed}", archive, 32) for seed in ("", ":0", ":1")
    )
    assert subject.described == same.described != other.described
    assert subject.network is not None
    assert not subject.network.training
    assert subject.folder is None
    rows = np.array([4, 1])
    np.testing.assert_array_equal(subject.features(archive, rows), same.features(archive, rows))


def test_an_untrained_network_has_statistics_of_the_labeled_scans(archive: Archive) -> None:
    subject = open_backbone("random:test_resnet", archive, 32)
    expected = build_backbone(BackboneConfig(name="test_resnet"), 3, 0)
    fresh = weights_hash(expected)
    WholeScans(archive, 32, archive.mean, archive.std).set_statistics(expected)
    assert subject.network is not None
    assert weights_hash(subject.network) == weights_hash(expected) != fresh
    # The same on every machine.
    assert subject.described["weights"] == fresh
    scans = f"{len(archive)} of {len(archive)}"
    assert subject.described["batch_norm_statistics"] == f"{scans} labeled scans, without labels"
    (note,) = subject.notes
    assert f"statistics are of {scans} labeled scans, of all folds, without their labels" in note


def test_what_has_no_batch_norm_says_nothing_of_it(archive: Archive) -> None:
    subject = open_backbone("random:test_vit", archive, 32)
    assert (subject.notes, "batch_norm_statistics" in subject.described) == ((), False)


def test_what_has_no_weights_is_one_sentence(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(ScanlearnError, match="'x' is not a seed"):
        open_backbone("random:test_resnet:x", archive, None)
    with pytest.raises(ScanlearnError, match="no such backbone folder"):
        open_backbone(tmp_path / "none", archive, None)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(ScanlearnError, match="this run has no backbone yet"):
        packing_of_backbone(tmp_path)


@pytest.mark.parametrize(
    ("backbone", "words"),
    [
        ("random:test_resnt", "no architecture 'test_resnt'"),
        ("random:test_resnet:x", "'x' is not a seed"),
        ("test_resnt.a1", "no architecture 'test_resnt'"),
        ("./nowhere", "no such backbone folder"),
        (__file__, "is a file"),
    ],
)
def test_a_typo_in_the_backbone_is_found_before_labels_are_packed(
    backbone: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "scantune.evaluation.evaluate.open_archives", lambda *given: pytest.fail("packed")
    )
    with pytest.raises(ScanlearnError, match=words):
        evaluate(backbone, "labels.csv", target="x")
