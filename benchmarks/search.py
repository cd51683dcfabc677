"""What a search for the scale finds beside the full grid, and at what share of its steps.

    python benchmarks/search.py               the phantom's three tasks
    python benchmarks/search.py --scans UNLABELED LABELS TARGET --work FOLDER [key=value ...]

The grid has three pretraining seeds, the search others, so that it shares no network with the
grid. A chosen scale is judged by the grid: its mean AUROC below that of the grid's best scale.
Grid and search are kept in the work folder and go on where they were stopped; `--grid` names the
folder of a finished comparison whose arms are the scales.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from common import options, save

from scanlearn.config import load_config
from scantune.comparison.compare import compare
from scantune.comparison.search import search
from scantune.comparison.search_plan import SearchConfig
from scantune.study.results import read_results

# Networks, views, steps and scans are those of benchmarks/levers.py.
PHANTOM = (
    *("pretrain.backbone.name=test_resnet", "pretrain.method={name: simclr, temperature: 0.2}"),
    *("pretrain.views={recipe: simclr, modality: null, size: 32}", "pretrain.batch_size=64"),
    "pretrain.steps=600",
)
PHANTOM_SCANS = (
    "phantom:patients=300,seed=0,size=128,tilt=0",
    "phantom:patients=400,seed=1000,size=128,tilt=0",
)
PHANTOM_TARGETS = ("pallor", "lesion", "null")
SEARCH_SEED = 7


def plan_of(scans: tuple[str, str], target: str, work: Path, words: list[str]) -> SearchConfig:
    """The search, to which the grid is matched in all but the seeds."""
    settings = [f"unlabeled={scans[0]}", f"labels={scans[1]}", f"target='{target}'"]
    settings += [f"output={work / f'search-{target}'}", f"seed={SEARCH_SEED}"]
    return load_config(SearchConfig, None, [*settings, *words], kind="search")


def grid_of(plan: SearchConfig, targets: list[str], work: Path) -> Path:
    """Runs the full grid of the scales, all targets at once, and returns its folder."""
    changes = {
        "tasks": targets,
        "seeds": range(plan.grid_seeds),
        "output": str(work / "grid"),
        "primary": {"learner": plan.evaluation.learners[0], "better": "s0.5", "than": "s1"},
    }
    whole = plan.study()
    compare(whole.model_validate({**whole.model_dump(), **changes}))
    return work / "grid"


def main() -> None:
    parser = options(__doc__, quick="three scales, 60 steps and the first target")
    parser.add_argument("--scans", nargs=3, metavar=("UNLABELED", "LABELS", "TARGET"))
    parser.add_argument("--grid", type=Path, help="a finished comparison whose arms are the scales")
    parser.add_argument("--work", type=Path, help="folder for the studies; kept")
    parser.add_argument("words", nargs="*", help="settings of the search, key=value")
    arguments = parser.parse_args()
    scans, targets, words = PHANTOM_SCANS, list(PHANTOM_TARGETS), list(PHANTOM)
    if arguments.scans:
        *scans, target = arguments.scans
        targets, words = [target], []
    words += arguments.words
    if arguments.quick:
        words += ["pretrain.steps=60", "scales=[0,0.5,1]", "keep=[2,1]"]
        targets = targets[:1]
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = arguments.work or Path(folder)
        plans = {each: plan_of((scans[0], scans[1]), each, work, words) for each in targets}
        grid = arguments.grid or grid_of(plans[targets[0]], targets, work)
        results = read_results(grid)
        scale_of = {arm.name: arm.scale.crop for arm in results.arms if arm.scale is not None}
        for target, plan in plans.items():
            place = (target, plan.evaluation.learners[0], plan.evaluation.budgets[0])
            means = {
                scale_of[row.arm]: row.auroc
                for row in results.table
                if (row.task, row.learner, row.budget) == place
                and row.arm in scale_of
                and row.auroc is not None
            }
            found = search(plan)
            best = max(means, key=means.__getitem__)
            below = means[best] - means[found.scale]
            taken = "" if found.confirmed is None else f"; {found.confirmed.sentence}"
            told = ", ".join(f"{scale:g}: {means[scale]:.3f}" for scale in sorted(means))
            print(f"\n{target}: grid {told}")
            print(
                f"{target}: search takes {found.scale:g}, the grid's best is {best:g}: {below:.4f} "
                f"below it, at {found.cost:.1%} of its steps{taken}\n",
                flush=True,
            )
            figures[f"{target} below the best"] = below
            figures[f"{target} cost"] = found.cost
    save(figures, arguments.json)


if __name__ == "__main__":
    main()
