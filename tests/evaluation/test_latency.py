import pytest

from tfptq.evaluation import latency
from tfptq.evaluation.latency import Latency, interleaved_milliseconds


def test_runs_are_interleaved_and_medians_taken(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(latency.time, "perf_counter", lambda: next(clock))
    calls = []

    def invoke(name, seconds):
        return lambda number: calls.append((name, number)) or seconds

    medians, runs = interleaved_milliseconds([invoke("a", 0.002), invoke("b", 0.004)], seconds=3, least_runs=4)
    assert medians == pytest.approx([2.0, 4.0]) and runs == 4
    warm, measured = calls[: 2 * latency.WARM_UP], calls[2 * latency.WARM_UP :]
    assert {name for name, _ in warm} == {"a", "b"}
    assert measured == [("b", 0), ("a", 0), ("a", 1), ("b", 1), ("b", 2), ("a", 2), ("a", 3), ("b", 3)]


def test_ratio():
    assert Latency(1.0, 4.0, 9).ratio == 0.25 and Latency(1.0, None, 9).ratio is None
