"""Figures for wandb; the only door to it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from scanlearn.errors import ScanlearnError


class WandbRun:
    """A wandb run that records figures and the configuration, and nothing about the machine.

    Figures are held back until a checkpoint covers them, so that a killed and resumed run
    reports no step twice.

    Args:
        folder: The run folder; wandb's own files go to ``wandb/`` inside it.
        run_id: The same for every start of one run.
        group: Shown together with the runs of this group; None for none.
        name: What the run is called; None for its id.

    Raises:
        ScanlearnError: wandb cannot start, for instance for want of a login.
    """

    def __init__(
        self,
        folder: Path,
        *,
        mode: Literal["offline", "online"],
        project: str,
        run_id: str,
        config: Mapping[str, object],
        group: str | None = None,
        name: str | None = None,
    ) -> None:
        # Read while wandb is imported; without it crashes are reported to wandb's own server.
        os.environ["WANDB_ERROR_REPORTING"] = "false"
        import wandb

        settings = wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            disable_git_fork_point=True,
            disable_job_creation=True,
            host="",
            program="",
            quiet=True,
            silent=True,
            save_code=False,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        try:
            self._run: Any = wandb.init(
                dir=folder,
                mode=mode,
                project=project,
                id=run_id,
                name=name or run_id,
                group=group,
                resume="allow" if mode == "online" else None,
                config=dict(config),
                settings=settings,
            )
        except wandb.Error as error:
            raise ScanlearnError(
                f"wandb could not start ({error}): log in with `wandb login`, "
                "or set logging.wandb to offline or off."
            ) from error
        self._folder = folder / "wandb"
        self._held: list[tuple[int, dict[str, float]]] = []

    def hold(self, step: int, figures: Mapping[str, float]) -> None:
        """Keeps one step's figures for the next :meth:`release`."""
        self._held.append((step, dict(figures)))

    def release(self) -> None:
        """Hands the held figures to wandb; to be called once a checkpoint covers them."""
        for step, figures in self._held:
            self._run.log(figures, step=step)
        self._held.clear()

    def page(self, title: str, html: str) -> None:
        """Hands a page to wandb.

        Not a `wandb.Table`: that is an artifact, whose record names the user's folders.
        """
        import wandb

        self._run.log({title: wandb.Html(html, inject=False)})

    def summary(self, figures: Mapping[str, float | str | None]) -> None:
        """Hands over what stands for the whole run."""
        self._run.summary.update(dict(figures))

    def finish(self) -> None:
        """Closes the run; figures still held are dropped."""
        self._run.finish()
        # wandb's debug logs are never sent, but name the user's folders to whom the run is given.
        for log in self._folder.rglob("debug*.log"):
            log.unlink()
