from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import shutil
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor, nn

from scanlearn.backbones import weights
from scanlearn.backbones.backbone import Backbone, BackboneConfig, build_backbone, weights_hash
from scanlearn.backbones.card import Card, StartWeights
from scanlearn.backbones.start import load_start
from scanlearn.backbones.weights import export_backbone
from scanlearn.errors import ScanlearnError

Make = Callable[[str, int], Backbone]


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    # Weights of torchvision's networks come from the global generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], nn.Module]:
    """Lays a model out in a local cache as the hub's client leaves it; there is no network."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def put(model_id: str, architecture: str) -> nn.Module:
        network: nn.Module = _shaken(timm.create_model(architecture))
        folder = cache / f"models--{model_id.replace('/', '--')}"
        snapshot = folder / "snapshots" / "0123abc"
        snapshot.mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("0123abc")
        safetensors.torch.save_file(network.state_dict(), snapshot / "model.safetensors")
        config = {"architecture": architecture, "pretrained_cfg": {**_plain(network)}}
        (snapshot / "config.json").write_text(json.dumps(config))
        return network.eval()

    return put


def _plain(network: nn.Module) -> dict[str, Any]:
    kept = ("input_size", "num_classes", "first_conv", "classifier", "fixed_input_size")
    return {name: network.pretrained_cfg[name] for name in kept if name in network.pretrained_cfg}


def _shaken(network: nn.Module, seed: int = 1) -> nn.Module:
    """Gives statistics and what begins at zero or one values of their own, as training does."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point() and (tensor.ndim < 2 or not tensor.any()):
                tensor.add_(torch.rand(tensor.shape, generator=random), alpha=0.2)
    return network


def _start(
    weights: str | Path | None, name: str = "test_resnet", channels: int = 3, size: int = 64
) -> tuple[Backbone, StartWeights | None]:
    config = BackboneConfig(name=name, weights=None if weights is None else str(weights))
    backbone = build_backbone(config.untrained, channels, 0, size=size)
    return backbone.eval(), load_start(backbone, config)


def _views(channels: int = 3, size: int = 64) -> Tensor:
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(7))


def _equal(backbone: Backbone, reference: nn.Module, size: int = 64) -> None:
    with torch.no_grad():
        expected = reference(_views(size=size))
        torch.testing.assert_close(backbone(_views(size=size)), expected, rtol=1e-5, atol=1e-5)


def test_without_weights_the_seed_alone_decides() -> None:
    backbone, start = _start(None)
    assert start is None
    untrained = build_backbone(BackboneConfig(name="test_resnet"), 3, 0, size=64)
    assert weights_hash(backbone) == weights_hash(untrained)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin", ".pth.tar"])
def test_a_file_saved_by_timm_is_loaded(tmp_path: Path, suffix: str) -> None:
    saved = _shaken(timm.create_model("test_resnet", num_classes=0))
    file = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(saved.state_dict(), file)
    else:
        torch.save({"epoch": 1, "state_dict": saved.state_dict()}, file)
    backbone, start = _start(file)
    assert weights_hash(backbone) == weights_hash(saved)
    assert start == StartWeights(
        kind="file",
        source=file.name,
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        weights_hash=weights_hash(saved),
    )


def _truncated(network: nn.Module, head: str) -> nn.Module:
    setattr(network, head, nn.Identity())
    return network.eval()


@pytest.mark.parametrize(("name", "head"), [("resnet18", "fc"), ("densenet121", "classifier")])
def test_features_are_those_of_torchvision(tmp_path: Path, name: str, head: str) -> None:
    network = _shaken(torchvision.models.get_model(name, weights=None))
    torch.save(network.state_dict(), tmp_path / "tv.pth")
    backbone, start = _start(tmp_path / "tv.pth", name)
    assert start is not None
    assert set(start.left_out) == {f"{head}.weight", f"{head}.bias"}
    _equal(backbone, _truncated(network, head))


def test_features_are_those_of_a_small_vit_of_torchvision(tmp_path: Path) -> None:
    network = _shaken(
        torchvision.models.VisionTransformer(
            image_size=64, patch_size=16, num_layers=6, num_heads=2, hidden_dim=64, mlp_dim=192
        )
    )
    torch.save(network.state_dict(), tmp_path / "tv.pth")
    backbone, _ = _start(tmp_path / "tv.pth", "test_vit")
    _equal(backbone, _truncated(network, "heads"))


@pytest.mark.long
def test_features_are_those_of_vit_b_16_of_torchvision(tmp_path: Path) -> None:
    network = _shaken(torchvision.models.get_model("vit_b_16", weights=None))
    torch.save(network.state_dict(), tmp_path / "tv.pth")
    backbone, _ = _start(tmp_path / "tv.pth", "vit_base_patch16_224", size=224)
    _equal(backbone, _truncated(network, "heads"), size=224)


@pytest.mark.parametrize(("name", "head"), [("resnet50", "fc"), ("densenet121", "classifier")])
def test_a_backbone_saved_as_numbered_children_is_loaded(
    tmp_path: Path, name: str, head: str
) -> None:
    network = _shaken(torchvision.models.get_model(name, weights=None))

    class Numbered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential(*list(network.children())[:-1])

    state = Numbered().state_dict()
    assert "backbone.0.weight" in state or "backbone.0.conv0.weight" in state
    torch.save(state, tmp_path / "radiology.pt")
    backbone, _ = _start(tmp_path / "radiology.pt", name)
    _equal(backbone, _truncated(network, head))


def test_options_of_a_training_script_beside_the_weights_do_not_matter(tmp_path: Path) -> None:
    saved = _shaken(timm.create_model("test_vit", num_classes=0))
    teacher = {f"backbone.{name}": tensor for name, tensor in saved.state_dict().items()}
    teacher["head.mlp.0.weight"] = torch.ones(3, 3)
    content = {"teacher": teacher, "args": argparse.Namespace(lr=0.1), "epoch": 2}
    torch.save(content, tmp_path / "dino.pth")
    backbone, start = _start(tmp_path / "dino.pth", "test_vit", size=160)
    assert weights_hash(backbone) == weights_hash(saved)
    assert start is not None
    assert start.left_out == ("head.mlp.0.weight",)


def test_a_file_of_another_architecture_is_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "vit.pth")
    with pytest.raises(ScanlearnError, match=r"vit\.pth does not hold the weights of 'test_res"):
        _start(tmp_path / "vit.pth")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    whole, file = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    state = timm.create_model("test_resnet").state_dict()
    if suffix == ".safetensors":
        safetensors.torch.save_file(state, whole)
    else:
        torch.save(state, whole)
    content = whole.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ScanlearnError, match="not a complete file of tensors"):
        _start(file)


class _Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


def test_code_in_a_file_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = timm.create_model("test_resnet").state_dict()
    torch.save({"state_dict": state, "extra": _Trap()}, "trap.pth")
    with pytest.raises(ScanlearnError, match="holds pickled objects, which could run code"):
        _start("trap.pth")
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"f": eval}, r"\(it names eval\)"),
        ({"f": os.system}, r"\(it names posix\.system\)"),
        (b"version https://git-lfs.github.com/spec/v1", "not a complete file of tensors"),
        (b"<!DOCTYPE html>", "not a complete file of tensors"),
        ({"a.npy": b""}, "a zip archive that torch did not write"),
    ],
)
def test_the_reason_of_a_refusal_is_short_and_advises_no_code(
    tmp_path: Path, content: Any, reason: str
) -> None:
    file = tmp_path / "x.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif "a.npy" in content:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a.npy", b"")
    else:
        torch.save(content, file)
    with pytest.raises(ScanlearnError, match=reason) as caught:
        _start(file)
    assert "weights_only" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_data_of_python_beside_the_weights_do_not_matter(tmp_path: Path) -> None:
    saved = _shaken(timm.create_model("test_resnet", num_classes=0))
    beside = {
        "at": datetime.datetime(2020, 1, 1),
        "kinds": frozenset({int, str}),
        "counts": defaultdict(list, {"a": [1]}),
        "rate": Decimal("1.5"),
        "where": Path("x"),
    }
    torch.save({"state_dict": saved.state_dict(), **beside}, tmp_path / "x.pth")
    backbone, _ = _start(tmp_path / "x.pth")
    assert weights_hash(backbone) == weights_hash(saved)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nowhere.pth", "no file or folder nowhere.pth"),
        ("pretraind", "did you mean 'pretrained'"),
        (__file__, r"ends in '\.py'; a weight file ends in one of \.safetensors"),
    ],
)
def test_weights_that_are_not_there_are_explained(given: str, message: str) -> None:
    with pytest.raises(ScanlearnError, match=message):
        _start(given)


def test_the_backbone_of_an_earlier_run_is_loaded(exported: Path, trained: Make) -> None:
    backbone, start = _start(exported, channels=1, size=32)
    assert weights_hash(backbone) == weights_hash(trained("test_resnet", 1))
    assert start is not None
    assert start.kind == "backbone"
    assert start.origin == Card.model_validate_json((exported / "card.json").read_text())
    content = (exported / "model.safetensors").read_bytes()
    assert start.sha256 == hashlib.sha256(content).hexdigest()


def test_a_run_folder_stands_for_the_backbone_in_it(tmp_path: Path, exported: Path) -> None:
    shutil.copytree(exported, tmp_path / "run" / "backbone")
    run, start = _start(tmp_path / "run", channels=1)
    assert start is not None
    assert start.source == "run/backbone"
    assert weights_hash(run) == weights_hash(_start(exported, channels=1)[0])


def test_a_changed_export_is_refused(tmp_path: Path, exported: Path) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "bb"))
    file = folder / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ScanlearnError, match=r"match the hash in card\.json"):
        _start(folder, channels=1)


def test_an_export_of_another_architecture_is_refused(exported: Path) -> None:
    with pytest.raises(
        ScanlearnError, match=r"holds 'test_resnet', but backbone\.name is 'test_vit'"
    ):
        _start(exported, "test_vit", channels=1)


def test_a_card_says_what_the_backbone_began_from(
    tmp_path: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "check_reload", lambda *given: None)
    backbone, start = _start(exported, channels=1)
    card = Card.of(backbone, size=64, mean=(0.5,), std=(0.5,), start=start, archive_hash="a")
    export_backbone(backbone, tmp_path / "bb", card)
    assert weights.load_backbone(tmp_path / "bb")[1].start == start


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
@pytest.mark.parametrize("channels", [1, 3])
def test_weights_of_timm_come_from_its_cache(
    hub: Callable[[str, str], nn.Module], name: str, channels: int
) -> None:
    network = hub(f"timm/{name}.r160_in1k", name)
    backbone, start = _start("pretrained", name, channels, size=160)
    assert start is not None
    assert (start.kind, start.source) == ("timm", f"{name}.r160_in1k")
    with torch.no_grad():
        features = network.forward_head(
            network.forward_features(_views(1, 160).repeat(1, 3, 1, 1)), pre_logits=True
        )
        given = backbone(_views(1, 160).repeat(1, channels, 1, 1))
        torch.testing.assert_close(given, features, rtol=1e-4, atol=1e-4)


def test_a_name_with_a_tag_is_that_of_the_weights(hub: Callable[[str, str], nn.Module]) -> None:
    network = hub("timm/test_resnet.r160_in1k", "test_resnet")
    backbone, start = _start("pretrained", "test_resnet.r160_in1k")
    assert start is not None
    assert (backbone.name, start.source) == ("test_resnet", "test_resnet.r160_in1k")
    network.reset_classifier(0)
    assert weights_hash(backbone) == weights_hash(network)


def test_positions_of_timms_weights_fit_the_views(hub: Callable[[str, str], nn.Module]) -> None:
    hub("timm/test_vit.r160_in1k", "test_vit")
    backbone, _ = _start("pretrained", "test_vit", size=64)
    assert backbone.network.pos_embed.shape == (1, 1 + 4 * 4, 64)


def test_a_hub_model_is_loaded_from_the_cache(hub: Callable[[str, str], nn.Module]) -> None:
    network = hub("someone/net", "test_resnet")
    backbone, start = _start("hf-hub:someone/net")
    assert start is not None
    assert (start.kind, start.source, start.sha256) == ("hub", "hf-hub:someone/net", None)
    network.reset_classifier(0)
    assert start.weights_hash == weights_hash(backbone) == weights_hash(network)


def test_a_hub_model_of_another_architecture_is_refused(
    hub: Callable[[str, str], nn.Module],
) -> None:
    hub("someone/net", "test_vit")
    with pytest.raises(
        ScanlearnError, match=r"is a 'test_vit', but backbone\.name is 'test_resnet'"
    ):
        _start("hf-hub:someone/net")


def test_a_hub_model_that_lacks_weights_is_refused(
    tmp_path: Path, hub: Callable[[str, str], nn.Module]
) -> None:
    hub("someone/net", "test_resnet")
    (file,) = tmp_path.rglob("model.safetensors")
    tensors = safetensors.torch.load_file(file)
    del tensors["layer1.0.conv1.weight"]
    safetensors.torch.save_file(tensors, file)
    with pytest.raises(ScanlearnError, match="hf-hub:someone/net"):
        _start("hf-hub:someone/net")


def test_a_hub_model_of_transformers_ends_in_what_to_do(
    tmp_path: Path, hub: Callable[[str, str], nn.Module]
) -> None:
    hub("someone/net", "test_vit")
    (file,) = tmp_path.rglob("config.json")
    file.write_text(json.dumps({"architectures": ["Dinov2Model"], "model_type": "dinov2"}))
    with pytest.raises(ScanlearnError, match=r"is there, but .* is not timm's .*weights=FILE"):
        _start("hf-hub:someone/net", "test_vit")


def test_a_folder_of_another_library_ends_in_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ScanlearnError, match=r"no card\.json.*weights=.*/model\.safetensors"):
        _start(tmp_path)


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("given", "hub_id"),
    [("pretrained", "timm/test_resnet.r160_in1k"), ("hf-hub:someone/net", "someone/net")],
)
def test_weights_out_of_reach_end_in_what_to_do(given: str, hub_id: str) -> None:
    with pytest.raises(
        ScanlearnError, match=rf"hf-hub:{hub_id}.* download the file .*backbone\.weights=FILE"
    ):
        _start(given)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18.bogus", r"no pretrained weights 'resnet18\.bogus'; it has resnet18\."),
        ("resnet18.a1_in1k", r"write 'resnet18', or backbone\.weights=pretrained"),
    ],
)
def test_a_tag_that_does_not_fit_is_refused(tmp_path: Path, name: str, message: str) -> None:
    given = "pretrained" if "bogus" in name else tmp_path / "x.pth"
    with pytest.raises(ScanlearnError, match=message):
        _start(given, name)
