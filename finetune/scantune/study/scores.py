"""Every network's out-of-fold scores on every task, computed once and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import Float32

from scanlearn.archive.reader import Archive
from scanlearn.console import say, track, warn_user
from scanlearn.errors import ScanlearnError
from scanlearn.features.extract import all_square
from scanlearn.files import disk_errors, features_folder, make_folder
from scanlearn.views.of_archive import left_out_in_words
from scantune.evaluation.backbone import EvaluatedBackbone, open_backbone
from scantune.evaluation.classifier import View
from scantune.evaluation.evaluate import fit_learners, num_fits
from scantune.evaluation.settings import THUMBNAIL
from scantune.labels.labeled_set import LabeledSet
from scantune.labels.open import Question, read_question
from scantune.learners.learner import LabeledScans
from scantune.learners.table import FROZEN_LEARNERS, LEARNERS
from scantune.scores import Scores, are_kept
from scantune.scoring import check_features
from scantune.splits import budget_rows, folds_of
from scantune.study.arms import load_given, load_network
from scantune.study.folder import StudyFolder
from scantune.study.kept import Part, extended, parts_missing, selected
from scantune.study.plan import CompareConfig, EvaluationConfig
from scantune.study.results import RunRow
from scantune.study.sharing import SharedPiece, make_all


@dataclass(frozen=True)
class Network:
    """One thing to score: a network of an arm, or the thumbnail.

    Args:
        load: Loads it; called only where some task is not scored yet.
        weights: Hash of its weights; empty for the thumbnail, which has none.
        learners: Those that score it; None for all that can.
        archives: The labeled scans as they are packed for it; empty for those of the others.
    """

    arm: str
    name: str
    load: Callable[[], EvaluatedBackbone]
    weights: str = ""
    learners: tuple[str, ...] | None = None
    archives: tuple[Archive, ...] = ()


def read_tasks(config: CompareConfig, archives: tuple[Archive, ...]) -> dict[str, LabeledSet]:
    """Reads the labels of every task and makes sure that folds and budgets can be had.

    Done before any training: an hour of it should not end in a misspelt column.

    Raises:
        ScanlearnError: A column is missing or unusable, or there are too few patients.
    """
    evaluation = config.evaluation
    tasks = {}
    for name, target in zip(config.task_names, config.tasks, strict=True):
        question = Question(
            target,
            evaluation.classes,
            evaluation.ordinal,
            evaluation.multilabel,
            evaluation.split_column,
            evaluation.synthetic_column,
        )
        tasks[name] = read_question(archives, question, config.labels, evaluation.test).labeled
        labeled = tasks[name]
        for seed in range(evaluation.label_seeds):
            for fold in folds_of(labeled, evaluation.folds, seed):
                for budget in evaluation.budgets:
                    budget_rows(fold.train, labeled.truth, labeled.patients, budget, seed)
    return tasks


def networks_of(
    config: CompareConfig,
    folder: StudyFolder,
    runs: Sequence[RunRow],
    unlabeled: Archive,
    labels: Archive,
    packed_again: Mapping[str, tuple[Archive, ...]] = MappingProxyType({}),
) -> tuple[Network, ...]:
    """The thumbnail, where some learner can score it, and every network of the study.

    What is not trained here has one network for all seeds, called as its arm is.

    Args:
        packed_again: The labeled scans of arms that have their own ``canvas``.
    """
    view = View(config.pretrain.views.size, unlabeled.mean, unlabeled.std)

    def load(row: RunRow) -> EvaluatedBackbone:
        network = load_network(config, row, folder.path, unlabeled)
        return EvaluatedBackbone({"kind": row.arm}, network, None, view)

    networks = []
    for row in runs:
        is_seeded = config.arms[row.arm].kind in ("pretrained", "random")
        name = f"{row.arm}-seed-{row.seed}" if is_seeded else row.arm
        archives = packed_again.get(row.arm, ())
        scans = archives[0] if archives else labels
        open_it = partial(load, row) if is_seeded else partial(load_given, config, row.arm, scans)
        learners = config.learners_of(row.arm)
        networks.append(Network(row.arm, name, open_it, row.final_hash, learners, archives))
    if learners := config.learners_of(THUMBNAIL):
        thumbnail = partial(open_backbone, THUMBNAIL, labels, None)
        networks.insert(0, Network(THUMBNAIL, THUMBNAIL, thumbnail, learners=learners))
    return tuple(networks)


@dataclass(frozen=True)
class StudyScores:
    """The scores of a study's networks: each file is read once, unless another command writes it.

    Args:
        config: The plan under the modality that was taken.
        archives: The labeled scans, and an external test set where there is one.
        tasks: Of `read_tasks`.
    """

    config: CompareConfig
    folder: StudyFolder
    archives: tuple[Archive, ...]
    tasks: Mapping[str, LabeledSet]
    _kept: dict[Path, tuple[object, Scores]] = field(default_factory=dict)

    def check(self, networks: Sequence[Network]) -> None:
        """Refuses kept scores that are not of these networks; errors are those of `of_all`."""
        for network in networks:
            for task in self.tasks:
                self._read(network, task)

    def of_all(self, networks: Sequence[Network]) -> dict[tuple[str, str], list[Scores]]:
        """Scores every network that no other command scores, or takes what is finished.

        Returns:
            By task and arm, one set of scores per pretraining seed, in the order of the networks.

        Raises:
            ScanlearnError: Kept scores are damaged, or of other weights, scans, labels or folds.
        """
        folder = self.folder
        if self.config.evaluation.network_learners:
            _say_cost(self.config, networks, self.archives[0], self.tasks)
        paths = [folder.scores(task, network.name) for network in networks for task in self.tasks]
        if num_old := sum(path.is_file() and not are_kept(path) for path in paths):
            warn_user(
                f"{folder.path}: {num_old} of its scores are of an earlier version, whose linear "
                "probes stopped early and which scored a class that no training scan has .5; they "
                "are computed again"
            )
        scores: dict[tuple[str, str], list[Scores]] = {}
        designs: dict[str, str] = {}
        is_narrow = False
        of_network: dict[str, dict[str, Scores]] = {}

        def score(network: Network) -> None:
            of_network[network.name] = self.of(network)

        make_all([self.piece(network, score) for network in networks])
        for network in networks:
            for task, each in of_network[network.name].items():
                is_narrow |= each.num_folds > 1 and _is_narrow(each)
                # The thumbnail has fewer learners, but the same folds and subsets.
                design = replace(each, learners=()).design_hash()
                if designs.setdefault(task, design) != design:
                    raise _foreign(folder.scores(task, network.name))
                scores.setdefault((task, network.arm), []).append(each)
        if is_narrow:
            warn_user(
                f"{folder.path}: some of its scores are of an earlier release, which refitted "
                "nothing: their intervals hold cross-validated models fixed and are too narrow; "
                "delete them to have them computed again"
            )
        return scores

    def piece(self, network: Network, score: Callable[[Network], object]) -> SharedPiece:
        """Returns the scores of a network as a piece, which `of` makes."""
        place = self.folder.path / "scores" / network.name
        return SharedPiece(f"the scores of {network.name}", place, partial(score, network))

    def of(self, network: Network) -> dict[str, Scores]:
        """Returns a network's scores on every task; fits what is not kept, and keeps it.

        Errors are those of `of_all`.
        """
        settings = self._settings(network)
        asked = (settings.learners, tuple(map(str, settings.budgets)), settings.label_seeds)
        kept = {task: self._read(network, task) for task in self.tasks}
        missing = {task: parts_missing(kept[task], *asked) for task in self.tasks}
        if any(missing.values()):
            archives = network.archives or self.archives
            _score(settings, self.folder, network, archives, self.tasks, kept, missing)
            say(f"scored {network.name}")
        for task, scores in kept.items():
            if scores is not None:
                path = self.folder.scores(task, network.name)
                self._kept[path] = _stamp(path), scores
        return {task: selected(each, *asked) for task, each in kept.items() if each is not None}

    def _settings(self, network: Network) -> EvaluationConfig:
        scoring = self.config.scoring
        return scoring if network.learners is None else scoring.only(network.learners)

    def _read(self, network: Network, task: str) -> Scores | None:
        """Returns the scores that are kept of a network on a task; None where there are none."""
        path = self.folder.scores(task, network.name)
        if not path.is_file():
            return None
        stamp = _stamp(path)
        if path not in self._kept or self._kept[path][0] != stamp:
            if not are_kept(path):
                return None
            archives, settings = network.archives or self.archives, self._settings(network)
            scores = _checked(path, network, archives, self.tasks[task], settings)
            self._kept[path] = stamp, scores
        return self._kept[path][1]


def _stamp(path: Path) -> object:
    """Returns what changes when a file is written anew."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _checked(
    path: Path,
    network: Network,
    archives: tuple[Archive, ...],
    labeled: LabeledSet,
    settings: EvaluationConfig,
) -> Scores:
    """Reads the scores of a network on a task.

    Raises:
        ScanlearnError: They are damaged, or of other weights, scans, labels, folds or settings.
    """
    kept = Scores.load(path)
    is_same = kept.made_from == _origin(network, archives, labeled)
    is_same &= np.array_equal(kept.truth.matrix, labeled.truth.matrix)
    is_same &= kept.classes == labeled.classes
    for seed, fold_of in enumerate(kept.fold_of):
        folds = folds_of(labeled, settings.folds, seed)
        is_same &= len(folds) == kept.num_folds
        is_same &= all((fold_of[fold.test] == number).all() for number, fold in enumerate(folds))
    if not is_same:
        raise _foreign(path)
    for learner, before in zip(kept.learners, kept.settings, strict=False):
        now = _settings_of(learner, settings)
        if learner in settings.learners and before not in ("", now):
            raise ScanlearnError(
                f"{path}: {learner} was scored with evaluation.tune {before}, and the plan has "
                f"{now}: restore these settings, name another output folder, or delete the scores "
                "to have them computed again"
            )
    return kept


def _settings_of(learner: str, settings: EvaluationConfig) -> str:
    """Returns the settings that a learner's scores depend on, those that differ from defaults."""
    read = set(LEARNERS[learner].reads)
    return json.dumps(settings.tune.model_dump(mode="json", include=read, exclude_defaults=True))


def _is_narrow(scores: Scores) -> bool:
    """Whether a learner that can be refitted was not."""
    if scores.refits is None:
        return True
    is_frozen = [name in FROZEN_LEARNERS for name in scores.learners]
    return bool(np.isnan(scores.refits[is_frozen]).all(axis=(2, 3, 4)).any())


def _foreign(path: Path) -> ScanlearnError:
    # Scores of another arm, or of labels before they were corrected, were taken.
    return ScanlearnError(
        f"{path}: was made from other weights, scans, labels or folds than those of this study; "
        "delete the file to have it computed again"
    )


def _origin(network: Network, archives: Sequence[Archive], labeled: LabeledSet) -> str:
    """Returns a hash of the weights, scans and labels that a network's scores come from."""
    hashes = [archive.content_hash for archive in archives]
    shown = () if all(map(all_square, archives)) else ("pad",)
    names = (network.weights, *hashes, labeled.truth.task, *labeled.classes, *shown)
    digest = hashlib.sha256(repr(names).encode())
    arrays = (labeled.truth.matrix, labeled.patients, labeled.rows, labeled.sources)
    for array in (*arrays, labeled.truth.synthetic, labeled.split):
        text = None if array is None else array.tolist()
        digest.update(repr(text).encode())
    return digest.hexdigest()


def _say_cost(
    config: CompareConfig,
    networks: Sequence[Network],
    labels: Archive,
    tasks: Mapping[str, LabeledSet],
) -> None:
    scoring = config.scoring
    learners, on_views = scoring.network_learners, scoring.trained_on_views
    count = sum(network.arm != THUMBNAIL for network in networks)
    settings = scoring.model_copy(update={"learners": learners})
    fits = sum(num_fits(settings, labeled) for labeled in tasks.values())
    say(
        f"{', '.join(learners)}: {fits * count:,} trainings, {fits:,} for each of {count} "
        "networks, which may take minutes each; scores are kept after every network. Fewer "
        "evaluation.label_seeds, folds or budgets take less time"
    )
    if on_views:
        say(f"{', '.join(on_views)}: {scoring.views_in_words}")
        for words in left_out_in_words(scoring.tune.left_out(labels)):
            say(words)


def _score(
    settings: EvaluationConfig,
    folder: StudyFolder,
    network: Network,
    archives: tuple[Archive, ...],
    tasks: Mapping[str, LabeledSet],
    kept: dict[str, Scores | None],
    missing: Mapping[str, Sequence[Part]],
) -> None:
    """Fits the parts of each task that are missing, and keeps them one after the other."""
    tasks = {task: labeled for task, labeled in tasks.items() if missing[task]}
    backbone = network.load()
    with folder.timed("features"):
        features = _features(backbone, archives, tasks)
    folds = {task: settings.folds if tasks[task].split is None else 1 for task in tasks}
    fits = sum(folds[task] * len(missing[task]) for task in tasks)
    with folder.timed("probes"), track(fits, f"scoring {network.name}") as progress:
        for task, labeled in tasks.items():
            scans = LabeledScans(archives, labeled, backbone.view, features_folder())
            path = folder.scores(task, network.name)
            with disk_errors(path.parent):
                make_folder(path.parent)
            of_part = groupby(missing[task], lambda part: (part.budget, part.label_seed))
            for (budget, seed), parts in of_part:
                learners = tuple(part.learner for part in parts)
                one = settings.model_copy(
                    update={
                        "learners": learners,
                        "budgets": (budget if budget == "all" else int(budget),),
                    }
                )
                made = fit_learners(backbone, scans, features[task], one, progress, (seed,))
                made = replace(
                    made,
                    made_from=_origin(network, archives, labeled),
                    settings=tuple(_settings_of(name, settings) for name in learners),
                )
                kept[task] = grown = extended(kept[task], made, seed)
                grown.save(path)


def _features(
    backbone: EvaluatedBackbone, archives: tuple[Archive, ...], tasks: Mapping[str, LabeledSet]
) -> dict[str, Float32[np.ndarray, "n d"]]:
    """Returns the features of each task's scans; a scan of several tasks is computed once."""
    used, computed, features = [], [], {}
    for source, archive in enumerate(archives):
        rows = [
            labeled.rows if labeled.sources is None else labeled.rows[labeled.sources == source]
            for labeled in tasks.values()
        ]
        used.append(np.unique(np.concatenate(rows)))
        computed.append(backbone.features(archive, used[source]))
    for task, labeled in tasks.items():
        features[task] = labeled.gathered(
            lambda source, rows: computed[source][np.searchsorted(used[source], rows)]
        )
        check_features(features[task], labeled)
    return features
