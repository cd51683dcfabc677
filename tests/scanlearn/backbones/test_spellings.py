"""Files as other libraries write them, against the features that those libraries compute."""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor, nn

from scanlearn.backbones.backbone import Backbone, build_backbone, weights_hash
from scanlearn.backbones.card import StartWeights
from scanlearn.backbones.settings import BackboneConfig
from scanlearn.backbones.start import load_start
from scanlearn.errors import ScanlearnError

Table = dict[str, Tensor]
Features = Callable[[Tensor], Tensor]


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="session")
def transformers() -> ModuleType:
    module: ModuleType = pytest.importorskip("transformers")
    module.utils.logging.disable_progress_bar()
    return module


def _start(
    file: Path, content: object, name: str = "test_vit", size: int = 64
) -> tuple[Backbone, StartWeights]:
    if file.suffix == ".safetensors":
        assert isinstance(content, dict)
        safetensors.torch.save_file(content, file)
    else:
        torch.save(content, file)
    config = BackboneConfig(name=name, weights=str(file))
    backbone = build_backbone(config.untrained, 3, 0, size=size).eval()
    start = load_start(backbone, config)
    assert start is not None
    return backbone, start


def _shaken(network: nn.Module) -> Any:
    """Moves every weight off its first value: ones, zeros and rows that are all alike."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=random)
                tensor.add_(
                    noise, alpha=1.0 if "embed" in name else 0.1 if tensor.ndim < 2 else 0.02
                )
    return network.eval()


def _check(backbone: Backbone, features: Features, size: int = 64) -> None:
    views = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        torch.testing.assert_close(backbone(views), features(views), rtol=1e-4, atol=1e-4)


def _saved(network: Any, folder: Path) -> Table:
    """The weights as they lie on disk, where the library uses other names than in memory."""
    network.save_pretrained(folder)
    return safetensors.torch.load_file(folder / "model.safetensors")


def _under(wrapper: str, table: Mapping[str, Tensor]) -> Table:
    return {wrapper + name: tensor for name, tensor in table.items()}


SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "image_size": 64,
    "patch_size": 16,
    "intermediate_size": 192,
    "layer_norm_eps": 1e-6,
}
# That of DINOv2's and DINOv3's small networks, which timm builds as they are.
DINO = {
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "layerscale_value": 0.3,
    "layer_norm_eps": 1e-6,
}


@pytest.mark.parametrize("wrapper", ["", "vit.", "model.net."])
def test_features_are_those_of_a_vit_of_transformers(
    tmp_path: Path, transformers: ModuleType, wrapper: str
) -> None:
    vit = _shaken(transformers.ViTModel(transformers.ViTConfig(**SMALL)))
    for table in (vit.state_dict(), _saved(vit, tmp_path)):
        table = _under(wrapper, table)
        backbone, start = _start(tmp_path / "vit.safetensors", table)
        _check(backbone, lambda views: vit(views).last_hidden_state[:, 0])
        assert set(start.left_out) == {
            f"{wrapper}pooler.dense.{kind}" for kind in ("weight", "bias")
        }


def test_features_are_those_of_a_masked_autoencoder_of_transformers(
    tmp_path: Path, transformers: ModuleType
) -> None:
    decoder = {"decoder_hidden_size": 32, "decoder_num_hidden_layers": 1}
    config = transformers.ViTMAEConfig(
        **SMALL, **decoder, decoder_num_attention_heads=2, decoder_intermediate_size=64
    )
    network = _shaken(transformers.ViTMAEForPreTraining(config))
    backbone, start = _start(tmp_path / "mae.pth", _saved(network, tmp_path))
    network.vit.config.mask_ratio = 0.0
    noise = torch.arange(16.0).repeat(2, 1)
    _check(backbone, lambda views: network.vit(views, noise=noise).last_hidden_state[:, 0])
    assert {name.split(".")[0] for name in start.left_out} == {"decoder"}


@pytest.mark.parametrize("registers", [0, 4])
def test_features_are_those_of_dinov2_of_transformers(
    tmp_path: Path, transformers: ModuleType, registers: int
) -> None:
    kind = "WithRegisters" if registers else ""
    config = getattr(transformers, f"Dinov2{kind}Config")(**DINO, image_size=56, patch_size=14)
    network = _shaken(getattr(transformers, f"Dinov2{kind}Model")(config))
    name = "vit_small_patch14_reg4_dinov2" if registers else "vit_small_patch14_dinov2"
    backbone, start = _start(tmp_path / "x.safetensors", _saved(network, tmp_path), name, 56)
    _check(backbone, lambda views: network(views).last_hidden_state[:, 0], 56)
    assert start.left_out == ("embeddings.mask_token",)
    assert start.notes == ()


@pytest.mark.parametrize("has_bias", [False, True])
def test_features_are_those_of_dinov3_of_transformers(
    tmp_path: Path, transformers: ModuleType, has_bias: bool
) -> None:
    config = transformers.DINOv3ViTConfig(
        **{**DINO, "layer_norm_eps": 1e-5},
        image_size=64,
        patch_size=16,
        intermediate_size=1536,
        num_register_tokens=4,
        query_bias=has_bias,
        value_bias=has_bias,
    )
    network = _shaken(transformers.DINOv3ViTModel(config))
    name = f"vit_small_patch16_dinov3{'_qkvb' if has_bias else ''}"
    table = _saved(network, tmp_path)
    backbone, start = _start(tmp_path / "x.safetensors", table, name, 64)
    # timm averages the patches of DINOv3, after the class token and four registers.
    _check(backbone, lambda views: network(views).last_hidden_state[:, 5:].mean(1), 64)
    assert start.left_out == ("embeddings.mask_token",)
    if has_bias:
        # Whose layers would be another function without the bias, which timm drops unseen.
        with pytest.raises(ScanlearnError, match=r"unexpected, such as \S*q_proj\.bias"):
            _start(tmp_path / "x.safetensors", table, "vit_small_patch16_dinov3", 64)


def _facebook(vit: Table, layers_of_a_chunk: int = 0) -> Table:
    """A ViT in the form of facebookresearch/dinov2: registers, a mask token, chunked blocks."""
    table = dict(vit)
    table["mask_token"] = torch.ones(1, vit["cls_token"].shape[2])
    if "reg_token" in table:
        table["register_tokens"] = table.pop("reg_token")
        position = torch.randn(1, 1, vit["cls_token"].shape[2])
        table["cls_token"] = vit["cls_token"] - position
        table["pos_embed"] = torch.cat([position, vit["pos_embed"]], 1)
    if not layers_of_a_chunk:
        return table
    return {
        re.sub(
            r"^blocks\.(\d+)", lambda m: f"blocks.{int(m[1]) // layers_of_a_chunk}.{m[1]}", name
        ): tensor
        for name, tensor in table.items()
    }


@pytest.mark.parametrize("chunk", [0, 4])
@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2"])
def test_dinov2_of_facebook_is_loaded(tmp_path: Path, name: str, chunk: int) -> None:
    network = _shaken(timm.create_model(name, num_classes=0, img_size=56))
    teacher = _under("backbone.", _facebook(network.state_dict(), chunk))
    content = {"teacher": teacher | {"dino_head.mlp.0.weight": torch.ones(2, 2)}, "iteration": 9}
    backbone, start = _start(tmp_path / "x.pth", content, name, 56)
    _check(backbone, network, 56)
    assert set(start.left_out) == {"backbone.mask_token", "dino_head.mlp.0.weight"}


def test_positions_of_another_grid_are_resampled_by_timm_and_that_is_said(tmp_path: Path) -> None:
    name = "vit_small_patch14_reg4_dinov2"
    network = _shaken(timm.create_model(name, num_classes=0, img_size=84))
    backbone, start = _start(tmp_path / "x.pth", _facebook(network.state_dict()), name, 56)
    network.set_input_size((56, 56))
    _check(backbone, network, 56)
    assert start.notes == ("pos_embed resampled from 6 x 6 to 4 x 4 patches",)
    assert "pos_embed resampled from 6 x 6 to 4 x 4 patches" in start.in_words


@pytest.fixture
def vit() -> Any:
    return _shaken(timm.create_model("test_vit", num_classes=0, img_size=64))


def _masked_autoencoder(vit: Table) -> dict[str, Any]:
    decoder = {
        "mask_token": torch.ones(1, 1, 32),
        "decoder_pos_embed": torch.ones(1, 17, 32),
        "decoder_embed.weight": torch.ones(32, 64),
        "decoder_norm.bias": torch.ones(32),
        "decoder_blocks.0.attn.qkv.weight": torch.ones(96, 32),
    }
    optimiser = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
    return {
        "model": vit | decoder,
        "optimizer": optimiser,
        "epoch": 799,
        "scaler": {"scale": 1.0},
        "args": argparse.Namespace(output=Path("somewhere"), device=torch.device("cpu")),
    }


def test_a_masked_autoencoder_is_loaded_without_its_decoder(tmp_path: Path, vit: Any) -> None:
    backbone, start = _start(tmp_path / "mae.pth", _masked_autoencoder(vit.state_dict()))
    assert weights_hash(backbone) == weights_hash(vit)
    assert "without its mask_token, decoder_* (4), optimizer" in start.in_words


def test_a_network_that_averages_its_patches_stays_one(tmp_path: Path) -> None:
    vit = _shaken(timm.create_model("test_vit", num_classes=0, img_size=64))
    table = {name.replace("norm.", "fc_norm.") if name.startswith("norm.") else name: tensor
             for name, tensor in vit.state_dict().items()}  # fmt: skip
    backbone, start = _start(
        tmp_path / "retfound.pth", {"model": table | {"head.bias": torch.ones(5)}}
    )

    def features(views: Tensor) -> Tensor:
        tokens = vit._pos_embed(vit.patch_embed(views))
        return vit.norm(vit.blocks(tokens)[:, 1:].mean(1))

    _check(backbone, features)
    assert start.averages_patches
    assert "the average of its patches as features (fc_norm)" in start.in_words
    again = timm.create_model("test_vit", num_classes=0, **backbone.model_args)
    again.load_state_dict(backbone.network.state_dict())
    _check(backbone, again.eval())


class AttributeDict(dict[str, Any]):
    """As Lightning and others pickle options: a class of their own."""


class Metric:
    def __init__(self, value: float) -> None:
        self.value = value


@pytest.mark.parametrize("wrapper", ["model.", "backbone.", "net.", "encoder.", "model.backbone."])
def test_a_checkpoint_of_lightning_is_loaded(tmp_path: Path, vit: Any, wrapper: str) -> None:
    content = {
        "state_dict": _under(wrapper, vit.state_dict()) | {"criterion.weight": torch.ones(2)},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
        "hyper_parameters": AttributeDict(lr=0.1, root=Path("x")),
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5)}},
        "best": [np.float64(0.5), np.array([1.0]), Metric(3.0)],
    }
    backbone, start = _start(tmp_path / "last.ckpt", content)
    assert weights_hash(backbone) == weights_hash(vit)
    assert start.left_out == ("criterion.weight", "optimizer_states", "callbacks")


@pytest.mark.parametrize(
    "wrapper", ["_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.", "a.b.c."]
)
def test_any_wrapper_is_taken_off(tmp_path: Path, vit: Any, wrapper: str) -> None:
    table = _under(wrapper, vit.state_dict()) | {"n_averaged": torch.tensor(5)}
    backbone, _ = _start(tmp_path / "x.safetensors", table)
    assert weights_hash(backbone) == weights_hash(vit)


@pytest.mark.parametrize(
    ("better", "other"),
    [
        *(("state_dict_ema", "state_dict"), ("model_ema", "model"), ("teacher", "student")),
        *(("params_ema", "params"), ("target_encoder", "encoder"), ("ema", "model")),
    ],
)
def test_of_two_tables_the_average_over_steps_is_taken_and_the_other_left_out(
    tmp_path: Path, vit: Any, better: str, other: str
) -> None:
    untrained = {name: torch.zeros_like(tensor) for name, tensor in vit.state_dict().items()}
    content = {other: untrained, better: _under("module.", vit.state_dict()), "best": torch.ones(1)}
    backbone, start = _start(tmp_path / "x.pth", content)
    assert weights_hash(backbone) == weights_hash(vit)
    assert other in start.left_out


@pytest.mark.parametrize(
    ("better", "other"),
    [
        *(("teacher.backbone.", "student.backbone."), ("model_ema.module.", "model.")),
        *(("module.base_encoder.", "module.momentum_encoder."), ("encoder_q.", "encoder_k.")),
        *(("backbone.", "backbone_momentum."), ("teacher_backbone.", "student_backbone.")),
    ],
)
def test_of_two_wrapped_networks_the_one_is_taken_that_others_take(
    tmp_path: Path, vit: Any, better: str, other: str
) -> None:
    untrained = {name: torch.zeros_like(tensor) for name, tensor in vit.state_dict().items()}
    table = _under(other, untrained) | _under(better, vit.state_dict())
    backbone, start = _start(tmp_path / "x.pth", {"state_dict": table})
    assert weights_hash(backbone) == weights_hash(vit)
    assert set(start.left_out) == _under(other, untrained).keys()


def test_of_two_networks_of_which_neither_is_known_none_is_taken(tmp_path: Path, vit: Any) -> None:
    for change in (lambda tensor: tensor + 1, torch.Tensor.double):
        other = {name: change(tensor) for name, tensor in vit.state_dict().items()}
        table = _under("left.", vit.state_dict()) | _under("right.", other)
        with pytest.raises(ScanlearnError, match=r"two networks that fit, left\.\* and right\.\*"):
            _start(tmp_path / "x.pth", table)
    twice = _under("left.", vit.state_dict()) | _under("right.", vit.state_dict())
    backbone, _ = _start(tmp_path / "x.pth", twice)
    assert weights_hash(backbone) == weights_hash(vit)


def _old(table: Table) -> Table:
    """torchvision's released DenseNets, as old versions named their layers and without counters."""
    return {
        re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)\.", r"\1.\2.", name): tensor
        for name, tensor in table.items()
        if "num_batches" not in name
    }


@pytest.mark.parametrize(
    ("spell", "wrapper"),
    [
        *((_old, ""), (_old, "module.densenet121."), (dict, "densenet121."), (_old, "net.")),
    ],
)
def test_features_are_those_of_a_densenet_of_torchvision(
    tmp_path: Path, spell: Callable[[Table], Table], wrapper: str
) -> None:
    network = _shaken(torchvision.models.densenet121(weights=None))
    table = _under(wrapper, spell(network.state_dict()))
    names = {
        name: re.sub("classifier", "classifier.0", name) if wrapper else name for name in table
    }
    content = {"state_dict": {names[name]: table[name] for name in table}, "best_loss": 0.1}
    backbone, start = _start(tmp_path / "chexnet.pth.tar", content, "densenet121")
    network.classifier = nn.Identity()
    _check(backbone, network)
    assert all("classifier" in name for name in start.left_out)


@pytest.mark.parametrize(
    "wrapper", ["module.encoder_q.", "module.encoder.", "module.base_encoder."]
)
def test_features_are_those_of_a_contrastive_resnet(tmp_path: Path, wrapper: str) -> None:
    network = _shaken(torchvision.models.resnet18(weights=None))
    beside = {"module.queue": torch.ones(2, 2), "module.predictor.0.weight": torch.ones(2, 2)}
    table = _under(wrapper, network.state_dict()) | beside
    backbone, start = _start(tmp_path / "moco.pth.tar", {"state_dict": table}, "resnet18")
    network.fc = nn.Identity()
    _check(backbone, network)
    assert set(start.left_out) == {f"{wrapper}fc.weight", f"{wrapper}fc.bias", *beside}


def test_convnext_of_facebook_is_loaded(tmp_path: Path) -> None:
    network = _shaken(timm.create_model("convnext_nano", num_classes=0, conv_mlp=False))
    table = {}
    for name, tensor in network.state_dict().items():
        name = re.sub(r"^stem\.", "downsample_layers.0.", name)
        name = re.sub(r"stages\.(\d)\.blocks\.", r"stages.\1.", name)
        name = re.sub(r"stages\.(\d)\.downsample\.", r"downsample_layers.\1.", name)
        name = name.replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")
        table[name.replace("head.norm", "norm")] = tensor
    table["head.weight"] = torch.ones(2, 640)
    backbone, start = _start(tmp_path / "convnext.pth", {"model": table}, "convnext_nano")
    _check(backbone, network)
    assert start.left_out == ("head.weight",)


def test_a_swin_of_another_window_is_resampled_and_that_is_said(tmp_path: Path) -> None:
    name = "swin_tiny_patch4_window7_224"
    network = _shaken(timm.create_model(name, num_classes=0, img_size=64, window_size=2))
    state = network.state_dict()
    table = {
        re.sub(r"layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", n): t
        for n, t in state.items()
    }
    table["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(4, 4, dtype=torch.int64)
    backbone, start = _start(tmp_path / "swin.pth", {"model": table}, name)
    assert start.left_out == ("layers.0.blocks.0.attn.relative_position_index",)
    for key, tensor in backbone.network.state_dict().items():
        if not key.endswith("bias_table"):
            assert torch.equal(tensor, state[key]), key
    assert any(note.endswith("bias_table resampled") for note in start.notes)


def _half_renamed(table: Table) -> Table:
    return {
        name.replace("attn.qkv", "attention.qkv") if "blocks.3" in name else name: tensor
        for name, tensor in table.items()
    }


def _without_values(table: Table) -> Table:
    """Query and key in a transformers' layer without value."""
    return {
        **{name: tensor for name, tensor in table.items() if not name.startswith("blocks.5.attn")},
        "blocks.5.attn.q.weight": torch.ones(64, 64),
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            _half_renamed,
            r"2 missing, such as blocks\.3\.attn\.qkv\.weight \(did you mean "
            r"'blocks\.3\.attention\.qkv\.weight'\?\).*; 2 unexpected, such as blocks\.3\.atten",
        ),
        (_without_values, r"4 missing, such as .*1 unexpected, such as blocks\.5\.attn\.q\.weight"),
        # The same shapes in the same order, under names that say nothing.
        (lambda table: {f"p{n}.w": t for n, t in enumerate(table.values())}, "missing, such as"),
        (lambda table: table | {"blocks.9.ls1.gamma": torch.ones(64)}, "1 unexpected, such as blo"),
        # timm itself would resample the patches of a network with other ones.
        (
            lambda table: table | {"patch_embed.proj.weight": torch.ones(64, 3, 14, 14)},
            r"patch_embed\.proj\.weight \(64 x 3 x 14 x 14, not 64 x 3 x 16 x 16\)",
        ),
        (
            lambda table: table | {"pos_embed": torch.ones(1, 19, 64)},
            r"pos_embed \(1 x 19 x 64, not",
        ),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, vit: Any, change: Callable[[Table], Table], words: str
) -> None:
    with pytest.raises(ScanlearnError, match=words):
        _start(tmp_path / "x.pth", change(vit.state_dict()))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            torch.full((64,), torch.nan),
            r"64 of the 64 values of module\.norm\.weight are not finite",
        ),
        (torch.tensor([torch.inf] + [1.0] * 63), r"1 of the 64 values of module\.norm\.weight"),
        (torch.full((64,), 1e300, dtype=torch.float64), r"64 of the 64 values of module\.norm"),
        (torch.ones(64, dtype=torch.int8), r"module\.norm\.weight holds int8, and weights are fl"),
        (
            torch.ones(64, device="meta"),
            r"module\.norm\.weight among the weights is not a tensor of",
        ),
    ],
)
def test_weights_that_are_no_numbers_are_refused(
    tmp_path: Path, vit: Any, value: Tensor, words: str
) -> None:
    table = _under("module.", vit.state_dict() | {"norm.weight": value})
    with pytest.raises(ScanlearnError, match=words):
        _start(tmp_path / "x.pth", table)


def test_arrays_and_whole_networks_are_refused_with_the_reason(tmp_path: Path, vit: Any) -> None:
    arrays = {name: tensor.numpy() for name, tensor in vit.state_dict().items()}
    with pytest.raises(ScanlearnError, match="no table of tensors, but numpy arrays"):
        _start(tmp_path / "x.pth", {"state_dict": arrays})
    for content in (vit, {"model": vit}, {"net": vit, "epoch": 3}):
        with pytest.raises(ScanlearnError, match="a whole network as Python objects, whose code"):
            _start(tmp_path / "x.pth", content)
    (tmp_path / "y.pth").write_bytes(pickle.dumps(arrays))
    with pytest.raises(ScanlearnError, match=r"y\.pth is not a complete file of tensors"):
        load_start(
            build_backbone(BackboneConfig(name="test_vit"), 3, 0, size=64),
            BackboneConfig(name="test_vit", weights=str(tmp_path / "y.pth")),
        )


def test_files_of_old_torch_are_read(tmp_path: Path, vit: Any) -> None:
    content = {"state_dict": vit.state_dict(), "args": argparse.Namespace(), "best": np.float64(1)}
    file = tmp_path / "x.pth.tar"
    torch.save(content, file, _use_new_zipfile_serialization=False)
    config = BackboneConfig(name="test_vit", weights=str(file))
    backbone = build_backbone(config.untrained, 3, 0, size=64)
    load_start(backbone, config)
    assert weights_hash(backbone) == weights_hash(vit)
