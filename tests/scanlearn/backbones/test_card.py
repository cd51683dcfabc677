from __future__ import annotations

import pytest

from scanlearn.backbones.backbone import BackboneConfig, build_backbone, weights_hash
from scanlearn.backbones.card import Card
from scanlearn.errors import ScanlearnError


def _card(**origin: object) -> Card:
    backbone = build_backbone(BackboneConfig(name="test_resnet"), 1, 0)
    return Card.of(backbone, size=32, mean=(0.5,), std=(0.25,), **origin)


def test_a_card_says_what_the_backbone_is() -> None:
    backbone = build_backbone(BackboneConfig(name="test_resnet"), 1, 0)
    card = _card(method="simclr", scale={"crop": 0.5}, steps=7)
    assert (card.architecture, card.channels, card.size) == ("test_resnet", 1, 32)
    assert card.num_features == backbone.num_features
    assert card.weights_hash == weights_hash(backbone)
    assert (card.method, card.scale, card.steps) == ("simclr", {"crop": 0.5}, 7)


def test_a_card_prints_the_whole_call_and_the_versions() -> None:
    card = _card()
    assert "pretrained=True" in card.load
    assert {"scanlearn", "timm", "torch"} <= set(card.versions)


def test_a_misspelt_origin_is_refused() -> None:
    with pytest.raises(ScanlearnError, match="methd"):
        _card(methd="simclr")


def test_a_card_survives_json() -> None:
    card = _card(seed=1)
    assert Card.model_validate_json(card.model_dump_json()) == card


def test_one_mean_serves_all_channels_of_an_adapted_card() -> None:
    adapted = _card().adapted(3)
    assert (adapted.channels, adapted.mean, adapted.std) == (3, (0.5,) * 3, (0.25,) * 3)
    assert adapted.adapted(3) == adapted
