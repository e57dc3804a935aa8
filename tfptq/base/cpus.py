"""How many processors there are for us."""

import os


def usable_cpus() -> int:
    """Number of processors that this process may run on, which a container or ``taskset`` may have limited."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
