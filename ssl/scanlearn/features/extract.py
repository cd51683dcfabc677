"""Frozen features of an archive: what every learner on top of a backbone starts from."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from scanlearn.archive.reader import Archive
from scanlearn.backbones.backbone import Backbone, weights_hash
from scanlearn.backbones.card import Card
from scanlearn.backbones.device import Precision, autocast, preferred_memory_format
from scanlearn.console import Progressor, track
from scanlearn.core import Framing, ScanBatch, ViewPlan
from scanlearn.errors import NotFiniteError, ScanlearnError
from scanlearn.files import disk_errors, features_prefix, make_folder, write_atomically
from scanlearn.locks import beside, held
from scanlearn.views.generator import ViewGenerator
from scanlearn.views.scale import Scale
from scanlearn.views.uniforms import DrawKey

# Part of every cache key: raised when the same inputs give other features.
FEATURES_VERSION = 1
# Where the features of a batch stand in the result.
Place = slice | tuple[slice, int]


def extract(
    backbone: Backbone,
    archive: Archive,
    rows: Int64[np.ndarray, " n"] | None = None,
    *,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int = 256,
    precision: Precision = "fp32",
    framing: Framing = "pad",
    cache: Path | str | None = None,
    visible: bool = True,
) -> Float32[np.ndarray, "n d"]:
    """Returns the features of whole scans: the identity view, standardised, in evaluation mode.

    The backbone runs on the device it is on and is left as it was.

    Args:
        rows: ``[n]`` rows of the archive, in the order wanted; None for all.
        size: Side of a view in pixels, best that of the training.
        mean: Per channel, of scans on the unit range, as in the training; ``std`` likewise.
        batch_size: Scans at a time; it does not change the result.
        precision: ``bf16`` only where one asks for it: features are compared between arms.
        framing: ``squeeze`` only for a classifier that an earlier version fitted on such features.
        cache: Folder in which features are kept under a hash of all they depend on; None keeps
            nothing.
        visible: False shows no bar, for work inside other work that has one.

    Raises:
        ScanlearnError: If the backbone takes another number of channels, or a feature is not
            finite.
    """
    check_channels(backbone, archive)
    rows = np.asarray(np.arange(len(archive)) if rows is None else rows, dtype=np.int64)

    def computed() -> Float32[np.ndarray, "n d"]:
        device = next(backbone.parameters()).device
        batches = whole_scans(archive, rows, size, mean, std, batch_size, device, framing)
        with track(len(rows), "features", visible=visible) as progress:
            features = features_of(backbone, batches, (len(rows),), precision, progress)
        check_finite(features, archive, rows)
        return features

    if cache is None:
        return computed()
    view = {"size": size, "mean": [float(m) for m in mean], "std": [float(s) for s in std]}
    # Of square scans, and squeezed ones, earlier versions kept the same features.
    shown = {} if framing == "squeeze" or all_square(archive, rows) else {"framing": framing}
    key = _key(backbone, archive, rows, {**view, **shown, "precision": precision})
    # With the archive, so that features of what is withdrawn from it are found.
    path = Path(cache) / f"{features_prefix(archive.content_hash)}{key}.npy"
    shape = (len(rows), backbone.num_features)
    kept = _read_features(path, shape)
    if kept is not None:
        return kept
    # Of two commands at once the second takes what the first computes.
    with held(beside(path), path, wait=True):
        kept = _read_features(path, shape)
        if kept is not None:
            return kept
        features = computed()
        with disk_errors(path):
            make_folder(path.parent)
            for torn in path.parent.glob(f".{path.name}.*.part"):  # by a kill
                torn.unlink(missing_ok=True)
        buffer = io.BytesIO()
        np.save(buffer, features, allow_pickle=False)
        # What was silently wrong: a flipped bit on the disk was read as another feature.
        buffer.write(hashlib.sha256(buffer.getbuffer()).digest())
        write_atomically(path, buffer.getvalue())
    return features


def thumbnail_features(
    archive: Archive, rows: Int64[np.ndarray, " n"] | None = None, *, side: int = 16
) -> Float32[np.ndarray, "n d"]:
    """Returns each whole scan shrunk to ``side`` x ``side`` pixels, as one unit-range vector.

    The reference every backbone must beat: a task that it solves needs no backbone.

    Args:
        rows: ``[n]`` rows of the archive, in the order wanted; None for all.
        side: Side of the thumbnail in pixels; a vector has ``side * side * c`` entries.
    """
    rows = np.asarray(np.arange(len(archive)) if rows is None else rows, dtype=np.int64)
    channels = archive.shape[0]
    plain = ((0.0,) * channels, (1.0,) * channels)
    thumbnails = np.empty((len(rows), channels * side * side), dtype=np.float32)
    for place, views in whole_scans(archive, rows, side, *plain, 256, torch.device("cpu")):
        thumbnails[place] = views.flatten(1).numpy()
    return thumbnails


def features_of(
    backbone: Backbone,
    batches: Iterator[tuple[Place, Float[Tensor, "b c s s"]]],
    shape: tuple[int, ...],
    precision: Precision,
    progress: Progressor,
) -> Float32[np.ndarray, "n ... d"]:
    """Passes views through the backbone, batch by batch, in evaluation mode.

    Args:
        batches: Views on the backbone's device, each with its place in the result.
        shape: Of the result, without the features.
    """
    features = np.empty((*shape, backbone.num_features), dtype=np.float32)
    layout = preferred_memory_format(backbone)
    with in_evaluation(backbone), autocast(next(backbone.parameters()).device, precision):
        for place, views in batches:
            batch = backbone(views.contiguous(memory_format=layout))
            features[place] = batch.float().cpu().numpy()
            progress.advance(len(views))
    return features


def whole_scans(
    archive: Archive,
    rows: Int64[np.ndarray, " n"],
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int,
    device: torch.device,
    framing: Framing = "pad",
) -> Iterator[tuple[Place, Float[Tensor, "b c s s"]]]:
    """Yields the place of each batch among the rows, and its views on ``device``."""
    for start in range(0, len(rows), batch_size):
        place = slice(start, start + batch_size)
        batch = archive.gather(rows[place]).to(device)
        yield place, whole_views(batch, size, mean, std, framing)


def whole_views(
    batch: ScanBatch, size: int, mean: Sequence[float], std: Sequence[float], framing: Framing
) -> Float[Tensor, "b c s s"]:
    """Returns the view of each whole scan of a batch, standardised, on its device."""
    generator = ViewGenerator("simclr", Scale.IDENTITY, ViewPlan(1), size, mean, std)
    # At the identity nothing depends on what is drawn: any key will do.
    draw = generator.draw(batch, DrawKey(0, 0, np.arange(len(batch))))
    if framing == "squeeze":
        box = batch.valid_box.cpu().numpy().astype(np.float64)
        draw = replace(draw, crop_box=box[:, None])
    return generator.render(batch, draw).global_views[0]


def all_square(archive: Archive, rows: Int64[np.ndarray, " n"] | None = None) -> bool:
    """Returns whether scans are square, so that they look the same however they are framed."""
    top, left, bottom, right = archive.facts["valid_box"][slice(None) if rows is None else rows].T
    return bool((bottom - top == right - left).all())


def squeezed_note(card: Card, archive: Archive) -> tuple[str, ...]:
    """Returns what to know of a backbone whose views framed these scans otherwise; empty for none.

    A network from elsewhere was trained on whatever it was.
    """
    if card.framing == "pad" or all_square(archive):
        return ()
    return (
        "The backbone is of an earlier version, whose views squeezed scans that are not square; "
        "here they keep their aspect. Pretrain it again to compare it with others",
    )


def check_channels(backbone: Backbone, archive: Archive) -> None:
    """Checks that a backbone takes the channels of an archive's scans.

    Raises:
        ScanlearnError: If not.
    """
    if backbone.channels != archive.shape[0]:
        raise ScanlearnError(
            f"{archive.path}: the scans have {archive.shape[0]} channels, but the backbone takes "
            f"{backbone.channels}; load it with channels={archive.shape[0]}"
        )


def check_finite(
    features: Float32[np.ndarray, "n ..."], archive: Archive, rows: Int64[np.ndarray, " n"]
) -> None:
    """Checks that every feature of some rows of an archive is a number.

    Raises:
        NotFiniteError: If not.
    """
    broken = np.flatnonzero(~np.isfinite(features.reshape(len(features), -1)).all(axis=1))
    if len(broken):
        raise NotFiniteError(
            f"{archive.path}: {len(broken)} of {len(rows)} scans have features that are not finite "
            f"numbers, first '{archive.scan_ids[rows[broken[0]]]}'; check the backbone's weights "
            "and the precision"
        )


@contextmanager
def in_evaluation(network: nn.Module) -> Iterator[None]:
    """Puts a network into evaluation mode, without gradients; every part is put back as it was.

    ``network.train()`` afterwards would not do: it would also wake parts that a method keeps in
    evaluation mode.
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, was_training in modes:
            module.training = was_training


def _key(
    backbone: Backbone, archive: Archive, rows: Int64[np.ndarray, " n"], settings: dict[str, object]
) -> str:
    """Returns a hash of all that features depend on."""
    facts = {
        "version": FEATURES_VERSION,
        "architecture": backbone.name,
        "model_args": backbone.model_args,
        "weights": weights_hash(backbone),
        "archive": archive.content_hash,
        "rows": hashlib.sha256(rows.tobytes()).hexdigest(),
        **settings,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:40]


# The last bytes of a file of features are the sha256 of all before them.
_DIGEST_BYTES = 32


def _read_features(path: Path, shape: tuple[int, int]) -> Float32[np.ndarray, "n d"] | None:
    """Returns kept features; None where there are none, or not those that the digest is of."""
    if not path.is_file():
        return None
    try:
        content = path.read_bytes()
        array = memoryview(content)[:-_DIGEST_BYTES]
        if hashlib.sha256(array).digest() != content[-_DIGEST_BYTES:]:
            return None
        features: np.ndarray = np.load(io.BytesIO(array), allow_pickle=False)
    except (ValueError, OSError, EOFError):
        return None
    return features if features.shape == shape and features.dtype == np.float32 else None
