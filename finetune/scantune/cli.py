"""The command line of scantune; every command is one Python function of the same name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from scanlearn.cli import (
    Config,
    Configured,
    Overrides,
    Scans,
    Schema,
    application,
    place,
    print_settings,
    run,
    settings_hint,
)

CONFIGURED = {
    "evaluate": Configured("scantune.evaluation.settings", "EvaluateConfig", "BACKBONE LABELS"),
    "predict": Configured("scantune.evaluation.predict", "predict", "MODEL SCANS"),
    "compare": Configured("scantune.study.plan", "CompareConfig", "FILE.yaml"),
    "search": Configured("scantune.comparison.search_plan", "SearchConfig", "FILE.yaml"),
    "difference": Configured("scantune.comparison.difference_settings", "DifferenceConfig", "A B"),
}

app = application("scantune", "Score backbones on labeled scans, and compare augmentation scales.")


@app.command("evaluate", epilog=settings_hint("scantune config evaluate"))
def evaluate_command(
    backbone: Annotated[
        str,
        place("BACKBONE", "A backbone folder, a run folder, thumbnail or random:NAME."),
    ],
    labels: Annotated[str, place("LABELS", "An archive, a folder or a table with labels.")],
    overrides: Overrides = None,
) -> None:
    """Score one backbone on labeled scans.

    Prints the AUROC over patient folds with intervals that resample patients.
    """
    from scanlearn.config import load_config
    from scanlearn.console import loading
    from scanlearn.packing.sources import check_source
    from scantune.evaluation.settings import EvaluateConfig, check_inputs

    # First: without labels a setting stands in their place, and would be told as missing.
    check_source(labels)
    settings = load_config(EvaluateConfig, None, overrides or (), kind="evaluate")
    check_inputs(backbone, labels, settings)
    with loading("torch", "timm"):
        from scantune.evaluation.evaluate import evaluate_with
    evaluate_with(backbone, labels, settings)


@app.command("predict", epilog=settings_hint("scantune config predict"))
def predict_command(
    model: Annotated[str, place("MODEL", "A classifier folder written by evaluate.")],
    scans: Scans,
    overrides: Overrides = None,
) -> None:
    """Score new scans with a saved classifier and write a CSV."""
    from scanlearn.config.loading import call
    from scantune.evaluation.predict import predict

    call(predict, model, scans, overrides=overrides or ())


@app.command("compare", epilog=settings_hint("scantune config compare"))
def compare_command(
    config: Config = "",
    overrides: Overrides = None,
    is_dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print what would run, its time and what it can show; write nothing."
        ),
    ] = False,
) -> None:
    """Compare augmentation scales: pretrain, score and report every arm.

    Reports which scale is better, or that no difference is shown. Run the same command again to
    resume a stopped comparison.
    """
    from scanlearn.config import load_config
    from scanlearn.console import loading
    from scantune.study.plan import CompareConfig

    settings = load_config(CompareConfig, config, overrides or (), kind="compare")
    settings.check_inputs()
    if is_dry_run:
        with loading("torch", "timm", "pytorch-lightning"):
            from scantune.comparison.dry_run import plan_summary
        print(plan_summary(settings))
        return
    if settings.launcher is not None:
        from scantune.comparison.launch import launch

        launch(settings, _shared_study)
        return
    with loading("torch", "timm", "pytorch-lightning"):
        from scantune.comparison.compare import compare
    compare(settings)


def _shared_study(settings: dict[str, Any]) -> None:
    """One command that shares a study, as a task of a cluster: torch is loaded there, not here."""
    from scantune.comparison.compare import compare
    from scantune.study.plan import CompareConfig

    compare(CompareConfig.model_validate(settings))


@app.command("search", epilog=settings_hint("scantune config search"))
def search_command(config: Config = "", overrides: Overrides = None) -> None:
    """Search for the augmentation scale at a fraction of a grid's cost.

    Trains all scales for a tenth of their steps, leaves the worst, and lets the others go on. Run
    the same command again to resume a stopped search.
    """
    from scanlearn.config import load_config
    from scanlearn.console import loading
    from scantune.comparison.search_plan import SearchConfig

    settings = load_config(SearchConfig, config, overrides or (), kind="search")
    settings.check_inputs()
    with loading("torch", "timm", "pytorch-lightning"):
        from scantune.comparison.search import search
    search(settings)


@app.command("report")
def report_command(
    folder: Annotated[str, place("FOLDER", "The output folder of a finished comparison.")],
) -> None:
    """Write a comparison's report, figures and tables anew from its results.json."""
    from scantune.reports.report import report

    report(folder)


@app.command("difference", epilog=settings_hint("scantune config difference"))
def difference_command(
    outputs: Annotated[
        list[str],
        typer.Argument(
            metavar="A B... [KEY=VALUE]...",
            help="Output folders of evaluate, then settings. Commas join networks of one recipe "
            "with other pretraining seeds; FOLDER:LEARNER names the learner of one side.",
        ),
    ],
) -> None:
    """Test outputs of evaluate on the same scans against each other.

    Prints paired differences of AUROC with intervals and p-values, as a study does.
    """
    from scanlearn.config import load_config
    from scantune.comparison.difference_settings import DifferenceConfig

    words = [word for word in outputs if "=" in word and not Path(word).exists()]
    settings = load_config(DifferenceConfig, None, words, kind="difference")
    from scantune.comparison.difference import difference_with

    difference_with([word for word in outputs if word not in words], settings)


@app.command("config")
def config_command(
    command: Annotated[
        str, typer.Argument(metavar="COMMAND", help=f"One of {', '.join(CONFIGURED)}.")
    ],
    schema: Schema = False,
) -> None:
    """Print a command's settings as commented YAML."""
    print_settings("scantune", CONFIGURED, command, schema)


def main() -> None:
    """Entry point of the ``scantune`` command."""
    run(app)
