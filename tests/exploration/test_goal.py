import math

import pytest
from search_trials import trial

from tfptq.config import TARGETS
from tfptq.exploration.goal import Goal, samples_needed


def test_a_file_is_accepted_with_its_standard_error():
    goal = Goal(0.01)
    assert goal.accepts(trial(drop=0.006, error=0.004)) and not goal.accepts(trial(drop=0.006, error=0.005))
    assert not goal.accepts(trial(drop=math.nan))


def test_without_labels_other_decisions_count():
    found = trial(metric=None, drop=0.015, error=0.005)
    assert (found.drop, found.error) == (pytest.approx(0.015), 0.005)
    assert Goal(0.02).accepts(found) and not Goal(0.019).accepts(found)


@pytest.mark.parametrize("metric", ["accuracy", None])
def test_few_samples_without_a_difference_prove_little(metric):
    found = trial(metric=metric, drop=0.0, error=0.0, samples=50)
    assert found.error == 1 / 50 and not Goal(0.01).accepts(found)
    assert trial(metric="mse", drop=0.0, error=0.0, samples=50).error == 0.0
    assert trial(metric="mse", error=None).error is None


def test_the_smallest_or_among_the_fastest_the_smallest():
    slow, fast, faster, lossy = (
        trial("slow", size=600, ratio=0.9),
        trial("fast", size=900, ratio=0.51),
        trial("faster", size=1000, ratio=0.5),
        trial("lossy", size=100, ratio=0.1, drop=0.5),
    )
    trials = [slow, fast, faster, lossy]
    assert Goal(0.01).best(trials) is slow and Goal(0.01, "latency").best(trials) is fast
    assert Goal(0.001).best(trials) is slow  # the first of those that lose least


def test_compilers_compress_codes_of_few_bits():
    goal = Goal(0.01, target=TARGETS["npu"])
    narrow, wide = trial(size=1000, codes=900, packed=450), trial(size=950, codes=850)
    assert (goal.bytes(narrow), goal.bytes(wide)) == (550, 950) and goal.best([wide, narrow]) is narrow
    assert Goal(0.01).bytes(narrow) == 1000


def test_undecided_files_and_how_many_samples_would_tell():
    goal = Goal(0.01)
    good, near, far = trial(size=900), trial(size=500, drop=0.008, error=0.004), trial(size=400, drop=0.02)
    assert goal.undecided([good, near, far]) == [near] and goal.undecided([good, far]) == []
    assert goal.undecided([near, far]) == [near]
    assert samples_needed(near, 0.01) == math.ceil(500 * (0.004 / 0.0025) ** 2)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"max_drop": -0.1}, "max_drop is -0.1; it must be between 0.0"),
        ({"max_drop": 0.1, "objective": "size"}, "objective is 'size'; it must be one of 'bytes', 'latency'"),
        ({"max_drop": 0.1, "objective": "latency", "target": TARGETS["npu"]}, "tells nothing of target 'npu'"),
    ],
)
def test_what_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Goal(**values)
