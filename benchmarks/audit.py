"""What the leak audit costs as scans grow in number, on scans that all look alike.

    python benchmarks/audit.py                     drawn eyes, 1,000 and 10,000 against as many
    python benchmarks/audit.py --quick             250 and 1,000
    python benchmarks/audit.py --large             100,000 against 10,000 as well; the drawing of
                                                   them takes half an hour, into --work

With --data, real fundus photographs too: half of the patients against the other half. Time is
processor time of one thread, the drawing and packing of scans left out. Among drawn eyes nothing
may be found.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from common import Goals, options, report, silence, workplace

from scanlearn.archive.reader import Archive
from scanlearn.audit.leaks import find_leaks
from scanlearn.audit.result import IDENTICAL, NEAR, ScanSet
from scanlearn.packing.pack import pack
from scanlearn.packing.settings import PackSettings
from scanlearn.packing.sources import open_archive

GOALS: Goals = {"growth_1000_to_10000": ("<=", 1.5), "growth_10000_to_100000": ("<=", 1.5)}


def drawn(number: int, seed: int) -> Archive:
    with silence():
        return open_archive(f"phantom:patients={number // 2},seed={seed},size=64x64")


def cost(first: ScanSet, second: ScanSet) -> tuple[float, int, int]:
    """Returns the processor seconds of an audit, and how many pairs it proposed and found."""
    start = time.process_time()
    with silence():
        between = find_leaks(first, [second]).comparisons[0]
    seconds = time.process_time() - start
    return seconds, between.num_proposed, between.count(NEAR) + between.count(IDENTICAL)


def part(archive: Archive, rows: np.ndarray) -> ScanSet:
    return ScanSet.labeled("labels", archive, rows=rows)


def main() -> int:
    parser = options(__doc__, quick="two small sizes", data=True)
    parser.add_argument("--large", action="store_true", help="100,000 scans as well")
    parser.add_argument("--work", type=Path, help="folder that keeps what was drawn")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, float] = {}
    print(f"{'scans':>24s} {'seconds':>9s} {'ms a scan':>10s} {'proposed':>9s} {'found':>6s}")
    with workplace() as folder:
        if arguments.work is not None:
            os.environ["SCANLEARN_CACHE"] = str(arguments.work)
        sizes = [(250, 250), (1000, 1000)] if arguments.quick else [(1000, 1000), (10000, 10000)]
        if arguments.large:
            sizes.append((100000, 10000))
        before = None
        found = 0
        for first, second in sizes:
            sets = drawn(first, 1), drawn(second, 2)
            seconds, proposed, pairs = cost(
                ScanSet.unlabeled("archive", sets[0]), ScanSet.labeled("labels", sets[1])
            )
            found += pairs
            # The labels are looked through twice: against the archive, and within.
            each = 1000 * seconds / (first + second)
            print(
                f"{first:>12,} x {second:>9,} {seconds:9.1f} {each:10.2f} {proposed:9,} {pairs:6}"
            )
            if before is not None:
                figures[f"growth_{before[0]}_to_{first}"] = each / before[1]
            before = first, each
        if arguments.data is not None:
            with silence():
                eyes = pack(
                    arguments.data / "hygd/manifest.csv",
                    folder / "eyes",
                    settings=PackSettings(canvas=64),
                )
            patients = np.unique(eyes.patients)
            for share in (4, 2, 1):
                halves = [
                    part(eyes, np.flatnonzero(np.isin(eyes.patients, half)))
                    for half in (patients[:: 2 * share], patients[1 :: 2 * share])
                ]
                seconds, proposed, pairs = cost(*halves)
                first, second = (len(half.rows) for half in halves)
                each = 1000 * seconds / (first + second)
                scans = f"hygd, {first} x {second}"
                print(f"{scans:>24s} {seconds:9.1f} {each:10.2f} {proposed:9,} {pairs:6}")
    report(figures, GOALS, arguments.json)
    return found > 0


if __name__ == "__main__":
    sys.exit(main())
