from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from scanlearn.backbones.naming import name_few, name_groups, rename, table_of
from scanlearn.errors import ScanlearnError


class Network(nn.Module):
    """Stands for a network with weights of these names."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names

    def state_dict(self, *args: object, **options: object) -> dict[str, Tensor]:  # type: ignore[override]
        return {name: torch.zeros(1) for name in self.names}


WANTED = {"conv1.weight", "bn1.weight", "layer1.0.conv1.weight"}


def _tensors(*names: str) -> dict[str, Tensor]:
    return {name: torch.full((1,), float(number)) for number, name in enumerate(names)}


@pytest.mark.parametrize(
    "wrapper",
    [
        *("", "module.", "backbone.", "encoder.", "model.", "network.", "student.", "teacher."),
        *(
            "module.encoder_q.",
            "module.base_encoder.",
            "module.backbone.",
            "model.teacher.backbone.",
        ),
    ],
)
def test_a_wrapper_is_taken_off(wrapper: str) -> None:
    tensors = _tensors(*(wrapper + name for name in sorted(WANTED)))
    renamed = rename(tensors, Network(*WANTED))
    assert renamed.tensors.keys() == WANTED
    assert renamed.left_out == ()
    for name in WANTED:
        assert renamed.tensors[name] is tensors[wrapper + name]
        assert renamed.written[name] == wrapper + name


def test_of_two_networks_that_fit_the_teacher_is_taken() -> None:
    students = [f"student.backbone.{name}" for name in sorted(WANTED)]
    teachers = [f"teacher.backbone.{name}" for name in sorted(WANTED)]
    renamed = rename(_tensors(*students, *teachers), Network(*WANTED))
    assert set(renamed.written.values()) == set(teachers)
    assert set(renamed.left_out) == set(students)


def test_what_moco_keeps_beside_its_encoder_is_left_out() -> None:
    encoder = [f"module.encoder_q.{name}" for name in sorted(WANTED)]
    beside = ["module.encoder_q.fc.0.weight", "module.queue", "module.encoder_k.conv1.weight"]
    renamed = rename(_tensors(*encoder, *beside), Network(*WANTED))
    assert renamed.tensors.keys() == WANTED
    assert set(renamed.left_out) == set(beside)


@pytest.mark.parametrize(
    "name", ["fc.weight", "heads.head.bias", "classifier.1.weight", "projection_head.0.bias"]
)
def test_a_classifier_or_projection_is_left_out(name: str) -> None:
    assert rename(_tensors(*WANTED, name), Network(*WANTED)).left_out == (name,)


def test_a_name_that_the_network_has_is_kept_whatever_it_begins_with() -> None:
    renamed = rename(_tensors("head.norm.weight", "head.fc.weight"), Network("head.norm.weight"))
    assert renamed.tensors.keys() == {"head.norm.weight"}
    assert renamed.left_out == ("head.fc.weight",)


def test_what_the_network_does_not_know_is_kept_for_the_check_to_find() -> None:
    renamed = rename(_tensors(*WANTED, "layer5.0.conv1.weight"), Network(*WANTED))
    assert "layer5.0.conv1.weight" in renamed.tensors
    assert renamed.left_out == ()


def test_the_numbered_children_of_a_resnet_get_their_names() -> None:
    names = ["backbone.0.weight", "backbone.1.weight", "backbone.4.0.conv1.weight", "fc.weight"]
    renamed = rename(_tensors(*names), Network(*WANTED))
    assert [renamed.written[name] for name in sorted(WANTED)] == [names[1], names[0], names[2]]
    assert renamed.left_out == ("fc.weight",)


def test_the_numbered_children_of_a_densenet_get_their_names() -> None:
    renamed = rename(
        _tensors("backbone.0.conv0.weight", "backbone.1.bias"), Network("features.conv0.weight")
    )
    assert renamed.tensors.keys() == {"features.conv0.weight"}
    assert renamed.left_out == ("backbone.1.bias",)


@pytest.mark.parametrize("mlp", [("mlp.0", "mlp.3"), ("mlp.linear_1", "mlp.linear_2")])
def test_both_spellings_of_the_mlp_of_torchvision_are_known(mlp: tuple[str, str]) -> None:
    layer = "encoder.layers.encoder_layer_11."
    wanted = {"cls_token", "blocks.11.mlp.fc1.weight", "blocks.11.mlp.fc2.bias"}
    names = ["class_token", f"{layer}{mlp[0]}.weight", f"{layer}{mlp[1]}.bias"]
    assert rename(_tensors(*names), Network(*wanted)).tensors.keys() == wanted


@pytest.mark.parametrize(
    "path", [(), ("state_dict",), ("model",), ("teacher",), ("state_dict", "model")]
)
def test_the_table_of_weights_is_found_where_scripts_put_it(path: tuple[str, ...]) -> None:
    table = _tensors("conv1.weight")
    content: object = table
    for key in reversed(path):
        content = {"epoch": 3, key: content}
    assert table_of(content, "x.pth") == table


@pytest.mark.parametrize(
    ("content", "words"),
    [
        *((content, "no table of tensors") for content in (None, [1], {}, {"epoch": 3})),
        ({"model": "resnet18"}, "no table of tensors"),
        ({"conv1.weight": torch.ones(1), "epoch": 3}, "epoch among the weights is not a tensor"),
    ],
)
def test_a_file_without_weights_is_refused(content: object, words: str) -> None:
    with pytest.raises(ScanlearnError, match=rf"x\.pth: {words}"):
        table_of(content, "x.pth")


def test_of_many_names_three_are_shown() -> None:
    assert name_few("ab") == "a, b"
    assert name_few("abcde") == "a, b, c and 2 more"


def test_dicts_that_hold_themselves_end() -> None:
    content: dict[str, object] = {"epoch": 3}
    content["model"] = content
    with pytest.raises(ScanlearnError, match="no table of tensors"):
        table_of(content, "x.pth")
    content["conv1.weight"] = torch.ones(1)
    with pytest.raises(ScanlearnError, match="epoch, model among the weights are not"):
        table_of(content, "x.pth")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["fc.weight", "fc.bias"], "fc.weight, fc.bias"),
        (["mask_token", *(f"decoder_{n}.w" for n in range(9))], "mask_token, decoder_* (9)"),
        (
            [f"module.{net}.{n}" for net in ("fc", "queue") for n in "abcd"],
            "module.fc.* (4), module.queue.* (4)",
        ),
        (
            [f"{net}.{n}" for net in "abcde" for n in range(2)],
            "a.* (2), b.* (2), c.* (2) and 2 more",
        ),
    ],
)
def test_many_names_are_shown_in_groups(names: list[str], words: str) -> None:
    assert name_groups(names) == words
