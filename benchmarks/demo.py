"""How often each verdict of the demo comes with other seeds of the phantom and of the training.

    python benchmarks/demo.py                 ten seeds, about 5 minutes of one core each
    python benchmarks/demo.py --quick         two seeds
    python benchmarks/demo.py --seeds 3 4     these

The plan is that of `scantune compare demo`, fixed on the seeds that it names; phantom and networks
are drawn anew here. A run that was stopped goes on with `--work` the same folder.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from common import options, save

from scanlearn.config import load_config
from scantune.study.plan import CompareConfig
from scantune.study.results import ArmDifference, read_results


def run(seed: int, work: Path, plan: CompareConfig) -> list[ArmDifference]:
    """Runs the demo with everything drawn anew, and returns its differences."""
    output = work / f"seed-{seed}"
    # 1 to 10: none of them is a seed of the demo.
    networks = [10 * seed + number for number in range(len(plan.seeds))]
    words = [
        *("unlabeled", plan.unlabeled.replace("seed=0", f"seed={seed}")),
        *("labels", plan.labels.replace("seed=1000", f"seed={1000 + seed}")),
        *("output", str(output)),
        *("seeds", f"[{', '.join(map(str, networks))}]"),
    ]
    settings = [f"{key}={value}" for key, value in zip(words[::2], words[1::2], strict=True)]
    program = "from scantune.cli import main; main()"
    command = [sys.executable, "-c", program, "compare", "demo", *settings]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    results = read_results(output)
    print(f"seed {seed}: {results.verdict.sentence}", flush=True)
    for warning in results.warnings:
        if "collapsed" in warning:
            print(f"    {warning}", flush=True)
    return list(results.differences)


def main() -> None:
    parser = options(__doc__, quick="two seeds")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 11)))
    parser.add_argument("--work", type=Path, help="folder for the studies; kept")
    arguments = parser.parse_args()
    seeds = arguments.seeds[:2] if arguments.quick else arguments.seeds
    verdicts: dict[tuple[str, str, str], Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        plan = load_config(CompareConfig, "demo", [], kind="compare")
        for seed in seeds:
            for found in run(seed, arguments.work or Path(folder), plan):
                key = (f"{found.a} - {found.b}", found.task, str(found.budget))
                verdicts.setdefault(key, Counter())[found.verdict] += 1
    print(f"\nverdicts of {len(seeds)} seeds; the first is the primary comparison")
    for (pair, task, budget), counts in verdicts.items():
        told = ", ".join(f"{kind} {count}" for kind, count in counts.most_common())
        print(f"{pair:28s} {task:10s} {budget:5s} {told}")
    figures = {
        f"{pair} {task} {budget} {kind}": float(count)
        for (pair, task, budget), counts in verdicts.items()
        for kind, count in counts.items()
    }
    save(figures, arguments.json)


if __name__ == "__main__":
    main()
