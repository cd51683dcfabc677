"""`search`: the augmentation scale at a fraction of a grid's cost, or that none is better.

Four ideas, in this order. Rungs: networks of all scales are trained for a share of their steps, the
worst are left, and the others go on. Probes: what decides is the AUROC over patient folds; where
that cannot tell, measures without labels do. Choice: the smallest scale that is not shown to be
worse than the best. Confirmation: it and its closest rival are trained again with another seed, as
far as the cost allows.

The choice is made thrice: on all labeled patients, and on each half of them, which never sees the
other half's labels, so that the AUROC of what a half chose is measured on patients that did not
choose it.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scanlearn.config import load_config
from scanlearn.config.calls import checked
from scanlearn.console import say
from scanlearn.errors import ScanlearnError
from scanlearn.files import write_atomically
from scanlearn.locks import held, inside
from scanlearn.views.scale import Scale
from scantune.comparison import search_page
from scantune.comparison.search_networks import PROBED_SCALES, Measured, Networks, Stage
from scantune.comparison.search_plan import SearchConfig
from scantune.comparison.search_results import (
    ALL,
    SEARCH_FILE,
    SEARCH_TABLE,
    Chosen,
    Confirmed,
    Fate,
    Reported,
    RungRow,
    SearchResults,
    alike_scales,
    answer_sentence,
    confirmed_sentence,
    summary_lines,
)
from scantune.comparison.search_rules import (
    Choice,
    choose,
    curve_over_rungs,
    cut,
    kept,
    rival,
    standard_errors,
)
from scantune.statistics.intervals import Estimate, arm_interval
from scantune.statistics.ranks import label_free_rank
from scantune.study.dose import DoseArms, dose_curve
from scantune.study.facts import evidence_note
from scantune.study.results import DoseCurve
from scantune.study.summary import finite
from scantune.study.tables import rows_csv

# Of a scale's AUROCs one per pretraining seed, by its name, by who asks.
Votes = Mapping[str, Mapping[str, Sequence[Estimate]]]

# Smallest difference that matters to the curve over the scale.
_MARGIN = 0.01


@checked
def search(config: SearchConfig | str | Path, overrides: Sequence[str] = ()) -> SearchResults:
    """Search for the augmentation scale at a fraction of a grid's cost.

    It may say which of them do equally well. The same call again goes on where it was stopped.

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
        raise ScanlearnError("overrides change a file; give them to load_config instead")
    output = Path(config.output).expanduser()
    with held(inside(output), output, wait=config.wait):
        results = _Search(Networks.opened(config)).run()
        page = search_page.write(results, output)
    say("")
    for line in summary_lines(results):
        say(line)
    say(f"Written: {page}, {output / SEARCH_FILE}, {output / SEARCH_TABLE}")
    return results


@dataclass(frozen=True)
class _Climbed:
    """What the rungs showed.

    Args:
        rows: Every scale on every rung.
        rungs: AUROCs of all patients, rung by rung, of those that had not collapsed.
        last: AUROCs on the last rung.
        measured: Of each scale on the last rung that it reached.
    """

    rows: Sequence[RungRow]
    rungs: Sequence[Mapping[str, Estimate]]
    last: Votes
    measured: Mapping[str, Measured]

    @property
    def steps(self) -> int:
        """Steps of training."""
        return sum({row.arm: row.step for row in self.rows}.values())


@dataclass(frozen=True)
class _Again:
    """What further seeds of two scales showed, and which of them collapsed with one."""

    votes: Votes
    rows: Sequence[RungRow]
    collapsed: Set[str]


@dataclass(frozen=True)
class _Search:
    """A search, from the first rung to what it found."""

    networks: Networks

    @property
    def plan(self) -> SearchConfig:
        return self.networks.plan

    @property
    def _steps(self) -> list[int]:
        total = self.networks.resolved.total_steps
        return [max(1, round(share * total)) for share in self.plan.rungs]

    @property
    def _grid_steps(self) -> int:
        return len(self.plan.scales) * self.plan.grid_seeds * self.networks.resolved.total_steps

    def run(self) -> SearchResults:
        """Trains, measures, chooses and confirms, and writes what was found."""
        plan = self.plan
        climbed = self._climb(list(plan.arms), plan.keep, plan.arms)
        alone = {who: choose(plan.arms, of_who) for who, of_who in climbed.last.items()}
        choices, confirmed = self._confirm(climbed, alone)
        beside, apart = self._apart(climbed, choices[ALL].chosen) if plan.apart else (None, None)
        return self._write(climbed, choices, confirmed, beside, apart)

    # Rungs

    def _climb(
        self, candidates: Sequence[str], keep: Sequence[int], scales: Mapping[str, float]
    ) -> _Climbed:
        """Trains candidates from rung to rung, and leaves the worst of each."""
        rows: list[RungRow] = []
        rungs: list[Mapping[str, Estimate]] = []
        last: Votes = {}
        measured: dict[str, Measured] = {}
        total, spent = self.networks.resolved.total_steps, 0
        for place, (step, count) in enumerate(zip(self._steps, (*keep, None), strict=True)):
            say(f"rung of {step:,} of {total:,} steps: {', '.join(candidates)}")
            stages = {arm: Stage(arm, step, self.plan.seed) for arm in candidates}
            measured |= {arm: self.networks.measured(stage) for arm, stage in stages.items()}
            spent += len(candidates) * (step - (self._steps[place - 1] if place else 0))
            alive = [arm for arm in candidates if not measured[arm].is_collapsed]
            if not alive:
                raise ScanlearnError(
                    f"{self.networks.folder.path}: the network of every scale collapsed after "
                    f"{step:,} steps, so that none can be chosen: try a lower learning rate or "
                    "another temperature"
                )
            last = {
                who: {arm: [self.networks.estimate(who, stages[arm])] for arm in alive}
                for who in self.networks.voters
            }
            rungs.append({arm: members[0] for arm, members in last[ALL].items()})
            taken = alive
            if count is not None:
                most = count + self._has_room(place, spent, keep)
                taken = self._kept(last, measured, alive, count, most)
            rows += _rows(step, candidates, scales, measured, last[ALL], taken, count)
            candidates = taken
        return _Climbed(rows, rungs, last, measured)

    def _has_room(self, place: int, spent: int, keep: Sequence[int]) -> bool:
        """Whether one scale more may go on from a rung, and a confirmation be paid for after it."""
        steps, after = self._steps, range(place + 1, len(self._steps))
        planned = sum(keep[rung - 1] * (steps[rung] - steps[rung - 1]) for rung in after)
        confirmed = 2 * self.plan.confirm * steps[-2]
        one_more = steps[place + 1] - steps[place]
        return spent + planned + one_more + confirmed <= self.plan.max_cost * self._grid_steps

    def _kept(
        self,
        votes: Votes,
        measured: Mapping[str, Measured],
        alive: Sequence[str],
        count: int,
        most: int,
    ) -> list[str]:
        """What goes on: what all patients keep, and as far as there is room what a half keeps."""
        ranks = label_free_rank(_label_free({arm: measured[arm] for arm in alive}))
        wanted = [arm for of_who in votes.values() for arm in kept(of_who, ranks, count)]
        taken = list(dict.fromkeys(wanted))[:most]
        return [arm for arm in alive if arm in taken]

    # Confirmation

    def _confirm(
        self, climbed: _Climbed, choices: Mapping[str, Choice]
    ) -> tuple[Mapping[str, Choice], Confirmed | None]:
        """Trains the choice and its closest rival with further seeds, and chooses of both anew.

        Each seed counts by the last rung that it reached.
        """
        plan, networks, scales = self.plan, self.networks, self.plan.arms
        other = rival(choices[ALL], climbed.last[ALL])
        if other is None or not plan.confirm:
            return choices, None
        pair = sorted((choices[ALL].chosen, other), key=scales.__getitem__)
        runs = 2 * plan.confirm
        room = plan.max_cost * self._grid_steps - climbed.steps
        step = max((step for step in self._steps if runs * step <= room), default=0)
        if not step:
            return choices, Confirmed(
                arms=tuple(pair), sentence=confirmed_sentence(pair, scales, room=int(room))
            )
        say(f"confirmation with {plan.confirm} more seed(s), {step:,} steps: {', '.join(pair)}")
        again = self._trained_again(pair, step)
        left = [arm for arm in pair if arm not in again.collapsed]
        made = dict(choices)
        for who, choice in choices.items():
            first = climbed.last[who]
            if left and choice.chosen in pair and set(pair) <= set(first):
                both = {arm: [*first[arm], *again.votes[who][arm]] for arm in left}
                made[who] = choose(scales, both)
        gap = error = None
        if left == pair:
            both = {arm: [*climbed.last[ALL][arm], *again.votes[ALL][arm]] for arm in pair}
            low, high = (float(np.mean([each.auroc for each in both[arm]])) for arm in pair)
            gap, error = high - low, standard_errors(both, pair[0])[pair[1]]
        sentence = confirmed_sentence(
            pair,
            scales,
            step=step,
            total=networks.resolved.total_steps,
            gap=gap,
            error=error,
            collapsed=sorted(again.collapsed),
            chosen=made[ALL].chosen,
        )
        return made, Confirmed(
            arms=tuple(pair),
            step=step,
            seeds=tuple(self._further_seeds),
            steps=runs * step,
            rows=tuple(again.rows),
            is_other_chosen=made[ALL].chosen != choices[ALL].chosen,
            sentence=sentence,
        )

    @property
    def _further_seeds(self) -> range:
        return range(self.plan.seed + 1, self.plan.seed + 1 + self.plan.confirm)

    def _trained_again(self, pair: Sequence[str], step: int) -> _Again:
        """Trains and measures scales with the further seeds, up to a rung."""
        networks = self.networks
        votes: dict[str, dict[str, list[Estimate]]] = {
            who: {arm: [] for arm in pair} for who in networks.voters
        }
        rows: list[RungRow] = []
        collapsed: set[str] = set()
        for seed in self._further_seeds:
            stages = {arm: Stage(arm, step, seed) for arm in pair}
            measured = {arm: networks.measured(stage) for arm, stage in stages.items()}
            alive = [arm for arm in pair if not measured[arm].is_collapsed]
            collapsed |= set(pair) - set(alive)
            for who, of_who in votes.items():
                for arm in alive:
                    of_who[arm].append(networks.estimate(who, stages[arm]))
            of_seed = {arm: votes[ALL][arm][-1:] for arm in alive}
            rows += _rows(step, pair, self.plan.arms, measured, of_seed, alive, None)
        return _Again(votes, rows, collapsed)

    # Crop and photometric

    def _apart(self, climbed: _Climbed, first: str) -> tuple[_Climbed, Choice]:
        """Moves crop and photometric alone; what was chosen stays where nothing is better."""
        plan = self.plan
        beside = {name: _largest(scale) for name, scale in plan.beside(first).items()}
        moved = self._climb(list(beside), (2, *(1 for _ in plan.keep[1:])), beside)
        # The one that was chosen first is the simplest, and wins where nothing is better.
        candidates = {first: climbed.last[ALL][first], **moved.last[ALL]}
        return moved, choose({first: -1.0, **beside}, candidates)

    # What was found

    def _reported(self, choices: Mapping[str, Choice]) -> Reported | None:
        """The AUROC of what was chosen, of patients that did not choose it; None without such."""
        total, seed = self.networks.resolved.total_steps, self.plan.seed
        found = self.networks.report([Stage(c.chosen, total, seed) for c in choices.values()])
        if found is None:
            return None
        interval = arm_interval([found[0]])
        return Reported(
            auroc=finite(interval.estimate),
            low=finite(interval.low),
            high=finite(interval.high),
            note=interval.note,
            how=found[1],
        )

    def _curve(self, climbed: _Climbed) -> DoseCurve | None:
        """The curve over the scale of all rungs; None where too few scales lived through them."""
        plan = self.plan
        scales = {arm: s for arm, s in plan.arms.items() if not climbed.measured[arm].is_collapsed}
        rungs = [{a: e for a, e in rung.items() if a in scales} for rung in climbed.rungs]
        fit = curve_over_rungs(scales, rungs, _MARGIN)
        if fit is None:
            return None
        place = (plan.task, plan.evaluation.learners[0], plan.evaluation.budgets[0])
        return dose_curve(place, DoseArms("", (), tuple(scales.values())), fit, _MARGIN)

    def _write(
        self,
        climbed: _Climbed,
        choices: Mapping[str, Choice],
        confirmed: Confirmed | None,
        moved: _Climbed | None,
        apart: Choice | None,
    ) -> SearchResults:
        plan, networks, answer = self.plan, self.networks, choices[ALL]
        total, rows = networks.resolved.total_steps, [*climbed.rows, *(moved.rows if moved else ())]
        measured = {**climbed.measured, **(moved.measured if moved else {})}
        arm = apart.chosen if apart else answer.chosen
        told = [
            row.model_copy(update={"fate": "chosen"})
            if row.step == total and row.arm in (arm, answer.chosen)
            else row
            for row in rows
        ]
        reported = self._reported(choices)
        alike = alike_scales(plan.arms, told, answer, confirmed)
        results = SearchResults(
            title=plan.title,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            evidence_note=evidence_note(networks.unlabeled, *networks.archives),
            task=plan.task,
            learner=plan.evaluation.learners[0],
            budget=plan.evaluation.budgets[0],
            sentence=answer_sentence(plan.arms, answer, alike, reported),
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
            confirmed=confirmed,
            curve=self._curve(climbed),
            reported=reported,
            rungs=tuple(told),
            total_steps=total,
            steps=sum({row.arm: row.step for row in rows}.values())
            + (confirmed.steps if confirmed else 0),
            grid_steps=self._grid_steps,
            grid=f"{len(plan.scales)} scales x {plan.grid_seeds} seeds x {total:,} steps",
            warnings=(*networks.warnings, *_disagreements(rows, total, measured)),
            backbone=str(networks.folder.run(arm, plan.seed) / "backbone"),
        )
        write_atomically(networks.folder.path / SEARCH_TABLE, rows_csv(results.rungs))
        # Written last: where it is, the search is complete.
        text = results.model_dump_json(indent=1) + "\n"
        write_atomically(networks.folder.path / SEARCH_FILE, text)
        return results

    def _apart_in_words(self, first: str, apart: Choice) -> str:
        if apart.chosen == first:
            return "crop and photometric apart: no other place is shown to be better"
        dial = self.plan.beside(first)[apart.chosen]
        sure = apart.sureness[apart.chosen]
        return (
            f"crop and photometric apart: {dial} instead, more than one standard error better; "
            f"{sure:.0%} of patient resamples choose it"
        )


def _largest(scale: Scale) -> float:
    """Of several dials the largest, to call one choice smaller than another."""
    return max(scale.crop, scale.photometric)


def _label_free(measured: Mapping[str, Measured]) -> dict[str, tuple[float, float]]:
    """LiDAR and the probe that can tell the networks apart: quarter turns, or else patches."""
    patches = {arm: each.patches for arm, each in measured.items() if each.patches is not None}
    is_hard = len(patches) == len(measured)
    return {
        arm: (each.rung_lidar, patches[arm] if is_hard else each.rotation)
        for arm, each in measured.items()
    }


def _rows(
    step: int,
    candidates: Sequence[str],
    scales: Mapping[str, float],
    measured: Mapping[str, Measured],
    estimates: Mapping[str, Sequence[Estimate]],
    taken: Sequence[str],
    count: int | None,
) -> Iterator[RungRow]:
    """Each candidate on a rung: its measures, whether it goes on, and why."""
    aurocs = {arm: members[0].auroc for arm, members in estimates.items()}
    best = max(aurocs, key=lambda arm: np.nan_to_num(aurocs[arm], nan=-1.0), default="")
    errors = standard_errors(estimates, best) if best else {}
    above, tied = cut(estimates, count or len(estimates))
    for arm in candidates:
        found, is_there = measured[arm], arm in estimates
        fate: Fate = "collapsed" if not is_there else "kept" if arm in taken else "left"
        why = found.problem
        if fate == "collapsed" and not why:
            why = f"embeddings have a spread of {found.embedding_std:.2f}, under {found.limit:g}"
        elif fate == "left" and arm in tied:
            why = "as good as others by AUROC, ranked lower without labels"
        elif fate == "left":
            why = "more than one standard error below the last that goes on"
        elif count is not None and tied and arm in tied:
            why = "as good as others by AUROC, ranked higher without labels or by a half"
        elif count is not None and arm not in above and tied:
            why = "one half of the patients keeps it"
        yield RungRow(
            step=step,
            arm=arm,
            scale=scales[arm],
            auroc=finite(aurocs[arm]) if is_there else None,
            to_best=finite(aurocs[arm] - aurocs[best]) if is_there else None,
            error_to_best=finite(errors[arm]) if is_there else None,
            lidar=found.rung_lidar if found.lidar else None,
            rotation=found.rotation if found.panel else None,
            patches=found.patches,
            embedding_std=finite(found.embedding_std) if found.panel else None,
            fate=fate,
            problem=found.problem,
            why=why,
        )


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
