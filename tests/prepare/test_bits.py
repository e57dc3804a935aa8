"""Mixed precision: bits by coding length become overrides of an ordinary config."""

import keras
import numpy as np
import pytest

from tfptq.config import MixedPrecision, PerChannel, QuantizationConfig, override
from tfptq.prepare.bits import choose_bits


@pytest.fixture(scope="module")
def model():
    """Dense layers of equal size whose weights have rank 1, 2, 4 and 16."""
    rng = np.random.default_rng(0)
    inputs = x = keras.Input((16,))
    for rank in (1, 2, 4, 16):
        x = keras.layers.Dense(16, name=f"rank_{rank}")(x)
    built = keras.Model(inputs, x)
    for rank in (1, 2, 4, 16):
        kernel = rng.normal(size=(16, rank)) @ rng.normal(size=(rank, 16))
        built.get_layer(f"rank_{rank}").kernel.assign(kernel)
    return built


def _config(**settings):
    return QuantizationConfig(PerChannel(), weight_bits=4, edge_bits=None, mixed_precision=MixedPrecision(**settings))


def test_more_directions_get_more_bits(model):
    config, table = choose_bits(_config(average_bits=4.0), model)
    bits = {row.layer: row.bits for row in table}
    assert bits["rank_1"] <= bits["rank_2"] <= bits["rank_4"] <= bits["rank_16"]
    assert bits["rank_1"] < bits["rank_16"]
    assert sum(row.bits * row.weights for row in table) <= 4.0 * sum(row.weights for row in table)
    assert config.mixed_precision is None
    assert {row.layer: config.for_layer(row.layer).weight_bits for row in table} == bits


def test_of_two_layers_alike_the_larger_gets_fewer_bits():
    random = np.random.default_rng(0)
    inputs = keras.Input((16,))
    x = keras.layers.Dense(16, name="small")(inputs)
    outputs = keras.layers.Dense(16, name="end")(keras.layers.Dense(256, name="large")(x))
    model = keras.Model(inputs, outputs)
    for layer in model.layers[1:]:
        layer.kernel.assign(random.normal(size=layer.kernel.shape))
    _, table = choose_bits(_config(average_bits=4.0), model)
    bits = {row.layer: row.bits for row in table}
    assert bits["small"] > bits["large"]


def test_budget_in_bytes_holds_with_pinned_layers(model):
    config = _config(budget_bytes=600).replace(overrides=(override("rank_1", weight_bits=8),))
    chosen, table = choose_bits(config, model)
    assert sum(row.bytes for row in table) <= 600
    assert chosen.for_layer("rank_1").weight_bits == 8
    assert [row.pinned for row in table] == [True, False, False, False]


def test_without_a_budget_layers_are_clustered(model):
    _, table = choose_bits(_config(bits=(2, 4, 8)), model)
    assert {row.bits for row in table} == {2, 4, 8}


def test_an_impossible_budget_is_refused(model):
    with pytest.raises(ValueError, match="budget cannot be met"):
        choose_bits(_config(budget_bytes=100), model)


def test_nothing_to_do(model):
    config = QuantizationConfig(PerChannel(), weight_bits=4)
    assert choose_bits(config, model) == (config, ())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": (4, 7)}, "mixed_precision.bits is 7"),
        ({"bits": (), "average_bits": 4.0}, r"mixed_precision.bits is \(\); give at least one of 2, 3, 4, 5, 6, 8"),
        ({"average_bits": 9.0}, "average_bits"),
        ({"average_bits": 4.0, "budget_bytes": 100}, "not both"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        MixedPrecision(**settings)


def test_json_round_trip():
    config = _config(average_bits=3.5, bits=(2, 4))
    assert QuantizationConfig.from_json(config.to_json()) == config
