"""From a configuration to a pretrained backbone in a run folder, resumed where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

from scanlearn.archive.count import Count
from scanlearn.archive.reader import Archive
from scanlearn.backbones.backbone import Backbone
from scanlearn.backbones.card import Card
from scanlearn.backbones.start import check_start
from scanlearn.backbones.weights import export_backbone
from scanlearn.config import load_config
from scanlearn.config.calls import checked
from scanlearn.config.reading import read_json
from scanlearn.console import say, warn_user
from scanlearn.errors import ScanlearnError
from scanlearn.files import disk_errors, write_atomically
from scanlearn.locks import held, inside
from scanlearn.packing.settings import pixel_settings
from scanlearn.threads import computing_with
from scanlearn.training.checkpoint import checkpoint_step, method_weights
from scanlearn.training.conditions import sealed
from scanlearn.training.distributed import ALONE, Ranks, run_together
from scanlearn.training.folder import RunFolder
from scanlearn.training.module import Pretrainer
from scanlearn.training.monitor import collapse_warning, final_health, is_late
from scanlearn.training.resolved import Resolved, layout_of
from scanlearn.training.run import Run, open_scans
from scanlearn.training.settings import PretrainConfig
from scanlearn.training.stopping import Stopped, StopRequest, listening
from scanlearn.training.trainer import train
from scanlearn.training.trial import explaining_memory
from scanlearn.views.scale import Scale


@dataclass(frozen=True)
class PretrainResult:
    """A finished run.

    Args:
        initial_hash: Weights of the whole method before the first step.
        order_hash: Chain over the rows of every batch.
        uniforms_hash: Chain over the uniforms of every batch.
        embedding_std: Spread of the embeddings at the end: 1 healthy, 0 collapsed.
    """

    folder: Path
    initial_hash: str
    final_hash: str
    order_hash: str
    uniforms_hash: str
    steps: int
    epochs: float
    views: int
    seconds: float
    embedding_std: float
    warnings: tuple[str, ...]

    @property
    def backbone(self) -> Path:
        """Folder of the exported backbone."""
        return RunFolder(self.folder).backbone

    @property
    def metrics(self) -> Path:
        """Table of step, loss, spread of embeddings and speed."""
        return RunFolder(self.folder).metrics

    @property
    def views_per_s(self) -> float:
        """Views seen in a second of training."""
        return self.views / max(self.seconds, 1e-9)


@checked
def pretrain(
    config: PretrainConfig | str | Path,
    overrides: Sequence[str] = (),
    *,
    resolved: Resolved | None = None,
) -> PretrainResult:
    """Pretrain a backbone on unlabeled scans.

    The same call again goes on with a run that was stopped, or returns a finished one.
    A run that is killed at any moment and started again ends with the same weights, bit for bit
    on a CPU. With several ``devices`` it starts a process for each; in a script it then stands
    under ``if __name__ == "__main__":``.

    Args:
        config: The settings; or a YAML file, or the name of a shipped one, to read them from.
        overrides: ``key=value`` words that win over the file; only with a file or name.
        resolved: What a new run is trained with, where it was resolved before, as for all arms of
            a comparison; None resolves it here.

    Returns:
        The finished run, its backbone exported to ``backbone/`` in the run folder.

    Raises:
        ScanlearnError: The archive cannot be used, the batch is larger than it, the run folder
            holds another run, the loss is not finite, or the disk or the memory is full.
        BusyError: Another process trains in that folder.
        Stopped: SIGTERM or SIGUSR1 asked the run to stop; a SystemExit with `STOPPED_EXIT_CODE`.
        Interrupted: Ctrl-C did; a KeyboardInterrupt.

    Example:
        >>> pretrain("simclr", ["archive=scans", "output=runs/simclr"])     # doctest: +SKIP
    """
    if not isinstance(config, PretrainConfig):
        config = load_config(PretrainConfig, config, overrides, kind="pretrain")
    elif overrides:
        raise ScanlearnError("overrides change a file; give them to load_config instead")
    check_start(config.backbone, is_new=not Path(config.output).exists())
    layout = layout_of(config)
    if layout.must_start():
        with _alone(config):
            return _pretrain_together(config, layout.ranks, resolved)
    with layout.joined() as ranks, ExitStack() as stack:
        # One process of them holds the lock for all.
        ranks.first(lambda: stack.enter_context(_alone(config)) if ranks.is_first else None)
        return _pretrain_here(config, ranks, resolved)


def pretrain_until(config: PretrainConfig, step: int, resolved: Resolved | None = None) -> Backbone:
    """Pretrains a backbone until a step before the last, and returns it as it is then.

    The learning rate follows the schedule of the whole run: the call with a later step, or
    `pretrain`, goes on from there and ends with the weights of a run that was never stopped.

    Args:
        step: Optimiser steps taken in the end, counted from the beginning of the run.
        resolved: As of `pretrain`.

    Returns:
        The backbone on the CPU, in evaluation mode.

    Raises:
        ScanlearnError: As `pretrain`; or the run trains in several processes, is beyond the step,
            or ends with it.
    """
    check_start(config.backbone, is_new=not Path(config.output).exists())
    if layout_of(config).must_start():
        raise ScanlearnError("a run that pauses trains in one process: set devices=1")
    folder = RunFolder(Path(config.output).expanduser())
    with _alone(config):
        archive = open_scans(config)
        first = checkpoint_step(folder.checkpoint)
        total = Run.of(config, archive, resolved).resolved.total_steps
        if not max(first, 1) <= step < total or folder.result.is_file():
            raise ScanlearnError(
                f"{folder.path}: it cannot pause after step {step:,}: {first:,} of its {total:,} "
                "steps are taken; pretrain trains a run to its end"
            )
        taken = count(first + 1)
        with listening(lambda: next(taken) >= step) as stop:
            try:
                if first < step:
                    explaining_memory(
                        config, stop, lambda: _pretrain(config, archive, stop, ALONE, resolved)
                    )
            except Stopped:
                if stop.is_asked:
                    raise
        run = Run.of(config, archive, resolved)
        run.method.load_state_dict(method_weights(folder.checkpoint))
        return run.method.exported.cpu().eval()


def _alone(config: PretrainConfig) -> AbstractContextManager[None]:
    folder = Path(config.output)
    return held(inside(folder), folder, wait=config.wait)


def _pretrain_as_part(config: PretrainConfig) -> None:
    """What each process does that `pretrain` has started; it holds the lock for them."""
    with layout_of(config).joined() as ranks:
        _pretrain_here(config, ranks)


def _pretrain_together(
    config: PretrainConfig, count: int, resolved: Resolved | None
) -> PretrainResult:
    # What cannot be used is refused here, before any process is started; what is resolved is
    # recorded, and the processes take it from there.
    folder = Run.of(config, open_scans(config), resolved).folder
    if folder.result.is_file():
        say(f"{folder.path}: this run is already finished")
    else:
        run_together(_pretrain_as_part, config, count)
    return read_result(folder)


def _pretrain_here(
    config: PretrainConfig, ranks: Ranks, resolved: Resolved | None = None
) -> PretrainResult:
    archive = ranks.first(lambda: open_scans(config))
    with listening() as stop:
        return explaining_memory(
            config, stop, lambda: _pretrain(config, archive, stop, ranks, resolved)
        )


def _pretrain(
    config: PretrainConfig,
    archive: Archive,
    stop: StopRequest,
    ranks: Ranks,
    resolved: Resolved | None,
) -> PretrainResult:
    run = ranks.first(lambda: Run.of(config, archive, resolved))
    if run.folder.result.is_file():
        say(f"{run.folder.path}: this run is already finished")
        return read_result(run.folder)
    say(run.start_line(checkpoint_step(run.folder.checkpoint)))
    for warning in run.warnings:
        warn_user(warning)
    with computing_with(run.resolved.threads):
        module = train(run, stop, ranks)
    return ranks.first(lambda: _finish(run, module) if ranks.is_first else read_result(run.folder))


def read_result(folder: RunFolder) -> PretrainResult:
    """Returns the result of a finished run.

    Raises:
        ScanlearnError: ``result.json`` is damaged.
    """
    return read_json(
        folder.result,
        PretrainResult,
        what="does not describe a finished run",
        remedy="restore it from a copy, or delete it to finish the run again",
        also={"folder": str(folder.path)},
    )


def _finish(run: Run, module: Pretrainer) -> PretrainResult:
    config, archive, folder, state = run.config, run.archive, run.folder, module.state
    backbone, recipe = run.method.exported.cpu(), run.generator.recipe
    steps = run.resolved.total_steps
    epochs = steps / run.resolved.steps_per_epoch
    views, count = config.views.model_dump(mode="json"), Count.of_archive(archive)
    card = Card.of(
        backbone,
        size=config.views.size,
        mean=archive.mean,
        std=archive.std,
        method=config.method.name,
        recipe=recipe.name,
        modality=recipe.policy_text if recipe.policy else None,
        own_modality=views["modality"] if isinstance(views["modality"], dict) else None,
        scale=asdict(recipe.dial(run.generator.scale)),
        extras=views["extras"],
        steps=steps,
        epochs=epochs,
        seed=config.seed,
        archive_hash=archive.content_hash,
        scans=count.scans,
        patients=count.patients or None,
        packing=pixel_settings(archive.info["settings"]),
        initial_hash=state.initial_hash,
        start=run.start,
        evidence_note=run.note,
    )
    with disk_errors(folder.backbone):
        export_backbone(backbone, folder.backbone, card)
    health = final_health(folder.metrics)
    num_views = run.method.plan.global_views + run.method.plan.local_views
    result = PretrainResult(
        folder=folder.path,
        initial_hash=state.initial_hash,
        final_hash=card.weights_hash,
        order_hash=state.order_hash,
        uniforms_hash=state.uniforms_hash,
        steps=steps,
        epochs=epochs,
        views=steps * config.batch_size * num_views,
        seconds=state.seconds,
        embedding_std=health.spread,
        warnings=run.warnings
        + collapse_warning(
            health,
            is_late=is_late(steps, steps),
            is_identity=run.generator.scale == Scale.IDENTITY,
        ),
    )
    stored = {key: value for key, value in asdict(result).items() if key != "folder"}
    write_atomically(folder.result, json.dumps(sealed(folder, stored), indent=2) + "\n")
    say(
        f"{folder.path}: {steps:,} steps done at {result.views_per_s:,.0f} views/s; metrics in "
        f"{folder.metrics.name}, backbone in {folder.backbone}"
    )
    return result
