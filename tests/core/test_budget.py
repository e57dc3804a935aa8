import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfptq.core.budget import Option, choose_options, fewest_bytes

KERNELS = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from([2, 4, 8]),
            st.integers(1, 50),
            st.integers(1, 20),
            st.integers(0, 100).map(lambda tenths: tenths / 10),
        ),
        min_size=1,
        max_size=3,
    ),
    min_size=1,
    max_size=5,
)


def totals(chosen):
    return tuple(sum(getattr(option, field) for option in chosen) for field in ("bytes", "latency", "error"))


@given(KERNELS, st.integers(1, 250), st.integers(1, 100))
@settings(max_examples=40)
def test_budgets_are_kept_and_no_single_change_is_better(kernels, most_bytes, most_latency):
    options = [[Option(*values) for values in each] for each in kernels]
    feasible = [
        totals(choice)
        for choice in itertools.product(*options)
        if totals(choice)[0] <= most_bytes and totals(choice)[1] <= most_latency
    ]
    try:
        chosen = choose_options(options, most_bytes=most_bytes, most_latency=most_latency)
    except ValueError:
        # Prices reach the corners of what is possible; a lone point between them may be missed.
        cheapest = sum(min(option.bytes for option in each) for each in options)
        fastest = sum(min(option.latency for option in each) for each in options)
        both = [min(each, key=lambda option: (option.bytes, option.latency)) for each in options]
        assert cheapest > most_bytes or fastest > most_latency or totals(both)[1] > most_latency
        return
    used = totals(chosen)
    assert used[0] <= most_bytes and used[1] <= most_latency
    assert used[2] >= min(error for _, _, error in feasible) - 1e-9
    for number, each in enumerate(options):
        for other in each:
            changed = totals([*chosen[:number], other, *chosen[number + 1 :]])
            if changed[0] <= most_bytes and changed[1] <= most_latency:
                assert changed[2] >= used[2] - 1e-9


def test_near_the_optimum_on_many_kernels():
    rng = np.random.default_rng(0)
    options = []
    for size, sensitivity in zip(rng.integers(100, 10000, 12), rng.lognormal(0, 2, 12), strict=True):
        options.append([Option(bits, size * bits / 8, 1.0, sensitivity * 4.0**-bits) for bits in (2, 4, 8)])
    most = 0.5 * sum(each[-1].bytes for each in options)
    best = min(totals(choice)[2] for choice in itertools.product(*options) if totals(choice)[0] <= most)
    assert totals(choose_options(options, most_bytes=most))[2] <= 1.1 * best


def test_the_smallest_choice_is_a_budget_that_can_be_kept():
    """On the budget that ``fewest_bytes`` finds within a latency, prices alone miss the only choice that keeps it."""
    rng = np.random.default_rng(1)
    for _ in range(30):
        options = [
            [
                Option(bits, size * bits / 8, size * cost, sensitivity * 4.0**-bits)
                for bits, cost in zip((2, 4, 8), costs, strict=True)
            ]
            for size, sensitivity, costs in zip(
                rng.integers(100, 10000, 9),
                rng.lognormal(0, 2, 9),
                np.sort(rng.uniform(0.8, 5, (9, 3)))[:, ::-1],
                strict=True,
            )
        ]
        latency = 1.3 * sum(each[-1].latency for each in options)
        least = sum(option.bytes for option in fewest_bytes(options, most_latency=latency))
        chosen = choose_options(options, most_bytes=least, most_latency=latency)
        assert totals(chosen)[0] <= least and totals(chosen)[1] <= latency


def test_without_kernels_there_is_nothing_to_choose():
    assert choose_options([], most_bytes=1, most_latency=0) == fewest_bytes([], most_latency=0) == []


def test_without_budgets_the_least_error_wins():
    options = [[Option(4, 1, 1, 2.0), Option(8, 2, 2, 0.5)]]
    assert choose_options(options)[0].bits == 8


def test_budgets_that_cannot_be_kept_are_told():
    with pytest.raises(ValueError, match="the smallest widths take 10"):
        choose_options([[Option(4, 10, 1, 1.0)]], most_bytes=9)


@pytest.mark.parametrize("seed", range(8))
def test_a_budget_of_the_fewest_bytes_is_kept(seed):
    """Where few bytes cost time, prices of both alone do not lead to that choice."""
    rng, count = np.random.default_rng(seed), 8
    options = [
        [Option(8, size, 1.0, 0.0), Option(4, size // 2, latency, error)]
        for size, latency, error in zip(
            *(rng.integers(10, 1000, count), rng.uniform(1, 2, count), rng.uniform(1, 5, count)), strict=True
        )
    ]
    by_bytes = [[dataclasses.replace(option, error=option.bytes) for option in each] for each in options]
    fewest = totals(choose_options(by_bytes, most_latency=1.2 * count))[0]
    used = totals(choose_options(options, most_bytes=fewest, most_latency=1.2 * count))
    assert used[0] <= fewest and used[1] <= 1.2 * count
