from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

from scanlearn.backbones import formats
from scanlearn.backbones.backbone import Backbone, BackboneConfig, build_backbone
from scanlearn.backbones.card import Card
from scanlearn.backbones.consumer import Loading
from scanlearn.backbones.formats import FORMATS, check_files, export_format
from scanlearn.backbones.weights import load_backbone
from scanlearn.errors import ScanlearnError

Make = Callable[[str, int], Backbone]
CardOf = Callable[[Backbone], Card]


def _views(channels: int) -> torch.Tensor:
    return torch.randn(3, channels, 32, 32, generator=torch.Generator().manual_seed(7))


@pytest.mark.long
# Each format once, since each takes three processes.
@pytest.mark.parametrize(
    ("name", "channels"), [(name, 3 if name in ("safetensors", "onnx") else 1) for name in FORMATS]
)
def test_every_library_returns_the_features_of_a_resnet(
    tmp_path: Path, trained: Make, card_of: CardOf, name: formats.FormatName, channels: int
) -> None:
    backbone = trained("resnet18", channels)
    exported = export_format(backbone, card_of(backbone), tmp_path / "out", name)
    assert exported.difference < 1e-5
    check_files(exported.folder)
    # Here the lines of the card are run as they stand, in one more process.
    views, lines = tmp_path / "views.safetensors", exported.loading.program(exported.folder)
    safetensors.torch.save_file({"views": _views(channels)}, views)
    code = (
        "import sys, torch\nfrom safetensors.torch import load_file, save_file\n"
        f"views = load_file({str(views)!r})['views']\nwith torch.no_grad():\n"
        + "".join(f"    {line}\n" for line in lines.splitlines() if line)
        + f"    save_file({{'features': features.contiguous()}}, {str(views)!r})\n"
        "assert 'scanlearn' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-P", "-W", "ignore", "-c", code], check=True, timeout=300)
    with torch.no_grad():
        expected = backbone.eval()(_views(channels))
    theirs = safetensors.torch.load_file(views)["features"]
    torch.testing.assert_close(theirs, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize(("name", "channels"), [("torchvision", 1), ("monai", 3)])
def test_a_densenet_is_written_as_its_libraries_name_it(
    tmp_path: Path, trained: Make, card_of: CardOf, name: formats.FormatName, channels: int
) -> None:
    backbone = trained("densenet121", channels)
    exported = export_format(backbone, card_of(backbone), tmp_path / "out", name)
    found = {"views": _views(channels)}
    with torch.no_grad():
        exec(exported.loading.program(exported.folder), found)
        expected = backbone.eval()(found["views"])
    torch.testing.assert_close(found["features"], expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the fresh process, where a test looks at the files."""
    monkeypatch.setattr("scanlearn.backbones.weights.check_reload", lambda *_: 0.0)


@pytest.fixture
def plain(tmp_path: Path, trained: Make, card_of: CardOf, trusted: None) -> Path:
    backbone = trained("test_resnet", 1)
    return export_format(backbone, card_of(backbone), tmp_path / "plain", "safetensors").folder


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize(
    ("architecture", "name"),
    [("test_vit", "torchvision"), ("test_vit", "monai"), ("test_vit", "smp")],
)
def test_a_library_without_the_network_is_named_with_what_else_there_is(
    tmp_path: Path, trained: Make, card_of: CardOf, architecture: str, name: formats.FormatName
) -> None:
    backbone = trained(architecture, 1)
    with pytest.raises(ScanlearnError, match=r"take format=timm, safetensors or onnx"):
        export_format(backbone, card_of(backbone), tmp_path / "out", name)
    assert list(tmp_path.iterdir()) == []


def test_a_library_that_is_not_installed_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Make, card_of: CardOf
) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == "onnx" else name)
    backbone = trained("test_resnet", 1)
    with pytest.raises(ScanlearnError, match=r"format=onnx needs onnx, .*scanlearn\[export\]"):
        export_format(backbone, card_of(backbone), tmp_path / "out", "onnx")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("raise OSError('no such file')", "timm could not load .*OSError: no such file"),
        ("model = torch.nn.Flatten()", "loaded the exported 'test_resnet' but its features differ"),
    ],
)
def test_what_a_library_loads_wrongly_is_not_exported(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trained: Make,
    card_of: CardOf,
    lines: str,
    message: str,
) -> None:
    row = formats.Format((), lambda *_: Loading("timm", lines))
    monkeypatch.setitem(formats.FORMATS, "safetensors", row)
    backbone = trained("test_resnet", 1)
    with pytest.raises(ScanlearnError, match=message):
        export_format(backbone, card_of(backbone), tmp_path / "out", "safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_changed_or_missing_file_of_any_format_is_found(plain: Path) -> None:
    check_files(plain)
    file = plain / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ScanlearnError, match=r"safetensors: its hash is not the one in card"):
        check_files(plain)
    file.unlink()
    with pytest.raises(ScanlearnError, match=r"safetensors: the file is missing"):
        check_files(plain)


def test_an_export_for_another_library_is_no_backbone_folder(plain: Path) -> None:
    with pytest.raises(ScanlearnError, match="is an export for safetensors; give the run's"):
        load_backbone(plain)


@pytest.mark.usefixtures("trusted")
def test_the_same_export_again_is_found_and_another_refused(
    plain: Path, trained: Make, card_of: CardOf
) -> None:
    backbone = trained("test_resnet", 1)
    before = {file.name: file.stat().st_mtime_ns for file in plain.iterdir()}
    again = export_format(backbone, card_of(backbone), plain, "safetensors")
    assert again.difference is None
    assert {file.name: file.stat().st_mtime_ns for file in plain.iterdir()} == before
    with pytest.raises(ScanlearnError, match="already holds something else"):
        export_format(backbone, card_of(backbone), plain, "timm")


@pytest.mark.usefixtures("trusted")
def test_three_channels_fold_a_gray_first_layer(
    tmp_path: Path, exported: Path, trained: Make
) -> None:
    backbone, card = load_backbone(exported, channels=3)
    folder = export_format(backbone, card, tmp_path / "colour").folder
    described = json.loads((folder / "card.json").read_text())
    assert (described["channels"], described["trained_channels"]) == (3, 1)
    colour = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    with torch.no_grad():
        expected = trained("test_resnet", 1).eval()(_views(1))
        torch.testing.assert_close(colour(_views(1).repeat(1, 3, 1, 1)), expected)
    assert load_backbone(folder)[1].trained_channels == 1


@pytest.mark.usefixtures("trusted")
def test_the_markdown_card_has_what_the_hub_reads_and_names_nobody(
    tmp_path: Path, trained: Make
) -> None:
    backbone = trained("test_resnet", 1)
    card = Card.of(
        backbone,
        size=32,
        mean=(0.4,),
        std=(0.2,),
        method="simclr",
        scale={"crop": 0.5},
        packing={"window": "lung"},
        scans=1234,
        patients=56,
        archive_hash="a1b2",
    )
    facts = formats.Facts("cc-by-nc-4.0", {"loss at the end": "1.5 | 2"})
    text = (
        export_format(backbone, card, tmp_path / "out", facts=facts).folder / "README.md"
    ).read_text()
    front, body = text.removeprefix("---\n").split("---\n", 1)
    assert 'license: "cc-by-nc-4.0"\nlibrary_name: "timm"\n' in front
    for told in ("1,234", "| patients | 56 |", "lung", "a1b2", '{"crop": 0.5}', r"1.5 \| 2"):
        assert told in body
    assert str(tmp_path) not in text


REGISTERED = """
import torch
from timm.models import register_model


class OwnNet(torch.nn.Module):
    def __init__(self, in_chans):
        super().__init__()
        self.num_features = 5
        self.conv = torch.nn.Conv2d(in_chans, 5, 3)

    def forward(self, views):
        return self.conv(views).mean((2, 3))


@register_model
def own_net_of_a_user(pretrained=False, num_classes=0, in_chans=3, **kwargs):
    return OwnNet(in_chans)
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A network of a user's module that timm knows and has no configuration of."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_networks_of_a_user.py").write_text(REGISTERED)
    sys.path.insert(0, str(folder))
    try:
        __import__("own_networks_of_a_user")
        yield build_backbone(BackboneConfig(name="own_net_of_a_user"), 1, 0, size=32)
    finally:
        sys.path.remove(str(folder))


@pytest.mark.parametrize("name", ["timm", "safetensors"])
def test_a_network_without_a_configuration_of_timm_is_exported(
    tmp_path: Path, own: Backbone, card_of: CardOf, name: formats.FormatName
) -> None:
    exported = export_format(own, card_of(own), tmp_path / "out", name)
    assert exported.difference == 0
    assert "import own_networks_of_a_user" in (exported.folder / "README.md").read_text()
    if name == "timm":
        loaded, card = load_backbone(shutil.copytree(exported.folder, tmp_path / "copy"))
        assert "load_state_dict" in card.load
        with torch.no_grad():
            assert torch.equal(loaded(_views(1)), own.eval()(_views(1)))
        with pytest.raises(ScanlearnError, match="names no first layer"):
            load_backbone(exported.folder, channels=3)


def test_a_network_of_a_session_without_a_file_is_refused_before_it_trains(
    own: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timm.models.model_entrypoint(own.name), "__module__", "__main__")
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    with pytest.raises(ScanlearnError, match="register it in a file"):
        build_backbone(BackboneConfig(name=own.name), 1, 0, size=32)
