"""The command line of scanlearn; every command is one Python function of the same name."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated

import typer
from typer.models import ArgumentInfo

import scanlearn
from scanlearn.errors import ScanlearnError, did_you_mean

_WRONG, _INTERRUPTED = 2, 130
# What pathlib says where HOME is not set and the system does not know the user.
_NO_HOME = "Could not determine home directory."
# Heavy imports (torch, timm, pyarrow) stand inside the commands: --help answers at once.

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Settings as key=value, nested ones as a.b=value.",
    ),
]
Config = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG",
        help="A YAML file, or the name of a shipped one; settings after it override its own.",
        show_default=False,
    ),
]


def place(metavar: str, text: str) -> ArgumentInfo:
    """Returns an argument for one file or folder, in whose stead no setting may stand."""

    def checked(context: typer.Context, word: str | None) -> str | None:
        from scanlearn.files import is_setting

        # Without its archive `pack scans channels=1` packed into a folder called channels=1; a dry
        # run needs none, and takes the word for the setting that it is.
        if word is not None and is_setting(word) and not context.params.get("is_dry_run"):
            usage = " ".join(context.get_usage().removeprefix("Usage: ").split())
            raise ScanlearnError(
                f"'{word}' stands where {metavar} is missing; files and folders come first, "
                f"without key=, and settings after them: {usage}"
            )
        return word

    argument: ArgumentInfo = typer.Argument(metavar=metavar, help=text, callback=checked)
    return argument


Packed = Annotated[str, place("ARCHIVE", "A packed archive.")]
Scans = Annotated[str, place("SCANS", "An archive, a folder of scans, a table or a phantom.")]
Schema = Annotated[bool, typer.Option("--schema", help="Print the JSON schema instead.")]


@dataclass(frozen=True)
class Configured:
    """A command that has settings.

    Args:
        name: Their class, or the function whose keyword-only arguments they are.
        usage: What stands before the settings on the command line.
    """

    module: str
    name: str
    usage: str


CONFIGURED = {
    "pack": Configured("scanlearn.packing.settings", "PackArraySettings", "SOURCE ARCHIVE"),
    "add": Configured("scanlearn.packing.settings", "PackSettings", "ARCHIVE SOURCE"),
    "withdraw": Configured("scanlearn.archive.withdraw", "withdraw", "ARCHIVE PATIENT..."),
    "summary": Configured("scanlearn.archive.summary", "summary", "ARCHIVE"),
    "audit": Configured("scanlearn.audit.audit", "audit", "ARCHIVE LABELS"),
    "preview": Configured("scanlearn.views.preview", "preview", "ARCHIVE"),
    "explain": Configured("scanlearn.views.explain", "explain", "RECIPE"),
    "pretrain": Configured("scanlearn.training.settings", "PretrainConfig", "FILE.yaml"),
    "export": Configured("scanlearn.training.export", "export", "RUN FOLDER"),
    "panel": Configured("scanlearn.features.panel", "panel", "BACKBONE ARCHIVE"),
    "init": Configured("scanlearn.training.init", "init", "SCANS"),
    "embed": Configured("scanlearn.features.embed", "embed", "BACKBONE SCANS"),
}


def application(program: str, text: str) -> typer.Typer:
    """Returns an empty command line that introduces itself with ``text``."""
    empty = typer.Typer(
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    def print_version(is_asked: bool) -> None:
        if is_asked:
            print(f"{program} {scanlearn.__version__}")
            raise typer.Exit

    # Not as an annotation, which typer reads outside of this function.
    is_asked = typer.Option(
        False, "--version", help="Print the version.", is_eager=True, callback=print_version
    )

    @empty.callback(help=text, no_args_is_help=True)
    def options(version: bool = is_asked) -> None:
        del version

    return empty


app = application(
    "scanlearn", "Pretrain a backbone on unlabeled scans, with one tunable augmentation scale."
)


def settings_hint(command: str) -> str:
    """Returns the last line of a command's help."""
    return f"All settings with their defaults: {command}"


@app.command("pack", epilog=settings_hint("scanlearn config pack"))
def pack_command(
    source: Annotated[
        str,
        place("SOURCE", "A folder of scans, a zip, tar or npz, a CSV or Parquet table."),
    ],
    archive: Annotated[
        str | None,
        place("ARCHIVE", "The folder to write the archive to; not needed with --dry-run."),
    ] = None,
    overrides: Overrides = None,
    is_dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read headers only and print what the source holds.")
    ] = False,
) -> None:
    """Decode scans once into a memory-mapped archive.

    Files that cannot be read are listed in rejected.csv with the reason.
    """
    from scanlearn.config import load_config
    from scanlearn.packing.settings import PackArraySettings

    words = list(overrides or ())
    if is_dry_run and archive is not None and "=" in archive:
        words.insert(0, archive)
    settings = load_config(PackArraySettings, None, words, kind="pack")
    if is_dry_run:
        from scanlearn.packing.dry_run import tabulate

        print(tabulate(source, settings=settings))
        return
    if archive is None:
        raise ScanlearnError(
            "pack needs the folder to write the archive to; give it after the source, or --dry-run"
        )
    if settings.parts > 1 or settings.launcher is not None:
        from scanlearn.packing.array import pack_array

        pack_array(source, archive, settings)
        return
    from scanlearn.packing.pack import pack

    pack(source, archive, settings=settings)


@app.command("add", epilog=settings_hint("scanlearn config add"))
def add_command(
    archive: Packed,
    source: Annotated[str, place("SOURCE", "A folder of scans, or a CSV or Parquet table.")],
    overrides: Overrides = None,
) -> None:
    """Add the new scans of a source to an existing archive.

    The archive's own settings apply; scans of withdrawn patients are not added.
    """
    from scanlearn.config import load_config
    from scanlearn.packing.add import add
    from scanlearn.packing.settings import PackSettings

    add(archive, source, settings=load_config(PackSettings, None, overrides or (), kind="add"))


@app.command("withdraw", epilog=settings_hint("scanlearn config withdraw"))
def withdraw_command(
    archive: Packed,
    patients: Annotated[
        list[str],
        typer.Argument(
            metavar="PATIENT... [KEY=VALUE]...", help="Patient identifiers, then settings."
        ),
    ],
) -> None:
    """Permanently delete all scans of given patients from an archive."""
    from scanlearn.archive.withdraw import withdraw
    from scanlearn.config.loading import call

    words = [word for word in patients if word.startswith(("issuer=", "wait="))]
    call(withdraw, archive, [word for word in patients if word not in words], overrides=words)


@app.command("summary", epilog=settings_hint("scanlearn config summary"))
def summary_command(archive: Packed, overrides: Overrides = None) -> None:
    """Write an archive's contact sheet and one-page summary.

    Both are written into the archive as contact_sheet.png and summary.html; pack does so too.
    """
    from scanlearn.archive.summary import summary
    from scanlearn.config.loading import call

    print(f"summary page: {call(summary, archive, overrides=overrides or ())}")


@app.command("verify")
def verify_command(
    archive: Annotated[
        str,
        place("FOLDER", "A packed archive, a run, a backbone or a study."),
    ],
) -> None:
    """Read files again and name those that are not as they were written.

    Every byte of an archive; weights, checkpoints, records and scores of the others. Exit code 1
    if a file is damaged or missing, else 0.
    """
    from scanlearn.training.verify import verify

    if not verify(archive).is_whole:
        raise typer.Exit(1)


@app.command("audit", epilog=settings_hint("scanlearn config audit"))
def audit_command(
    archive: Scans,
    labels: Annotated[
        list[str],
        typer.Argument(metavar="LABELS... [KEY=VALUE]...", help="Labeled sets, then settings."),
    ],
) -> None:
    """Look for test patients and test scans in the training scans.

    Finds shared patients, identical pixels and near-duplicates, between the archive and each
    labeled set and across each labeled set's own split. Exit code 1 if a result would be invalid,
    else 0.
    """
    from scanlearn.audit.audit import audit
    from scanlearn.config.loading import call

    # A phantom, phantom:patients=9, has a colon before its first "=".
    words = [word for word in labels if word.split("=")[0].isidentifier() and "=" in word]
    sources = [word for word in labels if word not in words]
    if call(audit, archive, sources, overrides=words).is_invalid:
        raise typer.Exit(1)


@app.command("preview", epilog=settings_hint("scanlearn config preview"))
def preview_command(archive: Scans, overrides: Overrides = None) -> None:
    """Draw a sheet of views at several augmentation scales.

    Each row is one scan, each column one scale; along a row one random draw grows stronger.
    """
    from scanlearn.config.loading import call
    from scanlearn.views.preview import preview

    call(preview, archive, overrides=overrides or ())


@app.command("explain", epilog=settings_hint("scanlearn config explain"))
def explain_command(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe, such as simclr or dino.")
    ],
    overrides: Overrides = None,
) -> None:
    """Print the numbers of a recipe at one augmentation scale.

    Lists every active operation with its parameters, their units and the source they are from.
    """
    from scanlearn.config.loading import call
    from scanlearn.views.explain import explain

    call(explain, recipe, overrides=overrides or ())


@app.command("pretrain", epilog=settings_hint("scanlearn config pretrain"))
def pretrain_command(
    config: Config = "",
    overrides: Overrides = None,
    is_dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Run a few steps and print the time, memory and disk needed."
        ),
    ] = False,
) -> None:
    """Pretrain a backbone on unlabeled scans.

    Run the same command again to resume a stopped run. SIGTERM, SIGUSR1 and Ctrl-C stop a run after
    the current step; it saves a checkpoint and exits with code 75, after Ctrl-C with 130. A second
    Ctrl-C stops it at once. Exit code 3: another process is at work in output.
    """
    from scanlearn.config import load_config
    from scanlearn.console import doing, loading
    from scanlearn.training.settings import PretrainConfig

    settings = load_config(PretrainConfig, config, overrides or (), kind="pretrain")
    settings.check_inputs()
    with loading("torch", "timm", "pytorch-lightning"):
        from scanlearn.training.pretrain import pretrain
    if is_dry_run:
        from scanlearn.training.trial import dry_run

        with doing("taking trial steps"):
            print(dry_run(settings))
    else:
        with doing("pretraining"):
            pretrain(settings)


@app.command("export", epilog=settings_hint("scanlearn config export"))
def export_command(
    run: Annotated[str, place("RUN", "A finished run, or a backbone folder.")],
    folder: Annotated[str, place("FOLDER", "The folder to write the backbone to.")],
    overrides: Overrides = None,
) -> None:
    """Export a run's backbone for timm or another library.

    That library loads it in a fresh process and its features are checked to be equal.
    """
    from scanlearn.config.loading import call
    from scanlearn.training.export import export

    call(export, run, folder, overrides=overrides or ())


@app.command("panel", epilog=settings_hint("scanlearn config panel"))
def panel_command(
    backbone: Annotated[str, place("BACKBONE", "A backbone folder.")],
    archive: Scans,
    overrides: Overrides = None,
) -> None:
    """Measure a backbone without labels.

    Prints rank, spectrum and distances of its features on one fixed set of views.
    """
    from scanlearn.config.loading import call
    from scanlearn.features.panel import panel

    call(panel, backbone, archive, overrides=overrides or ())


@app.command("embed", epilog=settings_hint("scanlearn config embed"))
def embed_command(
    backbone: Annotated[
        str, place("BACKBONE", "A backbone folder, a run folder, or a network of timm's.")
    ],
    scans: Scans,
    overrides: Overrides = None,
) -> None:
    """Write the embeddings of scans to a table, with a map and nearest neighbours.

    The table is Parquet, a row a scan: hashes of scan and patient, labels asked for, and the
    embedding. The page shows a map coloured by a label.
    """
    from scanlearn.config.loading import call
    from scanlearn.features.embed import embed

    call(embed, backbone, scans, overrides=overrides or ())


@app.command("init", epilog=settings_hint("scanlearn config init"))
def init_command(
    scans: Annotated[
        str | None,
        place("SCANS", "A folder of scans, a table or an archive; without it, init asks."),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Write a commented YAML for your scans, ready to run.

    Asks where the scans and their labels are, what to predict, the kind of scan and whether there
    is a GPU; with SCANS it asks nothing and takes labels=, column=, modality= and gpu=.
    """
    from scanlearn.config.loading import call
    from scanlearn.training.init import init

    words = [*(overrides or ())]
    if scans is None:
        if not sys.stdin.isatty():
            raise ScanlearnError("init: name the scans, as in scanlearn init SCANS labels=LABELS")
        scans = typer.prompt("Where are the scans (a folder, a table or an archive)")
        questions = {
            "labels": ("Where are their labels (a table; empty: there are none)", ""),
            "column": ("Which column is to be predicted (empty: the only one)", ""),
            "modality": (
                "Which kind of scan, such as xray (auto: by DICOM tags)",
                "auto",
            ),
            "gpu": ("Is there a GPU (true, false; null: look)", "null"),
        }
        for key, (question, default) in questions.items():
            answer = typer.prompt(question, default=default, show_default=bool(default))
            words += [f"{key}={answer}"] if answer else []
    call(init, scans, overrides=words)


@app.command("config")
def config_command(
    command: Annotated[
        str, typer.Argument(metavar="COMMAND", help=f"One of {', '.join(CONFIGURED)}.")
    ],
    schema: Schema = False,
) -> None:
    """Print a command's settings as commented YAML."""
    print_settings("scanlearn", CONFIGURED, command, schema)


def print_settings(
    program: str, configured: Mapping[str, Configured], command: str, schema: bool
) -> None:
    """Prints the commented default YAML of a command's settings, or their JSON schema."""
    from scanlearn.config import default_yaml, json_schema
    from scanlearn.config.loading import settings_model

    if command not in configured:
        raise ScanlearnError(
            f"'{command}' is not a command with settings{did_you_mean(command, configured)};"
            f" allowed: {', '.join(configured)}"
        )
    row = configured[command]
    settings = getattr(import_module(row.module), row.name)
    model = settings if isinstance(settings, type) else settings_model(settings)
    usage = f"{program} {command} {row.usage} key=value ..."
    print(json_schema(model) if schema else default_yaml(model, usage), end="")


def run(application: typer.Typer) -> None:
    """Runs a command line: wrong input ends in one sentence and exit code 2.

    Exit code 3 where another process is at work on what would be written, 130 after Ctrl-C.
    """
    words = sys.argv[1:]
    is_help = not words or bool({"-h", "--help", "--version"} & {*words})
    if not is_help:
        from scanlearn.console import signs_of_life
    try:
        with nullcontext() if is_help else signs_of_life(f"{words[0]}: at work"):
            application()
    except ScanlearnError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        # A path that the system refuses: a name too long, a folder that may not be entered.
        from scanlearn.files import reason_of

        named = "" if error.filename is None else f"{error.filename}: "
        print(f"error: {named}{reason_of(error)}", file=sys.stderr)
        raise SystemExit(_WRONG) from None
    except RuntimeError as error:
        if str(error) != _NO_HOME:
            raise
        print(
            "error: the home folder is unknown; set HOME, or SCANLEARN_CACHE to a folder and"
            " SCANLEARN_KEY to a file with a key, and write paths without ~",
            file=sys.stderr,
        )
        raise SystemExit(_WRONG) from None
    except (KeyboardInterrupt, SystemExit) as stop:
        # typer makes an exit without a word of an interrupt.
        context: BaseException | None = stop
        if isinstance(stop, SystemExit):
            context = stop.__context__ and stop.__context__.__cause__
        if not isinstance(context, KeyboardInterrupt):
            raise
        # A second one ends what is still being closed, without a word.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        print(str(context) or "stopped; run the same command again to resume", file=sys.stderr)
        raise SystemExit(_INTERRUPTED) from None


def main() -> None:
    """Entry point of the ``scanlearn`` command."""
    run(app)
