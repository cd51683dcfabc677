"""`scanlearn verify` of a run, a backbone or a study: its files against the hashes kept of them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from scanlearn.backbones.formats import check_files
from scanlearn.backbones.weights import CARD, load_backbone
from scanlearn.console import say, track
from scanlearn.errors import ScanlearnError
from scanlearn.training.checkpoint import check_content
from scanlearn.training.conditions import read_record
from scanlearn.training.folder import RunFolder
from scanlearn.training.pretrain import read_result


def verify_trained(folder: Path) -> bool:
    """Says which files of a run, a backbone or a study are not as they were written.

    Returns:
        Whether all are, as far as there are hashes of them: of weights, checkpoints, the record
        of a run, and the scores of a study.
    """
    checks = list(_checks(folder))
    faults: dict[str, None] = {}
    with track(len(checks), "checking files") as progress:
        for path, check in checks:
            try:
                check(path)
            except ScanlearnError as error:
                faults[str(error)] = None
            except Exception as error:  # of many classes, out of the libraries that read files
                faults[f"{path}: cannot be read ({error or type(error).__name__})"] = None
            progress.advance()
    for fault in faults:
        say(fault)
    if not faults:
        say(f"{folder}: {len(checks):,} files with hashes read; they are as they were written")
    return not faults


def _checks(folder: Path) -> Iterator[tuple[Path, Callable[[Path], object]]]:
    """Yields what is to be checked, and how."""
    if (folder / CARD).is_file():
        yield folder, check_files
        return
    for path in sorted(folder.glob("scores/*/*.npz")):
        yield path, _check_zip
    for path in sorted(folder.glob("arms/*/*/")) or [folder]:
        run = RunFolder(path)
        if run.checkpoint.is_file():
            yield run.checkpoint, check_content
        if run.result.is_file():
            yield run.result, _check_result
            yield run.backbone, load_backbone


def _check_result(path: Path) -> None:
    run = RunFolder(path.parent)
    problem = read_record(run).problem
    if problem:
        raise ScanlearnError(f"{run.path}: {problem}")
    _, card = load_backbone(run.backbone)
    if card.weights_hash != read_result(run).final_hash:
        raise ScanlearnError(f"{run.backbone}: holds other weights than those its run ended with")


def _check_zip(path: Path) -> None:
    with zipfile.ZipFile(path) as file:
        if file.testzip() is not None:
            raise ScanlearnError(f"{path}: was changed after it was written")
