from __future__ import annotations

import torch

from scanlearn.core import ScanBatch
from scanlearn.errors import ScanlearnError


def batch(mask: torch.Tensor | None = None) -> ScanBatch:
    return ScanBatch(
        pixels=torch.zeros(2, 1, 4, 6, dtype=torch.uint16),
        valid_box=torch.tensor([[0, 0, 4, 6], [0, 0, 3, 2]]),
        mask=mask,
        spacing_mm=torch.full((2, 2), float("nan")),
        value_range=torch.tensor([[0.0, 65535.0]]).repeat(2, 1),
        ids=torch.tensor([5, 9]),
    )


def test_a_batch_moves_with_its_stored_values_as_they_are() -> None:
    moved = batch(torch.ones(2, 4, 6, dtype=torch.bool)).to("meta")
    assert len(moved) == 2
    assert moved.pixels.dtype == torch.uint16
    assert moved.mask is not None
    tensors = (moved.pixels, moved.valid_box, moved.mask, moved.spacing_mm, moved.value_range)
    assert {tensor.device.type for tensor in (*tensors, moved.ids)} == {"meta"}


def test_a_batch_without_a_mask_stays_without() -> None:
    assert batch().to("cpu").mask is None


def test_the_user_error_is_a_value_error() -> None:
    assert issubclass(ScanlearnError, ValueError)
