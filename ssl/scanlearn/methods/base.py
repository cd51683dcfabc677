"""What every self-supervised method is: its mathematics, and nothing of a trainer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import nn

from scanlearn.backbones.backbone import Backbone
from scanlearn.core import Losses, Progress, ViewPlan, Views


class Method(nn.Module, ABC):
    """A method's networks and loss.

    The training loop calls, once a step and in this order: `loss`, backward, `after_backward`,
    the optimiser, `after_step`. All that changes with time is computed from the `Progress` it
    hands in; a method keeps no clock of its own, so that a resumed run needs none.

    Args:
        plan: The views of each scan the method asks for.
    """

    def __init__(self, backbone: Backbone, plan: ViewPlan) -> None:
        super().__init__()
        self.backbone = backbone
        self.plan = plan

    @abstractmethod
    def loss(self, views: Views, at: Progress) -> Losses:
        """Returns the loss of one batch of standardised views, to be minimised."""

    def after_backward(self, at: Progress) -> None:
        """Changes gradients before the optimiser step: freezing, for instance."""

    def after_step(self, at: Progress) -> None:
        """Follows the optimiser step, ``at`` being that step: moving a teacher, for instance."""

    @property
    def exported(self) -> Backbone:
        """The backbone that leaves the run; with a teacher, the method says which."""
        return self.backbone

    def parameter_groups(
        self, weight_decay: float, *, decays_everything: bool = False
    ) -> list[dict[str, Any]]:
        """Returns the parameters to optimise in two groups: ``decayed`` and ``plain``.

        Biases and the scale and shift of normalisation layers are ``plain``: without weight decay
        and, by it, without LARS adaptation (lightly's LARS adapts the groups that decay). Frozen
        parameters, those of a teacher among them, are in neither.

        Args:
            weight_decay: Of the ``decayed`` group.
            decays_everything: Whether it is that of the ``plain`` group too.

        Source:
            SimCLR, released code: ``exclude_from_weight_decay=['batch_normalization', 'bias']``;
            DINO, released code, ``get_params_groups``.
        """
        trained = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        plain = [p for name, p in trained if p.ndim <= 1 or name.endswith(".bias")]
        skipped = {id(p) for p in plain}
        decayed = [p for _, p in trained if id(p) not in skipped]
        spared = weight_decay if decays_everything else 0.0
        return [
            {"name": "decayed", "params": decayed, "weight_decay": weight_decay},
            {"name": "plain", "params": plain, "weight_decay": spared},
        ]
