"""`scanlearn init`: a commented YAML for a person's own scans, from what their headers say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from scanlearn.archive.layout import is_archive
from scanlearn.config.calls import checked
from scanlearn.console import counted, say
from scanlearn.errors import ScanlearnError, did_you_mean
from scanlearn.files import make_folder, write_atomically
from scanlearn.packing.listed import ListedScans, list_scans
from scanlearn.packing.settings import PackSettings
from scanlearn.packing.sources import check_source
from scanlearn.tables.manifest import key_without_files
from scanlearn.tables.reading import TABLE_SUFFIXES, read_table
from scanlearn.tables.settings import DEFAULT_TABLE, Table, TableSettings
from scanlearn.views.modality import NAMES, POLICIES
from scanlearn.views.of_archive import tagged_policy

# A column with more values than this is no finding: an age, a date, a text.
_MOST_CLASSES = 10
_BUDGETS, _FOLDS = (50, 100, 500), 5
# Where Linux keeps an NVIDIA GPU; to ask torch takes seconds.
_GPU = Path("/dev/nvidia0")


@checked
def init(
    scans: Annotated[str | Path, Field(description="A folder of scans, a table, or an archive.")],
    *,
    labels: Annotated[
        str | Path | None,
        Field(description="Labeled scans, likewise; null writes a plan that pretrains alone."),
    ] = None,
    column: Annotated[
        str | None, Field(description="Label column to predict; null takes the only one.")
    ] = None,
    modality: Annotated[
        str | None,
        Field(
            description=f"Kind of scan: {NAMES}; auto asks DICOM tags, null is no kind of these."
        ),
    ] = "auto",
    gpu: Annotated[
        bool | None, Field(description="Whether a GPU trains; null looks for one.")
    ] = None,
    output: Annotated[Path, Field(description="The YAML to write.")] = Path("study.yaml"),
    table: Table = DEFAULT_TABLE,
) -> Path:
    """Write a commented YAML for your scans, ready to run.

    With labels it is a plan of `scantune compare`, without any of `scanlearn pretrain`. Only
    headers and tables are read.

    Returns:
        The YAML.

    Raises:
        ScanlearnError: A source, the column or the modality cannot be used, or the file is there.

    Example:
        >>> init("scans", labels="labels.csv", output=Path("study.yaml"))    # doctest: +SKIP
    """
    output = Path(output).expanduser()
    if output.exists():
        raise ScanlearnError(f"output: '{output}' is there already; move it away or name another")
    if modality not in ("auto", None, *POLICIES):
        hint = did_you_mean(str(modality), POLICIES)
        raise ScanlearnError(f"modality: '{modality}' is none of {NAMES}{hint}; or null or auto")
    for where, source in (("scans: ", scans), ("labels: ", labels)):
        if source is not None:
            if str(source).startswith("phantom:"):
                raise ScanlearnError(f"{where}a phantom needs no plan; try scantune compare demo")
            check_source(source, where)
    labels = scans if labels is None and column is not None else labels
    joined = table.root if table.root and is_archive(table.root.expanduser()) else None
    if labels is not None and table.root is None and _names_no_files(labels, scans, table):
        joined = Path(scans)
    if joined is not None:
        table = table.model_copy(update={"root": None})
    settings = PackSettings.of_table(table)
    unlabeled = list_scans(scans, settings)
    kind = _modality(unlabeled) if modality == "auto" else modality
    has_gpu = _GPU.exists() if gpu is None else gpu
    lines = [*_pretraining(kind, is_asked=modality != "auto", has_gpu=has_gpu)]
    columns = _table_lines(table.model_dump(exclude_none=True))
    if labels is None:
        text = _run_text(scans, output, unlabeled, lines, columns, has_gpu)
    else:
        settings = settings.model_copy(update={"root": joined or table.root})
        labeled = unlabeled if str(labels) == str(scans) else list_scans(labels, settings)
        target = _chosen(column, labeled, labels)
        text = _study_text(
            scans, labels, target, output, unlabeled, labeled, lines, columns, joined, has_gpu
        )
    make_folder(output.parent)
    write_atomically(output, text)
    command = text.splitlines()[0].removeprefix("# ")
    say(f"wrote {output}; next: {command} --dry-run, which says what it takes, then {command}")
    return output


def _names_no_files(labels: str | Path, scans: str | Path, table: TableSettings) -> bool:
    """Returns whether a table calls the scans of an archive by something else than their files."""
    path = Path(labels).expanduser()
    if path.suffix.lower() not in TABLE_SUFFIXES or not is_archive(Path(scans).expanduser()):
        return False
    columns = read_table(path, sep=table.sep, sheet=table.sheet)
    return table.path_column is None and key_without_files(columns) is not None


def _modality(scans: ListedScans) -> str | None:
    """Returns the policy that DICOM tags name for all scans; None where they do not."""
    policies = {tagged_policy(each) for each in scans.examined}
    return policies.pop() if len(policies) == 1 else None


def _in_words(scans: ListedScans) -> str:
    known = counted(len(set(scans.patients.tolist())), "patient")
    whose = known if scans.patients_known else "unknown patients"
    return f"{counted(len(scans), 'scan')} of {whose}"


def _chosen(column: str | None, labeled: ListedScans, source: str | Path) -> str:
    """Returns the column to predict: the one that was named, or the only one that may be it."""
    likely = [name for name, values in labeled.columns.items() if _classes(values)]
    if column is None and len(likely) == 1:
        return likely[0]
    if column is None:
        which = f"choose one of {', '.join(likely)}" if likely else "it has none of a few classes"
        raise ScanlearnError(f"column: {source} does not say what to predict; {which}")
    if column not in labeled.columns:
        hint = did_you_mean(column, labeled.columns)
        known = ", ".join(labeled.columns) or "none"
        raise ScanlearnError(f"column: {source} has no column '{column}'{hint}; it has {known}")
    return column


def _classes(values: np.ndarray) -> bool:
    filled = {value for value in values if value is not None}
    return 2 <= len(filled) <= _MOST_CLASSES


def _pretraining(kind: str | None, *, is_asked: bool, has_gpu: bool) -> list[str]:
    """Returns the keys that a run and the arms of a study have in common."""
    if kind is not None:
        why = "as you said" if is_asked else "as the DICOM tags of all scans say"
        told = f"The kind of scan, {why}: scanlearn explain simclr modality={kind}"
    else:
        told = f"The recipe alone; or the kind of scan, which keeps views plausible: {NAMES}"
    name, size = ("resnet50", 224) if has_gpu else ("resnet10t", 64)
    return [
        f"backbone: {{name: {name}}}",
        "method: {name: simclr}",
        f"# {told}",
        f"views: {{recipe: simclr, modality: {kind or 'null'}, size: {size}}}",
        "# An archive of fewer scans makes the batch smaller.",
        f"batch_size: {256 if has_gpu else 128}",
        "# Optimiser steps; more is better until the report's curves are flat.",
        f"steps: {5000 if has_gpu else 200}",
    ]


def _table_lines(table: Mapping[str, object]) -> list[str]:
    return [f"  {key}: {json.dumps(value, default=str)}" for key, value in table.items()]


def _run_text(
    scans: str | Path,
    output: Path,
    seen: ListedScans,
    lines: Sequence[str],
    columns: Sequence[str],
    has_gpu: bool,
) -> str:
    views = [line.replace(", size:", ", scale: weak, size:") for line in lines]
    packing = ["", "# How the scans are read, where it is not found out.", "pack:", *columns]
    return "\n".join(
        [
            f"# scanlearn pretrain {output}",
            f"# Cost: scanlearn pretrain {output} --dry-run measures it on your machine; written "
            f"for a {'GPU' if has_gpu else 'CPU'}.",
            f"# Seen: {_in_words(seen)}.",
            "",
            f"archive: {json.dumps(str(scans), ensure_ascii=False)}",
            f"output: {json.dumps('runs/' + output.stem)}",
            "",
            "# views.scale is the dial: identity (0), weak (.5), strong (1), to 1.5.",
            *views,
            "seed: 0",
            *(packing if columns else []),
            "",
        ]
    )


def _study_text(
    scans: str | Path,
    labels: str | Path,
    target: str,
    output: Path,
    unlabeled: ListedScans,
    labeled: ListedScans,
    lines: Sequence[str],
    columns: Sequence[str],
    joined: Path | None,
    has_gpu: bool,
) -> str:
    values = labeled.columns[target]
    known = np.array([value is not None for value in values], dtype=bool)
    num_labeled = int(known.sum())
    people = {
        str(name): len(set(labeled.patients[values == name].tolist()))
        for name in sorted(set(values[known].tolist()))
    }
    if len(people) < 2 or min(people.values()) < 2:
        raise ScanlearnError(
            f"column: '{target}' of {labels} has the classes "
            f"{', '.join(f'{name} ({n} patients)' for name, n in people.items()) or 'none'}; a "
            "comparison needs two classes of two patients each, better of fifty"
        )
    folds = min(_FOLDS, *people.values())
    trained = num_labeled * (folds - 1) // folds
    budgets = [str(budget) for budget in _BUDGETS if budget < trained]
    leaks, why = _leaks(unlabeled, list(compress(_names(labeled), known)))
    classes = ", ".join(f"{name}: {(values == name).sum():,}" for name in people)
    return "\n".join(
        [
            f"# scantune compare {output}",
            f"# Cost: scantune compare {output} --dry-run tells it, and what the study can show; "
            f"written for a {'GPU' if has_gpu else 'CPU'}.",
            f"# Seen: {_in_words(unlabeled)} to pretrain on; {_in_words(labeled)} with labels,",
            f"# {json.dumps(target, ensure_ascii=False)} of {num_labeled:,} of them ({classes}).",
            "",
            'title: "Weak or strong augmentation?"',
            "# Scans to pretrain on, and the labeled ones: a packed archive, a folder or a table.",
            f"unlabeled: {json.dumps(str(scans), ensure_ascii=False)}",
            f"labels: {json.dumps(str(labels), ensure_ascii=False)}",
            f"tasks: [{json.dumps(target, ensure_ascii=False)}]",
            f"output: {json.dumps('runs/' + output.stem)}",
            f"# {why}",
            f"leaks: {leaks}",
            "",
            "# What is compared; everything else below is the same for every arm.",
            "arms:",
            "  random: {kind: random}",
            "  identity: {scale: 0}",
            "  weak: {scale: 0.5}",
            "  strong: {scale: 1}",
            "# Three seeds at least support a claim; seeds: auto adds some until it is settled.",
            "seeds: [0, 1, 2]",
            "",
            "pretrain:",
            *(f"  {line}" for line in lines),
            "",
            "# Everything that scanlearn pack knows, for both sets of scans.",
            "pack:",
            "  # 1, 3, or auto: 3 if any scan has colour.",
            "  channels: auto",
            *columns,
            *(() if joined is None else _joined_lines(joined)),
            "",
            "evaluation:",
            "  # Also finetune, lpft: they train a network, minutes per fit.",
            "  learners: [linear, knn]",
            "  # Labeled training scans; the smaller sets lie within the larger ones.",
            f"  budgets: [{', '.join([*budgets, 'all'])}]",
            f"  folds: {folds}",
            "  label_seeds: 3",
            "",
            "# The comparison named in advance; all others are corrected for their number.",
            "primary: {task: null, learner: linear, budget: all, better: weak, than: strong}",
            "margin: 0.01",
            "",
        ]
    )


def _joined_lines(archive: Path) -> list[str]:
    return [
        "",
        "# The archive whose scans the table of labels names by their patients or studies.",
        f"label_columns: {{root: {json.dumps(str(archive), ensure_ascii=False)}}}",
    ]


def _names(scans: ListedScans) -> Sequence[object]:
    """Returns the file of each scan, or its id in an archive."""
    return scans.scan_ids.tolist() if scans.files is None else scans.files


def _leaks(unlabeled: ListedScans, labeled: Sequence[object]) -> tuple[str, str]:
    """Returns what to do about labeled scans that are among the unlabeled ones, and why."""
    names = frozenset(_names(unlabeled))
    shared = sum(name in names for name in labeled)
    if names <= frozenset(labeled):
        return "warn", (
            "All scans have labels: pretraining sees the test scans too, without their labels; "
            "the report says so."
        )
    if shared:
        return "drop", f"{shared:,} labeled scans are among these: pretraining leaves them out."
    return "refuse", "If test patients are among the scans the study does not start; or drop, warn."
