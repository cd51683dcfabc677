"""Whether training goes on at a fair rate beside other processes that want the same cores.

    python benchmarks/busy.py               twenty minutes on two idle cores
    python benchmarks/busy.py --quick       one repeat

`scanlearn pretrain` trains on drawn scans, at the size of the demo and with a ResNet-18, alone and
beside one spinning process per core: with `threads: auto`, and alone with a thread for each core.
With as many processes as there are cores, half of the rate is a fair share.
"""

from __future__ import annotations

import csv
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import Goals, options, report, workplace

from scanlearn.threads import usable_cores

GOALS: Goals = {"busy_share_demo": (">=", 0.35), "busy_share_resnet18": (">=", 0.35)}
SIZES = {
    "demo": ("backbone.name=test_resnet", "views.size=32", "batch_size=64", "steps=120"),
    "resnet18": ("backbone.name=resnet18", "views.size=64", "batch_size=64", "steps=12"),
}
# The first steps compile, allocate and fill caches.
FIRST_COUNTED = 1 / 4


def rate(archive: str, size: str, threads: str) -> float:
    """Returns views per second of one run of the command."""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        words = [sys.executable, "-c", "from scanlearn.cli import main; main()", "pretrain"]
        settings = ["simclr", f"archive={archive}", f"output={run}", "logging.every_steps=1"]
        subprocess.run(
            [*words, *settings, *SIZES[size], f"threads={threads}"],
            env=environment,
            check=True,
            capture_output=True,
        )
        with (run / "metrics.csv").open(newline="") as file:
            rates = [float(row["views_per_s"]) for row in csv.DictReader(file)]
    return statistics.harmonic_mean(rates[int(FIRST_COUNTED * len(rates)) :])


@contextmanager
def spinning(number: int) -> Iterator[None]:
    """Keeps processes running that do nothing but want a core each."""
    program = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(program) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    arguments = options(__doc__, quick="one repeat").parse_args()
    cores = len(usable_cores())
    rates: dict[tuple[str, str], list[float]] = {}
    with workplace():
        archive = "phantom:patients=60,seed=0,size=64x64"
        rate(archive, "demo", "auto")
        for _ in range(1 if arguments.quick else 3):
            for size in SIZES:
                for load, others, threads in (
                    ("idle", 0, str(cores)),
                    ("idle, auto", 0, "auto"),
                    ("busy, auto", cores, "auto"),
                ):
                    with spinning(others):
                        views_per_s = rate(archive, size, threads)
                    rates.setdefault((size, load), []).append(views_per_s)
                    print(f"{size:10s} {load:12s} {views_per_s:8.0f} views/s", flush=True)
    median = {key: statistics.median(values) for key, values in rates.items()}
    figures = {}
    for size in SIZES:
        full = median[size, "idle"]
        figures[f"busy_share_{size}"] = median[size, "busy, auto"] / full
        figures[f"idle_share_{size}"] = median[size, "idle, auto"] / full
    report(figures, GOALS, arguments.json)


if __name__ == "__main__":
    main()
