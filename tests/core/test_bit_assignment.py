"""Bit assignment: order, budgets, exactness of the clustering."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfptq.core.bit_assignment import assign_bits, cluster_bits, packed_bytes

LAYERS = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=4),
    st.tuples(st.floats(0.0, 8.0, width=16), st.integers(1, 5000)),
    min_size=1,
    max_size=12,
)


def _is_ordered(rates, bits):
    ranked = sorted(rates, key=lambda name: rates[name])
    return all(bits[a] <= bits[b] for a, b in itertools.combinations(ranked, 2) if rates[a] < rates[b])


@settings(max_examples=100)
@given(layers=LAYERS, share=st.floats(0.0, 1.0))
def test_byte_budget_is_kept_and_widths_follow_the_rates(layers, share):
    rates = {name: rate for name, (rate, _) in layers.items()}
    sizes = {name: size for name, (_, size) in layers.items()}
    least, most = (sum(packed_bytes(size, bits) for size in sizes.values()) for bits in (2, 8))
    budget = int(least + share * (most - least))

    bits = assign_bits(rates, sizes, budget_bytes=budget)

    assert list(bits) == list(rates)
    assert sum(packed_bytes(sizes[name], bits[name]) for name in bits) <= budget
    assert _is_ordered(rates, bits)


@settings(max_examples=50)
@given(layers=LAYERS, average=st.floats(2.0, 8.0))
def test_average_is_kept_over_the_free_layers(layers, average):
    rates = {name: rate for name, (rate, _) in layers.items()} | {"first": 0.5, "last": 7.5}
    sizes = {name: size for name, (_, size) in layers.items()} | {"first": 10**6, "last": 10**6}

    bits = assign_bits(rates, sizes, average_bits=average, pinned={"first": 8, "last": 8})

    assert bits["first"] == bits["last"] == 8
    free = {name: bits[name] for name in layers}
    assert sum(sizes[name] * width for name, width in free.items()) <= average * sum(sizes[name] for name in free)
    assert _is_ordered({name: rates[name] for name in free}, free)


def test_a_budget_is_used_up_where_layers_are_alike():
    rates = {str(i): 3.0 + i / 100 for i in range(20)}
    sizes = dict.fromkeys(rates, 1000)
    bits = assign_bits(rates, sizes, average_bits=4.0)
    assert np.mean(list(bits.values())) == 4.0
    assert set(bits.values()) == {4}


def test_rates_that_differ_by_a_bit_get_widths_that_do():
    bits = assign_bits({"a": 2.0, "b": 3.0, "c": 4.0}, {"a": 8, "b": 8, "c": 8}, average_bits=4.0)
    assert bits == {"a": 3, "b": 4, "c": 5}


@settings(max_examples=40)
@given(values=st.lists(st.integers(0, 50), min_size=3, max_size=8))
def test_clustering_is_optimal(values):
    rates = {f"layer{i}": float(value) for i, value in enumerate(values)}
    bits = cluster_bits(rates, bits=(2, 4, 8))

    def cost(labels):
        groups = [[v for v, label in zip(values, labels, strict=True) if label == one] for one in (2, 4, 8)]
        return sum(np.var(group) * len(group) for group in groups if group)

    assert _is_ordered(rates, bits)
    ordered = sorted(values)
    cuts = itertools.combinations_with_replacement(range(len(values) + 1), 2)
    best = min(
        sum(np.var(part) * len(part) for part in (ordered[:a], ordered[a:b], ordered[b:]) if part) for a, b in cuts
    )
    assert cost([bits[name] for name in rates]) == pytest.approx(best, abs=1e-6)


def test_clustering_respects_pins_and_few_rates():
    assert cluster_bits({"a": 1.0, "b": 2.0, "c": 9.0}, bits=(2, 4), pinned={"c": 8}) == {"a": 2, "b": 4, "c": 8}
    assert cluster_bits({"a": 1.0}, pinned={"a": 8}) == {"a": 8}
    assert cluster_bits({"a": 1.0, "b": 1.0}) == {"a": 2, "b": 2}


def test_errors_say_what_to_do():
    rates, sizes = {"a": 1.0, "b": 2.0}, {"a": 100, "b": 100}
    with pytest.raises(ValueError, match="2 layers at 2 bits need 50, 10 is left"):
        assign_bits(rates, sizes, budget_bytes=10)
    with pytest.raises(ValueError, match="either average_bits or budget_bytes"):
        assign_bits(rates, sizes)
    with pytest.raises(ValueError, match="different layers"):
        assign_bits(rates, {"a": 1}, average_bits=4)
    with pytest.raises(ValueError, match="each must be one of"):
        assign_bits(rates, sizes, bits=(4, 7), average_bits=4)
    with pytest.raises(ValueError, match="pinned layers that have no rate"):
        cluster_bits(rates, pinned={"c": 8})
    with pytest.raises(ValueError, match="not finite"):
        cluster_bits({"a": float("nan")})
