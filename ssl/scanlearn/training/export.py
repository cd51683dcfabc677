"""`export`: the backbone of a run, or any exported one, for another library."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from scanlearn.backbones.settings import FormatName
from scanlearn.config.calls import checked
from scanlearn.console import doing, loading, say, warn_user
from scanlearn.errors import ScanlearnError
from scanlearn.files import check_exists
from scanlearn.training.folder import RunFolder, read_rows

# Of the last row of a run's metrics, in words.
_METRICS = {
    "loss": "loss at the end",
    "loss_vs_chance": "loss (of dino: entropy) beside that of a network that knows nothing",
    "embedding_std": "spread of the embeddings (1 healthy, 0 collapsed)",
    "embedding_rank": "effective rank of the embeddings",
}


@checked
def export(
    run: Annotated[str | Path, Field(description="A finished run, or a backbone folder.")],
    folder: Annotated[str | Path, Field(description="The folder to write.")],
    *,
    format: Annotated[  # noqa: A002 - the setting is called so
        FormatName,
        Field(
            description="Whose network it becomes: timm (a folder for its local-dir: and for the "
            "Hugging Face hub), torchvision, safetensors (timm's names, one file), onnx, monai or "
            "smp (an encoder of segmentation_models_pytorch)."
        ),
    ] = "timm",
    channels: Annotated[
        int | None,
        Field(
            ge=1,
            description="Channels of its input; 3 folds a one-channel first layer for colour. null "
            "keeps those of the training.",
        ),
    ] = None,
    license: Annotated[  # noqa: A002
        str | None,
        Field(
            pattern=r"^[a-z0-9][a-z0-9.\-]*$",
            description="Licence of the weights, as the Hugging Face hub spells it.",
            examples=["cc-by-nc-4.0"],
        ),
    ] = None,
) -> Path:
    """Export a run's backbone for timm or another library.

    That library loads it in a fresh process and its features are checked to be equal.
    ``card.json`` and ``README.md`` beside the weights say what it is.

    Returns:
        The folder, which must not have existed, or been empty, or hold this very export.

    Raises:
        ScanlearnError: The run is not finished, the library is not installed or has no such
            network, its features differ, or the folder holds something else.

    Example:
        >>> export("runs/weak", "weak.onnx", format="onnx")        # doctest: +SKIP
    """
    source = Path(run).expanduser()
    check_exists(source)
    with loading("torch", "timm"):
        from scanlearn.backbones.formats import export_format
        from scanlearn.backbones.model_card import Facts
        from scanlearn.backbones.weights import load_backbone

    is_backbone = (source / "card.json").is_file()
    finished = RunFolder(source.absolute().parent if is_backbone else source)
    runs = sorted(source.glob("arms/*/*/result.json"))
    if runs and not finished.result.is_file():
        raise ScanlearnError(f"{run} is a study: name one of its runs, such as {runs[0].parent}")
    if not is_backbone and not finished.result.is_file():
        raise ScanlearnError(
            f"{run} is not a finished run (it has no {finished.result.name}): run its pretraining "
            "again to continue from the last checkpoint"
        )
    backbone, card = load_backbone(source if is_backbone else finished.backbone, channels)
    with doing("exporting, and loading the backbone again in a fresh process"):
        exported = export_format(
            backbone,
            card,
            Path(folder).expanduser(),
            format,
            facts=Facts(license, _metrics(finished)),
        )
    library, most = exported.loading.library, exported.difference
    same = f"differ by {most:.1g} of the largest at most" if most else "are the same"
    done = f"holds the backbone; {library} loaded it, and its features {same}"
    if most is None:
        done = f"holds this export already, and nothing was written; {library} loads it so"
    say(
        f"{exported.folder} {done}:\n"
        + exported.loading.lines.replace("FOLDER", str(exported.folder))
    )
    if license is None:
        warn_user("its card names no licence; give license=, such as license=cc-by-nc-4.0")
    return exported.folder


def _metrics(run: RunFolder) -> dict[str, str]:
    """Returns the last metrics of a run in words; none of a backbone that lies elsewhere."""
    if not (run.result.is_file() and run.metrics.is_file()):
        return {}
    rows = read_rows(run.metrics, tuple(_METRICS))
    if not rows:
        return {}
    return {
        words: f"{value:.4g}"
        for words, value in zip(_METRICS.values(), rows[-1], strict=True)
        if value == value
    }
