"""How OpenMP's threads wait for each other, chosen before torch loads it.

Between two parts of a step the threads of GNU's OpenMP spin for up to 300,000 turns, milliseconds
on some processors. On an idle machine that is the fastest way. Where other processes want the same
cores, the threads spin for one that is not being run: training fell to a tenth and less.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from statistics import median_low
from time import sleep

# What a person may have set; then nothing is chosen.
VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
# As fast as the default where the cores are free, and half a millisecond lost at most where they
# come to be wanted later (benchmarks/busy.py).
SHORT_SPIN = 10_000
NO_SPIN = 0
_LOAD_FILE = Path("/proc/loadavg")
_LOOKS, _PAUSE_S = 7, 0.003


def choose_waiting() -> None:
    """Sets ``GOMP_SPINCOUNT``: no spinning on a busy machine, else a short one.

    Nothing is done once torch is loaded, which has read it, or where a person has chosen.
    """
    if "torch" in sys.modules or any(name in os.environ for name in VARIABLES):
        return
    os.environ["GOMP_SPINCOUNT"] = str(NO_SPIN if is_busy() else SHORT_SPIN)


def is_busy() -> bool:
    """Returns whether others want half of the machine's cores or more at this moment.

    False where the system does not say (other than Linux, where threads wait in other ways).
    """
    others = []
    for _ in range(_LOOKS):
        try:
            running = _LOAD_FILE.read_text("ascii").split()[3].partition("/")[0]
            others.append(int(running) - 1)
        except (OSError, ValueError, IndexError):
            return False
        sleep(_PAUSE_S)
    return 2 * median_low(others) >= (os.cpu_count() or 1)
