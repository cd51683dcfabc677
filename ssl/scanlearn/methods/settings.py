"""The settings of the methods: the published recipe of each, number for number, as defaults.

No torch: a configuration is read, printed and refused without it. What a method computes is in the
file that is called after it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self, TypeAlias

from pydantic import Field, SerializeAsAny, ValidatorFunctionWrapHandler, WrapValidator

from scanlearn.config.settings import Settings
from scanlearn.console import counted
from scanlearn.core import Progress
from scanlearn.methods.sizing import momentum_in_words, num_prototypes, queue_size, warmup_steps

if TYPE_CHECKING:
    from scanlearn.backbones.backbone import Backbone
    from scanlearn.methods.base import Method

# Of MoCo's published eight GPUs, each with BatchNorm statistics of its own.
_PUBLISHED_GROUPS = 8
# Statistics of fewer scans than this are noise.
_SMALLEST_GROUP = 8
# From this many epochs on, MoCo v3's released code halves the rate of ResNet-50.
_LONG_EPOCHS = 300
# And from this many on it raises the weight decay.
_LONGEST_EPOCHS = 1000

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

    # The recipe of views that was published with the method; for transformers, if there are two.
    recipe: ClassVar[str]
    # The one published for networks that are no transformers; None where one serves all.
    convnet_recipe: ClassVar[str | None] = None
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

    def build(self, backbone: Backbone, seed: int) -> Method:
        """Returns the method around ``backbone``; further weights depend on ``seed`` alone.

        Only for settings that are `resolved`. The file of that name makes it, in its ``build``.
        """
        module = import_module(f"scanlearn.methods.{self.name}")
        method: Method = module.build(self, backbone, seed)
        return method

    @property
    def num_local_views(self) -> int:
        """Small views of each scan that the method asks for."""
        return 0

    @property
    def decays_everything(self) -> bool:
        """Whether biases and normalisation layers decay too, as the released code has it."""
        return self.optimiser in self.decays_everything_with

    @property
    def recipes(self) -> tuple[str, ...]:
        """The recipes of views published with the method, that for transformers first."""
        return (self.recipe, *([self.convnet_recipe] if self.convnet_recipe else []))

    def recipe_for(self, architecture: str) -> str:
        """Returns the recipe of views published for that kind of network.

        Transformers' crops were once taken for every network.
        """
        from scanlearn.backbones.backbone import is_transformer

        if self.convnet_recipe is None or is_transformer(architecture):
            return self.recipe
        return self.convnet_recipe

    def filled(self, **values: object) -> Self:
        """Returns the settings with ``values`` where they are null."""
        return self.model_copy(
            update={name: value for name, value in values.items() if getattr(self, name) is None}
        )


class SimCLRConfig(MethodSettings):
    """SimCLR and the recipe it is trained with.

    Source:
        The released code's ImageNet command: temperature .1, LARS with momentum .9, weight decay
        1e-4, rate .075 x sqrt(batch) (appendix B.1), 10 warm-up epochs, head to 128. The 2-layer
        head is the first paper's (section 2.1); the code's own default is 3 layers.
    """

    recipe: ClassVar[str] = "simclr"

    name: Literal["simclr"] = Field(default="simclr", description="SimCLR")
    temperature: float = Field(
        default=0.1, gt=0, description="temperature that divides the cosine similarities"
    )
    head_layers: int = Field(default=2, ge=2, description="layers of the projection head")
    head_hidden: int | None = Field(
        default=None, ge=1, description="width of the hidden layers; null is the feature dimension"
    )
    head_dim: int = Field(default=128, ge=1, description="dimension of an embedding")
    head_batch_norm: bool = Field(
        default=True, description="BatchNorm after each layer of the head"
    )

    def resolved(self, facts: RunFacts, backbone: Backbone) -> tuple[Self, tuple[str, ...]]:
        """Fills in the published recipe, its rate for the batch size."""
        filled = self.filled(
            optimiser="lars",
            # .3 x batch / 256 at the published 4,096, better than it at small batches.
            learning_rate=0.075 * math.sqrt(facts.batch_size),
            weight_decay=1e-4,
            warmup_epochs=10.0,
            head_hidden=backbone.num_features,
        )
        return filled, ()


class MoCoV2Config(MethodSettings):
    """MoCo v2 and the recipe it is trained with.

    Source:
        The released code's command for v2: temperature .2, queue 65,536, momentum .999, SGD with
        rate .03 at batch 256 and momentum .9, weight decay 1e-4, cosine, a 2-layer head to 128.
        The shorter queue and the lower momentum of small archives are ours.
    """

    recipe: ClassVar[str] = "mocov2"
    decays_everything_with: ClassVar[frozenset[str]] = frozenset({"sgd"})

    name: Literal["mocov2"] = Field(default="mocov2", description="MoCo v2")
    temperature: float = Field(
        default=0.2, gt=0, description="temperature that divides the cosine similarities"
    )
    queue_size: int | None = Field(
        default=None,
        ge=1,
        description="keys kept as negatives; null is the largest power of two within half of "
        "the archive, at most 65,536",
    )
    teacher_momentum: float = Field(
        default=0.999,
        ge=0,
        lt=1,
        description="momentum of the teacher: the share that it keeps in a step; lower in a short "
        "run",
    )
    batch_norm_groups: int | None = Field(
        default=None,
        ge=1,
        description="groups of scans in a process with separate BatchNorm statistics, so that a "
        "query cannot tell its key by them; null is 8 over all processes",
    )
    head_hidden: int | None = Field(
        default=None, ge=1, description="width of the hidden layer; null is the feature dimension"
    )
    head_dim: int = Field(default=128, ge=1, description="dimension of an embedding")

    def resolved(self, facts: RunFacts, backbone: Backbone) -> tuple[Self, tuple[str, ...]]:
        """Fills in the published recipe, its queue for the archive."""
        from scanlearn.backbones.backbone import has_batch_norm

        groups, why = _groups(facts, is_needed=has_batch_norm(backbone))
        filled = self.filled(
            optimiser="sgd",
            learning_rate=0.03 * facts.batch_size / 256,
            weight_decay=1e-4,
            warmup_epochs=0.0,
            head_hidden=backbone.num_features,
            queue_size=queue_size(facts.num_scans),
            batch_norm_groups=groups,
        )
        chosen = []
        if self.queue_size is None:
            chosen.append(
                f"a queue of {filled.queue_size:,} keys: the largest power of two within half of "
                f"{facts.num_scans:,} scans (published for 1.3 million images: 65,536)"
            )
        if self.batch_norm_groups is None:
            chosen.append(why)
        return filled, (*chosen, *momentum_in_words(self.teacher_momentum, facts.total_steps))


def _groups(facts: RunFacts, *, is_needed: bool) -> tuple[int, str]:
    """BatchNorm groups of a process, and why."""
    if not is_needed:
        return 1, "no BatchNorm groups: the backbone has no BatchNorm"
    per_process = max(1, _PUBLISHED_GROUPS // facts.ranks)
    scans = facts.batch_size // (facts.ranks * facts.parts)
    groups = max(1, min(per_process, scans // _SMALLEST_GROUP))
    if groups * facts.ranks > 1:
        return groups, (
            f"BatchNorm in {groups * facts.ranks} shuffled groups of {scans // groups} scans, so "
            "that its statistics do not tell a query which key is its own"
        )
    return 1, (
        f"one BatchNorm group, since a batch of {scans} scans is too small for more: its "
        "statistics may tell a query which key is its own; use a larger batch_size, or a backbone "
        "without BatchNorm"
    )


class MoCoV3Config(MethodSettings):
    """MoCo v3 and the recipe it is trained with.

    Source:
        The released code's commands. Transformers: AdamW, rate 1.5e-4 x batch / 256, weight decay
        .1, 40 warm-up epochs, temperature .2, a projector of 3 layers, patch projection frozen.
        ResNet-50: LARS, rate .6 x batch / 256 (.3 from 300 epochs on), weight decay 1e-6 (1.5e-6
        from 1,000), 10 warm-up epochs, temperature 1, a projector of 2 layers, no BatchNorm after
        the predictor. Both: hidden 4,096, output 256, momentum .99 to 1.
    """

    recipe: ClassVar[str] = "mocov3"
    convnet_recipe: ClassVar[str | None] = "mocov3_resnet"
    decays_everything_with: ClassVar[frozenset[str]] = frozenset({"adamw"})

    name: Literal["mocov3"] = Field(default="mocov3", description="MoCo v3")
    temperature: float | None = Field(
        default=None, gt=0, description="temperature; null is 0.2 for transformers, else 1"
    )
    teacher_momentum: float = Field(
        default=0.99,
        ge=0,
        le=1,
        description="momentum of the teacher at the start, then a cosine up to 1; lower "
        "in a short run",
    )
    head_layers: int | None = Field(
        default=None,
        ge=2,
        description="layers of the projector; null is 3 for transformers, else 2",
    )
    head_hidden: int = Field(
        default=4096, ge=1, description="width of hidden layers of projector and predictor"
    )
    head_dim: int = Field(default=256, ge=1, description="dimension of an embedding")
    head_batch_norm: bool = Field(
        default=True, description="BatchNorm after each layer of projector and predictor"
    )
    freeze_patches: bool = Field(
        default=True, description="freeze a transformer's patch projection at its initial weights"
    )

    def resolved(self, facts: RunFacts, backbone: Backbone) -> tuple[Self, tuple[str, ...]]:
        """Fills in the published recipe of this kind of backbone."""
        from scanlearn.backbones.backbone import patch_projection

        batches = facts.batch_size / 256
        if patch_projection(backbone) is not None:
            filled = self.filled(
                optimiser="adamw",
                learning_rate=1.5e-4 * batches,
                weight_decay=0.1,
                warmup_epochs=40.0,
                temperature=0.2,
                head_layers=3,
            )
        else:
            epochs = facts.total_steps / facts.steps_per_epoch
            filled = self.filled(
                optimiser="lars",
                learning_rate=(0.3 if epochs >= _LONG_EPOCHS else 0.6) * batches,
                weight_decay=1.5e-6 if epochs >= _LONGEST_EPOCHS else 1e-6,
                warmup_epochs=10.0,
                temperature=1.0,
                head_layers=2,
            )
        return filled, momentum_in_words(self.teacher_momentum, facts.total_steps)


class DINOConfig(MethodSettings):
    """DINO and the recipe it is trained with.

    Source:
        The released code's plain run: a head of 3 layers of 2,048 with a bottleneck of 256, 65,536
        outputs, student temperature .1, teacher temperature .04, centre momentum .9, teacher
        momentum .996 to 1, AdamW with rate 5e-4 x batch / 256 down to 1e-6, weight decay .04 to
        .4, 10 warm-up epochs, gradients clipped at 3, last layer frozen for an epoch, drop path
        .1, 8 local views. Its improved run raises the teacher temperature to .07 over 30 epochs
        and sets norm_last_layer to false. Its command for ResNet-50 (README.md, "ResNet-50 and
        other convnets trainings") is SGD, rate .03 x batch / 256, weight decay 1e-4 throughout:
        here where SGD is asked for, since it hardly moves the loss in a short run. Fewer outputs
        for small archives are ours.
    """

    recipe: ClassVar[str] = "dino"
    convnet_recipe: ClassVar[str | None] = "dino_convnet"
    drop_path: ClassVar[float] = 0.1

    name: Literal["dino"] = Field(default="dino", description="DINO")
    end_learning_rate: float = Field(
        default=1e-6, ge=0, description="learning rate at the end of the cosine"
    )
    local_views: int = Field(default=8, ge=0, description="small views of each scan")
    student_temperature: float = Field(
        default=0.1, gt=0, description="temperature of the student's softmax"
    )
    teacher_temperature: float = Field(
        default=0.04, gt=0, description="temperature of the teacher's softmax"
    )
    start_teacher_temperature: float = Field(
        default=0.04, gt=0, description="temperature of the teacher's softmax before its warm-up"
    )
    teacher_temperature_epochs: float = Field(
        default=30.0,
        ge=0,
        description="linear warm-up of the teacher temperature; at most a tenth of the steps",
    )
    center_momentum: float = Field(
        default=0.9,
        ge=0,
        lt=1,
        description="momentum of the centre: the share that it keeps in a step",
    )
    teacher_momentum: float = Field(
        default=0.996,
        ge=0,
        le=1,
        description="momentum of the teacher at the start, then a cosine up to 1; lower "
        "in a short run",
    )
    num_prototypes: int | None = Field(
        default=None,
        ge=2,
        description="outputs of the head; null is the power of two nearest to an eighth of the "
        "archive, from 1,024 to 65,536",
    )
    head_hidden: int = Field(default=2048, ge=1, description="width of the head's hidden layers")
    head_bottleneck: int = Field(default=256, ge=1, description="width before its last layer")
    norm_last_layer: bool = Field(
        default=True, description="keep the weights of the last layer at norm 1, for stability"
    )
    freeze_last_layer_epochs: float = Field(
        default=1.0,
        ge=0,
        description="epochs during which the last layer is frozen; at most a tenth of the steps",
    )
    clip_gradient: float | None = Field(
        default=3.0,
        gt=0,
        description="gradient clipping: largest norm per parameter; null for no clipping",
    )

    @property
    def num_local_views(self) -> int:
        """Small views of each scan that the method asks for."""
        return self.local_views

    def resolved(
        self,
        facts: RunFacts,
        backbone: Backbone,  # noqa: ARG002
    ) -> tuple[Self, tuple[str, ...]]:
        """Fills in the published recipe, its outputs for the archive."""
        # AdamW's rate would teach SGD nothing.
        is_sgd = self.optimiser == "sgd"
        end_weight_decay = None if is_sgd or self.weight_decay is not None else 0.4
        filled = self.filled(
            optimiser="adamw",
            learning_rate=(0.03 if is_sgd else 5e-4) * facts.batch_size / 256,
            weight_decay=1e-4 if is_sgd else 0.04,
            end_weight_decay=end_weight_decay,
            warmup_epochs=10.0,
            num_prototypes=num_prototypes(facts.num_scans),
        )
        chosen = []
        if self.num_prototypes is None:
            chosen.append(
                f"{filled.num_prototypes:,} outputs: the power of two nearest to an eighth of "
                f"{facts.num_scans:,} scans, at least 1,024 (published for 1.3 million images: "
                "65,536)"
            )
        frozen = warmup_steps(self.freeze_last_layer_epochs, facts.start)
        if frozen < round(self.freeze_last_layer_epochs * facts.steps_per_epoch):
            chosen.append(
                f"last layer frozen for {frozen:,} steps: a tenth of the run, since "
                f"{counted(self.freeze_last_layer_epochs, 'epoch')} would be more"
            )
        return filled, (*chosen, *momentum_in_words(self.teacher_momentum, facts.total_steps))


def _own_as_it_is(value: object, read: ValidatorFunctionWrapHandler) -> object:
    """Takes the settings of a method of a person's own, whose class this process has defined.

    A file may name it then, as that of a run that goes on; no file names what is to be imported.
    """
    if isinstance(value, MethodSettings):
        return value
    name = value.get("name") if isinstance(value, Mapping) else None
    # In a notebook a cell that is run again defines it anew: the last one counts.
    for each in reversed(MethodSettings.__subclasses__()):
        if each.__module__ != __name__ and each.model_fields["name"].default == name:
            return each.model_validate(value)
    return read(value)


MethodConfig: TypeAlias = Annotated[
    SimCLRConfig | MoCoV2Config | MoCoV3Config | DINOConfig,
    Field(discriminator="name", description="the method and its settings"),
    WrapValidator(_own_as_it_is),
    # By the fields of what it is, own ones among them.
    SerializeAsAny(),
]
