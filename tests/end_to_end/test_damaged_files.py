"""Every file that the program writes and reads again, damaged in every way of a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scanlearn.archive.lists import read_list
from scanlearn.archive.reader import Archive
from scanlearn.config.folder import open_folder
from scanlearn.errors import ScanlearnError
from scanlearn.packing.pack import pack
from scanlearn.training.checkpoint import AtomicCheckpoints
from scanlearn.training.folder import COLUMNS, RunFolder, read_rows
from scanlearn.training.pretrain import pretrain, read_result
from scanlearn.training.run import read_provenance
from scanlearn.training.settings import PretrainConfig
from scantune.comparison.compare import compare
from scantune.scores import Scores
from scantune.study.folder import StudyFolder, check_archives
from scantune.study.leaks import read_leaks
from scantune.study.plan import CompareConfig
from scantune.study.results import read_results

DEEP = 100_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A packed archive and a finished run, both tiny."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    (folder / "scans").mkdir()
    for number in range(12):
        picture = Image.fromarray(rng.integers(0, 256, (48, 48)).astype(np.uint8))
        picture.save(folder / "scans" / f"{number}.png")
    (folder / "scans" / "broken.png").write_bytes(b"no picture")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCANLEARN_CACHE", str(folder / "cache"))
        patch.setattr("scanlearn.backbones.weights.check_reload", lambda *_: None)
        pack(folder / "scans", folder / "archive")
        pretrain(run_config(folder))
        yield folder


@pytest.fixture(scope="module")
def studied(made: Path) -> Path:
    """A finished study beside them."""
    compare(study_config(made))
    return made


def run_config(folder: Path) -> PretrainConfig:
    return PretrainConfig.model_validate(
        {
            "archive": str(folder / "archive"),
            "output": str(folder / "run"),
            "backbone": {"name": "test_resnet"},
            "views": {"size": 16},
            "batch_size": 4,
            "steps": 2,
            "device": "cpu",
            "progress": False,
        }
    )


def study_config(folder: Path) -> CompareConfig:
    run = run_config(folder).model_dump(
        include={"backbone": {"name"}, "views": {"size"}, "batch_size": True, "steps": True}
    )
    return CompareConfig.model_validate(
        {
            "unlabeled": "phantom:patients=8,seed=3,size=48x48",
            "labels": "phantom:patients=24,seed=4,size=48x48",
            "output": str(folder / "study"),
            "tasks": ["pallor"],
            "arms": {"weak": {"scale": 0.5}, "strong": {"scale": 1}},
            "seeds": [0],
            "pretrain": {**run, "device": "cpu"},
            "evaluation": {"budgets": ["all"], "folds": 2, "label_seeds": 1, "replicates": 200},
        }
    )


@dataclass(frozen=True)
class Written:
    """A file, and what of the program reads it again.

    Args:
        is_exact: Whether no other content of the right types is taken for it.
    """

    path: str
    read: Callable[[Path], Any]
    is_exact: bool = True


def _archive(file: Path) -> object:
    archive = Archive(file.parent)
    return archive.content_hash, len(archive), archive.mean, archive.label_columns


def _config(kind: str, of: Callable[[Path], Any]) -> Callable[[Path], object]:
    return lambda file: open_folder(file.parent, of(file.parents[1]), kind=kind)


def _archives(file: Path) -> None:
    found = read_results(file.parent)
    hashes = {"unlabeled": found.unlabeled.hash, "labels": found.labels.hash}
    check_archives(StudyFolder(file.parent), hashes)


OF_ARCHIVE_AND_RUN = (
    Written("archive/archive.json", _archive),
    Written("archive/shards/00000.arrow", lambda file: _archive(file.parent)),
    Written("archive/manifest.parquet", _archive),
    Written("archive/rejected.csv", lambda file: list(read_list(file)), is_exact=False),
    Written("archive/paths.csv", lambda file: list(Archive(file.parent).paths()), is_exact=False),
    Written("run/config.yaml", _config("run", run_config)),
    Written("run/provenance.json", lambda file: read_provenance(RunFolder(file.parent))),
    Written("run/result.json", lambda file: read_result(RunFolder(file.parent))),
    Written("run/metrics.csv", lambda file: read_rows(file, COLUMNS), is_exact=False),
    Written("run/checkpoints/last.ckpt", lambda file: AtomicCheckpoints().load_checkpoint(file)),
)
OF_STUDY = (
    Written("study/config.yaml", _config("study", study_config)),
    Written("study/archives.json", _archives),
    Written("study/timing.json", lambda file: StudyFolder(file.parent).timing(), is_exact=False),
    Written("study/leaks/audit.json", lambda file: read_leaks(StudyFolder(file.parents[1]))),
    Written("study/results.json", lambda file: read_results(file.parent), is_exact=False),
    Written("study/scores/pallor/weak-seed-0.npz", Scores.load),
)

OTHER_CONTENT: dict[str, bytes] = {
    "nothing": b"",
    "null": b"null",
    "a list": b"[]",
    "a number": b"7",
    "a text": b'"text"',
    "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep blocks": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "no UTF-8": b"\xff\xfe{}",
    "NUL": b"\x00" * 64,
    "a huge number": b'{"a": ' + b"9" * 10_000 + b"}",
    "an npy": b"\x93NUMPY\x01\x00",
    "a zip's end": b"PK\x05\x06" + bytes(18),
}
OTHER_VALUES: tuple[Any, ...] = (None, [], {}, [[]], "text", "", True, 1.5, float("nan"), 10**400)


def damaged(file: Path) -> Iterator[tuple[str, bytes]]:
    """Yields what may have become of a file, and how it is called."""
    whole = file.read_bytes()
    yield from OTHER_CONTENT.items()
    yield "half of it", whole[: len(whole) // 2]
    yield "without its last byte", whole[:-1].rstrip()[:-1]
    if file.suffix == ".json":
        content = json.loads(whole)
        for key, value in content.items():
            rest = {name: kept for name, kept in content.items() if name != key}
            yield f"without {key}", json.dumps(rest).encode()
            for other in OTHER_VALUES:
                if type(other) is not type(value):
                    shown = str(other)[:9]
                    yield f"{key} of {shown}", json.dumps({**rest, key: other}).encode()


@pytest.mark.parametrize("written", OF_ARCHIVE_AND_RUN, ids=lambda written: written.path)
def test_damaged_file_is_one_sentence_that_names_it(made: Path, written: Written) -> None:
    check(made / written.path, written)


@pytest.mark.long
@pytest.mark.parametrize("written", OF_STUDY, ids=lambda written: written.path)
def test_damaged_file_of_a_study_is_one_sentence_too(studied: Path, written: Written) -> None:
    check(studied / written.path, written)


def check(file: Path, written: Written) -> None:
    whole = file.read_bytes()
    before = repr(written.read(file))
    try:
        for name, content in damaged(file):
            file.write_bytes(content)
            try:
                after = repr(written.read(file))
            except ScanlearnError as error:
                said = str(error)
                is_named = str(file) in said or str(file.parent) in said
                assert is_named, f"{name}: {said[:300]}"
                assert "\n" not in said, f"{name}: {said[:300]}"
            except Exception as error:
                raise AssertionError(f"{name}: {error!r:.300}") from error
            else:
                # A key that does not matter, or a value that says the same.
                is_number = "nan" in after or "inf" in after
                assert after == before or is_number or not written.is_exact, name
    finally:
        file.write_bytes(whole)
    assert repr(written.read(file)) == before
