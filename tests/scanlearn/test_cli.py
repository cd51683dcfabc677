from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from scanlearn.cli import CONFIGURED, app, run
from scanlearn.errors import ScanlearnError
from scantune.cli import app as scantune

COMMANDS = (
    *("pack", "add", "withdraw", "summary", "audit", "preview", "explain", "pretrain"),
    *("export", "panel", "config"),
)


def command(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from scanlearn.cli import main; main()", *words],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=cwd,
    )


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from scanlearn.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'timm', 'numpy', 'pyarrow', 'lightly'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, text=True, timeout=60
    )
    seconds = time.perf_counter() - started
    assert done.returncode == 0, done.stderr
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)
    # Two hundredths of a second when nothing else runs; a loaded machine gets slack.
    assert seconds < 5


def test_wrong_input_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    done = command("pack", str(tmp_path), str(tmp_path / "archive"), cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "archive").exists()


def test_a_misspelt_setting_is_named_with_the_nearest_key(tmp_path: Path) -> None:
    done = command("pack", str(tmp_path), "archive", "canvass=64", cwd=tmp_path)
    assert done.returncode == 2
    assert "'canvass' is not a key (did you mean 'canvas'?)" in done.stderr


def test_other_errors_keep_their_traceback() -> None:
    def broken() -> None:
        raise ValueError("only we can break this")

    with pytest.raises(ValueError, match="only we"):
        run(broken)  # type: ignore[arg-type]


def test_interruption_exits_130(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        run(interrupted)  # type: ignore[arg-type]
    assert caught.value.code == 130
    assert "run the same command again" in capsys.readouterr().err


@pytest.mark.parametrize("name", CONFIGURED)
def test_config_prints_a_commented_yaml_and_a_schema(name: str) -> None:
    from scanlearn.config import parse_value

    printed = CliRunner().invoke(app, ["config", name])
    assert printed.exit_code == 0, printed.exception
    assert printed.stdout.startswith(f"# scanlearn {name} {CONFIGURED[name].usage} key=value")
    schema = CliRunner().invoke(app, ["config", name, "--schema"])
    assert set(parse_value(printed.stdout)) == set(json.loads(schema.stdout)["properties"])
    assert f"scanlearn config {name}" in CliRunner().invoke(app, [name, "--help"]).stdout


def test_config_of_an_unknown_command_lists_the_known_ones() -> None:
    done = command("config", "pakc")
    assert done.returncode == 2
    assert "'pack'?" in done.stderr
    assert ", ".join(CONFIGURED) in done.stderr


TINY = (
    *("pretrain", "simclr", "archive=phantom:patients=16,height=32,width=32", "output=run"),
    *("backbone.name=test_resnet", "views.size=16", "batch_size=8", "device=cpu"),
)


@pytest.mark.long
def test_a_dry_run_prints_an_estimate_and_makes_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCANLEARN_CACHE", str(tmp_path / "cache"))
    done = command(*TINY, "steps=5", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    names = [line.split()[0] for line in lines if not line.startswith(" ")]
    assert names[-5:] == ["steps", "time", "views", "memory", "disk"]
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


@pytest.mark.long
def test_a_run_asked_to_stop_exits_75_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCANLEARN_CACHE", str(tmp_path / "cache"))
    words = (*TINY, "steps=400", "logging.every_steps=1")
    started = subprocess.Popen(
        [sys.executable, "-c", "from scanlearn.cli import main; main()", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    rows = tmp_path / "run" / "metrics.csv"
    deadline = time.monotonic() + 600
    while not (rows.is_file() and rows.read_text().count("\n") > 3):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    started.terminate()
    out, err = started.communicate(timeout=600)
    assert started.returncode == 75, err
    assert "Traceback" not in err
    assert "stopped by SIGTERM after step" in out.splitlines()[-1]
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resuming at step" in done.stdout
    steps = [int(row.split(",")[0]) for row in rows.read_text().splitlines()[1:]]
    assert steps == list(range(1, 401))


def test_a_recipe_is_explained_without_any_scans(tmp_path: Path) -> None:
    words = ("scale=weak", "channels=1", "operations.solarize=off", "operations.hue=0.05")
    done = command("explain", "dino", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("dino at scale 0.5 on one channel")
    assert "by hand: solarize off, hue 0.05" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert list(tmp_path.iterdir()) == []
    wrong = command("explain", "dino", "operations.blurr=off")
    assert wrong.returncode == 2
    assert "did you mean 'blur'?" in wrong.stderr


def test_a_dry_run_of_pack_needs_no_archive_and_writes_nothing(tmp_path: Path) -> None:
    Image.new("L", (5, 4)).save(tmp_path / "a.png")
    for words in (["drop.Modality=CR"], [str(tmp_path / "archive"), "drop.Modality=[CR, DX]"]):
        done = CliRunner().invoke(app, ["pack", str(tmp_path), "--dry-run", *words])
        assert done.exit_code == 0, done.output
        assert "1 file, 1 scan, 0 patients" in done.output
        assert "The filter leaves out 0 files" in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_pack_without_an_archive_says_what_is_missing(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["pack", str(tmp_path)])
    assert isinstance(done.exception, ScanlearnError)
    assert "needs the folder to write the archive to" in str(done.exception)


SETTING = "channels=1"


def missing_places() -> list[tuple[str, list[str], str]]:
    """Returns every command line with a setting in the stead of one of its files and folders."""
    rows = []
    for program, application in (("scanlearn", app), ("scantune", scantune)):
        for name, each in get_command(application).commands.items():  # type: ignore[attr-defined]
            places = [
                parameter.metavar
                for parameter in each.params
                if parameter.param_type_name == "argument" and parameter.nargs == 1
            ]
            for at, metavar in enumerate(places):
                if metavar not in ("CONFIG", "RECIPE", "COMMAND"):
                    words = [SETTING if other == at else "there" for other in range(len(places))]
                    rows.append((program, [name, *words, "further"], metavar))
    return rows


@pytest.mark.parametrize(("program", "words", "metavar"), missing_places())
def test_a_setting_in_the_stead_of_a_file_or_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, words: list[str], metavar: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    application = app if program == "scanlearn" else scantune
    done = CliRunner().invoke(application, words, prog_name=program)
    assert isinstance(done.exception, ScanlearnError)
    message = str(done.exception)
    assert message.startswith(f"'{SETTING}' stands where {metavar} is missing")
    assert f": {program} {words[0]} [OPTIONS] " in message
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_folder_that_is_called_like_a_setting_is_taken(tmp_path: Path) -> None:
    (tmp_path / "lr=1").mkdir()
    Image.new("L", (5, 4)).save(tmp_path / "lr=1" / "a.png")
    for folder in ("lr=1", "./lr=1"):
        assert "1 file, 1 scan" in command("pack", folder, "--dry-run", cwd=tmp_path).stdout
    done = command("pack", "lr=1", "./canvas=8", "canvas=8", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "canvas=8" / "archive.json").is_file()


def test_patterns_and_the_summary_are_taken_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("L", (5, 4)).save(tmp_path / "scans" / name)
    (tmp_path / "scans" / "t.csv").write_text("path,view\na.png,PA\nb.png,LL\n")
    words = [str(tmp_path / "scans" / "t.csv"), str(tmp_path / "a"), "keep.view=[pa,ap]"]
    assert CliRunner().invoke(app, ["pack", *words, "summary=false", "canvas=8"]).exit_code == 0
    info = json.loads((tmp_path / "a" / "archive.json").read_text())
    assert info["scans"] == 1
    assert info["notes"] == {"files left out by keep.view": 1}
    assert not (tmp_path / "a" / "summary.html").exists()
    assert CliRunner().invoke(app, ["summary", str(tmp_path / "a"), "scans=0"]).exit_code == 0
    assert (tmp_path / "a" / "summary.html").is_file()


@pytest.mark.long
def test_a_masked_autoencoder_and_an_old_densenet_are_loaded_and_that_is_said(
    tmp_path: Path, write_archive: Callable[..., Any]
) -> None:
    archive = write_archive(np.arange(16 * 48 * 48).reshape(16, 1, 48, 48).astype(np.uint8)).path
    import timm
    import torch
    import torchvision

    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict()
    decoder = {"mask_token": torch.zeros(1, 1, 8), "decoder_embed.weight": torch.zeros(8, 192)}
    torch.save({"model": vit | decoder, "args": argparse.Namespace()}, tmp_path / "mae.pth")
    layer, old = r"(denselayer\d+\.(?:norm|conv))(\d)\.", r"\1.\2."
    table = {
        "module.densenet121." + re.sub(layer, old, name): tensor
        for name, tensor in torchvision.models.densenet121(weights=None).state_dict().items()
        if "num_batches" not in name
    }
    torch.save({"state_dict": table}, tmp_path / "chexnet.pth.tar")
    for name, file, words in (
        ("vit_tiny_patch16_224", "mae.pth", "without its mask_token, decoder_embed.weight"),
        ("densenet121", "chexnet.pth.tar", "without its module.densenet121.classifier.weight"),
    ):
        done = command(
            *("pretrain", "simclr", f"archive={archive}", "output=run", f"backbone.name={name}"),
            *(f"backbone.weights={file}", "views.size=32", "batch_size=4", "--dry-run"),
            cwd=tmp_path,
        )
        assert f"begins from {file}" in done.stdout, done.stderr
        assert words in done.stdout
