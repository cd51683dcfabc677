"""What a run was trained with, from which step on, recorded by the run itself as it trains.

``provenance.json`` holds it under ``starts``: one entry, and one more each time the run went on
under other conditions. ``result.json`` holds a digest of both files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from scanlearn.backbones.device import processor_name
from scanlearn.config.reading import read_json
from scanlearn.files import write_atomically
from scanlearn.provenance import provenance
from scanlearn.training.folder import RunFolder
from scanlearn.training.run import Run
from scanlearn.views.settings import VIEWS_VERSION

# The one thing in which the arms of a comparison are to differ.
DIAL = "views.scale"
_SEAL = "record_sha256"
# What earlier versions did not know, and so did not record, was not done.
_NOT_YET: Mapping[str, str] = {"views.extras": "[]", "views.modality": "none"}
_REMEDY = "restore it from a copy, or delete the run's folder to train it again"

Conditions = dict[str, str | int | float | bool | None]


def machine_conditions(device: torch.device, processes: int) -> Conditions:
    """Returns what the bits of a result depend on besides settings and scans."""
    is_gpu = device.type == "cuda"
    found = provenance()
    versions = found["versions"]
    assert isinstance(versions, dict)
    if is_gpu:
        versions |= {"cuda": torch.version.cuda}
    return {
        "device": "gpu" if is_gpu else "cpu",
        "processor": processor_name(device),
        "processes": processes,
        "float32_matmul": torch.get_float32_matmul_precision(),
        **dict(_flat({"versions": versions})),
        "commit": str(found["commit"] or "installed"),
    }


def run_conditions(run: Run, processes: int) -> Conditions:
    """Returns all that was resolved for a run, by dotted key."""
    config, archive, generator = run.config, run.archive, run.generator
    names = "\n".join(archive.scan_ids.tolist())
    return {
        **_resolved_conditions(run.resolved.plain()),
        **machine_conditions(run.layout.device, processes),
        # Sums over several threads are rounded in another order; a GPU has none of them.
        "threads": torch.get_num_threads() if run.layout.device.type == "cpu" else None,
        "batch_size": config.batch_size,
        "accumulate": config.accumulate,
        "grad_checkpointing": config.grad_checkpointing,
        "backbone.name": config.backbone.name,
        "backbone.channels": archive.shape[0],
        "backbone.drop_path": config.backbone.drop_path,
        "backbone.start": run.start.weights_hash if run.start else "random",
        "views.size": generator.size,
        "views.recipe": generator.recipe.name,
        "views.modality": generator.recipe.policy_text,
        "views.operations": json.dumps(config.model_dump(mode="json")["views"]["operations"]),
        "views.extras": json.dumps(config.model_dump(mode="json")["views"]["extras"]),
        "views.scale_blur": config.views.scale_blur,
        "views.version": VIEWS_VERSION,
        DIAL: str(generator.scale),
        "archive.hash": archive.content_hash,
        "archive.scans": len(archive),
        "archive.scan_ids": hashlib.sha256(names.encode()).hexdigest(),
        "archive.left_out": int(archive.info["scans"]) - len(archive),
    }


def record_start(run: Run, step: int, processes: int) -> tuple[str, ...]:
    """Records the conditions of the steps that are now taken, beginning after ``step`` steps.

    Returns:
        What differs from the conditions under which the steps before were taken, in words.
    """
    record = _read(run.folder.provenance)
    starts = record.get("starts", [{"step": 0, "conditions": _earlier_conditions(record)}])
    starts = [{**start, "conditions": _completed(start["conditions"])} for start in starts]
    # Later steps were taken in vain: no checkpoint holds them.
    kept = [start for start in starts if start["step"] < step]
    now = run_conditions(run, processes)
    before = kept[-1]["conditions"] if kept else now
    if not kept or before != now:
        record["starts"] = [*kept, {"step": step, "conditions": now}]
        write_atomically(run.folder.provenance, json.dumps(record, indent=2) + "\n")
    return differences_in_words(before, now)


def differences_in_words(
    before: Mapping[str, object], now: Mapping[str, object]
) -> tuple[str, ...]:
    """Returns what both hold and is not the same, such as "precision fp32 instead of bf16"."""
    return tuple(
        f"{key} {_text(value)} instead of {_text(before[key])}"
        for key, value in now.items()
        if key in before and before[key] != value
    )


def sealed(folder: RunFolder, result: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the result of a run with a digest of it and of the run's provenance."""
    return {**result, _SEAL: _digest(_read(folder.provenance), result)}


@dataclass(frozen=True)
class RunRecord:
    """What a finished run recorded.

    Args:
        values: By dotted key, in words; what changed on the way says from which step on.
        is_whole: Whether all is there; earlier versions recorded less.
        problem: Why it cannot be believed; empty where it can.
    """

    values: Mapping[str, str]
    is_whole: bool
    problem: str = ""


def read_record(folder: RunFolder) -> RunRecord:
    """Reads what a finished run recorded, and compares it with its digest.

    Raises:
        ScanlearnError: A file of the record is no JSON object.
    """
    result = _read(folder.result)
    seal = result.pop(_SEAL, None)
    if not folder.provenance.is_file():
        return RunRecord({}, False, f"{folder.provenance.name} is missing")
    record = _read(folder.provenance)
    if seal is None and "starts" not in record:
        return RunRecord(_over_steps([(0, _earlier_conditions(record))]), is_whole=False)
    if seal != _digest(record, result):
        names = f"{folder.provenance.name} or {folder.result.name}"
        return RunRecord({}, False, f"{names} was changed after the run")
    starts = [(start["step"], _completed(start["conditions"])) for start in record["starts"]]
    whole = all(conditions.keys() >= starts[-1][1].keys() for _, conditions in starts)
    return RunRecord(_over_steps(starts), is_whole=whole)


def _read(path: Any) -> dict[str, Any]:
    return read_json(path, dict[str, Any], what="is no record of a run", remedy=_REMEDY)


def _digest(record: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    text = json.dumps([record, result], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _completed(conditions: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns conditions with those that an earlier version did not know; lost ones stay lost."""
    return {**_NOT_YET, **conditions} if conditions else conditions


def _over_steps(starts: list[tuple[int, Mapping[str, object]]]) -> dict[str, str]:
    """Returns in words what each start recorded; a key that one of them lacks is left out."""
    shared = set.intersection(*(set(conditions) for _, conditions in starts))
    values = {}
    for key in (key for key in starts[-1][1] if key in shared):
        text = _text(starts[0][1][key])
        for (_, before), (step, now) in pairwise(starts):
            if before[key] != now[key]:
                text += f", from step {step} on {_text(now[key])}"
        values[key] = text
    return values


def _earlier_conditions(record: Mapping[str, Any]) -> Conditions:
    """Returns what earlier versions recorded of a run when it was begun."""
    found: Conditions = {**_resolved_conditions(record["chosen"])}
    found |= dict(_flat({"versions": record["versions"]}))
    found["commit"] = str(record["commit"] or "installed")
    found["views.version"] = record.get("views_version", 1)
    found |= {f"archive.{key}": record["archive"][key] for key in ("hash", "scans")}
    if "start" in record:
        found["backbone.start"] = (record["start"] or {"weights_hash": "random"})["weights_hash"]
    return found


def _resolved_conditions(chosen: Mapping[str, Any]) -> Conditions:
    schedule = {key: value for key, value in chosen["schedule"].items() if key != "reason"}
    return {
        "precision": chosen["precision"],
        "memory_format": "channels_last" if chosen["is_channels_last"] else "contiguous",
        "steps_per_epoch": chosen["steps_per_epoch"],
        "views.local_size": chosen["local_size"],
        **dict(_flat({"method": chosen["method"], "schedule": schedule})),
    }


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{name}", each) for name, each in _flat(value))
        else:
            plain = value is None or isinstance(value, (str, int, float, bool))
            yield key, value if plain else json.dumps(value)


def _text(value: object) -> str:
    if value is None or value in ("{}", "[]"):
        return "none"
    return value if isinstance(value, str) else json.dumps(value)
