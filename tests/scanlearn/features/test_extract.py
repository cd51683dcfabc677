from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from scanlearn.archive.layout import Origin, PackedScan
from scanlearn.archive.reader import Archive
from scanlearn.archive.writer import ArchiveWriter
from scanlearn.backbones.backbone import Backbone, BackboneConfig, build_backbone
from scanlearn.errors import ScanlearnError
from scanlearn.features import extract as features
from scanlearn.features.extract import extract, thumbnail_features

VIEWS = {"size": 32, "mean": (0.5,), "std": (0.25,)}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Seven one-channel scans; the third is smaller than the canvas and padded."""
    path = tmp_path_factory.mktemp("archive") / "scans"
    random = np.random.default_rng(0)
    with ArchiveWriter(path, shape=(1, 48, 40), dtype=np.uint8) as writer:
        for index in range(7):
            box = (0, 0, 30, 40) if index == 2 else (0, 0, 48, 40)
            pixels = np.zeros((1, 48, 40), np.uint8)
            pixels[:, : box[2], : box[3]] = random.integers(0, 256, (1, box[2], box[3]))
            writer.add(PackedScan(pixels, valid_box=box), Origin(f"s{index}", f"p{index}"))
        return writer.close()


def test_features_are_one_float32_row_a_scan(archive: Archive, backbone: Backbone) -> None:
    found = extract(backbone, archive, **VIEWS)
    assert found.shape == (7, backbone.num_features)
    assert found.dtype == np.float32


def test_batch_size_does_not_change_features(archive: Archive, backbone: Backbone) -> None:
    whole = extract(backbone, archive, **VIEWS)
    np.testing.assert_allclose(extract(backbone, archive, **VIEWS, batch_size=2), whole, rtol=1e-4)


def test_rows_keep_their_order(archive: Archive, backbone: Backbone) -> None:
    whole = extract(backbone, archive, **VIEWS)
    rows = np.array([5, 0, 5, 2])
    np.testing.assert_allclose(extract(backbone, archive, rows, **VIEWS), whole[rows], rtol=1e-4)


def test_the_backbone_is_left_as_it_was(archive: Archive, backbone: Backbone) -> None:
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    extract(backbone.train(), archive, **VIEWS)
    assert backbone.training
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert tensor.stride() == before[name].stride()


def test_an_error_puts_the_backbone_back_into_training(
    archive: Archive, backbone: Backbone
) -> None:
    backbone.forward = lambda views: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        extract(backbone.train(), archive, **VIEWS)
    assert backbone.training


def test_a_scan_is_seen_whole_and_without_its_padding(archive: Archive) -> None:
    class Mean(Backbone):
        def forward(self, views: torch.Tensor) -> torch.Tensor:
            return views.mean((2, 3))

    network = torch.nn.Conv2d(1, 1, 1)
    network.num_features = 1
    plain = Mean(network, name="mean", channels=1, model_args={})
    found = extract(plain, archive, size=32, mean=(0.0,), std=(1.0,))
    content = archive.gather(np.array([2])).pixels[0, 0, :30].float().mean() / 255
    content *= 30 / 40  # the rest of the square is black
    # The triangle filter leaves the mean of noise as it is up to a few thousandths.
    assert found[2, 0] == pytest.approx(float(content), abs=0.01)


def test_bf16_is_close_and_only_on_request(archive: Archive, backbone: Backbone) -> None:
    exact = extract(backbone, archive, **VIEWS)
    rough = extract(backbone, archive, **VIEWS, precision="bf16")
    assert rough.dtype == np.float32
    assert not np.array_equal(exact, rough)
    np.testing.assert_allclose(rough, exact, atol=0.05 * np.abs(exact).max())


def test_features_are_read_back_from_the_cache(
    tmp_path: Path, archive: Archive, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = extract(backbone, archive, **VIEWS, cache=tmp_path)
    monkeypatch.setattr(features, "features_of", None)
    assert np.array_equal(extract(backbone, archive, **VIEWS, cache=tmp_path), first)


def test_every_input_has_a_cache_entry_of_its_own(
    tmp_path: Path, archive: Archive, backbone: Backbone
) -> None:
    other = build_backbone(BackboneConfig(name="test_resnet"), 1, 1)
    extract(backbone, archive, **VIEWS, cache=tmp_path)
    extract(other, archive, **VIEWS, cache=tmp_path)
    extract(backbone, archive, np.arange(3), **VIEWS, cache=tmp_path)
    extract(backbone, archive, **{**VIEWS, "size": 24}, cache=tmp_path)
    extract(backbone, archive, **{**VIEWS, "mean": (0.4,)}, cache=tmp_path)
    extract(backbone, archive, **VIEWS, precision="bf16", cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", None, "flip"])
def test_a_damaged_cache_entry_is_made_again(
    tmp_path: Path, archive: Archive, backbone: Backbone, damage: bytes | str | None
) -> None:
    first = extract(backbone, archive, **VIEWS, cache=tmp_path)
    (entry,) = tmp_path.iterdir()
    content = entry.read_bytes()
    flipped = content[:-200] + bytes([content[-200] ^ 1]) + content[-199:]
    entry.write_bytes({None: content[:-4], "flip": flipped}.get(damage, damage))
    assert np.array_equal(extract(backbone, archive, **VIEWS, cache=tmp_path), first)
    assert np.array_equal(np.load(entry), first)


def test_other_channels_are_refused(archive: Archive) -> None:
    colour = build_backbone(BackboneConfig(name="test_resnet"), 3, 0)
    with pytest.raises(ScanlearnError, match="have 1 channels, but the backbone takes 3"):
        extract(colour, archive, **VIEWS)


def test_features_that_are_not_finite_name_the_scan(archive: Archive, backbone: Backbone) -> None:
    with torch.no_grad():
        next(backbone.parameters()).fill_(float("nan"))
    with pytest.raises(ScanlearnError, match=r"7 of 7 scans .* first 's3'"):
        extract(backbone, archive, np.array([3, 0, 1, 2, 4, 5, 6]), **VIEWS)


def test_a_scan_is_squeezed_only_for_what_was_fitted_so(
    archive: Archive, backbone: Backbone, tmp_path: Path
) -> None:
    batch = archive.gather(np.arange(7))
    squeezed = torch.cat(
        [
            functional.resize(scan[None, :, : box[2], : box[3]].float() / 255, [32, 32])
            for scan, box in zip(batch.pixels, batch.valid_box.tolist(), strict=True)
        ]
    )
    with torch.no_grad():
        expected = backbone.eval()((squeezed - 0.5) / 0.25).numpy()
    found = extract(backbone, archive, **VIEWS, framing="squeeze", cache=tmp_path)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    padded = extract(backbone, archive, **VIEWS, cache=tmp_path)
    assert np.abs(padded - expected).max() > 1e-2 * np.abs(expected).max()
    assert len(list(tmp_path.iterdir())) == 2


def test_features_of_square_scans_are_kept_under_the_key_of_squeezed_ones(
    backbone: Backbone, tmp_path: Path
) -> None:
    with ArchiveWriter(tmp_path / "scans", shape=(1, 48, 48), dtype=np.uint8) as writer:
        writer.add(PackedScan(np.full((1, 48, 48), 9, np.uint8)), Origin("s", "p"))
        square = writer.close()
    for framing in ("pad", "squeeze"):
        extract(backbone, square, **VIEWS, framing=framing, cache=tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_thumbnails_are_small_whole_scans(archive: Archive) -> None:
    found = thumbnail_features(archive, side=4)
    assert found.shape == (7, 16)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 1
    assert np.array_equal(thumbnail_features(archive, np.array([6, 1]), side=4), found[[6, 1]])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_returns_the_features_of_the_cpu(archive: Archive, backbone: Backbone) -> None:
    expected = extract(backbone, archive, **VIEWS)
    found = extract(backbone.to("cuda"), archive, **VIEWS)
    np.testing.assert_allclose(found, expected, atol=1e-2 * np.abs(expected).max())
