"""Processor seconds (user and system) until a command has answered.

Settings, misspellings and missing paths: what no command needs torch for. Each line is the median
of several fresh processes after one that fills the page cache.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

from common import Goals, options, report, workplace
from PIL import Image

PHANTOM = "phantom:patients=16,height=32,width=32"
# Name of the figure, program and words.
COMMANDS = {
    "help": ("scanlearn", "--help"),
    "config_pack": ("scanlearn", "config", "pack"),
    "config_pretrain": ("scanlearn", "config", "pretrain"),
    "config_panel": ("scanlearn", "config", "panel"),
    "config_audit": ("scanlearn", "config", "audit"),
    "config_compare": ("scantune", "config", "compare"),
    "config_predict": ("scantune", "config", "predict"),
    "explain": ("scanlearn", "explain", "simclr"),
    "misspelt_command": ("scanlearn", "pretrian"),
    "misspelt_recipe": ("scanlearn", "explain", "simlr"),
    "misspelt_key": ("scanlearn", "pretrain", "simclr", "bach_size=8"),
    "misspelt_backbone": (
        *("scanlearn", "pretrain", "simclr", f"archive={PHANTOM}", "output=o"),
        "backbone.name=resnt18",
    ),
    "missing_scans": ("scanlearn", "pretrain", "simclr", "archive=nowhere", "output=o"),
    "missing_labels": ("scantune", "compare", "demo", "labels=nowhere"),
    "missing_backbone": ("scantune", "evaluate", "nowhere/backbone", "scans", "target=a"),
    "missing_archive": ("scanlearn", "audit", "nowhere", "scans"),
    "dry_run": ("scanlearn", "pack", "scans", "--dry-run"),
}
GOALS: Goals = dict.fromkeys(COMMANDS, ("<=", 2.0))


def seconds(words: tuple[str, ...], folder: Path) -> float:
    """Returns the processor seconds of a command line in a fresh process."""
    program, *arguments = words
    code = f"from {program}.cli import main; main()"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = options(__doc__, quick="one process of each", only="names of figures, comma-separated")
    chosen = parser.parse_args()
    names = [name for name in COMMANDS if not chosen.only or name in chosen.only.split(",")]
    figures: dict[str, float] = {}
    with workplace() as folder:
        (folder / "scans").mkdir()
        Image.new("L", (40, 32), 9).save(folder / "scans" / "a.png")
        for name in names:
            seconds(COMMANDS[name], folder)
            times = [seconds(COMMANDS[name], folder) for _ in range(1 if chosen.quick else 3)]
            figures[name] = statistics.median(times)
            words = " ".join(COMMANDS[name])
            print(f"{figures[name]:5.2f} s  {words}", flush=True)
    threads = os.environ.get("OMP_NUM_THREADS", "as many as cores")
    print(f"processor seconds, OMP_NUM_THREADS: {threads}")
    report(figures, GOALS, chosen.json)


if __name__ == "__main__":
    main()
