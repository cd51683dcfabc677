from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from scanlearn.archive.layout import Origin, PackedScan
from scanlearn.archive.reader import Archive
from scanlearn.archive.writer import ArchiveWriter
from scanlearn.errors import ScanlearnError
from scanlearn.training import trial
from scanlearn.training.checkpoint import checkpoint_step
from scanlearn.training.module import Pretrainer
from scanlearn.training.pretrain import pretrain
from scanlearn.training.settings import PretrainConfig
from scanlearn.training.stopping import StopRequest
from scanlearn.training.trial import (
    SMALLEST_BATCH,
    WARM_STEPS,
    Clock,
    is_out_of_memory,
    largest_that_fits,
    measure,
    out_of_memory_sentence,
    trial_run,
)

Configure = Callable[..., PretrainConfig]


def test_the_clock_leaves_the_warm_steps_out_and_ends_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter([0.0, 100.0, 103.0, 105.0, 106.0, 108.0])
    monkeypatch.setattr(trial.time, "perf_counter", lambda: next(times))
    clock = Clock(lambda steps, seconds: steps >= 4 and seconds >= 8)
    clock.start()
    assert [clock.is_enough() for _ in range(4)] == [False, False, False, True]
    assert WARM_STEPS == 2
    assert clock.steps_s() == [1.0, 2.0]


def test_a_run_of_one_step_is_timed_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 1.0, 4.0])
    monkeypatch.setattr(trial.time, "perf_counter", lambda: next(times))
    clock = Clock(lambda *_: False)
    clock.start()
    clock.is_enough()
    assert clock.steps_s() == [3.0]


def test_a_trial_takes_the_runs_own_first_steps_aside(
    configure: Configure, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(steps=1000, logging={"wandb": "offline"})
    seen: list[int] = []
    loss = Pretrainer.training_step

    def watching(module: Pretrainer, *arguments: object) -> object:
        seen.append(module.schedule.total_steps)
        return loss(module, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Pretrainer, "training_step", watching)
    clock = Clock(lambda steps, _: steps >= 5)
    with trial_run(config, archive) as run:
        aside = run.folder.path
        measured = measure(run, clock, StopRequest(clock.is_enough))
        assert checkpoint_step(run.folder.checkpoint) == 5
        assert measured.checkpoint == run.folder.checkpoint.stat().st_size
        assert not (aside / "wandb").exists()
    assert seen == [1000] * 5
    assert len(measured.steps_s) == 3
    assert not aside.exists()
    assert not Path(config.output).exists()


LIMITED = """
import json, resource, sys
from scanlearn.errors import ScanlearnError
from scanlearn.training.pretrain import pretrain
from scanlearn.training.settings import PretrainConfig
from scanlearn.views import fused  # what a step loads counts in what the process has already

config, room = json.loads(sys.argv[1])
pages = int(open("/proc/self/statm").read().split()[0])
most = pages * resource.getpagesize() + room
resource.setrlimit(resource.RLIMIT_AS, (most, most))
try:
    pretrain(PretrainConfig.model_validate(config))
except ScanlearnError as error:
    print("said:", error)
"""


def limited(config: PretrainConfig, room: int) -> str:
    """Trains in a process that may take so many bytes more than it has when it begins."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, json.dumps([config.model_dump(mode="json"), room])],
        capture_output=True,
        text=True,
        timeout=1200,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    said = [line for line in done.stdout.splitlines() if line.startswith("said:")]
    assert len(said) == 1, done.stderr
    return said[0]


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on a process's memory")
def test_a_batch_too_large_for_the_memory_ends_with_the_largest_that_fits(
    configure: Configure, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    with ArchiveWriter(tmp_path / "scans", shape=(1, 48, 48), dtype=np.uint8) as writer:
        for index in range(512):
            pixels = random.integers(0, 256, (1, 48, 48)).astype(np.uint8)
            writer.add(PackedScan(pixels), Origin(str(index), str(index)))
    config = configure(
        archive=str(tmp_path / "scans"), views={"size": 48}, batch_size=512, device="cpu"
    )
    said = limited(config, 500 * 2**20)
    found = re.search(
        r"batch_size=512 .* the largest batch that fits here is batch_size=(\d+)", said
    )
    assert found, said
    assert 8 <= int(found[1]) < 512


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory")])
def test_the_last_checkpoint_outlives_a_memory_that_is_full(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, error: Exception, tmp_path: Path
) -> None:
    whole = pretrain(configure(output=str(tmp_path / "whole")))
    take_step = Pretrainer.training_step

    def full(module: Pretrainer, *arguments: object) -> object:
        if module.global_step == 3:
            raise error
        return take_step(module, *arguments)  # type: ignore[arg-type]

    tried: list[int] = []

    def fits(config: PretrainConfig, share: int) -> bool:
        tried.append(share)
        return share <= 3

    with monkeypatch.context() as patch:
        patch.setattr(Pretrainer, "training_step", full)
        patch.setattr(trial, "_fits", fits)
        with pytest.raises(
            ScanlearnError, match="the largest batch that fits here is batch_size=3"
        ):
            pretrain(configure(checkpoint_steps=1))
    assert tried == [8, 4, 2, 3]
    assert checkpoint_step(tmp_path / "run" / "checkpoints" / "last.ckpt") == 3
    assert pretrain(configure()).final_hash == whole.final_hash


@pytest.mark.long
def test_a_trial_that_fails_for_another_reason_is_not_called_memory(configure: Configure) -> None:
    with pytest.raises(RuntimeError, match="the trial of a smaller batch failed"):
        trial._fits(configure(archive="nowhere"), 4)


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate"
                      " memory: you tried to allocate 9437184 bytes."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (RuntimeError("could not create a primitive"), True),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (RuntimeError("could not create a primitive descriptor for a convolution"), False),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), False),
        (OSError("liba.so: failed to map segment from shared object"), True),
        (OSError("a.so: failed to map segment from shared object: Operation not permitted"), False),
        (ValueError("out of memory"), False),
    ],
)  # fmt: skip
def test_every_way_of_saying_out_of_memory_is_understood(
    error: BaseException, is_memory: bool
) -> None:
    assert is_out_of_memory(error) == is_memory


def test_an_error_in_other_words_tells_memory_by_the_one_it_came_from() -> None:
    error = OSError("liba.so was not found")
    error.__context__ = OSError("liba.so: failed to map segment from shared object")
    assert is_out_of_memory(error)


def test_an_allocation_that_cannot_be_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("limit", [2, 3, 7, 100, 255, 256, 999])
def test_the_batch_found_fits_and_an_eighth_more_does_not(limit: int) -> None:
    found = largest_that_fits(1000, lambda batch: batch <= limit)
    assert found is not None
    assert SMALLEST_BATCH <= found <= limit
    assert found + max(1, found // 8) + 1 > limit


def test_few_trials_find_it() -> None:
    tried: list[int] = []

    def fits(batch: int) -> bool:
        tried.append(batch)
        return batch <= 300

    largest_that_fits(4096, fits)
    assert len(tried) <= 10
    assert len(set(tried)) == len(tried)


@pytest.mark.parametrize(("fits", "found"), [(True, 64), (False, None)])
def test_a_batch_that_fits_after_all_is_kept_and_none_is_told_apart(
    fits: bool, found: int | None
) -> None:
    assert largest_that_fits(64, lambda batch: fits) == found


def test_the_sentence_names_the_batch_and_what_is_kept() -> None:
    text = out_of_memory_sentence(512, 96, 224)
    assert "batch_size=512" in text
    assert "is batch_size=96" in text
    assert "another output" in text
    assert "batch_size=2 does not fit" in out_of_memory_sentence(512, None, 224)
    assert "other processes may use memory" in out_of_memory_sentence(512, 512, 224)
