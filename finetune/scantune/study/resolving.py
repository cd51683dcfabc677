"""What the runs of all arms and seeds of a study are trained with, resolved once."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Shaped
from pydantic import BaseModel

from scanlearn.archive.reader import Archive
from scanlearn.config.reading import read_json
from scanlearn.console import warn_user
from scanlearn.errors import ScanlearnError
from scanlearn.files import write_atomically
from scanlearn.training.conditions import (
    Conditions,
    differences_in_words,
    machine_conditions,
)
from scanlearn.training.folder import RunFolder
from scanlearn.training.resolved import (
    Resolved,
    initial_backbone,
    layout_of,
    resolve,
    training_device,
    with_batch_of,
)
from scanlearn.training.run import read_provenance
from scanlearn.training.settings import PretrainConfig, TrainingSettings
from scantune.study.arm_settings import Group
from scantune.study.folder import StudyFolder
from scantune.study.plan import CompareConfig


def of_share(patients: Shaped[np.ndarray, " n"], share: float) -> Shaped[np.ndarray, " n"]:
    """Returns whether the patient of each scan is in a share of all patients, ``[n]``.

    The patients with the lowest hashes: the same in all arms and seeds, and a smaller share lies
    within a larger one.
    """
    ranked = sorted(
        set(patients.tolist()), key=lambda each: hashlib.sha256(f"share {each}".encode()).digest()
    )
    return np.isin(patients, ranked[: max(1, round(share * len(ranked)))])


class ResolvedOnce(BaseModel):
    """``resolved.json``: what the runs of all arms and seeds are trained with, and where.

    ``chosen`` is for ``pretrain.method`` on all patients, ``groups`` for each other method and
    share by title.
    """

    device: Literal["cpu", "gpu"]
    devices: int
    chosen: Resolved
    machine: Conditions
    groups: dict[str, Resolved] = {}

    def of(self, group: Group) -> Resolved | None:
        """What was resolved for a group, or None."""
        return self.groups.get(group.title) if group.title else self.chosen


def resolve_once(
    config: CompareConfig, folder: StudyFolder, unlabeled: Archive
) -> tuple[CompareConfig, Resolved]:
    """`resolve_groups`, and of these the first."""
    config, resolved = resolve_groups(config, folder, unlabeled)
    return config, resolved[config.groups[0]]


def resolve_groups(
    config: CompareConfig, folder: StudyFolder, unlabeled: Archive
) -> tuple[CompareConfig, dict[Group, Resolved]]:
    """Resolves what the plan leaves open for all arms and seeds, or takes what was resolved.

    What was silently wrong: each run resolved ``auto`` by itself, and arms trained on two machines
    were compared as if they had been trained alike.

    Returns:
        The plan on the devices on which the study was begun, and what the runs of each group are
        trained with.

    Raises:
        ScanlearnError: There are runs to train, and this machine has not the devices for it.
    """
    runs = [RunFolder(folder.run(arm, seed)) for seed in config.seeds for arm in config.trained]
    is_begun = folder.resolved.is_file()
    once = _read_resolved(folder) if is_begun else _resolve_now(config, folder, unlabeled)
    new = {
        group.title: _resolve_group(config, folder, unlabeled, group)
        for group in config.groups
        if once.of(group) is None
    }
    once = once.model_copy(update={"groups": {**once.groups, **new}})
    resolved = {group: found for group in config.groups if (found := once.of(group))}
    if all(run.result.is_file() for run in runs):
        return config, resolved
    asked = config.pretrain
    there = {"device": once.device, "devices": once.devices}
    here = {key: value for key, value in there.items() if getattr(asked, key) == "auto"}
    config = config.model_copy(update={"pretrain": asked.model_copy(update=here)})
    _check_devices(config.pretrain, folder)
    if is_begun:
        now = machine_conditions(training_device(config.pretrain.device), once.devices)
        changed = differences_in_words(once.machine, now)
        if changed:
            warn_user(
                f"{folder.path} goes on under other conditions than it was begun: "
                f"{'; '.join(changed)}. Arms of one seed that were trained partly here are not "
                "matched, and the report will say so"
            )
    if new or not is_begun:
        write_atomically(folder.resolved, once.model_dump_json(indent=1) + "\n")
    return config, resolved


def _resolve_now(config: CompareConfig, folder: StudyFolder, unlabeled: Archive) -> ResolvedOnce:
    layout = layout_of(initial_run(config, config.seeds[0], folder.path))
    return ResolvedOnce(
        device="cpu" if layout.device.type == "cpu" else "gpu",
        devices=layout.devices,
        chosen=_resolve_group(config, folder, unlabeled, Group("", config.pretrain.method)),
        machine=machine_conditions(layout.device, layout.devices),
    )


def _resolve_group(
    config: CompareConfig, folder: StudyFolder, unlabeled: Archive, group: Group
) -> Resolved:
    runs = [
        RunFolder(folder.run(arm, seed))
        for seed in config.seeds
        for arm in config.trained
        if config.group(arm) == group
    ]
    begun = next((run for run in runs if run.provenance.is_file()), None)
    if begun is not None:
        # Begun by an earlier version: what its first run chose holds for all.
        return read_provenance(begun).chosen
    if group.share < 1:
        gone = unlabeled.scan_ids[~of_share(unlabeled.patients, group.share)].tolist()
        unlabeled = unlabeled.without(gone)
    run = initial_run(config, config.seeds[0], folder.path)
    run = run.model_copy(update={"method": group.method})
    run = with_batch_of(run, len(unlabeled))
    backbone = initial_backbone(run, unlabeled)[0]
    asked = config.pretrain.batch_size
    return resolve(run, unlabeled, backbone, ranks=layout_of(run).ranks, asked_batch=asked)


def _check_devices(asked: TrainingSettings, folder: StudyFolder) -> None:
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    needed = asked.devices if asked.device == "gpu" and asked.devices != "auto" else 0
    if needed > visible:
        raise ScanlearnError(
            f"{folder.path} was begun on {needed} GPU{'s' if needed > 1 else ''}, and {visible} "
            "are visible here: go on where it was begun, or name another output folder; arms "
            "trained on different devices are not matched"
        )


def _read_resolved(folder: StudyFolder) -> ResolvedOnce:
    return read_json(
        folder.resolved,
        ResolvedOnce,
        what="does not say what the study resolved",
        remedy="restore it from a copy, or name another output folder",
    )


def initial_run(config: CompareConfig, seed: int, folder: Path) -> PretrainConfig:
    """The run of any trained arm: before their first step those of a group are all the same."""
    return config.run_config(next(iter(config.trained)), seed, folder)
