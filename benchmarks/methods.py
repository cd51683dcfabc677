"""What each method learns: its default against the untrained backbone and the 16 x 16 thumbnail.

    python benchmarks/methods.py UNLABELED LABELS.csv --task pneumonia --output runs/methods

For each method `scantune compare` pretrains ResNet-10-T on 64-px views at the default scale, then
scores it on the labeled scans at 50, 100 and all labels. The untrained backbone has BatchNorm
statistics of whole unlabeled scans. Printed are AUROCs and the differences, paired by patient, with
95 % intervals. A study that is finished is read back, and one that was stopped goes on. On one CPU
core (fp32) the four methods take about an hour a seed for 5,840 scans.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path

from scanlearn.config import load_config
from scantune.scores import Scores
from scantune.statistics.intervals import Estimate, estimate, paired_difference, patient_weights
from scantune.study.plan import CompareConfig
from scantune.study.run import run_study

METHODS = ("simclr", "mocov2", "mocov3", "dino")
ARM = "weak"


def words(arguments: argparse.Namespace, method: str) -> list[str]:
    """The study of one method, as overrides of the shipped comparison."""
    return [
        f"unlabeled={arguments.unlabeled}",
        f"labels={arguments.labels}",
        f"tasks=[{arguments.task}]",
        f"output={arguments.output / method}",
        f"arms={{random: {{kind: random}}, {ARM}: {{scale: 0.5}}}}",
        f"seeds={list(range(arguments.seeds))}",
        f"primary={{learner: linear, budget: all, better: {ARM}, than: random}}",
        f"pretrain.method.name={method}",
        "pretrain.views.recipe=null",
        # The recipe as published: the shipped comparison names the X-ray policy.
        "pretrain.views.modality=null",
        f"pretrain.epochs={arguments.epochs}",
    ]


def differences(folder: Path, task: str, seeds: int) -> list[str]:
    """One line per learner and budget: the AUROC and its differences."""
    scores = folder / "scores" / task

    def read(name: str) -> list[Scores]:
        return [Scores.load(scores / f"{name}-seed-{seed}.npz") for seed in range(seeds)]

    learned, random = read(ARM), read("random")
    thumbnail = [Scores.load(scores / "thumbnail.npz")] * seeds
    weights = patient_weights(learned[0])
    lines = []
    for learner, budget in product(("linear", "knn"), learned[0].budgets):

        def estimates(
            found: list[Scores], learner: str = learner, budget: str = budget
        ) -> list[Estimate]:
            return [estimate(one, learner, budget, weights) for one in found]

        own = estimates(learned)
        cells = [f"{sum(one.auroc for one in own) / len(own):.3f}"]
        for other in (random, thumbnail):
            found = paired_difference(own, estimates(other))
            cells.append(f"{found.estimate:+.3f} ({found.low:+.3f} to {found.high:+.3f})")
        lines.append(f"{learner:7s} {budget:>4s}   {cells[0]}   {cells[1]}   {cells[2]}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("unlabeled")
    parser.add_argument("labels")
    parser.add_argument("--task", default="pneumonia")
    parser.add_argument("--output", type=Path, default=Path("runs/methods"))
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=float, default=4)
    arguments = parser.parse_args()
    for method in arguments.methods:
        config = load_config(CompareConfig, "xray", words(arguments, method), kind="compare")
        run_study(config)
    for method in arguments.methods:
        folder = arguments.output / method
        seconds = json.loads((folder / "timing.json").read_text()).get("pretraining")
        print(f"\n{method}" + (f", pretrained in {seconds:,.0f} s" if seconds else ""))
        print("                AUROC   against the untrained one     against the thumbnail")
        print("\n".join(differences(folder, arguments.task, arguments.seeds)))


if __name__ == "__main__":
    main()
