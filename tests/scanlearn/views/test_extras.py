from __future__ import annotations

import pickle
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from scanlearn.core import ScanBatch, ViewPlan
from scanlearn.errors import ScanlearnError
from scanlearn.views.draw import Draw
from scanlearn.views.extras import Extra, apply_extras, per_array, per_scan
from scanlearn.views.generator import ViewGenerator
from scanlearn.views.recipes import RECIPES
from scanlearn.views.scale import Scale
from scanlearn.views.uniforms import DrawKey, uniforms

MakeBatch = Callable[..., ScanBatch]
SCANS = 64


def _draw(scans: int = SCANS, step: int = 0, *, s: float = 1.0, first: int = 0) -> Draw:
    u = uniforms(DrawKey(0, step, np.arange(first, first + scans)), 4)
    return RECIPES["simclr"].at(Scale.of(s)).draw(u, np.tile([0, 0, 8, 8], (scans, 1)))


def _views(scans: int = SCANS, channels: int = 3) -> Tensor:
    return torch.rand(scans, channels, 8, 8, generator=torch.Generator().manual_seed(0))


def _changed(draw: Draw, *extras: Extra, view: int = 0) -> Tensor:
    """Which scans the extras changed."""
    before = _views(len(draw))
    after = apply_extras(before.clone(), draw, view, extras)
    return (after != before).flatten(1).any(1)


def _noisy(views: Tensor) -> Tensor:
    """Draws from every global generator there is."""
    views = views * torch.rand(())
    return views * np.random.rand() * random.random()  # noqa: NPY002 - what people write


def _states() -> tuple[bytes, bytes, object]:
    legacy = np.random.get_state()[1]  # noqa: NPY002
    return torch.get_rng_state().numpy().tobytes(), np.asarray(legacy).tobytes(), random.getstate()


def test_an_operation_replaces_the_views_and_no_others() -> None:
    before, draw = _views(), _draw()
    after = apply_extras(before.clone(), draw, 0, [Extra(torch.square, probability=0.5)])
    changed = (after != before).flatten(1).any(1)
    assert 16 < changed.sum() < 48
    assert torch.equal(after[changed], before[changed].square())


def test_views_are_changed_in_place_and_handed_back() -> None:
    views = _views()
    assert apply_extras(views, _draw(), 0, [Extra(torch.square)]) is views
    assert torch.equal(views, _views().square())


def test_extras_follow_one_another() -> None:
    views = apply_extras(_views(), _draw(), 0, [Extra(lambda x: x / 2), Extra(lambda x: x + 0.25)])
    assert torch.allclose(views, _views() / 2 + 0.25)


def test_probability_zero_is_never_and_one_is_always() -> None:
    assert not _changed(_draw(), Extra(torch.square, probability=0)).any()
    assert _changed(_draw(), Extra(torch.square, probability=1)).all()


def test_the_share_of_scans_is_the_probability() -> None:
    draw = _draw(4000)
    share = _changed(draw, Extra(lambda x: x / 2, probability=0.3)).float().mean()
    assert abs(float(share) - 0.3) < 0.03


def test_every_scale_and_every_batch_chooses_the_same_scans() -> None:
    extra = Extra(torch.square, probability=0.5)
    whole = _changed(_draw(), extra)
    assert torch.equal(_changed(_draw(s=0.2), extra), whole)
    assert torch.equal(_changed(_draw(SCANS // 2, first=SCANS // 2), extra), whole[SCANS // 2 :])


def test_steps_views_and_extras_choose_apart() -> None:
    draw, extra = _draw(), Extra(torch.square, probability=0.5)
    chosen = [
        _changed(draw, extra),
        _changed(_draw(step=1), extra),
        _changed(draw, extra, view=1),
        _changed(draw, Extra(torch.square, probability=0), extra),
    ]
    for i, one in enumerate(chosen):
        for other in chosen[i + 1 :]:
            assert 16 < (one != other).sum() < 48


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        ("all", [True, True, True, True]),
        ("global", [True, True, False, False]),
        ("local", [False, False, True, True]),
        ((0, 3), [True, False, False, True]),
    ],
)
def test_views_say_which_views_get_it(views: object, expected: list[bool]) -> None:
    extra = Extra(torch.square, views=views)  # type: ignore[arg-type]
    assert [bool(_changed(_draw(), extra, view=view).all()) for view in range(4)] == expected


def test_the_same_draw_repeats_random_operations_whatever_happened_before() -> None:
    for operation in (_noisy, per_scan(_noisy)):
        first = apply_extras(_views(), _draw(), 0, [Extra(operation)])
        torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
        assert torch.equal(apply_extras(_views(), _draw(), 0, [Extra(operation)]), first)
        other = apply_extras(_views(), _draw(step=1), 0, [Extra(operation)])
        assert not torch.equal(other, first)


def test_global_random_states_stay_where_they_were_even_after_a_failure() -> None:
    before = _states()
    apply_extras(_views(), _draw(), 0, [Extra(_noisy), Extra(per_scan(_noisy))])
    assert _states() == before

    def fails(views: Tensor) -> Tensor:
        _noisy(views)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        apply_extras(_views(), _draw(), 0, [Extra(fails)])
    assert _states() == before


def test_numbers_of_a_transform_of_one_scan_do_not_depend_on_the_batch() -> None:
    extra = [Extra(per_scan(lambda scan: scan * torch.rand(())), probability=0.7)]
    whole = apply_extras(_views(), _draw(), 0, extra)
    half = apply_extras(_views()[32:], _draw(32, first=32), 0, extra)
    assert torch.equal(half, whole[32:])
    factors = (whole / _views()).mean((1, 2, 3))
    assert len(factors.unique()) > 30


def test_an_operation_that_works_in_place_is_no_trap() -> None:
    views = apply_extras(_views(), _draw(), 0, [Extra(lambda x: x.mul_(0.5), probability=0.5)])
    expected = apply_extras(_views(), _draw(), 0, [Extra(lambda x: x * 0.5, probability=0.5)])
    assert torch.equal(views, expected)


def test_results_are_clamped_to_the_unit_range_and_carry_no_gradient() -> None:
    weight = torch.ones((), requires_grad=True)
    views = apply_extras(_views(), _draw(), 0, [Extra(lambda x: (x * 4 - 2) * weight)])
    assert (views.min(), views.max()) == (0, 1)
    assert not views.requires_grad


def wrong_shape(views: Tensor) -> Tensor:
    return views[..., :4]


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        (wrong_shape, r"extra wrong_shape: returned shape \[64, 3, 8, 4\] for \[64, 3, 8, 8\]"),
        (per_scan(wrong_shape), r"extra wrong_shape: returned shape \[3, 8, 4\] for \[3, 8, 8\]"),
        (lambda x: x.numpy(), "returned ndarray for a tensor"),
        (lambda x: (x * 255).to(torch.uint8), "returned torch.uint8"),
        (lambda x: x / 0 - x / 0, "values that are not finite"),
        (per_array(lambda image: {"image": image[:4]}), r"returned shape \[3, 4, 8\]"),
    ],
)
def test_a_result_that_is_no_view_is_refused_by_name(
    operation: Callable[[Tensor], Tensor], words: str
) -> None:
    with pytest.raises(ScanlearnError, match=words):
        apply_extras(_views(), _draw(), 0, [Extra(operation)])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"operation": 3}, "extra: 3 cannot be called"),
        ({"probability": 1.5}, "extra square: probability 1.5 is not from 0 to 1"),
        ({"views": "both"}, "extra square: views 'both' are none"),
        ({"views": ()}, r"views \(\) are none"),
        ({"views": (-1,)}, r"views \(-1,\) are none"),
    ],
)
def test_an_extra_that_cannot_be_done_is_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(ScanlearnError, match=words):
        Extra(**({"operation": torch.square} | given))  # type: ignore[arg-type]


def test_an_operation_alone_on_a_batch_works_without_a_draw() -> None:
    double = per_scan(lambda scan: scan * 2)
    assert torch.equal(double(_views()), _views() * 2)


def test_extras_are_picklable() -> None:
    extra = Extra(per_scan(v2.RandomErasing(p=1.0)), probability=0.5)
    again = pickle.loads(pickle.dumps(extra))
    found = apply_extras(_views(), _draw(), 0, [again])
    assert torch.equal(found, apply_extras(_views(), _draw(), 0, [extra]))


def test_torchvision_works_on_the_batch_and_on_each_scan() -> None:
    assert _changed(_draw(), Extra(v2.GaussianBlur(3))).all()
    erased = apply_extras(_views(), _draw(), 0, [Extra(per_scan(v2.RandomErasing(p=1.0)))])
    holes = erased == 0
    assert holes.flatten(1).any(1).all()
    # Each scan has a hole of its own.
    assert len(holes.flatten(1).unique(dim=0)) > 30


def test_an_array_transform_sees_floats_with_channels_last() -> None:
    seen: list[np.ndarray] = []

    def brighter(*, image: np.ndarray) -> dict[str, np.ndarray]:
        seen.append(image)
        return {"image": image * 0.5}

    views = apply_extras(_views(), _draw(), 0, [Extra(per_array(brighter))])
    assert torch.equal(views, _views() * 0.5)
    assert seen[0].shape == (8, 8, 3)
    assert seen[0].dtype == np.float32
    dropped = per_array(lambda image: {"image": image[..., 0]})
    single = _views(channels=1)
    assert torch.equal(apply_extras(single.clone(), _draw(), 0, [Extra(dropped)]), single)


def test_monai_works_and_repeats() -> None:
    from monai import transforms

    extra = [Extra(per_scan(transforms.RandGaussianNoise(prob=1.0, std=0.1)))]
    first = apply_extras(_views(), _draw(), 0, extra)
    assert type(first) is Tensor
    assert (first != _views()).flatten(1).any(1).all()
    assert torch.equal(apply_extras(_views(), _draw(), 0, extra), first)
    chain = transforms.Compose([transforms.RandAdjustContrast(prob=1.0)])
    found = [apply_extras(_views(), _draw(), 0, [Extra(per_scan(chain))]) for _ in range(2)]
    assert torch.equal(*found)


def test_albumentations_works_and_repeats() -> None:
    import albumentations as library

    for transform in (
        library.GaussNoise(std_range=(0.1, 0.2), p=1.0),
        library.Compose([library.RandomGamma(p=1.0), library.CoarseDropout(p=1.0)]),
    ):
        extra = [Extra(per_array(transform))]
        first = apply_extras(_views(), _draw(), 0, extra)
        assert (first != _views()).flatten(1).any(1).all()
        assert torch.equal(apply_extras(_views(), _draw(), 0, extra), first)


def test_the_generator_does_extras_before_it_standardises(make_batch: MakeBatch) -> None:
    batch, key = make_batch(8, 3), DrawKey(0, 3, np.arange(8))

    def generator(*extras: Extra) -> ViewGenerator:
        return ViewGenerator(
            "simclr", Scale.STRONG, ViewPlan(2), 32, [0.4] * 3, [0.2] * 3, extras=extras
        )

    plain = generator()(batch, key).global_views
    found = generator(Extra(torch.square, views=(1,)))(batch, key).global_views
    assert torch.equal(found[0], plain[0])
    unit = plain[1] * 0.2 + 0.4
    assert torch.allclose(found[1] * 0.2 + 0.4, unit.clamp(0, 1).square(), atol=1e-5)
    noisy = generator(Extra(_noisy, probability=0.5))
    torch.rand(1)
    again = noisy(batch, key).global_views
    for one, other in zip(again, noisy(batch, key).global_views, strict=True):
        assert torch.equal(one, other)


@pytest.mark.gpu
def test_on_a_gpu_the_same_scans_are_chosen_and_no_state_moves() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    extra = [Extra(lambda x: x * torch.rand(len(x), 1, 1, 1, device=x.device), probability=0.5)]
    before = torch.cuda.get_rng_state()
    found = apply_extras(_views().cuda(), _draw(), 0, extra)
    assert torch.equal(torch.cuda.get_rng_state(), before)
    assert torch.equal(apply_extras(_views().cuda(), _draw(), 0, extra), found)
    changed = (found.cpu() != _views()).flatten(1).any(1)
    assert torch.equal(changed, _changed(_draw(), Extra(torch.square, probability=0.5)))
