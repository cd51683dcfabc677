"""Extra operations: augmentations of your own, done after the recipe's.

An extra is any callable on a batch of views. Which scans it is applied to, and the random numbers
inside it, are counted from the draw: a resumed run repeats them, and no other randomness moves.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from scanlearn.errors import ScanlearnError
from scanlearn.views.draw import Draw
from scanlearn.views.uniforms import DrawKey, uniforms

_BATCH_AXES = 4
# Views 0 and 1 of a draw are the global ones.
_NUM_GLOBAL = 2
# Keeps the extras' numbers apart from any others counted from the same fields.
_STREAM = 0x657874726173
# Which of the counted numbers is which.
_CHOICE, _SEED = 0, 1
_NUMPY_SEEDS = 2**32
# How libraries that keep a generator of their own let it be seeded: Albumentations, whose method
# of the second name takes generators, and MONAI.
_SEEDERS = ("set_random_seed", "set_random_state")


@dataclass(frozen=True)
class Extra:
    """An operation of your own.

    Its random numbers may come from torch, numpy or random: their global states are seeded for
    the call and put back after it. A callable on a batch draws for its batch as a whole, so that
    its numbers depend on which scans share it; with `per_scan` or `per_array` they do not.

    Args:
        operation: Any callable on views ``[k c s s]`` that returns the same shape; `per_scan` and
            `per_array` make one of a transform of a single scan.
        probability: Share of the scans it is applied to, 0 to 1; the same scans at every scale.
        views: "all", "global", "local", or the indices of the views that it is for: 0 and 1 are
            the global ones, the local ones follow from 2.
        place: "before" standardisation, on the unit range, to which the result is clamped; or
            "after" it, where nothing is clamped.
        title: What a configuration calls it; whatever goes wrong in it is then told by that name.

    Raises:
        ScanlearnError: The operation cannot be called, the probability is not from 0 to 1, or the
            views are none of those.

    Example:
        >>> Extra(torch.square, probability=0.5).applies_to(1)
        True
        >>> Extra(torch.square, views="local").applies_to(1)
        False
    """

    operation: Callable[[Tensor], Tensor]
    probability: float = 1.0
    views: Literal["all", "global", "local"] | tuple[int, ...] = "all"
    place: Literal["before", "after"] = "before"
    title: str = ""

    def __post_init__(self) -> None:
        if not callable(self.operation):
            raise ScanlearnError(
                f"extra: {self.operation!r} cannot be called; give a function or an object that "
                "takes views [k c s s] and returns the same shape."
            )
        if not 0 <= self.probability <= 1:
            raise ScanlearnError(
                f"extra {self.name}: probability {self.probability!r} is not from 0 to 1; "
                "give one that is."
            )
        views = self.views
        if views not in ("all", "global", "local") and not (
            isinstance(views, tuple)
            and views
            and all(isinstance(view, int) and view >= 0 for view in views)
        ):
            raise ScanlearnError(
                f"extra {self.name}: views {views!r} are none; give 'all', 'global', 'local' or a "
                "tuple of indices such as (0, 2)."
            )

    @property
    def name(self) -> str:
        """What messages call the operation."""
        return self.title or _name(self.operation)

    def applies_to(self, view: int) -> bool:
        """Returns whether the operation is for the view of that index."""
        if isinstance(self.views, tuple):
            return view in self.views
        return {"all": True, "global": view < _NUM_GLOBAL, "local": view >= _NUM_GLOBAL}[self.views]


@dataclass(frozen=True)
class EachScan:
    """Runs a transform of one scan on every scan of a batch; made by `per_scan`, `per_array`.

    Args:
        call: Hands the transform one scan ``[c s s]`` and returns its result as a tensor.
    """

    transform: Callable[..., Any]
    call: Callable[[Callable[..., Any], Tensor], Any]

    def __call__(self, views: Float[Tensor, "k c s s"]) -> Float[Tensor, "k c s s"]:
        """Returns the transformed scans, drawn in order from the global random states."""
        named = partial(_name, self)
        return torch.stack([_checked(named, self.result(scan), scan) for scan in views])

    def result(self, scan: Float[Tensor, "c s s"]) -> Any:
        """Returns what the transform makes of one scan."""
        return self.call(self.transform, scan)


def per_scan(transform: Callable[[Tensor], Tensor]) -> EachScan:
    """Returns an operation on batches from one on a scan ``[c h w]``: torchvision v2, MONAI.

    Example:
        >>> from torchvision.transforms import v2
        >>> extra = Extra(per_scan(v2.RandomErasing(p=1.0)), probability=0.3)
    """
    return EachScan(transform, _call_with_tensor)


def per_array(transform: Callable[..., Any]) -> EachScan:
    """Returns an operation on batches from one on arrays: Albumentations.

    The transform is called as ``transform(image=array)["image"]`` with a float32 array
    ``[h w c]`` on the unit range.
    """
    return EachScan(transform, _call_with_array)


def apply_extras(
    views: Float[Tensor, "b c s s"],
    draw: Draw,
    view: int,
    extras: Sequence[Extra],
    place: Literal["before", "after"] = "before",
    scan_name: Callable[[int], str] | None = None,
) -> Float[Tensor, "b c s s"]:
    """Applies the extra operations of a place to one view of every scan, in place, and returns it.

    Args:
        views: Rendered, on the unit range or, for the place "after", standardised.
        draw: Theirs: its field keys choose the scans and seed the operations.
        scan_name: Returns the name of a scan by its row in the batch, for errors.

    Raises:
        ScanlearnError: An operation returned another shape, no tensor, or values not finite; or one
            with a title failed.
    """
    for position, extra in enumerate(extras):
        if extra.place != place or not extra.applies_to(view):
            continue
        # The field key already holds seed, step, scan and view.
        key = DrawKey(_STREAM, position, draw.field_key[:, view].astype(np.int64))
        numbers = uniforms(key, 1)[:, 0]
        chosen = np.flatnonzero(numbers[:, _CHOICE] < extra.probability)
        if len(chosen):
            seeds = (numbers[chosen, _SEED] * 2.0**53).astype(np.int64)
            rows = torch.from_numpy(chosen).to(views.device)

            def told(row: int, extra: Extra = extra, chosen: np.ndarray = chosen) -> str:
                where = f" on scan {scan_name(int(chosen[row]))}" if scan_name else ""
                return f"{extra.name}{where}"

            views[rows] = _run(extra, views[rows], seeds, told)
    return views


def _run(
    extra: Extra,
    views: Float[Tensor, "k c s s"],
    seeds: Int64[np.ndarray, " k"],
    told: Callable[[int], str],
) -> Float[Tensor, "k c s s"]:
    operation = extra.operation
    with torch.no_grad(), _random_states_kept(views.device):
        if isinstance(operation, EachScan):
            changed = []
            for place, (scan, seed) in enumerate(zip(views, seeds.tolist(), strict=True)):
                _seed(operation.transform, seed, views.device)
                try:
                    changed.append(_checked(partial(told, place), operation.result(scan), scan))
                except Exception as error:
                    if not extra.title or isinstance(error, ScanlearnError):
                        raise
                    words = " ".join(str(error).split()) or type(error).__name__
                    raise ScanlearnError(
                        f"extra {told(place)}: {words}; give it other arguments, or leave it out."
                    ) from error
            result = torch.stack(changed)
        else:
            _seed(operation, int(seeds[0]), views.device)
            # A copy: an operation in place whose result is refused must not change the views.
            result = _checked(lambda: extra.name, operation(views.clone()), views)
    sound = result.isfinite().flatten(1).all(1)
    if not bool(sound.all()):
        raise ScanlearnError(
            f"extra {told(int(sound.long().argmin()))}: returned values that are not finite; it "
            f"must return finite values{' on the unit range' if extra.place == 'before' else ''}."
        )
    return result.clamp(0, 1) if extra.place == "before" else result


def _checked(told: Callable[[], str], result: object, given: Tensor) -> Tensor:
    """Returns the result as a plain tensor like the one given; ``told`` names it in errors."""
    shape = list(given.shape)
    if not isinstance(result, Tensor):
        raise ScanlearnError(
            f"extra {told()}: returned {type(result).__name__} for a tensor {shape}; it must "
            "return a tensor of that shape."
        )
    if not result.is_floating_point():
        raise ScanlearnError(
            f"extra {told()}: returned {result.dtype}; it must return floats on the unit range."
        )
    if result.shape != given.shape:
        is_batch = given.ndim == _BATCH_AXES
        hint = "; wrap a transform of one scan with per_scan or per_array" if is_batch else ""
        raise ScanlearnError(
            f"extra {told()}: returned shape {list(result.shape)} for {shape}; it must keep the "
            f"shape{hint}."
        )
    return result.detach().as_subclass(Tensor).to(given)


def _call_with_tensor(transform: Callable[..., Any], scan: Tensor) -> Any:
    return transform(scan.clone())


def _call_with_array(transform: Callable[..., Any], scan: Tensor) -> Any:
    array = np.ascontiguousarray(scan.permute(1, 2, 0).cpu().numpy())
    result = np.asarray(transform(image=array)["image"])
    # Some transforms drop a single channel.
    result = result[..., None] if result.ndim == 2 else result
    return torch.from_numpy(np.ascontiguousarray(result.transpose(2, 0, 1)))


@contextmanager
def _random_states_kept(device: torch.device) -> Iterator[None]:
    """Puts the global random states of torch, numpy and random back at the end of the block."""
    cuda = [device] if device.type == "cuda" else []
    plain, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - theirs, not ours
    try:
        with torch.random.fork_rng(cuda):
            yield
    finally:
        random.setstate(plain)
        np.random.set_state(legacy)  # noqa: NPY002 - as above


def _seed(operation: object, seed: int, device: torch.device) -> None:
    """Seeds whatever the operation may draw from, inside `_random_states_kept`."""
    # Not torch.manual_seed, which would seed the other GPUs too, outside the fork.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % _NUMPY_SEEDS)  # noqa: NPY002 - the state an operation may draw from
    seeders = (getattr(operation, name, None) for name in _SEEDERS)
    seeder = next(filter(callable, seeders), None)
    if seeder is not None:
        seeder(seed % _NUMPY_SEEDS)


def _name(operation: object) -> str:
    inner = operation.transform if isinstance(operation, EachScan) else operation
    return str(getattr(inner, "__name__", type(inner).__name__))
