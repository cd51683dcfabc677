"""Work on a cluster: tasks of an array, submitted through submitit and queued again out of time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt

from scanlearn.config.settings import Settings
from scanlearn.errors import ScanlearnError

Launcher = Literal["slurm", "local"]

# A run that is at work then keeps its last step, and processes that pack ignore it.
_SIGNAL, _BEFORE_END_S = "USR1", 120
# Before it listens a task loads its libraries, on a busy machine for a minute.
_LEAST_MINUTES = 5
# As often as a study needs: submitit's own number is 3.
_MOST_REQUEUES = 100_000


class ClusterConfig(Settings):
    """What a task on a cluster is given; unused without a launcher."""

    partition: str | None = Field(default=None, description="null is the cluster's own")
    minutes: int = Field(
        default=240,
        ge=_LEAST_MINUTES,
        description="time of a task, which is queued again where it was not enough",
    )
    cpus: PositiveInt = Field(default=4, description="cores of a task")
    gpus: int = Field(default=0, ge=0, description="GPUs of a task")
    memory_gb: PositiveInt | None = Field(default=None, description="null is the cluster's own")


class Task:
    """A call that a cluster runs, and queues again as it was when the time of the task is over.

    Args:
        work: A function of a module. What it has made by then must lie on disk.
    """

    def __init__(self, work: Callable[..., object], *arguments: object) -> None:
        self.work, self.arguments = work, arguments

    def __call__(self) -> str:
        """Makes the call, and returns what it returned as text."""
        return str(self.work(*self.arguments))

    def checkpoint(self) -> Any:
        """Returns the same call."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit(
    tasks: Sequence[Task], launcher: Launcher, cluster: ClusterConfig, *, name: str, logs: Path
) -> tuple[str, ...]:
    """Submits tasks as an array and returns their numbers; what they print is in ``logs``.

    Raises:
        ScanlearnError: submitit is not installed, there is no such cluster here, or it refuses the
            tasks.
    """
    try:
        import submitit
        from submitit.core.utils import FailedJobError
    except ImportError:
        raise ScanlearnError(
            f"launcher={launcher} needs the package submitit: pip install submitit"
        ) from None
    try:
        executor = submitit.AutoExecutor(
            logs, cluster=launcher, slurm_max_num_timeout=_MOST_REQUEUES
        )
    except RuntimeError as error:
        raise ScanlearnError(f"launcher={launcher}: {error}") from None
    optional = {"slurm_partition": cluster.partition, "mem_gb": cluster.memory_gb}
    executor.update_parameters(
        name=name,
        timeout_min=cluster.minutes,
        cpus_per_task=cluster.cpus,
        gpus_per_node=cluster.gpus,
        slurm_additional_parameters={"signal": f"{_SIGNAL}@{_BEFORE_END_S}"},
        slurm_setup=[
            f"export SUBMITIT_PREEMPT_SIGNAL={_SIGNAL}",
            # Since SLURM 22.05 srun gives a task one core where it is not told again.
            "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK",
        ],
        **{key: value for key, value in optional.items() if value is not None},
    )
    try:
        with executor.batch():
            jobs = [executor.submit(task) for task in tasks]
    except FailedJobError as error:
        reason = " ".join(str(error).split())
        raise ScanlearnError(
            f"launcher={launcher}: the cluster refuses the tasks ({reason}): set cluster.partition,"
            " cluster.gpus, cluster.cpus, cluster.memory_gb and cluster.minutes to what it has"
        ) from None
    return tuple(job.job_id for job in jobs)
