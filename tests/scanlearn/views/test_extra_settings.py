"""Extras named in a configuration; the right values are plain formulas."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from scanlearn.core import ScanBatch, ViewPlan
from scanlearn.errors import ScanlearnError
from scanlearn.views.draw import Draw
from scanlearn.views.explain import explain
from scanlearn.views.extra_settings import ExtraConfig, build_extras
from scanlearn.views.extras import apply_extras
from scanlearn.views.generator import ViewGenerator
from scanlearn.views.recipes import RECIPES
from scanlearn.views.scale import Scale
from scanlearn.views.uniforms import DrawKey, uniforms

MakeBatch = Callable[..., ScanBatch]
V2, MONAI, ALBUMENTATIONS = "torchvision.transforms.v2", "monai.transforms", "albumentations"
NAN = float("nan")
SCANS = 6


def _draw(scans: int = SCANS) -> Draw:
    u = uniforms(DrawKey(0, 0, np.arange(scans)), 2)
    return RECIPES["simclr"].at(Scale.STRONG).draw(u, np.tile([0, 0, 8, 8], (scans, 1)))


def _views(channels: int = 1) -> Tensor:
    return torch.rand(SCANS, channels, 8, 8, generator=torch.Generator().manual_seed(0))


def _applied(name: str, channels: int = 1, **settings: Any) -> Tensor:
    extras = build_extras([ExtraConfig(name=name, **settings)])
    return apply_extras(_views(channels), _draw(), 0, extras, extras[0].place)


@pytest.mark.parametrize(
    ("name", "arguments", "right"),
    [
        # Its own probability of .5 is not multiplied onto the extra's.
        (f"{V2}.RandomHorizontalFlip", {}, lambda x: x.flip(-1)),
        (f"{V2}.RandomPosterize", {"bits": 4}, lambda x: (x * 16).floor() / 16),
        (f"{MONAI}.RandFlip", {"spatial_axis": 0}, lambda x: x.flip(-2)),
        (f"{MONAI}.RandRotate90", {"max_k": 1}, lambda x: x.rot90(1, (-2, -1))),
        (f"{ALBUMENTATIONS}.VerticalFlip", {}, lambda x: x.flip(-2)),
        (f"{ALBUMENTATIONS}.RandomGamma", {"gamma_limit": [200, 200]}, torch.square),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_class_is_called_with_its_arguments(
    name: str, arguments: dict[str, Any], right: Callable[[Tensor], Tensor], channels: int
) -> None:
    found = _applied(name, channels, arguments=arguments)
    torch.testing.assert_close(found, right(_views(channels)), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        (f"{V2}.RandomErasing", {}),
        (f"{MONAI}.RandGaussianNoise", {"std": 0.1}),
        (f"{ALBUMENTATIONS}.GaussNoise", {"std_range": [0.1, 0.2]}),
    ],
)
def test_what_it_draws_is_repeated_by_a_transform_built_anew(
    name: str, arguments: dict[str, Any]
) -> None:
    found = _applied(name, arguments=arguments)
    assert (found != _views()).flatten(1).any(1).all()
    torch.rand(3)
    assert torch.equal(_applied(name, arguments=arguments), found)


def test_the_probability_is_the_share_of_views() -> None:
    extras = build_extras([ExtraConfig(name=f"{V2}.RandomInvert", probability=0.3)])
    views = torch.zeros(2000, 1, 2, 2)
    share = apply_extras(views, _draw(2000), 0, extras).mean()
    assert abs(float(share) - 0.3) < 0.03


def test_after_standardisation_it_sees_standardised_views(make_batch: MakeBatch) -> None:
    batch, key = make_batch(4, 1), DrawKey(0, 0, np.arange(4))
    double = {"mean": [0.0], "std": [0.5]}

    def views(place: str) -> Tensor:
        config = ExtraConfig.model_validate(
            {"name": f"{V2}.Normalize", "arguments": double, "place": place}
        )
        return generated(build_extras([config]))

    def generated(extras: Any) -> Tensor:
        plan = ViewPlan(2)
        generator = ViewGenerator("simclr", Scale.WEAK, plan, 16, [0.4], [0.2], extras=extras)
        return generator(batch, key).global_views[0]

    plain = generated(())
    unit = plain * 0.2 + 0.4
    torch.testing.assert_close(views("after"), plain * 2)
    torch.testing.assert_close(
        views("before"), ((unit * 2).clamp(0, 1) - 0.4) / 0.2, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "os.system"}, f"'os.system' is no class of an allowed module; give one of {V2}"),
        ({"name": "torchvision.transforms.RandomInvert"}, "is no class of an allowed module"),
        ({"name": f"{V2}.functional.invert"}, "is no class of an allowed module"),
        ({"name": V2}, "is no class of an allowed module"),
        ({"name": f"{V2}.RandomInvert", "arguments": {"a": {"b": 1}}}, "a: .* is not allowed"),
        ({"name": f"{V2}.RandomInvert", "probability": 0}, "greater than 0"),
        ({"name": f"{V2}.RandomInvert", "views": "both"}, "'all', 'global' or 'local'"),
        ({"name": f"{V2}.RandomInvert", "place": "first"}, "'before' or 'after'"),
    ],
)
def test_what_may_not_be_named_is_refused_unread(given: dict[str, Any], words: str) -> None:
    with pytest.raises((ScanlearnError, ValidationError), match=words):
        ExtraConfig(**given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"name": f"{V2}.RandomPosterise"},
            r"^extras.0.name: torchvision.transforms.v2 has no transform 'RandomPosterise' "
            r"\(did you mean 'RandomPosterize'\?\)",
        ),
        ({"name": f"{V2}.invert_image"}, "has no transform"),
        ({"name": f"{MONAI}.SaveImage"}, "has no transform 'SaveImage'"),
        ({"name": f"{MONAI}.LoadImage"}, "has no transform 'LoadImage'"),
        (
            {"name": f"{V2}.RandomPosterize", "arguments": {"bit": 4}},
            r"extras.0.arguments.bit: is no argument .* \(did you mean 'bits'\?\)",
        ),
        (
            {"name": f"{ALBUMENTATIONS}.GaussNoise", "arguments": {"noise": 4}},
            r"extras.0.arguments.noise: is no argument of .*; it takes std_range",
        ),
        (
            {"name": f"{V2}.RandomInvert", "arguments": {"p": 0.4}},
            "extras.0.arguments.p: an extra has one probability",
        ),
        (
            {"name": f"{V2}.GaussianBlur", "arguments": {"kernel_size": 4}},
            r"extras.0.arguments.kernel_size: .* refuses .*should be .*odd",
        ),
        (
            {
                "name": f"{ALBUMENTATIONS}.GaussNoise",
                "arguments": {"per_channel": True, "std_range": [0.1, 5.0]},
            },
            "extras.0.arguments.std_range: albumentations.GaussNoise refuses",
        ),
        ({"name": f"{V2}.Compose"}, "extras.0.arguments: .*missing 1 required"),
        (
            {"name": f"{V2}.RandomInvert", "views": "local"},
            "extras.0.views: 'local' are none of the 2 views",
        ),
        ({"name": f"{V2}.RandomInvert", "views": [5]}, r"extras.0.views: \(5,\) are none"),
    ],
)
def test_what_cannot_be_built_is_refused_by_its_key(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ScanlearnError, match=words):
        build_extras([ExtraConfig(**given)], num_views=2)


def test_a_library_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    there = builtins.__import__

    def lacking(name: str, *rest: Any) -> Any:
        if name.startswith("albumentations"):
            raise ModuleNotFoundError(name)
        return there(name, *rest)

    monkeypatch.setattr("scanlearn.views.extra_settings.import_module", lambda name: lacking(name))
    with pytest.raises(ScanlearnError, match="which is not installed; install it with pip install"):
        build_extras([ExtraConfig(name=f"{ALBUMENTATIONS}.VerticalFlip")])


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        (f"{V2}.Resize", {"size": [4, 4]}, r"returned shape \[1, 4, 4\] for \[1, 16, 16\]"),
        (f"{V2}.Normalize", {"mean": [NAN], "std": [1.0]}, "values that are not finite"),
        (f"{V2}.Normalize", {"mean": [0.0], "std": [0.0]}, "leading to division by zero"),
        (f"{ALBUMENTATIONS}.Resize", {"height": 4, "width": 16}, r"returned shape \[1, 4, 16\]"),
    ],
)
@pytest.mark.parametrize("place", ["before", "after"])
def test_what_goes_wrong_names_the_extra_and_the_scan(
    make_batch: MakeBatch, name: str, arguments: dict[str, Any], words: str, place: str
) -> None:
    config = ExtraConfig.model_validate(
        {"name": name, "arguments": arguments, "probability": 0.5, "place": place}
    )
    generator = ViewGenerator(
        "simclr", Scale.WEAK, ViewPlan(2), 16, [0.4], [0.2],
        extras=build_extras([config]), scan_ids=list("abcd"),
    )  # fmt: skip
    # The first that is chosen for the first view, by the share that was asked for.
    draw = generator.draw(make_batch(4, 1), DrawKey(0, 0, np.arange(4)))
    changed = apply_extras(
        torch.zeros(4, 1, 2, 2), draw, 0,
        build_extras([ExtraConfig(name=f"{V2}.RandomInvert", probability=0.5)]),
    )  # fmt: skip
    first = "abcd"[int(changed[:, 0, 0, 0].argmax())]
    with pytest.raises(ScanlearnError, match=f"extra {name} on scan '{first}': .*{words}"):
        generator.render(make_batch(4, 1), draw)


def test_explain_lists_them_and_refuses_what_cannot_be_built() -> None:
    config = ExtraConfig(name=f"{V2}.RandomPosterize", arguments={"bits": 4}, probability=0.3)
    text = " ".join(explain("simclr", extras=(config,)).split())
    assert (
        "extra: torchvision.transforms.v2.RandomPosterize(bits=4), probability 0.3, in all views "
        "before standardisation" in text
    )
    with pytest.raises(ScanlearnError, match="has no transform 'Nothing'"):
        explain("simclr", extras=(ExtraConfig(name=f"{V2}.Nothing"),))


def test_settings_are_read_without_torch() -> None:
    import subprocess

    code = (
        "import sys, scanlearn.training.settings as s;"
        "s.ViewsConfig(extras=[{'name': 'albumentations.VerticalFlip'}]);"
        "assert not {'torch', 'albumentations'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
