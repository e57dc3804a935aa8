import pytest
from search_trials import trial

from tfptq.config import TARGETS
from tfptq.exploration.goal import Goal
from tfptq.exploration.strategy import DEFAULT, NARROW, WIDEST, mixed, next_ratio, propose

GOAL = Goal(0.01)
LADDER = tuple(round(0.25 + 0.05 * step, 2) for step in range(15))


def never():
    raise AssertionError("the ladder is not needed")


def simulated(least_ratio, most_trials=20, goal=GOAL, narrow_is_good=True):
    """All trials of a search in which files are good from a ratio on."""
    trials = []
    while (proposal := propose(trials, goal, most_trials, lambda: LADDER)) is not None:
        ratio = proposal.ratio or (0.5 if proposal.name == NARROW else 1.0)
        good = ratio >= least_ratio if proposal.ratio else (proposal.name != NARROW or narrow_is_good)
        trials.append(trial(proposal=proposal, size=int(1000 * ratio), codes=int(1000 * ratio), drop=0 if good else 1))
        assert len(trials) <= 20
    return trials


def test_presets_come_first():
    names = [item.proposal.name for item in simulated(0.3)]
    assert names[:3] == [DEFAULT, WIDEST, NARROW] and len(set(names)) == len(names)


@pytest.mark.parametrize("least", [0.25, 0.3, 0.4, 0.45])
def test_bisection_finds_the_smallest_step(least):
    trials = simulated(least)
    assert GOAL.best(trials).proposal.ratio == least and len(trials) <= 8
    last = trials[-1].proposal
    assert (last.by, last.ratio) == ("coding_length", least)


def test_where_4_bits_lose_too_much_the_search_looks_above_them():
    trials = simulated(0.75, narrow_is_good=False)
    assert GOAL.best(trials).proposal.ratio == 0.75


def test_where_nothing_below_4_bits_is_good_they_stay_the_best():
    trials = simulated(0.5)
    assert GOAL.best(trials).proposal.name == NARROW
    assert [item.proposal.by for item in trials[3:]] == ["sensitivity"] * len(trials[3:])


def test_nothing_more_is_tried_where_8_bits_lose_too_much():
    trials = [trial(name, drop=0.5) for name in (DEFAULT, WIDEST, NARROW)]
    assert propose(trials, GOAL, 9, never) is None


@pytest.mark.parametrize("most", [1, 3, 4, 5, 6])
def test_no_more_trials_than_allowed_and_the_last_one_for_coding_lengths(most):
    trials = simulated(0.3, most)
    assert len(trials) <= most
    if most > 4:
        assert trials[-1].proposal.by == "coding_length"


def test_bisection_ends_where_steps_are_too_near():
    trials = [trial(WIDEST, codes=1000), trial(proposal=mixed(GOAL, "sensitivity", 0.5), codes=500)]
    assert next_ratio(trials, GOAL, (0.49, 0.5)) is None and next_ratio(trials, GOAL, (0.4, 0.5)) == 0.4


def test_configs_follow_the_goal():
    config = mixed(GOAL, "sensitivity", 0.5).config
    assert config.mixed_precision.bits == (2, 4, 8) and config.edge_bits is None
    assert config.target is TARGETS["cpu"] and config.layout == "size" and config.latency_budget == 1.35
    assert mixed(Goal(0.01, "latency"), "sensitivity", 0.5).config.layout == "speed"
    compiled = mixed(Goal(0.01, target=TARGETS["npu"]), "coding_length", 0.5).config
    assert 3 in compiled.mixed_precision.bits and compiled.mixed_precision.by == "coding_length"
    assert mixed(Goal(0.01, latency_budget=3.0), "sensitivity", 0.5).config.latency_budget == 3.0
