from __future__ import annotations

import pytest
import torch

from scanlearn.backbones.build import BackboneConfig, build_backbone, weights_hash
from scanlearn.backbones.tokens import with_last_tokens


def test_tokens_are_the_normalised_outputs_of_the_last_blocks() -> None:
    backbone = build_backbone(BackboneConfig(name="test_vit"), 1, 0, size=32).eval()
    views = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    seen: list[torch.Tensor] = []
    network = backbone.network
    hooks = [
        block.register_forward_hook(lambda *given: seen.append(given[2]))
        for block in network.blocks  # type: ignore[union-attr]
    ]
    with torch.no_grad():
        pooled = backbone(views)
        expected = torch.cat([network.norm(out)[:, 0] for out in seen[-4:]], dim=1)  # type: ignore[operator]
        for hook in hooks:
            hook.remove()
        found = with_last_tokens(backbone, 4)(views)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found[:, -backbone.num_features :], pooled)


@pytest.mark.parametrize(("asked", "taken"), [(1, 1), (4, 4), (99, 6)])
def test_no_more_blocks_are_taken_than_there_are(asked: int, taken: int) -> None:
    backbone = build_backbone(BackboneConfig(name="test_vit"), 1, 0, size=32)
    tokens = with_last_tokens(backbone, asked)
    assert tokens.num_features == taken * backbone.num_features
    assert f"last {taken} blocks" in tokens.name
    assert weights_hash(tokens) != weights_hash(backbone)


def test_a_network_without_class_tokens_is_returned_as_it_is() -> None:
    backbone = build_backbone(BackboneConfig(name="test_resnet"), 1, 0, size=32)
    assert with_last_tokens(backbone, 4) is backbone
