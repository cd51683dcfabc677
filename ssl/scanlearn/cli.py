"""The command line of scanlearn; every command is one Python function of the same name."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from scanlearn.config.loading import call, settings_model
from scanlearn.errors import ScanlearnError

# Heavy imports (torch, timm, pyarrow) stand inside the commands: --help answers at once.

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings, a.b=value; they win over the YAML."),
]

# Module and name of the settings, or of the function whose keywords they are; other arguments.
_CONFIGURED = {
    "pack": ("packing.settings", "PackSettings", "SOURCE ARCHIVE"),
    "add": ("packing.settings", "PackSettings", "ARCHIVE SOURCE"),
    "withdraw": ("archive.withdraw", "withdraw", "ARCHIVE PATIENT..."),
    "summary": ("archive.summary", "summary", "ARCHIVE"),
    "audit": ("audit.audit", "audit", "ARCHIVE LABELS"),
    "preview": ("views.preview", "preview", "ARCHIVE"),
    "explain": ("views.explain", "explain", "RECIPE"),
    "pretrain": ("training.pretrain", "PretrainConfig", "FILE.yaml"),
    "panel": ("features.panel", "panel", "BACKBONE ARCHIVE"),
}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Pretrain a backbone on unlabeled scans, with one tunable augmentation scale.",
)


@app.command("pack")
def pack_command(
    source: Annotated[
        str, typer.Argument(help="A folder of scans, a zip, tar or npz, a CSV or Parquet table.")
    ],
    archive: Annotated[
        str | None,
        typer.Argument(help="The folder to write the archive to; not needed with --dry-run."),
    ] = None,
    overrides: Overrides = None,
    is_dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read headers only; print what is there.")
    ] = False,
) -> None:
    """Decode scans once into a memory-mapped archive.

    What cannot be read is set aside in rejected.csv with the reason.

    The keys and their defaults: scanlearn config pack.
    """
    from scanlearn.config import load_config
    from scanlearn.errors import ScanlearnError
    from scanlearn.packing.settings import PackSettings

    words = list(overrides or ())
    if is_dry_run and archive is not None and "=" in archive:
        words.insert(0, archive)
    settings = load_config(PackSettings, None, words, kind="pack")
    if is_dry_run:
        from scanlearn.packing.dry_run import tabulate

        print(tabulate(source, settings=settings))
        return
    if archive is None:
        raise ScanlearnError(
            "pack needs the folder to write the archive to; give it after the source, or --dry-run"
        )
    from scanlearn.packing.pack import pack

    pack(source, archive, settings=settings)


@app.command("add")
def add_command(
    archive: Annotated[str, typer.Argument(help="A packed archive.")],
    source: Annotated[str, typer.Argument(help="A folder of scans, or a CSV or Parquet table.")],
    overrides: Overrides = None,
) -> None:
    """Pack what is new in a source into an archive that is there.

    Scans are brought to the archive's own settings; those of withdrawn patients stay out.
    """
    from scanlearn.config import load_config
    from scanlearn.packing.add import add
    from scanlearn.packing.settings import PackSettings

    add(archive, source, settings=load_config(PackSettings, None, overrides or (), kind="add"))


@app.command("withdraw")
def withdraw_command(
    archive: Annotated[str, typer.Argument(help="A packed archive.")],
    patients: Annotated[
        list[str],
        typer.Argument(metavar="PATIENT... [KEY=VALUE]...", help="Their numbers; then settings."),
    ],
) -> None:
    """Take all scans of patients out of an archive, off the disk.

    The keys and their defaults: scanlearn config withdraw.
    """
    from scanlearn.archive.withdraw import withdraw

    words = [word for word in patients if word.startswith("issuer=")]
    call(withdraw, archive, [word for word in patients if word not in words], overrides=words)


@app.command("summary")
def summary_command(
    archive: Annotated[str, typer.Argument(help="A packed archive.")],
    overrides: Overrides = None,
) -> None:
    """Write an archive's contact sheet and one-page summary.

    contact_sheet.png and summary.html lie in the archive afterwards; pack writes them too.

    The keys and their defaults: scanlearn config summary.
    """
    from scanlearn.archive.summary import summary

    call(summary, archive, overrides=overrides or ())


@app.command("audit")
def audit_command(
    archive: Annotated[str, typer.Argument(help="An archive, a folder of scans or a table.")],
    labels: Annotated[
        list[str],
        typer.Argument(metavar="LABELS... [KEY=VALUE]...", help="Labeled sets; then settings."),
    ],
) -> None:
    """Look for test patients and test scans among those learned from.

    Between an archive and labeled sets, and in each of these across its split: shared patients,
    identical pixels, near-duplicates. Exit code 1 where a result would be invalid, else 0.

    The keys and their defaults: scanlearn config audit.
    """
    from scanlearn.audit.audit import audit

    # A phantom, phantom:patients=9, has a colon before its first "=".
    words = [word for word in labels if word.split("=")[0].isidentifier() and "=" in word]
    sources = [word for word in labels if word not in words]
    if call(audit, archive, sources, overrides=words).is_invalid:
        raise typer.Exit(1)


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
    from scanlearn.training.pretrain import pretrain
    from scanlearn.training.settings import PretrainConfig

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
    from scanlearn.features.panel import panel

    call(panel, backbone, archive, overrides=overrides or ())


@app.command("config")
def config_command(
    command: Annotated[str, typer.Argument(help="A command with settings, such as pack.")],
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema.")] = False,
) -> None:
    """Print a command's settings as commented YAML."""
    from importlib import import_module

    if command not in _CONFIGURED:
        *others, last = _CONFIGURED
        raise ScanlearnError(
            f"'{command}' has no configuration; ask for {', '.join(others)} or {last}"
        )
    module, name, words = _CONFIGURED[command]
    found = getattr(import_module(f"scanlearn.{module}"), name)
    model = found if isinstance(found, type) else settings_model(found)
    show_config(model, f"scanlearn {command} {words} key=value ...", schema)


def show_config(model: Any, command: str, schema: bool) -> None:
    """Prints a configuration's commented default YAML, or its JSON schema."""
    from scanlearn.config import default_yaml, json_schema

    print(json_schema(model) if schema else default_yaml(model, command), end="")


def run(application: typer.Typer) -> None:
    """Runs a command line: what a user gave wrongly is one sentence and exit code 2."""
    try:
        application()
    except ScanlearnError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        raise SystemExit(130) from None


def main() -> None:
    """Entry point of the ``scanlearn`` command."""
    run(app)
