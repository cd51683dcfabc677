"""`scanlearn verify`: an archive's, run's, backbone's or study's files against their hashes."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from scanlearn.archive.verify import Verification
from scanlearn.archive.verify import verify as verify_archive
from scanlearn.config.calls import checked
from scanlearn.console import loading, say, track
from scanlearn.errors import ScanlearnError
from scanlearn.training.folder import RunFolder

# Of a backbone, a run and a study; without torch, which only they need.
_TRAINED = ("card.json", "provenance.json", "arms")


@checked
def verify(folder: str | Path) -> Verification:
    """Read files again and name those that are not as they were written.

    Every byte of an archive; of a run, a backbone or a study what there are hashes of: weights,
    checkpoints, the record of a run, and the scores of a study.

    Raises:
        ScanlearnError: The folder is none of these.
    """
    folder = Path(folder).expanduser()
    if not any((folder / name).exists() for name in _TRAINED):
        return verify_archive(folder)
    with loading("torch", "timm"):
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
    files = [file for path, _ in checks for file in ([path], path.glob("*"))[path.is_dir()]]
    return Verification(tuple(faults), (), len(checks), sum(f.stat().st_size for f in files))


def _checks(folder: Path) -> Iterator[tuple[Path, Callable[[Path], object]]]:
    """Yields what is to be checked, and how."""
    from scanlearn.backbones.formats import check_files
    from scanlearn.backbones.weights import CARD, load_backbone
    from scanlearn.training.checkpoint import check_content

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
    from scanlearn.backbones.weights import load_backbone
    from scanlearn.training.conditions import read_record
    from scanlearn.training.pretrain import read_result

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
