"""The types that pass between the parts of scanlearn.

Legend of axis letters, used in every shape annotation:

- ``b`` scans in a batch, ``n`` scans in an archive or labeled set
- ``c`` channels, ``h`` and ``w`` rows and columns of the packed canvas
- ``s`` side of a square view in pixels, ``v`` views of one scan
- ``p`` uniforms of one view, ``d`` feature dimensions, ``k`` classes
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int64, UInt8, UInt16

if TYPE_CHECKING:
    import torch
    from torch import Tensor


# How a whole scan that is not square is shown: its aspect kept, with background beside it; or
# squeezed into the square, as earlier versions did.
Framing = Literal["pad", "squeeze"]


@dataclass(frozen=True)
class ScanBatch:
    """A batch of packed scans, as training and evaluation read them.

    Args:
        pixels: ``[b c h w]``, uint8 or uint16 as archives store them, or float32; values on the
            canvas.
        valid_box: ``[b 4]`` top, left, bottom, right of the scan on the canvas in pixels, bottom
            and right exclusive. What lies outside is padding.
        mask: ``[b h w]``, True inside the field of view; None where all of the valid box is.
        spacing_mm: ``[b 2]`` height and width of a canvas pixel; NaN where unknown.
        value_range: ``[b 2]`` the stored values that mean 0 and 1 on the unit range.
        ids: ``[b]`` row of each scan in its archive.
        hu_per_value: Hounsfield units from one stored value to the next; None where stored values
            measure something else, or nothing that is known.
    """

    pixels: UInt8[Tensor, "b c h w"] | UInt16[Tensor, "b c h w"] | Float32[Tensor, "b c h w"]
    valid_box: Int[Tensor, "b 4"]
    mask: Bool[Tensor, "b h w"] | None
    spacing_mm: Float[Tensor, "b 2"]
    value_range: Float[Tensor, "b 2"]
    ids: Int[Tensor, " b"]
    hu_per_value: float | None = None

    def __len__(self) -> int:
        return int(self.pixels.shape[0])

    def take(self, rows: Int64[np.ndarray, " k"]) -> ScanBatch:
        """Returns the scans in ``rows``, on the same device."""
        import torch  # settings name these types, and torch takes seconds

        where = torch.from_numpy(rows)
        return self._each(lambda tensor: tensor[where.to(tensor.device)])

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> ScanBatch:
        """Returns the batch on ``device``; stored values travel as they are, never as floats."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def _each(self, change: Callable[[Tensor], Tensor]) -> ScanBatch:
        return replace(
            self,
            pixels=change(self.pixels),
            valid_box=change(self.valid_box),
            mask=None if self.mask is None else change(self.mask),
            spacing_mm=change(self.spacing_mm),
            value_range=change(self.value_range),
            ids=change(self.ids),
        )


@dataclass(frozen=True)
class ViewPlan:
    """How many views of each scan a method asks for."""

    global_views: int = 2
    local_views: int = 0


@dataclass(frozen=True)
class Views:
    """Rendered, standardised views of one batch; no local ones without multi-crop.

    Args:
        ids: Row of each scan in its archive.
    """

    global_views: tuple[Float[Tensor, "b c s s"], ...]
    local_views: tuple[Float[Tensor, "b c t t"], ...]
    ids: Int[Tensor, " b"]


@dataclass(frozen=True)
class Progress:
    """Where a run stands: all that a schedule may depend on.

    Args:
        step: Optimiser steps already taken, from 0.
        steps_per_epoch: Optimiser steps in one pass over the archive.
    """

    step: int
    total_steps: int
    steps_per_epoch: int


@dataclass(frozen=True)
class Losses:
    """The loss of one step and its named terms.

    Args:
        embeddings: ``[b d]`` detached embeddings of the first global view, before
            normalisation, for the collapse watch.
        chance: Loss of a network that knows nothing: for a contrastive loss that of equal scores
            for all candidates.
        judged: What is set against ``chance`` where the loss may pass it although something is
            learned; None is the loss.
    """

    total: Float[Tensor, ""]
    terms: Mapping[str, Float[Tensor, ""]]
    embeddings: Float[Tensor, "b d"]
    chance: float
    judged: Float[Tensor, ""] | None = None
