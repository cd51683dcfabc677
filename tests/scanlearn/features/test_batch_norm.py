from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scanlearn.archive.reader import Archive
from scanlearn.backbones.backbone import Backbone, BackboneConfig, build_backbone, weights_hash
from scanlearn.features import batch_norm
from scanlearn.features.batch_norm import WholeScans
from scanlearn.features.extract import extract

SIZE = 32


@pytest.fixture
def scans(archive: Archive) -> WholeScans:
    return WholeScans(archive, SIZE, archive.mean, archive.std)


def norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]


def views_of(archive: Archive) -> Tensor:
    pixels = archive.gather(np.arange(len(archive))).pixels.float() / 255
    small = nn.functional.interpolate(pixels, SIZE, mode="bilinear", antialias=True)
    return (small - archive.mean[0]) / archive.std[0]


def exact(network: Backbone, views: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Mean and variance of what reaches each layer once all earlier ones have theirs."""
    network.eval()
    for layer in norms(network):
        seen: list[Tensor] = []
        handle = layer.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0]))
        with torch.no_grad():
            network(views)
        handle.remove()
        values = seen[0].double().transpose(0, 1).flatten(1)
        layer.running_mean.copy_(values.mean(1))
        layer.running_var.copy_(values.var(1, correction=0))
        yield values.mean(1).float(), values.var(1).float()


def test_the_statistics_are_those_of_a_pass_for_each_layer(
    backbone: Backbone, archive: Archive, scans: WholeScans
) -> None:
    expected = list(
        exact(build_backbone(BackboneConfig(name="test_resnet"), 1, 0), views_of(archive))
    )
    scans.set_statistics(backbone)
    assert len(expected) == len(norms(backbone)) > 3
    for layer, (mean, var) in zip(norms(backbone), expected, strict=True):
        torch.testing.assert_close(layer.running_mean, mean, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(layer.running_var, var, rtol=1e-3, atol=1e-3)


def test_of_several_batches_each_counts_alike(
    backbone: Backbone, archive: Archive, scans: WholeScans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_norm, "_BATCH", 5)
    scans.set_statistics(backbone)
    first = norms(backbone)[0]
    convolution = next(m for m in backbone.modules() if isinstance(m, nn.Conv2d))
    with torch.no_grad():
        seen = convolution(views_of(archive)[scans.rows]).transpose(0, 1)
    parts = [part.flatten(1) for part in seen.tensor_split(3, dim=1)]
    means, variances = (
        torch.stack(each).mean(0)
        for each in zip(*[(p.mean(1), p.var(1)) for p in parts], strict=True)
    )
    torch.testing.assert_close(first.running_mean, means, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(first.running_var, variances, rtol=1e-3, atol=1e-3)


def test_nothing_but_the_statistics_changes(backbone: Backbone, scans: WholeScans) -> None:
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    momenta = [layer.momentum for layer in norms(backbone)]
    backbone.train()
    scans.set_statistics(backbone)
    assert all(layer.training for layer in backbone.modules())
    assert [layer.momentum for layer in norms(backbone)] == momenta
    for name, value in backbone.state_dict().items():
        is_statistic = name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        assert torch.equal(value, before[name]) is not is_statistic, name
    once = weights_hash(backbone)
    scans.set_statistics(backbone)
    assert weights_hash(backbone) == once


def test_features_in_evaluation_mode_have_the_spread_of_the_scans(
    archive: Archive, scans: WholeScans
) -> None:
    """Without statistics signals die out, or grow, from layer to layer."""
    network = build_backbone(BackboneConfig(name="test_resnet"), 1, 0)
    scans.set_statistics(network)
    last: list[Tensor] = []
    norms(network)[-1].register_forward_hook(lambda *given: last.append(given[2]))
    extract(network, archive, size=SIZE, mean=archive.mean, std=archive.std, visible=False)
    values = last[0].transpose(0, 1).flatten(1)
    # No more than a few values a channel are left of 12 scans: n and n - 1 differ by that much.
    assert float(values.mean(1).abs().max()) < 0.1
    assert float(values.std(1).median()) == pytest.approx(1, abs=0.1)


def test_a_network_without_batch_norm_stays_as_it_is(scans: WholeScans) -> None:
    network = build_backbone(BackboneConfig(name="test_vit"), 1, 0, size=SIZE)
    before = weights_hash(network)
    scans.set_statistics(network)
    assert weights_hash(network) == before


def test_scans_are_drawn_and_no_more_than_512(
    archive: Archive, scans: WholeScans, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sorted(scans.rows) == list(range(12))
    assert scans.in_words == "12 of 12"
    monkeypatch.setattr(batch_norm, "MOST_SCANS", 5)
    few = WholeScans(archive, SIZE, archive.mean, archive.std)
    assert len(set(few.rows)) == 5
    assert sorted(few.rows) != list(few.rows)
    np.testing.assert_array_equal(few.rows, scans.rows[:5])


def test_the_hash_tells_weights_scans_and_view_apart(backbone: Backbone, archive: Archive) -> None:
    view = (archive.mean, archive.std)
    other = build_backbone(BackboneConfig(name="test_resnet"), 1, 1)
    found = [
        WholeScans(archive, SIZE, *view).hash(backbone),
        WholeScans(archive, SIZE, *view).hash(other),
        WholeScans(archive, 48, *view).hash(backbone),
        WholeScans(archive.without(archive.scan_ids[:1]), SIZE, *view).hash(backbone),
    ]
    assert len({*found, weights_hash(backbone)}) == 5
    assert found[0] == WholeScans(archive, SIZE, *view).hash(backbone)
