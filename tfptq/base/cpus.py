"""How many processors there are for us."""

import os

#: Processes that share the processors, this one among them.
_sharing = 1


def usable_cpus() -> int:
    """Number of processors that this process may run on, which a container or ``taskset`` may have limited."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, found // _sharing)


def share_cpus(processes: int) -> None:
    """Let ``usable_cpus`` leave their part to the other ones of so many processes that work at the same time."""
    global _sharing
    _sharing = processes
