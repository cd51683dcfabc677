"""How many threads compute on a CPU that other processes use too.

Between two parts of a step OpenMP's threads spin for each other. Beside processes that want the
same cores one of them waits for a core while the others burn theirs: two threads beside two busy
processes trained at a tenth of their rate, one thread at half of it. How OpenMP waits mends little
of that, fewer threads do (``benchmarks/busy.py``).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WATCHED_S = 0.5
_STAT = Path("/proc/stat")
# What a person set holds.
SET_BY_HAND = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def free_threads() -> int:
    """Returns a thread for each core that other processes leave free, and for a quarter at least.

    Watches the machine for half a second. What a person set holds: a variable of the environment,
    or ``torch.set_num_threads``; so does torch's own number where the system does not tell.
    """
    import torch  # It takes seconds.

    threads = torch.get_num_threads()
    cores = usable_cores()
    if threads != len(cores) or any(name in os.environ for name in SET_BY_HAND):
        return threads
    return max(-(-threads // 4), threads - round(cores_used_by_others(cores, _WATCHED_S)))


def usable_cores() -> frozenset[int]:
    """Returns the numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def cores_used_by_others(cores: frozenset[int], seconds: float) -> float:
    """Returns how many of the cores other processes kept busy; 0 where the system does not tell."""
    before, own, start = _busy_s(cores), time.process_time(), time.monotonic()
    if before is None:
        return 0.0
    time.sleep(seconds)
    after, spent = _busy_s(cores), time.process_time() - own
    assert after is not None, "it was there a moment ago"
    return max(0.0, after - before - spent) / (time.monotonic() - start)


def _busy_s(cores: frozenset[int]) -> float | None:
    """Returns seconds of work of the cores but for that of low priority (nice), which gives way."""
    try:
        lines = _STAT.read_text().splitlines()
    except OSError:
        return None
    ticks = 0
    for name, user, _nice, system, *_ in (line.split() for line in lines if line[:3] == "cpu"):
        if name != "cpu" and int(name[3:]) in cores:
            ticks += int(user) + int(system)
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def computing_with(threads: int | None) -> Iterator[None]:
    """Computes with that many threads, and then with as many as before; None changes nothing."""
    import torch

    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
