"""The phantom: what to draw, one scan of it, and all of it as an archive.

It shows that the instrument measures what was planted. It is no evidence about real scans.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from scanlearn.archive.layout import Origin, PackedScan
from scanlearn.archive.reader import Archive
from scanlearn.archive.writer import ArchiveWriter
from scanlearn.console import track
from scanlearn.errors import ScanlearnError, did_you_mean
from scanlearn.phantom.camera import camera, frame
from scanlearn.phantom.eye import draw_eye, draw_patient, photograph
from scanlearn.phantom.tasks import TASKS, Strengths, add_lesions, draw_labels, striation, wash_out

# Shares of red, green and blue in gray. Source: ITU-R BT.601.
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)

NOT_EVIDENCE = "drawn by a program; no evidence about real scans"

# Independent streams of random numbers of one phantom: changing what one draws moves no other.
_PATIENT, _EYE, _LABELS, _LESION, _TEXTURE, _NOISE = range(6)


@dataclass(frozen=True)
class PhantomSpec:
    """What to draw.

    Args:
        patients: Number of patients; each has a right eye (even scans) and a left one (odd scans).
        height: Canvas rows in pixels, at least 32, as ``width``.
        cameras: Number of makes of camera; a patient is pictured by one of them.

    Raises:
        ScanlearnError: A number is outside its range.
    """

    patients: int = 300
    seed: int = 0
    height: int = 96
    width: int = 96
    channels: int = 3
    cameras: int = 3
    strengths: Strengths = field(default_factory=Strengths)

    def __post_init__(self) -> None:
        lowest = {"patients": 1, "seed": 0, "height": 32, "width": 32, "cameras": 1}
        for name, low in lowest.items():
            if getattr(self, name) < low:
                raise ScanlearnError(
                    f"phantom: {name} {getattr(self, name)} is too small; give {low} or more"
                )
        if self.channels not in (1, 3):
            raise ScanlearnError(f"phantom: channels {self.channels} is not one of 1, 3")

    def __len__(self) -> int:
        return 2 * self.patients

    @classmethod
    def parse(cls, text: str) -> PhantomSpec:
        """Returns the phantom that a text such as ``patients=600,seed=1,size=96x96`` names.

        Args:
            text: ``key=value`` pairs joined by commas, in any order; what is left out keeps its
                default. ``size`` is height x width, or one number for a square; ``tilt`` is the
                standard deviation of the stripes' direction in degrees, 0 for level ones.

        Raises:
            ScanlearnError: A key is unknown or given twice, or a value is no whole number in its
                range.

        Example:
            >>> PhantomSpec.parse("patients=600,size=96x80").width
            80
        """
        numbers: dict[str, Any] = {}
        for pair in filter(None, (part.strip() for part in text.split(","))):
            key, _, value = (piece.strip() for piece in pair.partition("="))
            for name, number in _numbers(key, value).items():
                if name in numbers:
                    raise ScanlearnError(f"phantom: '{text}' gives {name} twice; give it once")
                numbers[name] = number
        tilt_deg = numbers.pop("tilt", None)
        if tilt_deg is not None:
            numbers["strengths"] = Strengths(tilt_deg=float(tilt_deg))
        return cls(**numbers)


def _numbers(key: str, value: str) -> Mapping[str, int]:
    """Returns the fields that one ``key=value`` pair sets."""
    keys = ("patients", "seed", "size", "height", "width", "channels", "cameras", "tilt")
    if key not in keys:
        hint = did_you_mean(key, keys)
        raise ScanlearnError(f"phantom: '{key}' is not a key{hint}; known are {', '.join(keys)}")
    sides = value.lower().split("x") if key == "size" else [value]
    if len(sides) > 2 or not all(side.strip().isdecimal() for side in sides):
        example = "96 or 96x80" if key == "size" else "a whole number"
        raise ScanlearnError(f"phantom: {key} '{value}' cannot be read; give {example}")
    if key == "size":
        return {"height": int(sides[0]), "width": int(sides[-1])}
    return {key: int(value)}


@dataclass(frozen=True)
class PhantomScan:
    """One drawn scan.

    Args:
        pixels: ``[c h w]`` stored values; 0 outside the field of view.
        valid_box: Top, left, bottom, right of the field of view on the canvas in pixels, bottom
            and right exclusive.
        labels: 0 or 1 of each planted task; a label belongs to the eye, not to the patient.
    """

    pixels: UInt8[np.ndarray, "c h w"]
    valid_box: tuple[int, int, int, int]
    mask: Bool[np.ndarray, "h w"]
    labels: dict[str, int]
    patient: str
    scan_id: str


def _stream(spec: PhantomSpec, purpose: int, index: int) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64([spec.seed, purpose, index]))


def draw_phantom(spec: PhantomSpec, index: int) -> PhantomScan:
    """Draws scan ``index`` of the phantom; it depends on nothing but ``spec`` and ``index``.

    Args:
        index: 0 to ``len(spec) - 1``; patient ``index // 2``, right eye where it is even.

    Raises:
        IndexError: There is no such scan.
    """
    if not 0 <= index < len(spec):
        raise IndexError(f"scan {index} is not one of the phantom's 0 to {len(spec) - 1}")
    patient = draw_patient(_stream(spec, _PATIENT, index // 2), spec.cameras)
    side = 1.0 if index % 2 == 0 else -1.0
    look = camera(patient.camera)
    view = frame(spec.height, spec.width, look.field_radius, look.cut)
    labels = planted_labels(spec, index)
    eye, stripes = _stream(spec, _EYE, index), _stream(spec, _TEXTURE, index)
    picture, disc = draw_eye(eye, patient, view, look.zoom, side)
    strengths = spec.strengths
    picture *= striation(view, stripes, strengths, upright=labels["texture"] == 1)
    if labels["lesion"] == 1:
        spots = _stream(spec, _LESION, index)
        picture = add_lesions(picture, view, spots, strengths, disc=disc)
    picture = wash_out(picture, view, strengths, pale=labels["pallor"] == 1)
    taken = photograph(picture, look, view, eye, _stream(spec, _NOISE, index))
    if spec.channels == 1:
        taken = np.tensordot(_LUMA, taken, axes=1)[None]
    pixels = (np.clip(taken, 0.0, 1.0) * np.float32(255.0) + np.float32(0.5)).astype(np.uint8)
    pixels *= view.mask
    return PhantomScan(
        pixels=pixels,
        valid_box=bounding_box(view.mask),
        mask=view.mask.copy(),
        labels=labels,
        patient=f"patient{index // 2:05d}",
        scan_id=f"patient{index // 2:05d}_{'right' if side > 0 else 'left'}",
    )


def bounding_box(mask: Bool[np.ndarray, "h w"]) -> tuple[int, int, int, int]:
    """Returns top, left, bottom, right of what is True, bottom and right exclusive."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def planted_labels(spec: PhantomSpec, index: int) -> dict[str, int]:
    """Returns the labels of scan ``index`` without drawing it: 0 or 1 of each planted task."""
    return draw_labels(_stream(spec, _LABELS, index))


def write_phantom(spec: PhantomSpec, path: Path | str) -> Archive:
    """Draws the whole phantom into an archive, marked as drawn by a program.

    Returns:
        The archive, with one label column per planted task.

    Raises:
        ScanlearnError: Something lies at ``path`` already, or the disk is full.
    """
    writer = ArchiveWriter(
        path,
        shape=(spec.channels, spec.height, spec.width),
        dtype=np.uint8,
        label_columns=TASKS,
        has_mask=True,
        synthetic_phantom=True,
        settings={"phantom": asdict(spec), "note": NOT_EVIDENCE},
    )
    with writer, track(len(spec), "drawing the phantom") as progress:
        for index in range(len(spec)):
            scan = draw_phantom(spec, index)
            labels = {task: str(label) for task, label in scan.labels.items()}
            writer.add(
                PackedScan(scan.pixels, scan.valid_box, mask=scan.mask),
                Origin(scan_id=scan.scan_id, patient=scan.patient, labels=labels),
            )
            progress.advance()
        return writer.close()
