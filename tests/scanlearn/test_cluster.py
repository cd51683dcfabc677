from __future__ import annotations

import os
from pathlib import Path

import pytest

from scanlearn.cluster import ClusterConfig, Task, submit
from scanlearn.errors import ScanlearnError


def sbatch(folder: Path, script: str) -> None:
    """Puts the two programs of a cluster that submitit calls where it finds them."""
    folder.mkdir()
    for name, text in {"srun": "", "sbatch": script}.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)


def test_a_task_is_told_before_its_time_is_over_and_again_how_many_cores_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    sbatch(tmp_path / "bin", f"cp $1 {tmp_path / 'submitted.sh'}; echo Submitted batch job 7")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    tasks = [Task(str, 1), Task(str, 2)]
    cluster = ClusterConfig(cpus=3, minutes=30)
    names = submit(tasks, "slurm", cluster, name="test", logs=tmp_path / "logs")
    assert names == ("7_0", "7_1")
    lines = (tmp_path / "submitted.sh").read_text().splitlines()
    assert {"#SBATCH --signal=USR1@120", "#SBATCH --time=30", "#SBATCH --cpus-per-task=3"} < {
        *lines
    }
    assert "export SUBMITIT_PREEMPT_SIGNAL=USR1" in lines
    assert "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK" in lines


def test_what_a_cluster_refuses_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    sbatch(tmp_path / "bin", "echo 'sbatch: error: invalid partition specified: gpu' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(ScanlearnError, match=r"invalid partition .* set cluster\.partition"):
        submit([Task(str, 1)], "slurm", ClusterConfig(), name="test", logs=tmp_path / "logs")
