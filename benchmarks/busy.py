"""Whether training goes on at a fair rate beside other processes that want the same cores.

    python benchmarks/busy.py               a quarter of an hour on two idle cores
    python benchmarks/busy.py --quick       one repeat
    python benchmarks/busy.py --spins       other ways of waiting too

`scanlearn pretrain` trains on drawn scans, at the size of the demo and with a ResNet-18, alone and
beside one spinning process per core. With as many processes as there are cores, half of the rate is
a fair share.
"""

from __future__ import annotations

import csv
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from common import Goals, options, report, workplace

GOALS: Goals = {"busy_share_demo": (">=", 0.35), "busy_share_resnet18": (">=", 0.35)}
SIZES = {
    "demo": ("backbone.name=test_resnet", "views.size=32", "batch_size=64", "steps=120"),
    "resnet18": ("backbone.name=resnet18", "views.size=64", "batch_size=64", "steps=12"),
}
# The first steps compile, allocate and fill caches.
FIRST_COUNTED = 1 / 4
SPINS = {f"spin_{turns}": {"GOMP_SPINCOUNT": str(turns)} for turns in (0, 1000, 3000, 10000, 30000)}


def rate(archive: str, size: str, environment: Mapping[str, str]) -> float:
    """Returns views per second of one run of the command."""
    plain = {
        name: value
        for name, value in os.environ.items()
        if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
    }
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        words = [sys.executable, "-c", "from scanlearn.cli import main; main()", "pretrain"]
        settings = ["simclr", f"archive={archive}", f"output={run}", "logging.every_steps=1"]
        subprocess.run(
            [*words, *settings, *SIZES[size]],
            env={**plain, **environment},
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
    parser = options(__doc__, quick="one repeat")
    parser.add_argument("--spins", action="store_true", help="other ways of waiting too")
    arguments = parser.parse_args()
    ways: dict[str, Mapping[str, str]] = {"default": {}}
    if arguments.spins:
        ways |= SPINS
    rates: dict[tuple[str, str, str], list[float]] = {}
    with workplace():
        archive = "phantom:patients=60,seed=0,size=64x64"
        rate(archive, "demo", {})
        for _ in range(1 if arguments.quick else 3):
            for size in SIZES:
                for load, number in (("idle", 0), ("busy", os.cpu_count() or 1)):
                    with spinning(number):
                        for way, environment in ways.items():
                            views_per_s = rate(archive, size, environment)
                            rates.setdefault((size, load, way), []).append(views_per_s)
                            print(
                                f"{size:10s} {load:6s} {way:12s} {views_per_s:8.0f} views/s",
                                flush=True,
                            )
    median = {key: statistics.median(values) for key, values in rates.items()}
    figures = {}
    for size in SIZES:
        for way in ways:
            share = median[size, "busy", way] / median[size, "idle", "default"]
            figures[f"busy_share_{size}" if way == "default" else f"busy_{way}_{size}"] = share
            if way != "default":
                idle = median[size, "idle", way] / median[size, "idle", "default"]
                figures[f"{way}_over_default_idle_{size}"] = idle
    report(figures, GOALS, arguments.json)


if __name__ == "__main__":
    main()
