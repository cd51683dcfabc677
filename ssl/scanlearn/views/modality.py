"""Modalities: the policy of each kind of scan, and those that a user makes of them.

Rows without a source of their own are ours, to be measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from scanlearn.config.loading import check_settings
from scanlearn.config.settings import Settings
from scanlearn.errors import ScanlearnError, did_you_mean
from scanlearn.views.adjusting import Given, Operations
from scanlearn.views.operations.table import OPERATION_OF
from scanlearn.views.policy import Policy

_SLUIJS = "strong after van der Sluijs et al. 2023 (crop .3-.9, intensity .5-.7), weak ours"
_MOCO_CXR = "strong after MoCo-CXR 2021 (10 degrees), weak ours"
_TORCHIO = "strong is TorchIO's default (±.5, order 3), weak ours"
_TORCHIO_ELASTIC = (
    "strong is TorchIO's default (7 control points, 7.5 mm, 3 % of 250 mm), weak ours"
)
_NNUNET = "nnU-Net's ranges"
_ALBUMENTATIONS = "Albumentations' range"
_VIRCHOW = "as Virchow2 (vertical flips, no solarize)"
_SITUS = "a mirrored chest shows situs inversus"
_INVERTED = "it imitates MONOCHROME1"


def _half(**magnitudes: Given) -> dict[str, Given]:
    """Magnitudes of operations that are done every other time."""
    probabilities: dict[str, Given] = {f"{OPERATION_OF[name].name}_p": 0.5 for name in magnitudes}
    return probabilities | magnitudes


def _placed(rotation: Given, translation: Given, stretch: Given, shear: Given) -> dict[str, Given]:
    return _half(rotation_deg=rotation, translation=translation, stretch=stretch, shear_deg=shear)


def _off(*operations: str) -> dict[str, Given]:
    return dict.fromkeys(operations, "off")


def _toned(jitter: Given, gamma: Given, shift: Given) -> dict[str, Given]:
    """Gray scans: no colour, no solarize, tone curves instead."""
    return {
        **_off("saturation", "hue", "gray", "solarize"),
        "brightness": jitter,
        "contrast": jitter,
        **_half(gamma=gamma, histogram_shift=shift),
    }


_LOW_RESOLUTION: Mapping[str, Given] = {"low_resolution_p": 0.25, "low_resolution": [0.75, 0.5]}
_ANY_WAY_UP: Mapping[str, Given] = {
    "flip_p": 0.5,
    "vflip_p": 0.5,
    "quarter_turns_p": 0.5,
    "rotation_p": 0.5,
    "rotation_deg": 180,
}

# Source: the ranges named in each row; all else ours, one place to change it.
_TABLE = (
    Policy("natural", moves_acquisition=False),
    Policy(
        "fundus",
        {
            **_placed([7, 15, 30], [0.02, 0.05], [0.02, 0.05], [1, 2]),
            **_off("vflip", "elastic", "gamma", "histogram_shift", "solarize"),
            "flip_p": 0.5,
            "hue": [0.025, 0.05],
            **_half(noise_std=[0.01, 0.03], illumination=[0.05, 0.1]),
        },
        crop_floor=0.2,
        spares_multi_crop=True,
        sources={
            "elastic": "it would change the cup-disc ratio and the calibre of vessels",
            "solarize": "no camera does that",
        },
    ),
    Policy(
        "oct",
        {
            **_placed([5, 10, 15], [0.02, 0.05], [0.03, 0.08], [1, 2]),
            **_toned([0.15, 0.3], [0.18, 0.34], [0.03, 0.06]),
            **_off("vflip"),
            "flip_p": 0.5,
            # A B-scan is warped by motion along its lines, of which each is measured at once.
            **_half(elastic_axial=[0.005, 0.01], speckle_std=[0.05, 0.2]),
        },
        crop_floor=0.3,
        sources={"speckle": _ALBUMENTATIONS, "gamma": _NNUNET},
    ),
    Policy(
        "xray",
        {
            **_placed([5, 10, 15], [0.02, 0.05, 0.08], [0.03, 0.08], [1, 3]),
            **_toned([0.25, 0.5, 0.7], [0.18, 0.34], [0.05, 0.1]),
            **_off("flip", "vflip"),
            **_half(elastic=[0.005, 0.01], noise_std=[0.01, 0.03], poisson_std=[0.01, 10**-1.5]),
        },
        crop_floor=0.3,
        local_area=(0.2, 0.1),
        sources={
            "crop": _SLUIJS,
            "brightness": _SLUIJS,
            "contrast": _SLUIJS,
            "rotation": _MOCO_CXR,
            "gamma": _NNUNET,
            "flip": _SITUS,
            "vflip": "no chest is X-rayed upside down",
            "solarize": _INVERTED,
        },
    ),
    Policy(
        "ct",
        {
            **_placed([7, 15, 30], [0.02, 0.05], [0.03, 0.08], [1, 3]),
            **_off("flip", "vflip", "elastic", "jitter", "gray", "gamma", "solarize"),
            **_off("histogram_shift"),
            **_half(window_width=[0.1, 0.2], window_level=[0.02, 0.05]),
            "blur_sigma": [0.5, 1],
            **_half(noise_std=[0.005, 0.02], noise_hu=3),
            **_LOW_RESOLUTION,
        },
        crop_floor=0.3,
        sources={
            "flip": _SITUS,
            "low_resolution": _NNUNET,
            "jitter": "the window is moved instead",
        },
    ),
    Policy(
        "mri",
        {
            **_placed([5, 10, 20], [0.02, 0.05], [0.05, 0.1], [1, 3]),
            **_toned([0.1, 0.25], [0.18, 0.41], [0.05, 0.1]),
            **_off("flip", "vflip"),
            **_half(elastic=[0.015, 0.03], elastic_mm=[3.75, 7.5]),
            **_half(rician_std=[0.02, 0.1], bias_field=[0.25, 0.5]),
            **_LOW_RESOLUTION,
        },
        crop_floor=0.3,
        sources={
            "flip": "the side can be the label",
            "bias_field": _TORCHIO,
            "elastic": _TORCHIO_ELASTIC,
            "rician": _ALBUMENTATIONS,
            "gamma": _NNUNET,
            "low_resolution": _NNUNET,
        },
    ),
    Policy(
        "ultrasound",
        {
            **_placed([5, 10, 15], [0.02, 0.05], [0.05, 0.15], [1, 2]),
            **_toned([0.15, 0.3], [0.14, 0.26], [0.05, 0.1]),
            **_off("vflip"),
            "flip_p": 0.5,
            **_half(elastic=[0.005, 0.01], speckle_std=[0.1, 0.2], noise_std=[0.5 / 255, 3 / 255]),
        },
        crop_floor=0.3,
        local_area=(0.2, 0.1),
        turns_about="apex",
        sources={"noise": "VanBerlo et al. 2025 (.5-3 of 255)", "speckle": _ALBUMENTATIONS},
    ),
    Policy(
        "histology",
        {
            **_placed(180, [0.05, 0.1], [0.02, 0.05], [2, 5]),
            **_ANY_WAY_UP,
            **_off("saturation", "hue", "gamma", "histogram_shift", "solarize"),
            "brightness": [0.1, 0.2],
            "contrast": [0.1, 0.2],
            **_half(elastic=[0.005, 0.01], stain=[0.05, 0.2], jpeg_quality=[90, 70]),
            "gray_p": [0.1, 0.2],
            "blur_sigma": [0.5, 1],
            **_LOW_RESOLUTION,
        },
        crop_floor=0.25,
        beyond="reflect_moved",
        sources={
            "vflip": _VIRCHOW,
            "solarize": _VIRCHOW,
            "low_resolution": _NNUNET,
        },
    ),
    Policy(
        "dermoscopy",
        {
            **_placed(180, [0.05, 0.1], [0.02, 0.05], [2, 5]),
            **_ANY_WAY_UP,
            **_off("elastic", "gamma", "histogram_shift", "solarize"),
            "hue": [0.025, 0.05],
            "gray_p": [0.05, 0.1],
            **_half(jpeg_quality=[90, 70], noise_std=[0.01, 0.02]),
        },
        crop_floor=0.25,
        beyond="reflect_moved",
        sources={"elastic": "border and asymmetry are what is looked at"},
    ),
    Policy(
        "mammography",
        {
            **_placed([5, 10, 15], [0.02, 0.05], [0.02, 0.05], [1, 2]),
            **_toned([0.1, 0.2], [0.1, 0.22], [0.03, 0.06]),
            **_off("flip", "vflip"),
            "blur_sigma": [0.3, 0.7],
            **_half(elastic=[0.01, 0.02], poisson_std=[0.01, 1 / math.sqrt(3e3)]),
        },
        crop_floor=0.5,
        local_area=(0.2, 0.1),
        sources={"flip": "the side is made canonical instead", "solarize": _INVERTED},
    ),
)
POLICIES: Mapping[str, Policy] = {policy.name: policy for policy in _TABLE}
NAMES = ", ".join(POLICIES)
_OWN_KEYS = ("name", "like", "crop_floor", "operations")


class OwnModality(Settings):
    """A modality of one's own."""

    name: str = Field(description="what it is called")
    like: str = Field(default="natural", description="the modality that it changes")
    crop_floor: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="smallest area of a global crop; null is that of the modality it changes",
    )
    operations: Operations = Field(
        default={}, description="rows that replace those of the modality it changes"
    )

    def build(self) -> Policy:
        """Returns the policy."""
        base = find_policy(self.like)
        own = (OPERATION_OF[n].name if n in OPERATION_OF else n for n in self.operations)
        return Policy(
            self.name,
            self.operations,
            self.crop_floor,
            sources=dict.fromkeys(("crop", *own), "your own"),
            moves_acquisition=base.moves_acquisition,
            like=base,
        )


AnyModality = Policy | OwnModality | Mapping[str, Any] | str


def find_policy(modality: AnyModality) -> Policy:
    """Returns the policy of a modality; a policy as it is, a mapping as one of the user's own.

    Raises:
        ScanlearnError: No modality is called so, or the mapping is none.
    """
    if isinstance(modality, Policy):
        return modality
    if isinstance(modality, Mapping):
        own: OwnModality = _known(modality)
        return own.build()
    if isinstance(modality, OwnModality):
        return modality.build()
    if modality not in POLICIES:
        raise ScanlearnError(
            f"modality: '{modality}' is not a modality{did_you_mean(modality, POLICIES)}; give "
            f"one of {', '.join(POLICIES)}, null for the recipe as it is, or one of your own as "
            "{name: ..., like: xray, operations: {...}}."
        )
    return POLICIES[modality]


def _known(given: Any) -> Any:
    """Refuses what is no modality; the errors of a union would name all its members."""
    if isinstance(given, str):
        if given != AUTO:
            find_policy(given)
        return given
    if isinstance(given, Mapping):
        unknown = [str(key) for key in given if key not in _OWN_KEYS]
        if unknown:
            raise ScanlearnError(
                f"modality: '{unknown[0]}' is not a key of a modality"
                f"{did_you_mean(unknown[0], _OWN_KEYS)}; allowed are {', '.join(_OWN_KEYS)}."
            )
        if not isinstance(given.get("name"), str) or given["name"] in (*POLICIES, AUTO):
            raise ScanlearnError(
                f"modality: {given.get('name')!r} is no name for a modality of your own; give "
                f"name: one that is none of {', '.join(POLICIES)}."
            )
        own = {**given, "like": find_policy(given.get("like", "natural")).name}
        return check_settings(OwnModality, own, "modality")
    if given is None or isinstance(given, OwnModality):
        return given
    raise ScanlearnError(
        f"modality: {given!r} is not a modality; give one of {', '.join(POLICIES)}, or null."
    )


# What a configuration takes: "auto" is what the archive's DICOM tags name, else the recipe alone.
AUTO = "auto"
Modality = Annotated[str | OwnModality | None, BeforeValidator(_known)]
