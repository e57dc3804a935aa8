import os

import pytest

from tfptq.base.cpus import usable_cpus


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity of processes")
def test_affinity_counts():
    everything = os.sched_getaffinity(0)
    assert usable_cpus() == len(everything)
    try:
        os.sched_setaffinity(0, {min(everything)})
        assert usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, everything)


def test_systems_without_affinity_count_all(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cpus() == 1
