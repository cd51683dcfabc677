"""The command line of scanlearn; every command is one Python function of the same name."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

# Heavy imports (torch, timm, pyarrow) stand inside the commands: --help answers at once.

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings, a.b=value; they win over the YAML."),
]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Pretrain a backbone on unlabeled scans, with one tunable augmentation scale.",
)


@app.command("pack")
def pack_command(
    source: Annotated[str, typer.Argument(help="A folder of scans, or a CSV or Parquet table.")],
    archive: Annotated[str, typer.Argument(help="The folder to write the archive to.")],
    overrides: Overrides = None,
) -> None:
    """Decode scans once into a memory-mapped archive.

    What cannot be read is set aside in rejected.csv with the reason.

    The keys and their defaults: scanlearn config pack.
    """
    from scanlearn.config import load_config
    from scanlearn.scans.pack import pack
    from scanlearn.scans.settings import PackSettings

    settings = load_config(PackSettings, None, overrides or (), kind="pack")
    pack(source, archive, settings=settings)


@app.command("preview")
def preview_command(
    archive: Annotated[str, typer.Argument(help="An archive, a folder of scans or a table.")],
    overrides: Overrides = None,
) -> None:
    """Draw a sheet of views at several scales.

    Scans stand in rows, augmentation scales in columns, one draw growing along a row.

    The keys and their defaults: scanlearn config preview.
    """
    from scanlearn.views.preview import preview

    call(preview, archive, overrides=overrides or ())


@app.command("explain")
def explain_command(
    recipe: Annotated[str, typer.Argument(help="A recipe, such as simclr or dino.")],
    overrides: Overrides = None,
) -> None:
    """Print what a recipe comes to at a scale.

    A table of every operation in use: its numbers, their units and where they are from.

    The keys and their defaults: scanlearn config explain.
    """
    from scanlearn.views.explain import explain

    call(explain, recipe, overrides=overrides or ())


@app.command("pretrain")
def pretrain_command(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped one.")],
    overrides: Overrides = None,
    is_dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Take a few steps; print time, memory and disk.")
    ] = False,
) -> None:
    """Pretrain a backbone on unlabeled scans.

    The same command again resumes a run that was stopped. SIGTERM and SIGUSR1 end it after a step
    and a checkpoint, with exit code 75.

    The keys and their defaults: scanlearn config pretrain.
    """
    from scanlearn.config import load_config
    from scanlearn.training.pretrain import PretrainConfig, pretrain

    settings = load_config(PretrainConfig, config, overrides or (), kind="pretrain")
    if is_dry_run:
        from scanlearn.training.estimate import dry_run

        print(dry_run(settings))
    else:
        pretrain(settings)


@app.command("export")
def export_command(
    run: Annotated[str, typer.Argument(help="The folder of a finished run.")],
    folder: Annotated[str, typer.Argument(help="The folder to write the backbone to.")],
) -> None:
    """Write a run's backbone for timm, and reload it.

    Done is said only when a fresh process loads it with equal features.
    """
    from scanlearn.training.pretrain import export

    export(run, folder)


@app.command("panel")
def panel_command(
    backbone: Annotated[str, typer.Argument(help="A backbone folder.")],
    archive: Annotated[str, typer.Argument(help="An archive, a folder of scans or a table.")],
    overrides: Overrides = None,
) -> None:
    """Judge a backbone without labels.

    Ranks, spectrum and distances of its features, on one fixed set of views.

    The keys and their defaults: scanlearn config panel.
    """
    from scanlearn.panel import panel

    call(panel, backbone, archive, overrides=overrides or ())


@app.command("config")
def config_command(
    command: Annotated[str, typer.Argument(help="pack, preview, explain, pretrain or panel.")],
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema.")] = False,
) -> None:
    """Print a command's settings as commented YAML."""
    from scanlearn.core import ScanlearnError

    if command == "pack":
        from scanlearn.scans.settings import PackSettings

        show_config(PackSettings, "scanlearn pack SOURCE ARCHIVE key=value ...", schema)
    elif command == "preview":
        from scanlearn.views.preview import preview

        show_config(settings_model(preview), "scanlearn preview ARCHIVE key=value ...", schema)
    elif command == "explain":
        from scanlearn.views.explain import explain

        show_config(settings_model(explain), "scanlearn explain RECIPE key=value ...", schema)
    elif command == "pretrain":
        from scanlearn.training.pretrain import PretrainConfig

        show_config(PretrainConfig, "scanlearn pretrain FILE.yaml key=value ...", schema)
    elif command == "panel":
        from scanlearn.panel import panel

        words = "scanlearn panel BACKBONE ARCHIVE key=value ..."
        show_config(settings_model(panel), words, schema)
    else:
        raise ScanlearnError(
            f"'{command}' has no configuration; ask for pack, preview, explain, pretrain or panel"
        )


def show_config(model: Any, command: str, schema: bool) -> None:
    """Prints a configuration's commented default YAML, or its JSON schema."""
    from scanlearn.config import default_yaml, json_schema

    print(json_schema(model) if schema else default_yaml(model, command), end="")


def settings_model(function: Callable[..., Any]) -> Any:
    """Returns a strict pydantic model of a function's keyword-only arguments."""
    from pydantic import ConfigDict, create_model

    hints = inspect.get_annotations(function, eval_str=True)
    fields: dict[str, Any] = {
        name: (
            hints[name],
            ... if argument.default is inspect.Parameter.empty else argument.default,
        )
        for name, argument in inspect.signature(function).parameters.items()
        if argument.kind is inspect.Parameter.KEYWORD_ONLY
    }
    config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    return create_model(f"{function.__name__}_settings", __config__=config, **fields)


def call(function: Callable[..., Any], *positional: Any, overrides: Any) -> Any:
    """Calls a function with ``key=value`` words as its checked keyword-only arguments."""
    from scanlearn.config import load_config

    settings = load_config(settings_model(function), None, overrides, kind=function.__name__)
    return function(
        *positional, **{key: getattr(settings, key) for key in settings.model_fields_set}
    )


def run(application: typer.Typer) -> None:
    """Runs a command line: what a user gave wrongly is one sentence and exit code 2."""
    # A ValueError of ours: recognised by name, so that torch is not imported for --help.
    try:
        application()
    except ValueError as error:
        if not any(kind.__name__ == "ScanlearnError" for kind in type(error).__mro__):
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        raise SystemExit(130) from None


def main() -> None:
    """Entry point of the ``scanlearn`` command."""
    run(app)
