"""How often two arms of one recipe are called different: studies drawn from a bank of networks.

    python benchmarks/aa.py --work FOLDER     20 networks, 500 splits: about 5 minutes of one core
    python benchmarks/aa.py --quick           10 networks of 10 steps and 100 splits

Everything is drawn by a program: no figure here is evidence about real scans. One arm of a study,
weak views (s = .5), is pretrained with 20 seeds on the phantom and scored on its tasks. The 20 are
then dealt at random to two arms of 2, 3 or 5 networks each, and the study's own test compares the
two, each task as a primary comparison: whatever it calls different at p < .05 is an error. Two arms
alone tell the variance between seeds by the plain formula; a third arm beside them, dealt from the
same 20, lets it be moderated.

Splits share their networks and patients. The interval of a rate is therefore that of a jackknife
over networks: the rate of the splits without a network, for each network. It tells what another
bank would give on these patients; a bank of other patients is another `--phantom`.

A run that was stopped goes on with `--work` the same folder.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import hush, options, save, silence
from jaxtyping import Bool, Int
from scipy.special import stdtrit

from scanlearn.backbones.weights import load_backbone
from scanlearn.config import load_config
from scanlearn.features.extract import extract
from scanlearn.packing.sources import open_archive
from scanlearn.training.pretrain import pretrain
from scanlearn.training.settings import PretrainConfig
from scantune.labels.labeled_set import read_labels
from scantune.scores import Scores
from scantune.scoring import score_features
from scantune.statistics.intervals import Estimate, estimate, patient_weights
from scantune.study.plan import CompareConfig
from scantune.study.summary import Cell, Place, paired_rows

NETWORKS, SPLITS, STEPS = 20, 500, 40
PER_ARM = (2, 3, 5)
ARMS = ("a", "b", "c")
LEVEL = 0.05


class Bank(NamedTuple):
    """Networks of one recipe, by task and learner."""

    scores: dict[str, list[Scores]]
    estimates: dict[tuple[str, str], list[Estimate]]


def fill(work: Path, networks: int, steps: int, phantom: int) -> Bank:
    """Returns the bank of a phantom; what ``work`` holds of it already is not made again."""
    unlabeled, labeled = (
        open_archive(f"phantom:patients=300,seed={seed},size=64x64", cache=work / "cache")
        for seed in (phantom, 1000 + phantom)
    )
    plan = load_config(CompareConfig, "demo", [], kind="compare")
    tasks = {task: read_labels(labeled, task) for task in plan.task_names}
    scores: dict[str, list[Scores]] = {task: [] for task in tasks}
    for seed in range(networks):
        run = work / f"phantom-{phantom}" / f"{steps}-steps-seed-{seed}"
        files = {task: run / f"{task}.npz" for task in tasks}
        if not all(file.is_file() for file in files.values()):
            settings = plan.pretrain.model_dump() | {"steps": steps, "seed": seed}
            scale = {"views": {**settings["views"], "scale": 0.5}}
            places = {"archive": str(unlabeled.path), "output": str(run)}
            config = PretrainConfig.model_validate({**settings, **scale, **places})
            with silence():
                backbone, _ = load_backbone(pretrain(config).backbone)
            features = extract(
                backbone,
                labeled,
                size=plan.pretrain.views.size,
                mean=unlabeled.mean,
                std=unlabeled.std,
            )
            for task, file in files.items():
                score_features(
                    features, tasks[task], learners=plan.evaluation.learners, label_seeds=1
                ).save(file)
            print(f"network {seed + 1} of {networks}", flush=True)
        for task, file in files.items():
            scores[task].append(Scores.load(file))
    estimates = {}
    for task, members in scores.items():
        weights = patient_weights(members[0], replicates=plan.evaluation.replicates)
        for learner in members[0].learners:
            estimates[task, learner] = [
                estimate(member, learner, "all", weights) for member in members
            ]
    return Bank(scores, estimates)


class Tested(NamedTuple):
    """What the study's test says of two arms, by places of the bank."""

    different: list[bool]
    width: list[float]


def test(bank: Bank, dealt: Int[np.ndarray, "arms n"]) -> Tested:
    """Returns what the study says of the first two arms, each task as its primary comparison.

    Args:
        dealt: Which networks of the bank each arm has.
    """
    estimates: dict[Cell, list[Estimate]] = {}
    scores: dict[tuple[str, str], list[Scores]] = {}
    for arm, networks in zip(ARMS, dealt, strict=False):
        for task, members in bank.scores.items():
            scores[task, arm] = [members[network] for network in networks]
        for (task, learner), each in bank.estimates.items():
            estimates[task, learner, "all", arm] = [each[network] for network in networks]
    compared: list[tuple[Place, str, str]] = [
        ((task, learner, "all"), ARMS[0], ARMS[1]) for task, learner in bank.estimates
    ]
    rows = paired_rows(compared, set(ARMS[: len(dealt)]), estimates, scores, margin=0.01)
    # Not corrected for one another.
    different = [row.p is not None and row.p < LEVEL for row in rows]
    return Tested(different, [(row.high or math.nan) - (row.low or math.nan) for row in rows])


class Rate(NamedTuple):
    """How often arms were called different, with its 95 % interval over networks."""

    rate: float
    low: float
    high: float


def rate_of(different: Bool[np.ndarray, "s t"], used: Bool[np.ndarray, "s n"]) -> Rate:
    """Returns the rate over splits and tasks, its interval by a jackknife over networks.

    Args:
        different: Of each split and task whether the arms were called different.
        used: Which networks a split dealt.
    """
    rate = float(different.mean())
    n = used.shape[1]
    without = np.array([different[~used[:, network]].mean() for network in range(n)])
    half = float(stdtrit(n - 1, 0.975) * np.sqrt((n - 1) * without.var()))
    return Rate(rate, max(0.0, rate - half), min(1.0, rate + half))


def main() -> None:
    parser = options(__doc__, quick="10 networks of 10 steps, 100 splits")
    parser.add_argument("--work", type=Path, help="folder for the bank; kept")
    parser.add_argument("--phantom", type=int, default=0, help="seed of patients and scans")
    arguments = parser.parse_args()
    hush()
    networks, steps, splits = (10, 10, 100) if arguments.quick else (NETWORKS, STEPS, SPLITS)
    with tempfile.TemporaryDirectory() as folder:
        bank = fill(arguments.work or Path(folder), networks, steps, arguments.phantom)
    figures: dict[str, float] = {}
    print(f"{networks} networks of one recipe, {steps} steps; drawn, no evidence about real scans")
    for (task, learner), members in bank.estimates.items():
        aurocs = [each.auroc for each in members]
        mean, deviation = float(np.mean(aurocs)), float(np.std(aurocs, ddof=1))
        figures |= {f"{task}_{learner}_auroc": mean, f"{task}_{learner}_seed_sd": deviation}
        print(f"{task:8s} {learner:6s} AUROC {mean:.3f}, between seeds {deviation:.3f}")
    for arms, per_arm in ((arms, n) for arms in (2, 3) for n in PER_ARM):
        if arms * per_arm > networks:
            continue
        generator = np.random.default_rng([arms, per_arm])
        used = np.zeros((splits, networks), dtype=np.bool_)
        found = []
        for split in range(splits):
            dealt = generator.permutation(networks)[: arms * per_arm].reshape(arms, per_arm)
            used[split, dealt[:2].ravel()] = True
            found.append(test(bank, dealt))
        different = np.array([each.different for each in found])
        widths = np.median([each.width for each in found], axis=0)
        against = f"{per_arm} against {per_arm}" + (", a third arm beside them" * (arms == 3))
        print(f"\n{against}: {splits} splits, called different at p < {LEVEL}; width of interval")
        names = ["all", *(f"{task}_{learner}" for task, learner in bank.estimates)]
        columns = [different, *np.split(different, len(names) - 1, axis=1)]
        for name, column, width in zip(names, columns, [np.mean(widths), *widths], strict=True):
            rate, key = rate_of(column, used), f"arms{arms}_seeds{per_arm}_{name}"
            figures |= {key: rate.rate, f"{key}_width": float(width)}
            interval = f"({rate.low:.3f} to {rate.high:.3f})"
            print(f"    {name:16s} {rate.rate:.3f} {interval}  {width:.3f}", flush=True)
    save(figures, arguments.json)


if __name__ == "__main__":
    main()
