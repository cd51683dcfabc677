"""Whether the preset `which_lever` finds the lever that is planted in each task of the phantom.

    python benchmarks/levers.py --work FOLDER    twelve networks: about 40 minutes of one idle core
    python benchmarks/levers.py --quick          one seed and 20 steps: that it runs, no proof

Everything is drawn by a program: no figure here is evidence about real scans. The preset crosses
weak and strong crops with weak and strong photometric changes. Networks, views and steps are those
of benchmarks/phantom.py, whose strong crop hurts `lesion` and whose strong photometric changes hurt
`pallor`. A lever's effect on a task is the AUROC with it weak minus that with it strong, the mean
of both settings of the other lever and of all pretraining seeds; beside it stand the study's own
verdicts of the two pairs of arms that differ in that lever alone.

Claims: of the two levers the planted one has the larger effect on `lesion` and on `pallor`, .02 or
more, and no pair of arms is called different on `null`. Exits with 1 where one fails. A run that
was stopped goes on with `--work` the same folder.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from common import hush, options, save
from jaxtyping import Float

from scanlearn.config import load_config
from scantune.comparison.compare import compare
from scantune.study.plan import CompareConfig
from scantune.study.results import Results, read_results

OWN_LEVER = {"lesion": "crop", "pallor": "photo"}
LEVELS = (0.5, 1.0)
LEAST_EFFECT = 0.02


def plan_of(work: Path, phantom: int, words: list[str]) -> CompareConfig:
    """Returns the preset on a phantom, with a network small enough for one core."""
    settings = [
        f"unlabeled=phantom:patients=300,seed={phantom},size=128,tilt=0",
        f"labels=phantom:patients=400,seed={1000 + phantom},size=128,tilt=0",
        "tasks=[lesion, pallor, 'null']",
        f"output={work / f'levers-{phantom}'}",
        "pretrain.backbone.name=test_resnet",
        # At SimCLR's own .1 both levers strong collapse a network this small.
        "pretrain.method={name: simclr, temperature: 0.2}",
        "pretrain.views={recipe: simclr, modality: null, size: 32}",
        "pretrain.batch_size=64",
        "pretrain.steps=600",
        "evaluation.learners=[linear]",
        "evaluation.budgets=[all]",
        "evaluation.label_seeds=1",
        "primary.task=lesion",
    ]
    return load_config(CompareConfig, "which_lever", [*settings, *words], kind="compare")


def arm_of(lever: str, level: float, other: float) -> str:
    """Returns the preset's arm with one lever at a level, and the other at another."""
    crop, photo = (level, other) if lever == "crop" else (other, level)
    return f"crop{crop:g}-photo{photo:g}"


def effect(results: Results, lever: str, task: str) -> Float[np.ndarray, " n"]:
    """Returns what making a lever strong takes from a task's AUROC, per pretraining seed."""
    per_seed = {
        score.arm: np.array(score.per_seed, dtype=np.float64)
        for score in results.table
        if score.task == task
    }
    weak, strong = ([per_seed[arm_of(lever, level, o)] for o in LEVELS] for level in LEVELS)
    return np.asarray(np.mean(weak, axis=0) - np.mean(strong, axis=0))


def verdicts(results: Results, lever: str, task: str) -> list[str]:
    """Returns what the study says of the arms that differ in one lever, weak against strong."""
    told = []
    turned = {"better": "worse", "worse": "better", "higher": "lower", "lower": "higher"}
    for other in LEVELS:
        weak, strong = (arm_of(lever, level, other) for level in LEVELS)
        for row in results.differences:
            if row.task == task and {row.a, row.b} == {weak, strong}:
                kind: str = row.verdict
                told.append(kind if row.a == weak else turned.get(kind, kind))
    return told


def main() -> int:
    parser = options(__doc__, quick="one seed, 20 steps")
    parser.add_argument("--work", type=Path, help="folder for the study; kept")
    parser.add_argument("--phantom", type=int, default=0, help="seed of patients and scans")
    arguments = parser.parse_args()
    hush()
    words = ["seeds=[0]", "pretrain.steps=20"] if arguments.quick else []
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_of(arguments.work or Path(folder), arguments.phantom, words)
        compare(plan)
        results = read_results(Path(plan.output))
    figures: dict[str, float] = {}
    failed = []
    print(f"\nDrawn by a program; no evidence about real scans.\n{'':8s}{'lever':8s}effect")
    for task in plan.task_names:
        means = {}
        for lever in ("crop", "photo"):
            found = effect(results, lever, task)
            means[lever] = figures[f"effect_of_{lever}_on_{task}"] = float(found.mean())
            deviation = f" ± {found.std(ddof=1):.3f}" if len(found) > 1 else ""
            said = "weak against strong: " + ", ".join(verdicts(results, lever, task))
            print(f"{task:8s}{lever:8s}{found.mean():+.3f}{deviation}  {said}")
        own = OWN_LEVER.get(task)
        if own is not None and (means[own] < LEAST_EFFECT or means[own] < max(means.values())):
            failed.append(f"{task}: its lever, {own}, takes {means[own]:.3f}")
    called = [row for row in results.differences if row.task == "null" and row.verdict != "none"]
    failed += [f"null: {row.a} is called {row.verdict} than {row.b}" for row in called]
    print("\n".join(f"FAILED {claim}" for claim in failed) or "every claim holds")
    save(figures, arguments.json)
    return 1 if failed and not arguments.quick else 0


if __name__ == "__main__":
    sys.exit(main())
