"""Every network's out-of-fold scores on every task, computed once and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from scanlearn.archive.reader import Archive
from scanlearn.console import say, track
from scanlearn.features.extract import extract, thumbnail_features
from scantune.comparison.arms import load_network
from scantune.comparison.folder import StudyFolder
from scantune.comparison.plan import THUMBNAIL, CompareConfig, EvaluationConfig
from scantune.comparison.results import RunRow
from scantune.labels.labeled_set import LabeledSet, read_labels, scorable
from scantune.scores import Scores
from scantune.scoring import score_features
from scantune.splits import budget_rows, folds_of

_BATCH = 256


@dataclass(frozen=True)
class Network:
    """One thing to score: a network of an arm, or the thumbnail.

    Args:
        arm: Its arm; the thumbnail stands for itself.
        name: Name of its score files.
        features: Computes ``[n d]`` features of the labeled archive at the given rows.
    """

    arm: str
    name: str
    features: Callable[[np.ndarray], Float[np.ndarray, "n d"]]


def read_tasks(config: CompareConfig, labels: Archive) -> dict[str, LabeledSet]:
    """Reads the labels of every task and makes sure that folds and budgets can be had.

    Done before any training: an hour of it should not end in a misspelt column.

    Raises:
        ScanlearnError: A column is missing or unusable, or there are too few patients.
    """
    evaluation = config.evaluation
    tasks = {
        task: scorable(read_labels(labels, task, split_column=evaluation.split_column))
        for task in config.tasks
    }
    for labeled in tasks.values():
        for seed in range(evaluation.label_seeds):
            _try_splits(labeled, evaluation, seed)
    return tasks


def _try_splits(labeled: LabeledSet, evaluation: EvaluationConfig, seed: int) -> None:
    for fold in folds_of(labeled, evaluation.folds, seed):
        for budget in evaluation.budgets:
            budget_rows(fold.train, labeled.truth, labeled.patients, budget, seed)


def networks_of(
    config: CompareConfig,
    folder: StudyFolder,
    runs: Sequence[RunRow],
    unlabeled: Archive,
    labels: Archive,
) -> tuple[Network, ...]:
    """The thumbnail and every network of the study."""

    def of(row: RunRow) -> Network:
        def features(rows: np.ndarray) -> Float[np.ndarray, "n d"]:
            return extract(
                load_network(config, row, folder.path, unlabeled),
                labels,
                rows,
                size=config.pretrain.views.size,
                mean=unlabeled.mean,
                std=unlabeled.std,
                batch_size=_BATCH,
            )

        return Network(row.arm, f"{row.arm}-seed-{row.seed}", features)

    thumbnail = Network(THUMBNAIL, THUMBNAIL, lambda rows: thumbnail_features(labels, rows))
    return (thumbnail, *(of(row) for row in runs))


def score_all(
    config: CompareConfig,
    folder: StudyFolder,
    networks: Sequence[Network],
    tasks: Mapping[str, LabeledSet],
) -> dict[tuple[str, str], list[Scores]]:
    """Scores every network on every task, or reads back what is finished.

    Returns:
        By task and arm, one set of scores per pretraining seed, in the order of the networks.
    """
    used = np.unique(np.concatenate([labeled.rows for labeled in tasks.values()]))
    found: dict[tuple[str, str], list[Scores]] = {}
    for network in networks:
        missing = [task for task in tasks if not folder.scores(task, network.name).is_file()]
        if missing:
            with folder.timed("features"):
                features = network.features(used)
            with folder.timed("probes"):
                _score(config.evaluation, folder, network, features, used, missing, tasks)
            say(f"scored {network.name}")
        for task in tasks:
            scores = Scores.load(folder.scores(task, network.name))
            found.setdefault((task, network.arm), []).append(scores)
    for task in tasks:
        designs = {
            scores.design_hash()
            for (name, _), members in found.items()
            if name == task
            for scores in members
        }
        assert len(designs) == 1, f"task {task}: arms were scored on different folds"
    return found


def _score(
    evaluation: EvaluationConfig,
    folder: StudyFolder,
    network: Network,
    features: Float[np.ndarray, "n d"],
    used: np.ndarray,
    missing: Sequence[str],
    tasks: Mapping[str, LabeledSet],
) -> None:
    fits = len(evaluation.learners) * len(evaluation.budgets) * evaluation.label_seeds
    folds = 1 if evaluation.split_column else evaluation.folds
    with track(len(missing) * fits * folds, f"probing {network.name}") as progress:
        for task in missing:
            labeled = tasks[task]
            scores = score_features(
                features[np.searchsorted(used, labeled.rows)],
                labeled,
                learners=evaluation.learners,
                budgets=evaluation.budgets,
                folds=evaluation.folds,
                label_seeds=evaluation.label_seeds,
                on_fit=progress.advance,
            )
            path = folder.scores(task, network.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            scores.save(path)
