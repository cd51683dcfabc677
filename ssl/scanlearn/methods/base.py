"""What every self-supervised method is: its mathematics, and nothing of a trainer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from pydantic import Field
from torch import nn

from scanlearn.backbones.backbone import Backbone
from scanlearn.config.settings import Settings
from scanlearn.core import Losses, Progress, ViewPlan, Views

Optimiser = Literal["lars", "sgd", "adamw"]


@dataclass(frozen=True)
class RunFacts:
    """What a recipe may depend on before a run begins.

    Args:
        ranks: Processes that share a batch.
        steps_per_epoch: Optimiser steps in one pass over the archive.
        parts: Parts of a batch that are taken one after another.
    """

    num_scans: int
    batch_size: int
    ranks: int
    total_steps: int
    steps_per_epoch: int
    parts: int = 1

    @property
    def start(self) -> Progress:
        """Where the run stands before its first step."""
        return Progress(0, self.total_steps, self.steps_per_epoch)


class MethodSettings(Settings, ABC):
    """The settings of a method: its recipe, number for number, as defaults.

    What is null follows from the run; `resolved` fills it in.
    """

    # The recipe of views that was published with the method.
    recipe: ClassVar[str]
    # Stochastic depth published for transformers; convolutional networks are trained without.
    drop_path: ClassVar[float] = 0.0
    # Optimisers with which the released code lets biases and normalisation layers decay too.
    decays_everything_with: ClassVar[frozenset[str]] = frozenset()

    name: str
    optimiser: Optimiser | None = Field(default=None, description="optimiser: lars, sgd or adamw")
    learning_rate: float | None = Field(
        default=None, gt=0, description="peak learning rate; null scales it with the batch size"
    )
    end_learning_rate: float = Field(
        default=0.0, ge=0, description="learning rate at the end of the cosine"
    )
    weight_decay: float | None = Field(
        default=None,
        ge=0,
        description="weight decay; as published, biases and normalisation layers may be exempt",
    )
    end_weight_decay: float | None = Field(
        default=None,
        ge=0,
        description="weight decay at the end of a cosine; null keeps it constant",
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="momentum of SGD or LARS")
    warmup_epochs: float | None = Field(
        default=None, ge=0, description="epochs of linear warm-up; at most a tenth of the steps"
    )

    @abstractmethod
    def resolved(self, facts: RunFacts, backbone: Backbone) -> tuple[Self, tuple[str, ...]]:
        """Fills in what is null.

        Returns:
            The settings without a null that `build` or the optimiser would need, and what was
            chosen for this run and why, in words.
        """

    @abstractmethod
    def build(self, backbone: Backbone, seed: int) -> Method:
        """Returns the method around ``backbone``; further weights depend on ``seed`` alone.

        Only for settings that are `resolved`.
        """

    @property
    def num_local_views(self) -> int:
        """Small views of each scan that the method asks for."""
        return 0

    def filled(self, **values: object) -> Self:
        """Returns the settings with ``values`` where they are null."""
        return self.model_copy(
            update={name: value for name, value in values.items() if getattr(self, name) is None}
        )


class Method(nn.Module, ABC):
    """A method's networks and loss.

    The training loop calls, once a step and in this order: `loss`, backward, `after_backward`,
    the optimiser, `after_step`. All that changes with time is computed from the `Progress` it
    hands in; a method keeps no clock of its own, so that a resumed run needs none.

    Args:
        plan: The views of each scan the method asks for.
    """

    # Whether a loss that stays at chance says that nothing is learned.
    must_fall_below_chance: ClassVar[bool] = True

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
