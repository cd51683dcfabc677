from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor

from scanlearn.backbones import consumer, weights
from scanlearn.backbones.backbone import Backbone, tensors_hash, weights_hash
from scanlearn.backbones.card import Card
from scanlearn.backbones.head import build_classifying
from scanlearn.backbones.weights import export_backbone, load_backbone, load_classifying
from scanlearn.errors import ScanlearnError

Make = Callable[[str, int], Backbone]
CardOf = Callable[[Backbone], Card]


@pytest.fixture
def folder(tmp_path: Path, exported: Path) -> Path:
    """A copy of the export, to be damaged."""
    return Path(shutil.copytree(exported, tmp_path / "bb"))


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the fresh process, where a test loads the export itself."""
    monkeypatch.setattr(weights, "check_reload", lambda *given: None)


def _views(channels: int, size: int = 32) -> torch.Tensor:
    return torch.randn(3, channels, size, size, generator=torch.Generator().manual_seed(7))


def test_a_loaded_backbone_is_the_exported_one(exported: Path, trained: Make) -> None:
    backbone, card = load_backbone(exported)
    original = trained("test_resnet", 1)
    assert weights_hash(backbone) == weights_hash(original) == card.weights_hash
    assert not backbone.training
    with torch.no_grad():
        assert torch.equal(backbone(_views(1)), original.eval()(_views(1)))


def test_a_folder_holds_three_files_and_no_pickle(exported: Path) -> None:
    assert sorted(p.name for p in exported.iterdir()) == [
        "card.json",
        "config.json",
        "model.safetensors",
    ]


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
@pytest.mark.parametrize("channels", [1, 3])
def test_timm_alone_returns_equal_features(
    tmp_path: Path, trained: Make, card_of: CardOf, name: str, channels: int
) -> None:
    backbone = trained(name, channels)
    export_backbone(backbone, tmp_path / "bb", card_of(backbone))
    stranger = timm.create_model(f"local-dir:{tmp_path / 'bb'}", pretrained=True, num_classes=0)
    with torch.no_grad():
        assert torch.equal(stranger.eval()(_views(channels)), backbone.eval()(_views(channels)))


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
@pytest.mark.parametrize("options", [{"num_classes": 5}, {"in_chans": 3}, {"in_chans": 2}])
def test_timm_adapts_classes_and_channels(
    tmp_path: Path, trained: Make, card_of: CardOf, name: str, options: dict[str, int]
) -> None:
    backbone = trained(name, 1)
    export_backbone(backbone, tmp_path / "bb", card_of(backbone))
    stranger = timm.create_model(f"local-dir:{tmp_path / 'bb'}", pretrained=True, **options)
    inputs = _views(1).repeat(1, options.get("in_chans", 1), 1, 1)
    with torch.no_grad():
        features = stranger.eval().forward_features(inputs)
        expected = backbone.eval().network.forward_features(_views(1))
        torch.testing.assert_close(features, expected)
        assert stranger(inputs).shape[1] == options.get("num_classes", backbone.num_features)


def test_timm_learns_the_mean_and_std_of_the_training(exported: Path) -> None:
    stranger = timm.create_model(f"local-dir:{exported}", pretrained=True)
    assert stranger.pretrained_cfg["mean"] == [0.4]
    assert stranger.pretrained_cfg["std"] == [0.2]
    assert stranger.pretrained_cfg["input_size"] == [1, 32, 32]


def test_a_backbone_loaded_for_colour_answers_gray_scans_alike(exported: Path) -> None:
    colour, card = load_backbone(exported, channels=3)
    gray, _ = load_backbone(exported)
    assert (colour.channels, card.channels, card.mean) == (3, 3, (0.4,) * 3)
    with torch.no_grad():
        torch.testing.assert_close(colour(_views(1).repeat(1, 3, 1, 1)), gray(_views(1)))


def test_loading_leaves_the_global_generator_as_it_was(exported: Path) -> None:
    before = torch.get_rng_state()
    load_backbone(exported)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "card.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ScanlearnError, match=f"{name}: the file is missing"):
        load_backbone(folder)


@pytest.mark.parametrize("kept", [0, 4, 1000])
def test_truncated_weights_are_refused(folder: Path, kept: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ScanlearnError, match=r"model\.safetensors: is not a complete saf"):
        load_backbone(folder)


def test_a_pickle_in_place_of_weights_is_never_opened(folder: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return pytest.fail, ("a weight file has run code",)

    (folder / "model.safetensors").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ScanlearnError, match="is not a complete safetensors file"):
        load_backbone(folder)


def test_a_pickle_beside_missing_weights_is_not_taken(folder: Path) -> None:
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(ScanlearnError, match=r"model\.safetensors: the file is missing"):
        load_backbone(folder)


def test_one_changed_weight_is_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ScanlearnError, match=r"match the hash in card\.json"):
        load_backbone(folder)


@pytest.mark.parametrize(
    ("file", "key", "value", "message"),
    [
        ("config.json", "architecture", "resnet18", "architecture is 'resnet18'"),
        ("config.json", "num_classes", 5, "num_classes is 5"),
        ("card.json", "architecture", "test_resnt", "did you mean 'test_resnet'"),
        ("card.json", "format", 2, "format"),
        ("card.json", "weight_hash", "0", "weight_hash"),
    ],
)
def test_a_changed_description_is_refused(
    folder: Path, file: str, key: str, value: object, message: str
) -> None:
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | {key: value}))
    with pytest.raises(ScanlearnError, match=message):
        load_backbone(folder)


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        (
            "card",
            {"model_args": {"checkpoint_path": "/etc/passwd"}},
            "'checkpoint_path' is not a key",
        ),
        ("card", {"model_args": {"pretrained": True}}, "'pretrained' is not a key"),
        ("card", {"model_args": {"img_size": 10**9}}, "model_args: 'img_size' is 1000000000"),
        ("card", {"model_args": {"img_size": 64}}, r"timm cannot build .* with model_args"),
        ("card", {"model_args": [1]}, "'model_args' is"),
        ("card", {"channels": 10**9}, "'channels' is 1000000000"),
        ("card", {"channels": 0}, "'channels' is 0"),
        ("card", {"size": 0}, "'size' is 0"),
        ("card", {"num_features": 3}, "num_features is 3, but 'test_resnet' has"),
        ("card", {"num_classes": -1}, "'num_classes' is -1"),
        ("card", {"mean": [float("nan")]}, "'mean.0' is NaN"),
        ("card", {"std": [float("inf")]}, "'std.0' is Infinity"),
        ("card", {"std": [-0.1]}, "'std.0' is -0.1"),
        ("card", {"mean": [0.4, 0.4]}, "mean has 2 numbers and channels is 1"),
        ("card", {"mean": []}, "mean has 0 numbers"),
        ("card", {"std": None}, "'std' is null"),
        # Finite and of the right length, but not what timm would take.
        (
            "config",
            {"mean": [0.5]},
            r"pretrained_cfg\.mean is \[0\.5\], but card\.json says \[0\.4\]",
        ),
        ("config", {"file": "/etc/passwd"}, r"pretrained_cfg\.file names other weights"),
        ("config", {"hf_hub_id": "a/b"}, r"pretrained_cfg\.hf_hub_id names other weights"),
        ("config", {"input_size": [1, 64, 64]}, r"pretrained_cfg\.input_size is \[1, 64, 64\]"),
    ],
)
def test_a_tampered_description_is_one_sentence_that_names_its_file(
    folder: Path, file: str, change: dict[str, Any], words: str
) -> None:
    path = folder / f"{file}.json"
    content = json.loads(path.read_text())
    (content["pretrained_cfg"] if file == "config" else content).update(change)
    path.write_text(json.dumps(content))
    with pytest.raises(ScanlearnError, match=words) as caught:
        load_backbone(folder)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["[" * 10**5, '{"size": ' + "9" * 5000 + "}", "[1]", "\x00"])
def test_a_json_of_any_kind_is_one_sentence(folder: Path, content: str) -> None:
    (folder / "card.json").write_text(content)
    with pytest.raises(ScanlearnError, match=r"card\.json: not"):
        load_backbone(folder)


@pytest.mark.parametrize(
    ("value", "words"),
    [(torch.nan, "values of bn1.weight are not finite"), (None, "bn1.weight holds int64")],
)
def test_an_export_of_no_numbers_is_refused_though_its_hash_is_right(
    folder: Path, value: float | None, words: str
) -> None:
    file = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    tensors["bn1.weight"] = (
        tensors["bn1.weight"].long() if value is None else tensors["bn1.weight"] * value
    )
    safetensors.torch.save_file(tensors, file)
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"weights_hash": tensors_hash(tensors)}))
    with pytest.raises(ScanlearnError, match=words) as caught:
        load_backbone(folder)
    assert str(file) in str(caught.value)


def test_a_broken_json_is_refused(folder: Path) -> None:
    (folder / "card.json").write_text('{"format": 1')
    with pytest.raises(ScanlearnError, match=r"card\.json: not valid JSON"):
        load_backbone(folder)


def test_the_same_export_again_changes_nothing(
    folder: Path, trained: Make, card_of: CardOf
) -> None:
    backbone = trained("test_resnet", 1)
    before = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert export_backbone(backbone, folder, card_of(backbone)) == folder
    assert {p.name: p.stat().st_mtime_ns for p in folder.iterdir()} == before


def test_another_export_never_overwrites(folder: Path, trained: Make, card_of: CardOf) -> None:
    other = trained("test_resnet", 3)
    with pytest.raises(ScanlearnError, match="already holds something else"):
        export_backbone(other, folder, card_of(other))
    load_backbone(folder)


def test_a_failed_export_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Make, card_of: CardOf
) -> None:
    def refuse(*given: object) -> None:
        raise ScanlearnError("features differ")

    monkeypatch.setattr(weights, "check_reload", refuse)
    backbone = trained("test_resnet", 1)
    with pytest.raises(ScanlearnError, match="features differ"):
        export_backbone(backbone, tmp_path / "bb", card_of(backbone))
    assert list(tmp_path.iterdir()) == []


def test_a_card_of_earlier_weights_is_refused(
    tmp_path: Path, trained: Make, card_of: CardOf
) -> None:
    backbone = trained("test_resnet", 1)
    card = card_of(backbone)
    backbone(_views(1))
    with pytest.raises(ScanlearnError, match="weights_hash"):
        export_backbone(backbone, tmp_path / "bb", card)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("./nowhere", "no such backbone folder"),
        ("local-dir:nowhere", "no such backbone folder"),
        ("someone/network", "write hf-hub:someone/network"),
        ("resnet81", "did you mean"),
        (__file__, r"is a file, and a backbone is a folder.* backbone\.weights=FILE"),
    ],
)
def test_a_source_that_is_not_there_is_explained(source: str, message: str) -> None:
    with pytest.raises(ScanlearnError, match=message):
        load_backbone(source)


def test_weights_out_of_reach_are_an_error_and_no_random_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def offline(name: str, **given: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ScanlearnError, match=r"could not be fetched \(no network\)"):
        load_backbone("resnet18.a1_in1k")


def test_a_name_of_timm_is_passed_through(monkeypatch: pytest.MonkeyPatch, exported: Path) -> None:
    create = timm.create_model
    asked: list[tuple[str, bool]] = []

    def fetched(name: str, *, pretrained: bool, **given: object) -> object:
        asked.append((name, pretrained))
        return create(f"local-dir:{exported}", pretrained=pretrained, **given)

    monkeypatch.setattr(timm, "create_model", fetched)
    backbone, card = load_backbone("hf-hub:someone/net", channels=3)
    assert asked == [("hf-hub:someone/net", True), ("hf-hub:someone/net", False)]
    assert (backbone.name, backbone.channels, card.mean) == ("test_resnet", 3, (0.4,) * 3)
    assert "hf-hub:someone/net" in card.load


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_network_with_its_classifier_is_loaded_as_such_and_as_no_backbone(
    tmp_path: Path, trained: Make, card_of: CardOf, name: str
) -> None:
    network = build_classifying(trained(name, 1), 3, 0)
    card = card_of(network)
    assert card.num_classes == card.num_features == 3
    export_backbone(network, tmp_path / "tuned", card)
    loaded, found = load_classifying(tmp_path / "tuned")
    stranger = timm.create_model(f"local-dir:{tmp_path / 'tuned'}", pretrained=True).eval()
    assert stranger.num_classes == 3
    with torch.no_grad():
        assert torch.equal(loaded(_views(1)), network(_views(1)))
        assert torch.equal(stranger(_views(1)), network(_views(1)))
    assert found == card
    with pytest.raises(ScanlearnError, match="a classifier of 3 classes, which scantune predict"):
        load_backbone(tmp_path / "tuned")


def _answer(monkeypatch: pytest.MonkeyPatch, answer: Callable[[Tensor], Tensor]) -> None:
    """Puts an answer in the place of the fresh process."""
    monkeypatch.setattr(weights, "consumer_features", lambda folder, views, **_: answer(views))


def test_a_fresh_process_returns_the_features_of_an_export(exported: Path, trained: Make) -> None:
    views = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = trained("test_resnet", 1).eval()(views)
    torch.testing.assert_close(weights.consumer_features(exported, views), expected)


def test_equal_features_pass_and_the_backbone_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, trained: Make
) -> None:
    reference = trained("test_resnet", 1).eval()
    _answer(monkeypatch, lambda views: reference(views).detach())
    backbone = trained("test_resnet", 1).to(memory_format=torch.channels_last)
    before = weights_hash(backbone)
    weights.check_reload(Path("unused"), backbone, 32)
    assert backbone.training
    assert weights_hash(backbone) == before


@pytest.mark.parametrize(
    "wrong",
    [
        lambda features: features * 1.001,
        lambda features: features[:, 1:],
        lambda features: features * float("nan"),
    ],
)
def test_other_features_do_not_pass(
    monkeypatch: pytest.MonkeyPatch, trained: Make, wrong: Callable[[Tensor], Tensor]
) -> None:
    backbone = trained("test_resnet", 1).eval()
    _answer(monkeypatch, lambda views: wrong(backbone(views).detach()))
    with pytest.raises(ScanlearnError, match="features differ"):
        weights.check_reload(Path("unused"), backbone, 32)


def test_timm_is_asked_again_where_its_process_was_ended(exported: Path) -> None:
    views = torch.zeros(2, 1, 32, 32)
    first = weights.consumer_features(exported, views)
    running = consumer._process._running
    assert running is not None
    weights.consumer_features(exported, views)
    assert consumer._process._running is running
    running.kill()
    running.wait()
    assert torch.equal(weights.consumer_features(exported, views), first)
    assert consumer._process._running is not running


def test_a_timm_that_cannot_start_says_how_it_ended(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "_process", consumer._ConsumerProcess())
    monkeypatch.setattr(consumer, "_PROGRAM", "import sys; sys.exit(3)")
    with pytest.raises(ScanlearnError, match="its process ended with status 3"):
        weights.consumer_features(exported, torch.zeros(2, 1, 32, 32))


@pytest.mark.long
def test_a_folder_timm_cannot_load_says_why(tmp_path: Path, exported: Path) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "bb"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architecture": "resnet19"}))
    with pytest.raises(ScanlearnError, match=r"process of its own: .*resnet19"):
        weights.consumer_features(folder, torch.zeros(2, 1, 32, 32))
    # One that failed leaves the process to the next.
    assert weights.consumer_features(exported, torch.zeros(2, 1, 32, 32)).shape[0] == 2
