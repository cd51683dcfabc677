"""A study as tasks of a cluster, which share it; no torch is loaded to submit them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from scanlearn.cluster import Task, submit
from scanlearn.console import say
from scantune.study.plan import CompareConfig
from scantune.study.results import REPORT_FILE
from scantune.study.sharing import taking_part


def launch(config: CompareConfig, share: Callable[[dict[str, Any]], object]) -> Path:
    """Submits ``jobs`` tasks that share the study, and returns where its report will be.

    Args:
        share: What a task does: compares by the settings of a plan.

    Raises:
        ScanlearnError: The folder holds another study, there is no such cluster here, or it refuses
            the tasks.
    """
    assert config.launcher is not None
    with taking_part(config) as (folder, _):
        pass  # A plan that cannot be used is refused before it is queued.
    alone = {"launcher": None, "jobs": 1, "wait": True}
    task = Task(share, {**config.model_dump(mode="json"), **alone})
    logs = folder.logs / "tasks"
    tasks = [task] * config.jobs
    names = submit(tasks, config.launcher, config.cluster, name="scantune", logs=logs)
    report = folder.path / REPORT_FILE
    say(f"submitted {', '.join(names)}, which share the study; they write to {logs}")
    say(f"Report, when they have ended: {report}")
    return report
