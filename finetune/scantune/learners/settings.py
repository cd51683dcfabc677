"""Settings of learners that train step by step."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from scanlearn.archive.reader import Archive
from scanlearn.config.settings import Settings
from scanlearn.errors import ScanlearnError
from scanlearn.views.adjusting import Operations
from scanlearn.views.extra_settings import Extras
from scanlearn.views.modality import AUTO, AnyModality, Modality, OwnModality
from scanlearn.views.of_archive import check_operations, left_out_of
from scanlearn.views.recipes import RECIPES, Recipe, find_recipe
from scanlearn.views.scale import MAX_SCALE
from scantune.learners.table import LEARNERS
from scantune.learners.weighting import BETA, Balance, ProbeRows

Augment = Literal["none", "basic", "complex"]

# Training scans above which fewer passes are made.
_SCANS_OF_FULL_LENGTH = 2_000
_MOST_EPOCHS, _FEWEST_EPOCHS = 50, 10
_LARGEST_BATCH, _SMALLEST_BATCH = 32, 8
# Share of the epochs that a warm-up takes, or may take at most where a preset says more.
_WARMUP_SHARE, _MOST_WARMUP = 0.1, 0.2

# Zhou et al. 2023 (RETFound), the released fine-tuning command.
_RETFOUND: Mapping[str, float] = {
    "learning_rate": 5e-3,
    "layer_decay": 0.65,
    "weight_decay": 0.05,
    "drop_path": 0.2,
    "epochs": 50,
    "batch": 16,
    "warmup_epochs": 10,
    "label_smoothing": 0.1,
    "patience": 50,
}


@dataclass(frozen=True)
class TunePlan:
    """A training with every number settled, each described in `TuneConfig`.

    Args:
        learning_rate: Peak of the classifier's, scaled to the batch.
    """

    mode: str
    epochs: int
    batch: int
    learning_rate: float
    layer_decay: float
    weight_decay: float
    drop_path: float
    warmup_epochs: float
    label_smoothing: float
    patience: int


class TuneConfig(Settings):
    """How learners train; null follows the preset, the learner or the number of training scans.

    The preset ``retfound`` has the hyperparameters of RETFound's fine-tuning, without its
    RandAugment and random erasing: ``augment`` and ``scale`` set the augmentation, so that
    augmentation scales can be compared.
    """

    preset: Literal["retfound"] | None = Field(
        default=None, description="null, or retfound: the hyperparameters of its fine-tuning"
    )
    augment: Augment = Field(
        default="basic",
        description="augmentation of the training scans: none, basic (intensity) or complex "
        "(intensity, geometry and mild crops)",
    )
    scale: float = Field(
        default=0.5, ge=0, le=MAX_SCALE, description="augmentation scale, 0 to 1.5"
    )
    recipe: str = Field(
        default="simclr", description=f"augmentation recipe: one of {', '.join(RECIPES)}"
    )
    modality: Modality = Field(
        default=AUTO,
        description="kind of scan, whose policy changes the recipe; auto is the one under which "
        "the backbone was pretrained, null the recipe alone",
    )
    operations: Operations = Field(
        default={}, description="operations switched off or set by hand, as in pretraining"
    )
    extras: Extras = ()
    epochs: int | None = Field(
        default=None,
        ge=1,
        description="passes over the training scans; null is 50, above 2,000 scans fewer, down to "
        "10",
    )
    batch: int | None = Field(
        default=None, ge=2, description="scans in a step; null is 8 to 32, by the number of scans"
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="peak learning rate at a batch of 256, scaled linearly with the batch; null "
        "is the learner's",
    )
    layer_decay: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="factor of the learning rate from each layer to the one before it",
    )
    weight_decay: float | None = Field(default=None, ge=0, description="weight decay")
    drop_path: float | None = Field(
        default=None, ge=0, lt=1, description="stochastic depth; null is the preset's, or 0"
    )
    warmup_epochs: float | None = Field(
        default=None, ge=0, description="epochs of linear warm-up; null is a tenth of the epochs"
    )
    label_smoothing: float | None = Field(
        default=None, ge=0, lt=1, description="share of each label spread over all classes"
    )
    patience: int | None = Field(
        default=None,
        ge=0,
        description="early stopping: epochs without a better validation AUROC; null is a fifth of "
        "the epochs, at least 5; 0 trains to the last epoch without validation",
    )
    mixup: float = Field(
        default=0.0,
        ge=0,
        description="alpha of mixup, such as 0.2; 0 is off, which is best below about 500 scans",
    )
    cutmix: float = Field(
        default=0.0, ge=0, description="alpha of CutMix, such as 1; it can cut out a finding"
    )
    feature_mixup: float = Field(
        default=0.0, ge=0, description="alpha of mixup of the linear probe's features; 0 is off"
    )
    feature_noise: float = Field(
        default=0.0,
        ge=0,
        description="noise on the linear probe's features, in their standard deviations",
    )
    balance: Balance = Field(
        default="none",
        description="rare classes: none, sampling (drawn as often as common ones) or effective "
        "(weighted by the effective number of scans)",
    )
    beta: float = Field(
        default=BETA, ge=0, lt=1, description="beta of the effective number of scans"
    )

    @field_validator("recipe")
    @classmethod
    def _known(cls, value: str) -> str:
        find_recipe(value)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> TuneConfig:
        self.build_recipe()
        if self.extras and self.augment == "none":
            raise ValueError(
                "extras have no effect while augment is none; set it to basic or complex, or leave "
                "them out"
            )
        if self.epochs is not None and (self.warmup_epochs or 0) >= self.epochs:
            raise ValueError(
                f"warmup_epochs is {self.warmup_epochs:g} of {self.epochs} epochs; give fewer"
            )
        return self

    def build_recipe(self, left_out: Collection[str] = ()) -> Recipe:
        """Returns the recipe under the modality's policy, with its operations adjusted.

        Args:
            left_out: Operations of the policy that the scans do not allow.
        """
        return find_recipe(self.recipe).under(self.modality, left_out).adjusted(self.operations)

    def left_out(self, archive: Archive) -> dict[str, str]:
        """Returns the operations of the policy that the scans do not allow, and why.

        Raises:
            ScanlearnError: One of them was set by hand.
        """
        check_operations(self.operations, archive, "tune.operations")
        return left_out_of(self.build_recipe(), archive)

    def under(self, modality: AnyModality | None) -> TuneConfig:
        """Returns these settings with the backbone's modality in place of ``auto``.

        Raises:
            ScanlearnError: Operations set by hand cannot be used under it.
        """
        if self.modality != AUTO or modality is None or self.augment == "none":
            return self
        if isinstance(modality, Mapping):
            modality = OwnModality.model_validate(modality)
        changed = self.model_copy(update={"modality": modality})
        try:
            changed.build_recipe()
        except ScanlearnError as error:
            raise ScanlearnError(f"tune.{error} (Under the modality of the backbone.)") from None
        return changed

    def of(self, learner: str) -> TuneConfig:
        """Returns these settings with the augmentation that a learner's own name says."""
        return self.model_copy(update=dict(LEARNERS[learner].sees))

    @property
    def views_in_words(self) -> str:
        """How training scans are augmented."""
        if self.augment == "none":
            return "training scans not augmented"
        policy = self.build_recipe().policy
        modality = f" under modality {policy.name}" if policy else ""
        return (
            f"{self.augment} augmentation, scale {self.scale:g} of recipe {self.recipe}{modality}"
        )

    def views_recorded(self, archive: Archive) -> dict[str, Any]:
        """Returns how training scans are augmented, as fields of a classifier's card."""
        if self.augment == "none":
            return {}
        recipe, modality = self.build_recipe(self.left_out(archive)), self.modality
        own = modality.model_dump(mode="json") if isinstance(modality, OwnModality) else None
        return {
            "views": self.views_in_words,
            "modality": recipe.policy_text if recipe.policy else None,
            "own_modality": own,
        }

    @property
    def probe_rows(self) -> ProbeRows:
        """How the linear probe's training scans are mixed and weighed."""
        return ProbeRows(self.feature_mixup, self.feature_noise, self.balance, self.beta)

    def without_effect(self, learners: Sequence[str]) -> tuple[str, ...]:
        """Returns the settings that were changed and that none of these learners reads."""
        read = {key for name in learners for key in LEARNERS[name].reads}
        return tuple(key for key in self.model_dump(exclude_defaults=True) if key not in read)

    def plan(self, mode: str, num_scans: int, *, has_drop_path: bool = True) -> TunePlan:
        """Returns every number settled for a training.

        What the user set wins over the preset, the preset over the learner's own numbers, and
        these over what follows from the number of scans.

        Args:
            has_drop_path: Whether the network can have stochastic depth; a preset's is left out
                where not.
        """
        kind = LEARNERS[mode]
        preset = _RETFOUND if self.preset == "retfound" and "preset" in kind.reads else {}
        numbers = {**kind.numbers, **preset}
        numbers["learning_rate"] /= kind.rate_divisor
        if not has_drop_path:
            numbers["drop_path"] = 0.0
        set_by_user = {name: getattr(self, name) for name in _NUMBERS}
        numbers |= {name: value for name, value in set_by_user.items() if value is not None}
        share = _SCANS_OF_FULL_LENGTH / max(1, num_scans)
        by_count = max(_FEWEST_EPOCHS, round(_MOST_EPOCHS * min(1.0, share)))
        epochs = int(numbers.get("epochs", by_count))
        power = 2 ** max(0, (num_scans // 8).bit_length() - 1)
        batch = int(numbers.get("batch", min(_LARGEST_BATCH, max(_SMALLEST_BATCH, power))))
        batch = min(batch, num_scans)
        warmup = numbers.get("warmup_epochs", _WARMUP_SHARE * epochs)
        if self.warmup_epochs is None:
            warmup = min(warmup, _MOST_WARMUP * epochs)
        return TunePlan(
            mode=mode,
            epochs=epochs,
            batch=batch,
            learning_rate=numbers["learning_rate"] * batch / 256,
            layer_decay=numbers.get("layer_decay", 1.0),
            weight_decay=numbers["weight_decay"],
            drop_path=numbers.get("drop_path", 0.0),
            warmup_epochs=warmup,
            label_smoothing=numbers.get("label_smoothing", 0.0),
            patience=int(numbers.get("patience", max(5, epochs // 5))),
        )


DEFAULT = TuneConfig()
_NUMBERS = (
    *("epochs", "batch", "learning_rate", "layer_decay", "weight_decay", "drop_path"),
    *("warmup_epochs", "label_smoothing", "patience"),
)
