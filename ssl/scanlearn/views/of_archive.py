"""What an archive says of the modality: its DICOM tags name one, its values allow some operations.

A row names the policy of a modality code of DICOM and the body parts with it. A code without a row
names none: angiography and fluoroscopy (XA, RF), pictures from inside vessels (IVUS, IVOCT) and of
any camera (XC) are not what a policy was made for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from scanlearn.archive.reader import Archive
from scanlearn.errors import ScanlearnError
from scanlearn.readers.dicom_tags import OTHER_PART
from scanlearn.views.adjusting import Given
from scanlearn.views.modality import AUTO, OwnModality, find_policy
from scanlearn.views.operations.table import OPERATION_OF
from scanlearn.views.recipes import Recipe

_SHOWN = 4
_EYE = frozenset({"", "EYE", "RETINA"})
_BREAST = frozenset({"BREAST"})


@dataclass(frozen=True)
class TagRow:
    """Which policy some modality codes name.

    Args:
        only: Body parts with which they do; "" is one that is not given, None stands for all.
        never: Body parts with which they do not.
    """

    policy: str
    codes: tuple[str, ...]
    only: frozenset[str] | None = None
    never: frozenset[str] = frozenset()

    def takes(self, code: str, part: str) -> bool:
        """Returns whether scans of that code and body part are of its policy."""
        is_part = part not in self.never and (self.only is None or part in self.only)
        return code in self.codes and is_part


# Source: DICOM PS3.3 C.7.3.1.1.1 for the codes.
TAG_ROWS = (
    TagRow("mammography", ("MG",), only=_BREAST | {""}),
    TagRow("mammography", ("CR", "DX", "RG"), only=_BREAST),
    # A hand has no situs, and mirrored it is the other hand. What is no word of the standard may
    # be a breast.
    TagRow("xray", ("CR", "DX", "RG"), never=_BREAST | {OTHER_PART}),
    TagRow("ct", ("CT",)),
    TagRow("mri", ("MR",)),
    # The policy mirrors, which a heart and a fetus forbid; they come without a body part too.
    TagRow(
        "ultrasound",
        ("US",),
        never=frozenset({"", OTHER_PART, "HEART", "CORONARYARTERY", "UTERUS"}),
    ),
    TagRow("fundus", ("OP",), only=_EYE),
    TagRow("oct", ("OPT",), only=_EYE),
    TagRow("histology", ("SM",)),
    TagRow("dermoscopy", ("DMS",)),
)


def tagged_policy(examined: str) -> str | None:
    """Returns the policy that a modality and body part name, such as "CR CHEST"; None for none."""
    code, _, part = examined.partition(" ")
    return next((row.policy for row in TAG_ROWS if row.takes(code, part)), None)


class ByTags(NamedTuple):
    """The modality that all scans are of, or None, and why in words; no words without tags."""

    modality: str | None
    why: str


def modality_by_tags(archive: Archive) -> ByTags:
    """Returns the modality on which the DICOM tags of all scans of an archive agree."""
    examined = archive.examined
    if not any(examined):
        return ByTags(None, "")
    total, listed = sum(examined.values()), _listed(examined)
    scans: dict[str, int] = {}
    for each, count in examined.items():
        policy = tagged_policy(each)
        if policy is not None:
            scans[policy] = scans.get(policy, 0) + count
    if not scans:
        return ByTags(None, f"the DICOM tags ({listed}) name no policy")
    most = max(scans, key=lambda policy: scans[policy])
    if scans[most] < total:
        share = f"{scans[most]:,} of {total:,} scans"
        return ByTags(None, f"the DICOM tags name {most} for {share} only ({listed})")
    return ByTags(most, f"the DICOM tags of all {total:,} scans name it ({listed})")


def contradiction(modality: str | OwnModality | None, archive: Archive) -> str | None:
    """Returns how a modality that a person named contradicts the DICOM tags; None if it does not.

    A modality of one's own is what it is like; one that is like none contradicts nothing.
    """
    if modality is None or modality == AUTO:
        return None
    policy = find_policy(modality)
    name = policy.name
    while policy.like is not None:
        policy = policy.like
    if policy.name == "natural" and isinstance(modality, OwnModality):
        return None
    others: dict[str, int] = {}
    named: dict[str, None] = {}
    for each, count in archive.examined.items():
        exact, code = tagged_policy(each), each.partition(" ")[0]
        policies = [exact] if exact else [row.policy for row in TAG_ROWS if code in row.codes]
        if policies and policy.name not in policies:
            others[each] = count
            named |= dict.fromkeys(policies)
    if not others:
        return None
    total = sum(archive.examined.values())
    return (
        f"modality is {name}, and the DICOM tags of {sum(others.values()):,} of "
        f"{total:,} scans name {' or '.join(named)} ({_listed(others)}); name that one, or leave "
        "these scans out, if the tags are right"
    )


def _listed(examined: Mapping[str, int]) -> str:
    """Modalities and body parts with their numbers of scans, the commonest first."""
    ordered = sorted(examined.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{each or 'no tags'} {count:,}" for each, count in ordered[:_SHOWN]]
    return ", ".join([*shown, *([f"{len(ordered) - _SHOWN} others"] if ordered[_SHOWN:] else [])])


def unmeasured(recipe: Recipe, archive: Archive) -> tuple[str, ...]:
    """Returns what a recipe takes in units, or one way round, that the archive does not hold."""
    used = {row.parameter for row in recipe.rows if not row.is_idle}
    notes = []
    num_unknown = int(np.isnan(archive.facts["spacing_mm"]).any(axis=1).sum())
    if "elastic_mm" in used and num_unknown:
        instead = "a share of the side, not millimetres," if "elastic" in used else "off"
        notes.append(
            f"elastic deformation is {instead} in {num_unknown:,} of {len(archive):,} scans, whose "
            "pixel spacing is not known"
        )
    if "noise_hu" in used and archive.hu_per_value is None:
        notes.append(
            "noise is a share of the range, with no least in HU: the archive holds no Hounsfield "
            "units (packing with a window keeps them)"
        )
    is_breast = recipe.policy is not None and recipe.policy.is_a("mammography")
    if is_breast and not archive.info["settings"].get("chest_wall"):
        notes.append(
            "mammograms face the way they were stored: packing with chest_wall=left brings all to "
            "one side"
        )
    return tuple(notes)


def lacking_of(archive: Archive) -> dict[str, str]:
    """Returns the operations that an archive's values do not allow, and what they would need."""
    lacking = {}
    if not archive.is_windowed:
        lacking["window"] = (
            "needs scans packed in Hounsfield units, as by pack with window=lung or another window"
        )
    if archive.shape[0] == 1:
        lacking["stain"] = "needs colour, and the scans have one channel"
    return lacking


def check_operations(
    operations: Mapping[str, Given], archive: Archive, where: str = "operations"
) -> None:
    """Refuses what a person set of an operation that the archive's values do not allow.

    What was silently wrong: plain gray values were changed as if they were Hounsfield units.

    Raises:
        ScanlearnError: There is one.
    """
    lacking = lacking_of(archive)
    for name, given in operations.items():
        is_off = given is False or given == "off"
        operation = OPERATION_OF[name].name if name in OPERATION_OF else name
        if operation in lacking and not is_off:
            raise ScanlearnError(
                f"{where}.{name}: {operation} {lacking[operation]}; {archive.path} is not so: pack "
                f"the scans again, or leave {name} out."
            )


def left_out_of(recipe: Recipe, archive: Archive) -> dict[str, str]:
    """Returns the operations of a recipe's policy that the archive does not allow, and why."""
    return {
        operation: why
        for operation, why in lacking_of(archive).items()
        if recipe.policy is not None
        and any(
            not row.is_off for row in recipe.rows if OPERATION_OF[row.parameter].name == operation
        )
    }


def left_out_in_words(left_out: Mapping[str, str]) -> tuple[str, ...]:
    """Returns a sentence for each of `left_out_of`."""
    return tuple(f"{name} of the policy is left out: it {why}" for name, why in left_out.items())
