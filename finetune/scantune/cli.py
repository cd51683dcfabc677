"""The command line of scantune; every command is one Python function of the same name."""

from __future__ import annotations

from typing import Annotated

import typer

from scanlearn.cli import Overrides, run, show_config
from scanlearn.config.loading import call, settings_model

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Score backbones on labeled scans, and compare augmentation scales.",
)


@app.command("evaluate")
def evaluate_command(
    backbone: Annotated[str, typer.Argument(help="A backbone folder, a run folder or thumbnail.")],
    labels: Annotated[str, typer.Argument(help="An archive, a folder or a table with labels.")],
    overrides: Overrides = None,
) -> None:
    """Score one backbone on labeled scans.

    Prints AUROC over patient folds, with patient-clustered intervals.

    The keys and their defaults: scantune config evaluate.
    """
    from scanlearn.config import load_config
    from scantune.evaluation.evaluate import evaluate_with
    from scantune.evaluation.settings import EvaluateConfig

    settings = load_config(EvaluateConfig, None, overrides or (), kind="evaluate")
    evaluate_with(backbone, labels, settings)


@app.command("predict")
def predict_command(
    model: Annotated[str, typer.Argument(help="A classifier that evaluate kept.")],
    scans: Annotated[str, typer.Argument(help="An archive, a folder of scans or a table.")],
    overrides: Overrides = None,
) -> None:
    """Score new scans with a kept classifier, into a CSV.

    The keys and their defaults: scantune config predict.
    """
    from scantune.evaluation.predict import predict

    call(predict, model, scans, overrides=overrides or ())


@app.command("compare")
def compare_command(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped one.")],
    overrides: Overrides = None,
) -> None:
    """Say which augmentation scale is better.

    Or that no difference is shown. The same command again goes on where it was stopped.
    The keys and their defaults: scantune config compare.
    """
    from scanlearn.config import load_config
    from scantune.comparison.compare import compare
    from scantune.comparison.plan import CompareConfig

    compare(load_config(CompareConfig, config, overrides or (), kind="compare"))


@app.command("config")
def config_command(
    command: Annotated[str, typer.Argument(help="evaluate, predict or compare.")],
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema.")] = False,
) -> None:
    """Print a command's settings as commented YAML."""
    from scanlearn.errors import ScanlearnError

    if command == "evaluate":
        from scantune.evaluation.settings import EvaluateConfig

        show_config(EvaluateConfig, "scantune evaluate BACKBONE LABELS key=value", schema)
    elif command == "predict":
        from scantune.evaluation.predict import predict

        show_config(settings_model(predict), "scantune predict MODEL SCANS key=value", schema)
    elif command == "compare":
        from scantune.comparison.plan import CompareConfig

        show_config(CompareConfig, "scantune compare FILE.yaml key=value ...", schema)
    else:
        raise ScanlearnError(
            f"'{command}' has no configuration; ask for evaluate, predict or compare"
        )


def main() -> None:
    """Entry point of the ``scantune`` command."""
    run(app)
