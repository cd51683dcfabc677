"""The learners, one row each; every other place loops over the table.

No row imports its code before it is used: settings read this file, and torch takes seconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

from scanlearn.errors import ScanlearnError, did_you_mean
from scanlearn.views.scale import MAX_SCALE


@dataclass(frozen=True)
class LearnerKind:
    """One learner.

    Args:
        title: What pages, figures and the terminal show.
        build: ``module:function`` in this folder; takes a `LearnerInputs`, returns a `Learner`.
        needs_network: Whether a backbone's network is needed, not only its features.
        keeps_classifier: Whether it can be kept for `predict`: its fit is a `LinearFit`, or a
            network with a classifier.
        reads: Keys of ``tune`` that have an effect on it.
        numbers: Of one trained by steps: what holds where neither the user nor a preset says more.
        rate_divisor: What its default learning rate, or a preset's, is divided by.
        sees: Keys of ``tune`` that its own name sets, as ``finetune@complex`` does.
    """

    name: str
    title: str
    summary: str
    build: str
    needs_network: bool = False
    keeps_classifier: bool = True
    reads: tuple[str, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)
    rate_divisor: float = 1.0
    sees: Mapping[str, object] = field(default_factory=dict)

    @property
    def mode(self) -> str:
        """The learner that it is at some augmentation, or itself."""
        return self.name.partition("@")[0]

    @property
    def is_on_views(self) -> bool:
        """Whether its training scans are augmented."""
        return "recipe" in self.reads


# Of a comparison that names none.
PRIMARY_LEARNER = "linear"
_BALANCE = ("balance", "beta")
_STEPS = (
    *("epochs", "batch", "learning_rate", "weight_decay", "warmup_epochs", "label_smoothing"),
    "patience",
)
_VIEWS = ("augment", "scale", "recipe", "modality", "operations", "extras", "mixup", "cutmix")
_NETWORK = ("preset", *_STEPS, "layer_decay", "drop_path", *_VIEWS, *_BALANCE)

# Learning rates at a batch of 256. Ours, for AdamW.
_ALL_WEIGHTS = {"learning_rate": 2e-3, "layer_decay": 0.75, "weight_decay": 0.05}
_NEW_WEIGHTS = {"learning_rate": 8e-3, "layer_decay": 1.0, "weight_decay": 0.05}

_tuned = partial(LearnerKind, build="tuned:build", needs_network=True, reads=_NETWORK)

_ROWS = (
    LearnerKind(
        "knn", "kNN", "nearest neighbours", build="frozen:build_knn", keeps_classifier=False
    ),
    LearnerKind("ncm", "nearest class mean", "distance to the class means", build="ncm:build"),
    LearnerKind(
        "linear",
        "linear probe",
        "logistic regression",
        build="frozen:build_linear",
        reads=("feature_mixup", "feature_noise", *_BALANCE),
    ),
    LearnerKind(
        "sgd",
        "SGD probe",
        "a linear layer trained by SGD",
        build="tuned:build",
        needs_network=True,
        # The class tokens that it learns from are no features of a timm model.
        keeps_classifier=False,
        reads=(*_STEPS, *_BALANCE),
        # Cheng et al. 2025 as released; the rate without weight decay is DINO's linear evaluation.
        numbers={
            "learning_rate": 1e-3,
            "weight_decay": 0.0,
            "warmup_epochs": 0,
            "epochs": 50,
            "batch": 16,
            "patience": 50,
        },
    ),
    _tuned("finetune", "fine-tuning", "all weights", numbers=_ALL_WEIGHTS),
    # A tenth of the rate: Kumar et al. 2022.
    _tuned("lpft", "LP-FT", "all, from a linear probe", numbers=_ALL_WEIGHTS, rate_divisor=10.0),
    _tuned("batchnorm", "BatchNorm only", "normalisation layers", numbers=_NEW_WEIGHTS),
    _tuned("scratch", "from scratch", "all, from random ones", numbers=_NEW_WEIGHTS),
)
_AUGMENTED = re.compile(r"(\w+)@(?:(none)|(basic|complex)(?:-(\d*\.?\d+))?|(\d*\.?\d+))")
AUGMENTED_HELP = (
    "NAME@none, NAME@basic, NAME@complex, NAME@0.5 or NAME@complex-0.5 is a learner that trains a "
    "network on views of that tune.augment and tune.scale"
)


class _Rows(dict[str, LearnerKind]):
    """The rows, and one for each learner at an augmentation that its name says."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or self._augmented(name) is not None

    def __missing__(self, name: str) -> LearnerKind:
        row = self._augmented(name)
        if row is None:
            raise KeyError(name)
        return row

    def _augmented(self, name: object) -> LearnerKind | None:
        found = _AUGMENTED.fullmatch(name) if isinstance(name, str) else None
        if found is None or not super().__contains__(found[1]) or not self[found[1]].is_on_views:
            return None
        row, augment, scale = self[found[1]], found[2] or found[3], found[4] or found[5]
        sees: dict[str, object] = {} if augment is None else {"augment": augment}
        words = [f"{augment} augmentation"] if augment else []
        if augment == "none":
            sees |= {"extras": ()}
            words = ["no augmentation"]
        if scale is not None:
            if float(scale) > MAX_SCALE:
                return None
            sees |= {"scale": float(scale)}
            words.append(f"scale {float(scale):g}")
        reads = tuple(key for key in row.reads if key not in sees)
        title = ", ".join([row.title, *words])
        return replace(row, name=str(name), title=title, reads=reads, sees=sees)


LEARNERS: Mapping[str, LearnerKind] = MappingProxyType(_Rows({row.name: row for row in _ROWS}))
FROZEN_LEARNERS = tuple(row.name for row in _ROWS if not row.needs_network)


def find_learner(name: str) -> LearnerKind:
    """Returns the row of a name, or raises a ScanlearnError."""
    if name not in LEARNERS:
        raise ScanlearnError(
            f"'{name}' is not a learner{did_you_mean(name, LEARNERS)}; choose from "
            f"{', '.join(LEARNERS)}{f'; {AUGMENTED_HELP}' if '@' in name else ''}"
        )
    return LEARNERS[name]


def _summaries(*, needs_network: bool) -> str:
    rows = [row for row in _ROWS if row.needs_network == needs_network]
    return ", ".join(f"{row.name} ({row.summary})" for row in rows)


LEARNERS_HELP = (
    f"Learners. On frozen features: {_summaries(needs_network=False)}. On the network, which takes "
    f"minutes per fit: {_summaries(needs_network=True)}. {AUGMENTED_HELP}."
)

_Checked = AfterValidator(lambda name: find_learner(name).name)
_LISTED = {"type": "string", "enum": list(LEARNERS)}
LearnerName = Annotated[str, _Checked, WithJsonSchema(_LISTED)]
# One that may be named with its augmentation, for editors too.
AugmentedName = Annotated[
    str, _Checked, WithJsonSchema({"anyOf": [_LISTED, {"type": "string", "pattern": "@"}]})
]
