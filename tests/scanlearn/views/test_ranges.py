from __future__ import annotations

import pickle
from dataclasses import fields

import numpy as np
import pytest

from scanlearn.views.draw import Draw
from scanlearn.views.operations.operation import Quantiles
from scanlearn.views.operations.table import OPERATIONS, PARAMETERS
from scanlearn.views.ranges import Ranges, ViewRanges
from scanlearn.views.recipes import RECIPES
from scanlearn.views.scale import Scale
from scanlearn.views.uniforms import UNIFORMS, DrawKey, uniforms

N = 20_000
BOX = np.tile(np.array([0, 0, 200, 200]), (N, 1))


def _draw(*views: ViewRanges, num_views: int = 1) -> Draw:
    return Ranges(views).draw(uniforms(DrawKey(0, 0, np.arange(N)), num_views), BOX)


def test_ranges_are_a_frozen_mapping_with_the_identity_for_what_is_left_out() -> None:
    ranges = ViewRanges(crop_min=0.2)
    assert list(ranges) == list(PARAMETERS)
    assert (ranges.crop_min, ranges["crop_min"], ranges.crop_max) == (0.2, 0.2, 1)
    assert ranges == ViewRanges(**ranges) == pickle.loads(pickle.dumps(ranges))
    assert ranges != ViewRanges()
    assert repr(ranges) == "ViewRanges(crop_min=0.2)"
    with pytest.raises(AttributeError, match="crop_mim"):
        _ = ranges.crop_mim
    with pytest.raises(AttributeError):
        ranges.crop_min = 1.0


def test_every_uniform_and_every_field_of_a_draw_belongs_to_one_operation() -> None:
    class Recorded(Quantiles):
        def uniform(self, name: str) -> np.ndarray:
            names.append(name)
            return super().uniform(name)

    u = uniforms(DrawKey(0, 0, np.arange(2)), 1)
    spans = {name: np.array([ViewRanges()[name]]) for name in PARAMETERS}
    quantiles = Recorded(spans, u, BOX[:2].astype(float))
    used, drawn = ["field"], ["field_key"]
    for operation in OPERATIONS:
        names: list[str] = []
        drawn += operation.draw(quantiles)
        used += set(names)
    assert sorted(used) == sorted(UNIFORMS)
    assert sorted(drawn) == sorted(field.name for field in fields(Draw))


def test_the_defaults_change_nothing() -> None:
    draw = _draw(ViewRanges(), num_views=2)
    assert np.array_equal(draw.crop_box, np.tile([0.0, 0, 200, 200], (N, 2, 1)))
    off = ("flip", "vflip", "jitter", "gray", "blur", "solarize")
    still = ("rotation_deg", "translation", "stretch", "shear_deg", "elastic", "hue",
             "histogram_shift", "bias_field", "soft_sigma", "noise_std")  # fmt: skip
    for name in (*off, *still):
        assert not getattr(draw, name).any(), name
    assert (draw.gamma == 1).all()
    assert (draw.posterise_bits == 8).all()


@pytest.mark.parametrize(
    ("operation", "field", "drawn"),
    [
        ("rotation", "rotation_deg", "rotation_deg"), ("translation", "translation", "translation"),
        ("stretch", "stretch", "stretch"), ("shear", "shear_deg", "shear_deg"),
        ("histogram_shift", "histogram_shift", "histogram_shift"),
    ],
)  # fmt: skip
def test_what_goes_either_way_is_uniform_about_none_with_its_probability(
    operation: str, field: str, drawn: str
) -> None:
    values = getattr(_draw(ViewRanges(**{f"{operation}_p": 0.3, field: 0.2})), drawn)
    per_view = values.reshape(N, -1)
    happened = (per_view != 0).all(axis=1)
    assert happened.mean() == pytest.approx(0.3, abs=0.015)
    assert (per_view[~happened] == 0).all()
    some = per_view[happened]
    assert np.abs(some).max() <= 0.2
    assert some.mean(axis=0) == pytest.approx(0, abs=0.006)
    assert some.std(axis=0) == pytest.approx(0.2 / 3**0.5, rel=0.03)
    # Directions of one view are drawn apart from each other.
    if some.shape[1] > 1:
        assert abs(np.corrcoef(some[:, 0], some[:, 1])[0, 1]) < 0.05


@pytest.mark.parametrize(("operation", "field"), [("noise", "noise_std"), ("soft", "soft_sigma")])
def test_what_only_grows_is_uniform_from_zero(operation: str, field: str) -> None:
    values = getattr(_draw(ViewRanges(**{f"{operation}_p": 0.5, field: 0.1})), field)[:, 0]
    some = values[values > 0]
    assert len(some) / N == pytest.approx(0.5, abs=0.015)
    assert some.mean() == pytest.approx(0.05, rel=0.03)
    assert some.max() <= 0.1


def test_gamma_is_as_often_above_one_as_below() -> None:
    exponent = np.log(_draw(ViewRanges(gamma_p=1.0, gamma=0.4)).gamma[:, 0])
    assert exponent.mean() == pytest.approx(0, abs=0.006)
    assert np.abs(exponent).max() <= 0.4
    assert np.abs(exponent).max() > 0.39


def test_bits_are_uniform_from_all_down_to_the_fewest() -> None:
    bits = _draw(ViewRanges(posterise_p=0.5, posterise_bits=4)).posterise_bits[:, 0]
    some = bits[bits < 8]
    assert len(some) / N == pytest.approx(0.5, abs=0.015)
    assert some.min() >= 4
    assert some.mean() == pytest.approx(6, rel=0.03)


def test_amplitudes_of_fields_are_the_range_or_nothing() -> None:
    draw = _draw(ViewRanges(elastic_p=0.4, elastic=0.03, bias_field_p=0.6, bias_field=0.5))
    assert set(np.unique(draw.elastic)) == {0, 0.03}
    assert (draw.elastic > 0).mean() == pytest.approx(0.4, abs=0.015)
    assert set(np.unique(draw.bias_field)) == {0, 0.5}
    assert (draw.bias_field > 0).mean() == pytest.approx(0.6, abs=0.015)


def test_a_stronger_range_moves_the_same_draw_further() -> None:
    weak = ViewRanges(
        rotation_p=0.5, rotation_deg=5, noise_p=0.5, noise_std=0.1, gamma_p=1, gamma=0.1
    )
    strong = ViewRanges(**{**weak, "rotation_deg": 10, "noise_std": 0.2, "gamma": 0.2})
    first, second = _draw(weak), _draw(strong)
    assert np.allclose(second.rotation_deg, 2 * first.rotation_deg)
    assert np.allclose(second.noise_std, 2 * first.noise_std)
    assert np.allclose(np.log(second.gamma), 2 * np.log(first.gamma))
    assert np.array_equal(first.field_key, second.field_key)


def test_every_view_of_every_scan_has_a_field_key_of_its_own() -> None:
    keys = _draw(ViewRanges(), num_views=3).field_key
    assert keys.dtype == np.uint64
    assert len(np.unique(keys)) == 3 * N


def test_the_last_ranges_serve_all_further_views() -> None:
    draw = _draw(ViewRanges(flip_p=1.0), ViewRanges(), num_views=4)
    assert draw.flip.all(axis=0).tolist() == [True, False, False, False]


@pytest.mark.parametrize("name", list(RECIPES))
def test_what_never_happens_is_drawn_as_if_it_were_asked(name: str) -> None:
    valid_box = np.tile([0.0, 0.0, 90.0, 120.0], (5, 1))
    u = uniforms(DrawKey(1, 2, np.arange(5)), 4)
    for scale in (Scale.of(0.0), Scale.of(0.7)):
        ranges = RECIPES[name].at(scale)
        drawn = ranges.draw(u, valid_box)
        views = [ranges.views[min(view, len(ranges.views) - 1)] for view in range(4)]
        spans = {name: np.array([view[name] for view in views]) for name in PARAMETERS}
        quantiles = Quantiles(spans, u, valid_box)
        for operation in OPERATIONS:
            for field, expected in operation.draw(quantiles).items():
                assert np.array_equal(getattr(drawn, field), expected), field
                assert getattr(drawn, field).dtype == expected.dtype, field
