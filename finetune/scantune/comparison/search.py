"""`search`: the augmentation scale at a fraction of a grid's cost, or that none is better.

Networks of all scales are trained for a share of their steps and measured; the worst are left, and
the others go on. What decides is the AUROC over patient folds; where that cannot tell, measures
without labels do. The choice is made thrice: on all labeled patients, and on each half of them,
which never sees the other half's labels, so that the AUROC of what a half chose is measured on
patients that did not choose it.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from pydantic import Field

from scanlearn.archive.reader import Archive
from scanlearn.backbones.backbone import Backbone
from scanlearn.backbones.start import check_start
from scanlearn.config import load_config
from scanlearn.config.reading import read_json
from scanlearn.config.settings import Settings
from scanlearn.console import say, track, warn_user
from scanlearn.errors import NotFiniteError, ScanlearnError
from scanlearn.features.panel import Panel
from scanlearn.files import features_folder, make_folder, write_atomically
from scanlearn.locks import held, inside
from scanlearn.training.run import Resolved
from scanlearn.views.scale import Scale
from scantune.comparison.search_plan import SearchConfig
from scantune.comparison.search_results import (
    ALL,
    SEARCH_FILE,
    SEARCH_TABLE,
    Chosen,
    Reported,
    RungRow,
    SearchResults,
    summary_lines,
)
from scantune.comparison.search_rules import (
    Choice,
    choose,
    kept,
    standard_errors,
)
from scantune.evaluation.backbone import EvaluatedBackbone
from scantune.evaluation.classifier import View
from scantune.evaluation.evaluate import fit_learners, num_fits
from scantune.labels.labeled_set import LabeledSet
from scantune.learners.learner import LabeledScans
from scantune.scores import Scores
from scantune.splits import budget_rows, folds_of, patient_folds
from scantune.statistics.intervals import Estimate, arm_interval, estimate, patient_weights
from scantune.statistics.ranks import label_free_rank
from scantune.study.arms import resolve_once, train_until
from scantune.study.facts import COLLAPSED, evidence_note
from scantune.study.folder import StudyFolder, check_archives, open_study
from scantune.study.label_free import COMMON_SCALE, common_views, measures_of
from scantune.study.leaks import dropped, find_study_leaks, leak_warnings
from scantune.study.plan import CompareConfig
from scantune.study.run import canvas_chosen, open_study_archives
from scantune.study.scores import read_tasks
from scantune.study.summary import finite
from scantune.study.tables import rows_csv

# Under these views the last networks are ranked by LiDAR; the common one is that of every rung.
PROBED_SCALES = (0.25, COMMON_SCALE, 1.0)
# Before the last rung: the spread of strong views falls at first and rises again, to .18 and .35 of
# SimCLR on chest X-rays.
_HOPELESS = 0.1
_REPORT = "report"


class Measured(Settings):
    """What was measured on one network of one rung, without labels.

    ``limit`` is the spread of embeddings under which it counts as collapsed.
    ``lidar`` is by the scale of the views; ``embedding_std`` is of the training, whose loss looks
    at it; ``problem`` says why there is nothing else.
    """

    embedding_std: float = 0.0
    limit: float = COLLAPSED
    panel: dict[str, float] = Field(default={})
    lidar: dict[str, float] = Field(default={})
    rotation: float = 0.0
    problem: str = ""

    @property
    def is_collapsed(self) -> bool:
        """Whether nothing can be made of the network."""
        return bool(self.problem) or not self.embedding_std >= self.limit


def search(config: SearchConfig | str | Path, overrides: Sequence[str] = ()) -> SearchResults:
    """Search for the augmentation scale at a fraction of a grid's cost.

    Says which scale is best, or which of them do equally well. The same call again goes on
    where it was stopped.

    Args:
        config: The plan; or a YAML file to read it from.
        overrides: ``key=value`` words that win over the file; only with a file.

    Returns:
        What was found, as it stands in ``search.json`` of the output folder.

    Raises:
        ScanlearnError: The plan, the scans or the labels cannot be used, every scale collapsed,
            the folder holds something else, or the disk is full.
    """
    if not isinstance(config, SearchConfig):
        config = load_config(SearchConfig, config, overrides, kind="search")
    elif overrides:
        raise TypeError("overrides change a file; give them to load_config instead")
    output = Path(config.output).expanduser()
    with held(inside(output), output, wait=config.wait):
        results = _Search.begin(config).run()
    say("")
    for line in summary_lines(results):
        say(line)
    say(f"Written: {output / SEARCH_FILE}, {output / SEARCH_TABLE}")
    return results


@dataclass(frozen=True)
class _Halved:
    """What successive halving found: what each voter chose, all rows, and the last measures."""

    choices: Mapping[str, Choice]
    rows: Sequence[RungRow]
    measured: Mapping[str, Measured]


@dataclass(frozen=True)
class _Search:
    """A search with all it needs before the first step."""

    plan: SearchConfig
    study: CompareConfig
    folder: StudyFolder
    unlabeled: Archive
    archives: tuple[Archive, ...]
    labeled: LabeledSet
    resolved: Resolved
    warnings: tuple[str, ...]

    @classmethod
    def begin(cls, plan: SearchConfig) -> _Search:
        """Opens the folder and the scans, and resolves how networks are trained."""
        study = plan.study()
        check_start(study.pretrain.backbone, is_new=not Path(study.output).exists())
        folder = open_study(study)
        study = canvas_chosen(study, folder)
        unlabeled, archives = open_study_archives(study)
        tasks = read_tasks(study, archives)
        named = dict(zip(("unlabeled", "labels"), (unlabeled, *archives), strict=True))
        check_archives(folder, {name: archive.content_hash for name, archive in named.items()})
        leaks = find_study_leaks(study, folder, unlabeled, archives, tasks)
        left_out = dropped(study, folder)
        if left_out:
            unlabeled = unlabeled.without(left_out)
        on_devices, resolved = resolve_once(study, folder, unlabeled)
        on_devices.under(resolved.modality)  # tune may not fit the modality
        return cls(
            plan,
            on_devices,
            folder,
            unlabeled,
            archives,
            tasks[plan.task],
            resolved,
            leak_warnings(leaks, len(left_out)),
        )

    @cached_property
    def voters(self) -> dict[str, np.ndarray]:
        """Rows of the labeled set on which a choice is made, by who makes it; all come first.

        The halves are left out where they are too few for folds, with a warning.
        """
        labeled, scoring = self.labeled, self.plan.evaluation
        if labeled.split is not None:
            return {ALL: np.flatnonzero(labeled.split == "train")}
        voters = {ALL: np.arange(len(labeled))}
        try:
            halves = patient_folds(labeled.truth, labeled.patients, 2, 0)
            rows = {f"half {number + 1}": fold.train for number, fold in enumerate(halves)}
            for seed in range(scoring.label_seeds):
                for of_part in map(self.labeled.__getitem__, rows.values()):
                    for fold in folds_of(of_part, scoring.folds, seed):
                        args = (of_part.truth, of_part.patients, scoring.budgets[0], seed)
                        budget_rows(fold.train, *args)
        except ScanlearnError as error:
            warn_user(
                f"the labeled patients are too few to choose on one half and report on the other "
                f"({error}): the AUROC of what is chosen is that of the patients that chose it"
            )
            return voters
        return voters | rows

    def run(self) -> SearchResults:
        """Trains, measures and chooses, and writes what was found."""
        plan = self.plan
        found = self._halved(list(plan.arms), plan.keep, plan.arms)
        choices, rows, measured = found.choices, list(found.rows), dict(found.measured)
        apart: Choice | None = None
        if plan.apart:
            first = choices[ALL].chosen
            beside = {name: _largest(scale) for name, scale in plan.beside(first).items()}
            moved = self._halved(list(beside), (2, *(1 for _ in plan.keep[1:])), beside)
            rows += moved.rows
            measured |= moved.measured
            last = [row.arm for row in moved.rows if row.fate == "kept" and self._is_last(row)]
            of_all = self._estimates(ALL, [first, *last], self.resolved.total_steps)
            # The one that was chosen first is the simplest, and wins where nothing is better.
            apart = choose({first: -1.0, **beside}, of_all)
        return self._write(choices, rows, measured, apart)

    def _is_last(self, row: RungRow) -> bool:
        return row.step == self.resolved.total_steps

    def _halved(
        self, candidates: Sequence[str], keep: Sequence[int], scales: Mapping[str, float]
    ) -> _Halved:
        """Trains candidates from rung to rung, leaves the worst, and chooses among the last."""
        total = self.resolved.total_steps
        rows: list[RungRow] = []
        estimates: dict[str, dict[str, Estimate]] = {}
        measured: dict[str, Measured] = {}
        for share, count in zip(self.plan.rungs, (*keep, None), strict=True):
            step = max(1, round(share * total))
            say(f"rung of {step:,} of {total:,} steps: {', '.join(candidates)}")
            measured |= {arm: self._measured(arm, step) for arm in candidates}
            alive = [arm for arm in candidates if not measured[arm].is_collapsed]
            if not alive:
                raise ScanlearnError(
                    f"{self.folder.path}: the network of every scale collapsed after {step:,} "
                    "steps, so that none can be chosen: try a lower learning rate or another "
                    "temperature"
                )
            estimates = {who: self._estimates(who, alive, step) for who in self.voters}
            taken = alive if count is None else self._kept(estimates, measured, alive, count)
            rows += self._rows(step, candidates, scales, measured, estimates[ALL], taken)
            candidates = taken
        choices = {who: choose(scales, of_who) for who, of_who in estimates.items()}
        return _Halved(choices, rows, measured)

    def _kept(
        self,
        estimates: Mapping[str, Mapping[str, Estimate]],
        measured: Mapping[str, Measured],
        alive: Sequence[str],
        count: int,
    ) -> list[str]:
        """What goes on: what all patients keep, and one scale more where a half keeps others."""
        ranks = label_free_rank({arm: _label_free(measured[arm]) for arm in alive})
        wanted = [arm for of_who in estimates.values() for arm in kept(of_who, ranks, count)]
        taken = list(dict.fromkeys(wanted))[: count + 1]
        return [arm for arm in alive if arm in taken]

    def _place(self, arm: str, step: int, name: str) -> Path:
        return self.folder.path / "rungs" / f"{step}" / arm / name

    def _measured(self, arm: str, step: int) -> Measured:
        """Trains to a rung and measures there, or reads back what was measured."""
        path = self._place(arm, step, "measured.json")
        if path.is_file():
            return read_json(
                path,
                Measured,
                what="does not hold what was measured",
                remedy="name another output folder, since the run has gone on",
            )
        try:
            with self.folder.timed("pretraining"):
                network, spread = self._trained(arm, step)
        except NotFiniteError as error:
            measured = Measured(problem=str(error))
        else:
            is_last = step == self.resolved.total_steps
            measured = self._without_labels(network, spread, is_last=is_last)
            if not measured.is_collapsed:
                self._score(arm, step, network)
        make_folder(path.parent)
        # Last: where it is, the network was scored.
        write_atomically(path, measured.model_dump_json(indent=1) + "\n")
        return measured

    def _trained(self, arm: str, step: int) -> tuple[Backbone, float]:
        return train_until(self.study, self.folder, self.unlabeled, arm, step, self.resolved)

    def _without_labels(self, network: Backbone, spread: float, *, is_last: bool) -> Measured:
        training = self.study.under(self.resolved.modality).pretrain
        recipe = training.build_recipe(left_out=self.resolved.left_out)
        lidar, panel, rotation = {}, {}, 0.0
        try:
            for scale in PROBED_SCALES if is_last else (COMMON_SCALE,):
                probing = common_views(training.views, recipe, self.unlabeled, scale)
                if scale == COMMON_SCALE:
                    panel = measures_of(network, self.unlabeled, probing)
                    rotation = panel.pop("rotation")
                    lidar[f"{scale:g}"] = panel["lidar"]
                else:
                    views = probing.features(network, self.unlabeled)
                    lidar[f"{scale:g}"] = Panel.of(views).lidar
        except ScanlearnError as error:
            # Features that overflow in evaluation mode veto a scale and end no search.
            return Measured(problem=str(error))
        return Measured(
            embedding_std=spread,
            limit=COLLAPSED if is_last else _HOPELESS,
            panel=panel,
            lidar=lidar,
            rotation=rotation,
        )

    def _score(self, arm: str, step: int, network: Backbone) -> None:
        """Scores a network for every voter, and once for the report, and keeps the scores."""
        view = View(self.plan.pretrain.views.size, self.unlabeled.mean, self.unlabeled.std)
        backbone = EvaluatedBackbone({"kind": arm}, network, None, view)
        scoring = self.study.evaluation
        everyone = np.arange(len(self.labeled))
        jobs = [(who, rows, self._of(rows), scoring) for who, rows in self.voters.items()]
        if self.labeled.split is not None:
            jobs.append((_REPORT, everyone, self.labeled, scoring))
        elif len(self.voters) > 1:
            once = scoring.model_copy(update={"folds": 2, "label_seeds": 1})
            jobs.append((_REPORT, everyone, self.labeled, once))
        fits = sum(num_fits(settings, labeled) for *_, labeled, settings in jobs)
        with self.folder.timed("probes"), track(fits, f"scoring {arm}") as progress:
            features = self.labeled.gathered(
                lambda source, rows: backbone.features(self.archives[source], rows)
            )
            for name, rows, labeled, settings in jobs:
                scans = LabeledScans(self.archives, labeled, view, features_folder())
                scores = fit_learners(backbone, scans, features[rows], settings, progress)
                path = self._place(arm, step, f"{name}.npz")
                make_folder(path.parent)
                scores.save(path)

    def _of(self, rows: np.ndarray) -> LabeledSet:
        return replace(self.labeled[rows], split=None)

    def _estimates(self, who: str, arms: Sequence[str], step: int) -> dict[str, Estimate]:
        scores = {arm: Scores.load(self._place(arm, step, f"{who}.npz")) for arm in arms}
        first = next(iter(scores.values()))
        weights = patient_weights(first, replicates=self.study.evaluation.replicates)
        learner, budget = self.plan.evaluation.learners[0], self.plan.evaluation.budgets[0]
        return {arm: estimate(each, learner, budget, weights) for arm, each in scores.items()}

    def _rows(
        self,
        step: int,
        candidates: Sequence[str],
        scales: Mapping[str, float],
        measured: Mapping[str, Measured],
        estimates: Mapping[str, Estimate],
        taken: Sequence[str],
    ) -> Iterator[RungRow]:
        best = max(estimates, key=lambda arm: np.nan_to_num(estimates[arm].auroc, nan=-1.0))
        errors = standard_errors(estimates, best)
        for arm in candidates:
            found, is_there = measured[arm], arm in estimates
            yield RungRow(
                step=step,
                arm=arm,
                scale=scales[arm],
                auroc=finite(estimates[arm].auroc) if is_there else None,
                to_best=finite(estimates[arm].auroc - estimates[best].auroc) if is_there else None,
                error_to_best=finite(errors[arm]) if is_there else None,
                lidar=found.lidar.get(f"{COMMON_SCALE:g}"),
                rotation=found.rotation if found.panel else None,
                embedding_std=finite(found.embedding_std) if found.panel else None,
                fate="collapsed" if not is_there else "kept" if arm in taken else "left",
                problem=found.problem,
            )

    def _reported(self, choices: Mapping[str, Choice], step: int) -> Reported | None:
        """The AUROC of what was chosen, of patients that did not choose it; None without such."""
        scoring = self.plan.evaluation
        if self.labeled.split is not None:
            scores = Scores.load(self._place(choices[ALL].chosen, step, f"{_REPORT}.npz"))
            how = "on the test patients of the given split, which chose nothing"
        elif len(choices) > 1:
            # A fold is tested by models of the other half, which chose the network too.
            halves = [choices[who] for who in choices if who != ALL]
            parts = [
                Scores.load(self._place(half.chosen, step, f"{_REPORT}.npz")) for half in halves
            ]
            fold_of = parts[0].fold_of[:, :, None]
            values = np.where(fold_of == 0, parts[0].values, parts[1].values)
            scores = replace(parts[0], values=values, refits=None)
            how = "each half of the patients scored by what the other half chose and taught"
        else:
            return None
        weights = patient_weights(scores, replicates=self.study.evaluation.replicates)
        learner, budget = scoring.learners[0], scoring.budgets[0]
        found = arm_interval([estimate(scores, learner, budget, weights)])
        return Reported(
            auroc=finite(found.estimate),
            low=finite(found.low),
            high=finite(found.high),
            note=found.note,
            how=how,
        )

    def _apart_in_words(self, first: str, apart: Choice) -> str:
        if apart.chosen == first:
            return "crop and photometric apart: no other place is shown to be better"
        dial = self.plan.beside(first)[apart.chosen]
        sure = apart.sureness[apart.chosen]
        return (
            f"crop and photometric apart: {dial} instead, more than one standard error better; "
            f"{sure:.0%} of patient resamples choose it"
        )

    def _write(
        self,
        choices: Mapping[str, Choice],
        rows: Sequence[RungRow],
        measured: Mapping[str, Measured],
        apart: Choice | None,
    ) -> SearchResults:
        plan, answer = self.plan, choices[ALL]
        total = self.resolved.total_steps
        arm = apart.chosen if apart else answer.chosen
        last = [
            row.model_copy(update={"fate": "chosen"})
            if self._is_last(row) and row.arm in (arm, answer.chosen)
            else row
            for row in rows
        ]
        steps_of = {row.arm: row.step for row in rows}
        reported = self._reported(choices, total)
        alike = _alike(plan, last, answer)
        results = SearchResults(
            title=plan.title,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            evidence_note=evidence_note(self.unlabeled, *self.archives),
            task=plan.task,
            learner=plan.evaluation.learners[0],
            budget=plan.evaluation.budgets[0],
            sentence=_sentence(plan, answer, alike, reported),
            scale=plan.arms[answer.chosen],
            apart=None if apart is None else self._apart_in_words(answer.chosen, apart),
            is_flat=len(alike) > 1,
            choices=tuple(
                Chosen(
                    patients=who,
                    best=each.best,
                    chosen=each.chosen,
                    alike=each.alike,
                    sureness=dict(each.sureness),
                )
                for who, each in choices.items()
            ),
            reported=reported,
            rungs=tuple(last),
            steps=sum(steps_of.values()),
            grid_steps=len(plan.scales) * plan.grid_seeds * total,
            grid=f"{len(plan.scales)} scales x {plan.grid_seeds} seeds x {total:,} steps",
            warnings=(*self.warnings, *_disagreements(rows, total, measured)),
            backbone=str(self.folder.run(arm, plan.seed) / "backbone"),
        )
        write_atomically(self.folder.path / SEARCH_TABLE, rows_csv(results.rungs))
        # Written last: where it is, the search is complete.
        write_atomically(self.folder.path / SEARCH_FILE, results.model_dump_json(indent=1) + "\n")
        return results


def _largest(scale: Scale) -> float:
    """Of several dials the largest, to call one choice smaller than another."""
    return max(scale.crop, scale.photometric)


def _label_free(measured: Measured) -> tuple[float, float]:
    return measured.lidar[f"{COMMON_SCALE:g}"], measured.rotation


def _alike(plan: SearchConfig, rows: Sequence[RungRow], answer: Choice) -> list[float]:
    """Scales that nothing measured tells from the chosen one, in one stretch around it, ascending.

    Each is judged on its own last rung: by the one standard error of its difference to the best
    there. One that collapsed is no choice.
    """
    is_alike = {
        row.arm: row.to_best is not None
        and row.error_to_best is not None
        and row.to_best >= -row.error_to_best
        for row in rows
    }
    names = list(plan.arms)
    place = names.index(answer.chosen)
    first = place
    while first > 0 and is_alike[names[first - 1]]:
        first -= 1
    end = place + 1
    while end < len(names) and is_alike[names[end]]:
        end += 1
    return [plan.arms[name] for name in names[first:end]]


def _sentence(
    plan: SearchConfig, answer: Choice, alike: Sequence[float], reported: Reported | None
) -> str:
    scale = plan.arms[answer.chosen]
    sure = answer.sureness[answer.chosen]
    if len(alike) > 1:
        first = f"Any scale from {alike[0]:g} to {alike[-1]:g} does as well here: take {scale:g}"
    else:
        first = f"Take scale {scale:g}"
    text = f"{first}, which {sure:.0%} of patient resamples choose among those trained to the end."
    if reported is None or reported.auroc is None:
        return text
    low, high = reported.low, reported.high
    ends = "" if low is None or high is None else f" (95 % interval {low:.3f} to {high:.3f})"
    return f"{text} AUROC {reported.auroc:.3f}{ends}, {reported.how}."


def _disagreements(
    rows: Sequence[RungRow], total: int, measured: Mapping[str, Measured]
) -> Iterator[str]:
    """Says where LiDAR ranks the last networks otherwise under other views."""
    finalists = [row.arm for row in rows if row.step == total and row.fate != "collapsed"]
    orders = {}
    for scale in PROBED_SCALES:
        key = f"{scale:g}"
        values = {arm: measured[arm].lidar[key] for arm in finalists}
        orders[key] = sorted(values, key=values.__getitem__, reverse=True)
    if len({tuple(order) for order in orders.values()}) > 1:
        told = "; ".join(f"{key}: {', '.join(order)}" for key, order in orders.items())
        yield f"LiDAR ranks the last scales differently by the scale of its views ({told})."
