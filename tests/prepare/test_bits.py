"""Mixed precision: bits by coding length become overrides of an ordinary config."""

import keras
import numpy as np
import pytest
from plain_config import plain_config

from tfptq.config import MixedPrecision, PerChannel, QuantizationConfig, override
from tfptq.prepare import bits as module
from tfptq.prepare.storage import groups_of


@pytest.fixture(scope="module")
def model():
    """Dense layers of equal size whose weights have rank 1, 2, 4 and 16."""
    rng = np.random.default_rng(0)
    inputs = x = keras.Input((16,), name="x")
    for rank in (1, 2, 4, 16):
        x = keras.layers.Dense(16, name=f"rank_{rank}")(x)
    built = keras.Model(inputs, x)
    for rank in (1, 2, 4, 16):
        kernel = rng.normal(size=(16, rank)) @ rng.normal(size=(rank, 16))
        built.get_layer(f"rank_{rank}").kernel.assign(kernel)
    return built


def choose_bits(config, model, batches=()):
    return module.choose_bits(config, groups_of(model), module.sensitivity_of_layers(config, model, batches))


def _config(**settings):
    return plain_config(PerChannel(), weight_bits=4, edge_bits=None, mixed_precision=MixedPrecision(**settings))


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


SCALES = 4 * 4 * 16  # bytes: float32 for 16 outputs of 4 layers


@pytest.mark.parametrize("by", ["coding_length", "sensitivity"])
def test_budget_in_bytes_holds_with_pinned_layers(model, by):
    config = _config(budget_bytes=850, by=by).replace(overrides=(override("rank_1", weight_bits=8),))
    chosen, table = choose_bits(config, model, SAMPLES)
    assert 850 - 64 < sum(STORED[row.bits] for row in table) + SCALES <= 850
    assert chosen.for_layer("rank_1").weight_bits == 8
    assert [row.pinned for row in table] == [True, False, False, False]


#: Bits -> bytes of 16 x 16 codes on the target cpu.
STORED = {2: 64, 4: 128, 8: 256}
SAMPLES = [{"x": np.random.default_rng(1).normal(size=(32, 16)).astype(np.float32)}]


@pytest.mark.parametrize("by", ["coding_length", "sensitivity"])
def test_a_ratio_is_one_of_codes_and_scales_in_the_file(model, by):
    _, table = choose_bits(_config(ratio=0.6, by=by), model, SAMPLES)
    most = 0.6 * (4 * 256 + SCALES)
    assert most - 64 < sum(STORED[row.bits] for row in table) + SCALES <= most


def test_a_sensitive_layer_gets_more_bits():
    """Two branches of random weights, one of which adds a hundred times as much to the output."""
    rng = np.random.default_rng(0)
    inputs = keras.Input((16,), name="x")
    branches = [keras.layers.Dense(16, name=name)(inputs) for name in ("quiet", "loud", "silent")]
    model = keras.Model(inputs, keras.layers.Add()([branches[0], 100.0 * branches[1], 1e-4 * branches[2]]))
    for name in ("quiet", "loud", "silent"):
        model.get_layer(name).kernel.assign(rng.normal(size=(16, 16)))
    settings = {"bits": (2, 4, 8), "ratio": 0.7}
    _, table = choose_bits(_config(by="sensitivity", **settings), model, SAMPLES)
    assert {row.layer: row.bits for row in table} == {"quiet": 4, "loud": 8, "silent": 2}
    _, alike = choose_bits(_config(**settings), model)  # coding lengths tell nothing of it
    rates = [row.rate for row in alike]
    assert max(rates) - min(rates) < 0.2


def test_pinned_layers_may_be_slower_than_the_budget():
    """Whoever names a width has it, and the other layers have the budget for themselves."""
    inputs = x = keras.Input((12, 12, 8), name="x")
    for name in ("first", "second"):
        x = keras.layers.Conv2D(8, 3, padding="same", name=name)(x)
    model = keras.Model(inputs, x)
    config = _config(ratio=1.0).replace(overrides=(override("first", weight_bits=4),), latency_budget=1.0)
    chosen, table = choose_bits(config, model)
    assert [(row.layer, row.bits, row.pinned) for row in table] == [("first", 4, True), ("second", 8, False)]
    assert chosen.for_layer("first").weight_bits == 4


def test_a_layout_that_the_config_names_counts():
    inputs = x = keras.Input((12, 12, 8), name="x")
    for name in ("first", "second"):
        x = keras.layers.Conv2D(8, 3, padding="same", name=name)(x)
    model = keras.Model(inputs, x)
    whole = 2 * (8 * 8 * 9 + 4 * 8)
    config = _config(budget_bytes=int(0.8 * whole), bits=(4, 8))
    _, table = choose_bits(config.replace(layout="int4"), model)
    assert sorted(row.bits for row in table) == [4, 8]
    with pytest.raises(ValueError, match=f"smallest widths take {whole}"):
        choose_bits(config.replace(layout="int8"), model)


def test_a_ratio_that_the_target_does_not_reach_is_neared(model):
    """So that presets can be given networks of any kind."""
    _, table = choose_bits(_config(ratio=0.2, bits=(4, 8)), model)
    assert [row.bits for row in table] == [4] * 4


def test_a_model_without_floating_point_outputs_has_no_sensitivity():
    inputs = keras.Input((16,), name="x")
    x = keras.ops.argmax(keras.layers.Dense(8, name="a")(keras.layers.Dense(16, name="b")(inputs)), axis=-1)
    with pytest.raises(ValueError, match="no weight of 'best' moves a floating point output.*coding_length"):
        choose_bits(_config(by="sensitivity", ratio=0.6), keras.Model(inputs, x, name="best"), SAMPLES)


def test_attention_and_packed_codes_of_compilers():
    """Layers with several weights have one width; on targets whose compilers compress, packed codes count."""
    inputs = keras.Input((6, 16), name="x")
    x = keras.layers.MultiHeadAttention(2, 8, name="attention")(inputs, inputs)
    model = keras.Model(inputs, keras.layers.Dense(16, name="dense")(x))
    samples = [{"x": np.random.default_rng(1).normal(size=(8, 6, 16)).astype(np.float32)}]
    for target in ("cpu", "npu"):
        config = _config(by="sensitivity", ratio=0.7, bits=(4, 8)).replace(target=target)
        _, table = choose_bits(config, model, samples)
        assert {row.layer: row.weights for row in table} == {"attention": 4 * 256, "dense": 256}
        assert sum(row.bytes for row in table) <= 0.7 * 5 * 256


def test_without_a_budget_layers_are_clustered(model):
    _, table = choose_bits(_config(bits=(2, 4, 8)), model)
    assert {row.bits for row in table} == {2, 4, 8}


def test_an_impossible_budget_is_refused(model):
    with pytest.raises(ValueError, match="no choice of widths keeps the budgets: 100 bytes"):
        choose_bits(_config(budget_bytes=100), model)


def test_nothing_to_do(model):
    config = plain_config(PerChannel(), weight_bits=4)
    assert choose_bits(config, model) == (config, ())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": (4, 7)}, "mixed_precision.bits is 7"),
        ({"bits": (), "average_bits": 4.0}, r"mixed_precision.bits is \(\); give at least one of 2, 3, 4, 5, 6, 8"),
        ({"average_bits": 9.0}, "average_bits"),
        ({"average_bits": 4.0, "budget_bytes": 100}, "not both"),
        ({"ratio": 0.5, "budget_bytes": 100}, "not both"),
        ({"ratio": 1.5}, "mixed_precision.ratio is 1.5"),
        ({"by": "sensitivty", "ratio": 0.5}, "did you mean 'sensitivity'"),
        ({"by": "sensitivity"}, "needs a budget: ratio"),
        ({"by": "sensitivity", "average_bits": 4.0}, "needs a budget: ratio"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        MixedPrecision(**settings)


def test_json_round_trip():
    config = _config(average_bits=3.5, bits=(2, 4))
    assert QuantizationConfig.from_json(config.to_json()) == config
