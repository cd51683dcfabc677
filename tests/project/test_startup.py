"""What answers at once imports nothing that takes seconds, and says what it does before it does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

HEAVY = (
    *("torch", "torchvision", "timm", "lightly", "pytorch_lightning", "sklearn", "scipy", "numba"),
    *("matplotlib", "pandas", "transformers", "huggingface_hub", "pydicom", "nibabel", "wandb"),
)
# One process for all command lines: the first that imports something heavy is told by its words.
CHILD = """
import importlib, io, json, sys
from contextlib import redirect_stderr, redirect_stdout

program, lines, heavy = sys.argv[1], json.loads(sys.argv[2]), set(json.loads(sys.argv[3]))
main = importlib.import_module(program + ".cli").main
for words in lines:
    sys.argv, out, err, code = [program, *words], io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            code = stop.code
    said = (out.getvalue() + err.getvalue())[-400:]
    print(json.dumps([code, said, sorted(heavy & {*sys.modules})]))
"""

PHANTOM = "phantom:patients=16,height=32,width=32"
# A command line, its exit code and what it must say.
SCANLEARN = [
    *((["config", name], 0, ": ") for name in ("pretrain", "pack", "add", "preview", "panel")),
    *((["config", name], 0, ": ") for name in ("explain", "summary", "withdraw")),
    (["config", "pretrain", "--schema"], 0, '"type"'),
    (["explain", "simclr"], 0, "solarize"),
    (["explain", "simlr"], 2, "did you mean 'simclr'?"),
    (["explain", "dino", "operations.blurr=off"], 2, "did you mean 'blur'?"),
    (["pretrian"], 2, "Did you mean 'pretrain'?"),
    (["pretrain"], 2, "the first argument of pretrain is missing"),
    (["pretrain", "archive=scans"], 2, "settings, such as archive=scans, stand after it"),
    (["pretrain", "simcl"], 2, "did you mean 'simclr'?"),
    (["pretrain", "simclr", "archive=nowhere", "output=o"], 2, "archive: nowhere: there is no"),
    (["pretrain", "simclr", f"archive={PHANTOM}", "output=o", "bach_size=8"], 2, "'batch_size'?"),
    (
        ["pretrain", "simclr", f"archive={PHANTOM}", "output=o", "backbone.name=resnt18"],
        2,
        "backbone.name: timm has no architecture 'resnt18' (did you mean 'resnet18'?)",
    ),
    (
        [
            *("pretrain", "simclr", f"archive={PHANTOM}", "output=o"),
            *("backbone.name=resnet18.a1_in", "backbone.weights=pretrained"),
        ],
        2,
        "backbone.name: timm has no weights 'a1_in' of resnet18 (did you mean 'a1_in1k'?)",
    ),
    (
        ["pretrain", "simclr", f"archive={PHANTOM}", "output=o", "backbone.weights=w.pth"],
        2,
        "backbone.weights: w.pth: there is no such file",
    ),
    (["pretrain", "simclr", "archive=phantom:patient=9", "output=o"], 2, "'patients'?"),
    (["panel", "nowhere/backbone", PHANTOM], 2, "no such backbone folder"),
    (["preview", "scns"], 2, "did you mean 'scans'?"),
    (["config", "audit"], 0, ": "),
    (["audit", "scans", "scns"], 2, "did you mean 'scans'?"),
    (["audit", "scans", "scans", "outptu=a"], 2, "did you mean 'output'?"),
    (["export", "runs/nowhere", "b"], 2, "there is no such file or folder"),
    (["pack", "scans", "--dry-run"], 0, "Nothing was written."),
    (["pack", "scans", "packed"], 0, "packed"),
    (["summary", "packed"], 0, "summary.html"),
    (["verify", "packed"], 0, ""),
    (["withdraw", "packed", "nobody"], 2, "nobody"),
]
SCANTUNE = [
    *((["config", name], 0, ": ") for name in ("compare", "evaluate", "predict")),
    (["compare"], 2, "the first argument of compare is missing: the configuration"),
    (["compare", "dmo"], 2, "did you mean 'demo'?"),
    (["compare", "demo", "unlabeled=nowhere"], 2, "unlabeled: nowhere: there is no such"),
    (["compare", "demo", "evaluation.test=nowhere"], 2, "evaluation.test: nowhere: there is no"),
    (["compare", "demo", "pretrain.backbone.name=resnt18"], 2, "did you mean 'resnet18'?"),
    (["compare", "demo", "primary.learner=liner"], 2, "'linear'"),
    *(
        ([*words, "labels=labels.csv", "target=diagnosi", "output=o"], 2, "mean 'diagnosis'?")
        for words in (
            ["compare", "weak_strong", "unlabeled=scans"],
            ["search", "xray", "unlabeled=scans"],
        )
    ),
    (["evaluate", "thumbnail", "labels.csv", "target=diagnosi"], 2, "mean 'diagnosis'?"),
    (["compare", "demo", "target=palor", "primary.task=palor"], 2, "did you mean 'pallor'?"),
    (["evaluate", "thumbnail", "target=a"], 2, "'target=a' stands where LABELS is missing"),
    (["evaluate", "thumbnail", "scns", "target=a"], 2, "did you mean 'scans'?"),
    (["evaluate", "random:resnt18", "scans", "target=a"], 2, "did you mean 'resnet18'?"),
    (["evaluate", "thumbnal", "scans", "target=a"], 2, "did you mean 'thumbnail'?"),
    (["evaluate", "resnet18.a1_in", "scans", "target=a"], 2, "did you mean 'a1_in1k'?"),
    (["evaluate", "thumbnail", "scans", "traget=a"], 2, "did you mean 'target'?"),
    (["predict", "nowhere", "scans", "output=p.csv"], 2, "nowhere: there is no such"),
]


@pytest.mark.parametrize(
    ("program", "rows"), [("scanlearn", SCANLEARN), ("scantune", SCANTUNE)], ids=lambda value: ""
)
def test_settings_misspellings_and_missing_paths_import_nothing_heavy(
    tmp_path: Path, program: str, rows: list[tuple[list[str], int, str]]
) -> None:
    (tmp_path / "scans").mkdir()
    Image.new("L", (40, 32), 9).save(tmp_path / "scans" / "a.png")
    (tmp_path / "labels.csv").write_text("path,diagnosis\nscans/a.png,2\n")
    lines = json.dumps([words for words, _, _ in rows])
    done = subprocess.run(
        [sys.executable, "-c", CHILD, program, lines, json.dumps(HEAVY)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(rows)
    for (words, code, text), (its_code, said, heavy) in zip(rows, answers, strict=True):
        assert (its_code or 0) == code, (words, said)
        assert text in said, (words, said)
        assert not heavy, f"{program} {' '.join(words)} imports {heavy}"
    assert not (tmp_path / "o").exists()


@pytest.mark.long
def test_what_loads_torch_says_so_before(tmp_path: Path) -> None:
    words = ["export", str(tmp_path), str(tmp_path / "backbone")]
    done = subprocess.run(
        [sys.executable, "-c", "from scanlearn.cli import main; main()", *words],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first == "loading torch and timm ..."
    assert "is not a finished run" in second
