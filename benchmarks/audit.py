"""What the leak audit costs as scans grow in number, on scans that all look alike.

    python benchmarks/audit.py                     1,000 and 10,000 drawn eyes
    python benchmarks/audit.py --quick             200 and 1,000
    python benchmarks/audit.py --large             100,000 as well; the drawing of them takes half
                                                   an hour, into --work

Half of the patients are audited against the other half. With --data, those of real fundus
photographs too. Time is processor time of one thread, the drawing and packing of scans left out.
Among drawn eyes nothing may be found.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import torch
from common import Goals, options, report, silence, workplace

from scanlearn.archive.reader import Archive
from scanlearn.audit.leaks import find_leaks
from scanlearn.audit.result import IDENTICAL, NEAR, ScanSet
from scanlearn.files import features_folder
from scanlearn.packing.pack import pack
from scanlearn.packing.settings import PackSettings
from scanlearn.packing.sources import open_archive

GOALS: Goals = {"growth_1000_to_10000": ("<=", 2), "growth_10000_to_100000": ("<=", 2)}


def drawn(number: int) -> Archive:
    with silence():
        return open_archive(f"phantom:patients={number // 2},seed=1,size=64x64")


def cost(first: ScanSet, second: ScanSet) -> tuple[float, int, int]:
    """Returns the processor seconds of an audit, and how many pairs it proposed and found."""
    start = time.process_time()
    with silence():
        between = find_leaks(first, [second]).comparisons[0]
    seconds = time.process_time() - start
    return seconds, between.num_proposed, between.count(NEAR) + between.count(IDENTICAL)


def halves(name: str, archive: Archive, share: int = 1) -> tuple[float, int]:
    """Audits half of the patients against the other, and prints what it cost.

    Returns:
        Milliseconds a scan; how many pairs were found.
    """
    # Else the fingerprints and pairs of an earlier audit would be read.
    shutil.rmtree(features_folder(), ignore_errors=True)
    patients = np.unique(archive.patients)
    sets = [
        ScanSet.labeled(half, archive, rows=np.flatnonzero(np.isin(archive.patients, chosen)))
        for half, chosen in (
            ("one", patients[:: 2 * share]),
            ("other", patients[share :: 2 * share]),
        )
    ]
    seconds, proposed, pairs = cost(*sets)
    first, second = (len(half.rows) for half in sets)
    each = 1000 * seconds / (first + second)
    scans = f"{name}, {first:,} x {second:,}"
    print(f"{scans:>24s} {seconds:9.1f} {each:10.2f} {proposed:9,} {pairs:6}", flush=True)
    return each, pairs


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
        sizes = [200, 1000] if arguments.quick else [1000, 10000]
        if arguments.large:
            sizes.append(100000)
        before = None
        found = 0
        for size in sizes:
            each, pairs = halves("drawn", drawn(size))
            found += pairs
            if before is not None:
                figures[f"growth_{before[0]}_to_{size}"] = each / before[1]
            before = size, each
        if arguments.data is not None:
            with silence():
                eyes = pack(
                    arguments.data / "hygd/manifest.csv",
                    folder / "eyes",
                    settings=PackSettings(canvas=64),
                )
            for share in (4, 2, 1):
                halves("hygd", eyes, share)
    report(figures, GOALS, arguments.json)
    return found > 0


if __name__ == "__main__":
    sys.exit(main())
