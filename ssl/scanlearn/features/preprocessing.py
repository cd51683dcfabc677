"""`load_preprocessing`: a file as a backbone is to see it, from the card beside its weights."""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from scanlearn.archive.layout import PackedScan
from scanlearn.backbones.card import Card
from scanlearn.backbones.weights import CARD, read_card
from scanlearn.config.calls import checked
from scanlearn.config.loading import check_settings
from scanlearn.core import ScanBatch
from scanlearn.errors import ScanlearnError
from scanlearn.features.extract import whole_views
from scanlearn.files import check_exists
from scanlearn.packing.headers import HeaderScan
from scanlearn.packing.prepare import Prepared, WorkItem, make_plan, prepare
from scanlearn.packing.settings import PackSettings, pixel_settings
from scanlearn.readers.limits import limited
from scanlearn.readers.readers import read_header
from scanlearn.readers.scan import Undecodable


@checked
def load_preprocessing(folder: str | Path) -> Preprocessing:
    """Returns what turns a file into the view that an exported backbone takes.

    The file is packed by the settings of the archive that the backbone was trained on, such as its
    window, and shown whole, standardised: to the bit as `scantune evaluate` does.

    Args:
        folder: An export in any format, a backbone folder or a run.

    Raises:
        ScanlearnError: There is no card, or it cannot be used.

    Example:
        >>> load_preprocessing("backbones/weak")("scan.dcm").shape     # doctest: +SKIP
        torch.Size([1, 224, 224])
    """
    path = Path(str(folder).removeprefix("local-dir:")).expanduser()
    check_exists(path)
    if not (path / CARD).is_file() and (path / "backbone").is_dir():
        path = path / "backbone"
    return Preprocessing(read_card(path), str(path / CARD))


class Preprocessing:
    """Turns a file into a view; `load_preprocessing` makes one of a card.

    Args:
        where: The card, for messages.
    """

    def __init__(self, card: Card, where: str) -> None:
        self.card, self._where = card, where
        unusual = card.packing.keys() - pixel_settings(card.packing).keys()
        if unusual:
            raise ScanlearnError(
                f"{where}: packing names {sorted(unusual)[0]!r}, which changes no pixels; export "
                "the backbone again"
            )
        if card.channels not in (1, 3):
            raise ScanlearnError(
                f"{where}: the backbone takes {card.channels} channels, but scans are packed into "
                "1 or 3; load_backbone(FOLDER, channels=3) adapts its first layer, as evaluate does"
            )
        self._settings = packing_of(card, f"{where}: packing")

    def __call__(self, path: str | Path, *, frame: int | None = None) -> Float32[Tensor, "c s s"]:
        """Returns the view of one scan.

        Args:
            path: A picture, a DICOM file or a volume.
            frame: Which scan of a file that has several, from 1; None for its only one.

        Raises:
            ScanlearnError: The file cannot be read, or has several scans and none was chosen.
        """
        path = Path(path).expanduser()
        check_exists(path)
        scan = self._packed(path, frame)
        pixels = torch.from_numpy(np.ascontiguousarray(scan.pixels))[None]
        batch = ScanBatch(
            pixels=pixels,
            valid_box=torch.tensor([scan.box]),
            mask=None if scan.mask is None else torch.from_numpy(scan.mask)[None],
            spacing_mm=torch.tensor([scan.spacing], dtype=torch.float32),
            value_range=torch.tensor([scan.unit_range], dtype=torch.float32),
            ids=torch.zeros(1, dtype=torch.int64),
        )
        card = self.card
        return whole_views(batch, card.size, card.mean, card.std, card.framing)[0]

    def _packed(self, path: Path, frame: int | None) -> PackedScan:
        """Decodes one scan of a file and brings it to the canvas."""
        settings, reading = self._settings, self._settings.reading()
        try:
            with limited():
                header = read_header(path, reading)
        except Undecodable as error:
            raise ScanlearnError(f"{path}: cannot be read ({error})") from None
        num_frames = header.num_frames
        if frame is None and num_frames > 1:
            raise ScanlearnError(
                f"{path}: has {num_frames:,} scans; name one with frame=, from 1 to {num_frames}"
            )
        number = frame or 1
        if not 1 <= number <= num_frames:
            raise ScanlearnError(f"{path}: has no scan {number}; give frame= 1 to {num_frames}")
        # Its channels are the backbone's, so no other file needs to be asked whether it has colour.
        headers = HeaderScan(
            array("I", [num_frames]), header.is_deep, (), has_patients=False, has_series=False
        )
        canvas = settings.canvas
        plan = make_plan(
            headers,
            canvas=(canvas, canvas) if isinstance(canvas, int) else canvas,
            channels=settings.channels,
            preprocess=settings.preprocess(),
            settings=reading,
        )
        outcomes = prepare(plan, WorkItem(path, range(number - 1, number), num_frames))
        if not outcomes:
            raise ScanlearnError(f"{path}: scan {number} is empty, by empty_below of its packing")
        (outcome,) = outcomes
        if not isinstance(outcome, Prepared):
            raise ScanlearnError(f"{path}: cannot be read ({outcome.reason})")
        if len(outcome.scan.pixels) != self.card.channels:
            raise ScanlearnError(
                f"{path}: packs into {len(outcome.scan.pixels)} channels, but the backbone takes "
                f"{self.card.channels}"
            )
        return outcome.scan


def packing_of(card: Card, where: str) -> PackSettings:
    """Returns how scans are packed for a backbone: as its archive was, with its channels.

    Args:
        where: The card, for messages.

    Raises:
        ScanlearnError: The card holds what no packing does.
    """
    channels = card.channels if card.channels in (1, 3) else "auto"
    values = {**pixel_settings(card.packing), "channels": channels}
    return check_settings(PackSettings, values, where)
