"""Islands in float: regions, the choice among them, what is expected of a plan, and whole files."""

import dataclasses

import keras
import numpy as np
import pytest
from dynamic_models import encoder, mobile, samples
from float_files import FloatModel
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers
from stock_runtimes import run, signal_to_noise

import tfptq
from tfptq.lowering.islands import LEAST_SAVING, Judged, choose_islands, light_microseconds, regions_between_kernels
from tfptq.lowering.plan import Ends, plan_integers
from tfptq.lowering.rounded_activations import with_rounded_activations
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.operator_costs import OperatorCosts
from tfptq.tflite.runtime import TensorRunner

CHANNEL = tfptq.QuantizationConfig.from_preset("w8a8_channel")
COSTS = OperatorCosts(
    {
        "ADD": {"int8": 1.0, "float": 2.0},
        "MUL": {"int8": 1.0, "float": 2.0},
        "RESHAPE": {"int8": 1.0, "float": 1.0},
        "QUANTIZE": {"float": 10.0},
        "DEQUANTIZE": {"float": 100.0},
    }
)


def chain():
    """x -> dense -> sum with itself and product with itself -> dense -> moved -> dense -> HARD_SWISH."""
    file = FloatModel()
    rng = np.random.default_rng(0)

    def dense(source):
        return file.add(
            "FULLY_CONNECTED", [source, file.constant("w", rng.normal(size=(8, 8)).astype("f")), -1], (1, 8)
        )

    first = dense(file.input("x", (1, 8)))
    summed = file.add("ADD", [first, first], (1, 8))
    second = dense(file.add("MUL", [summed, first], (1, 8)))
    moved = file.add("RESHAPE", [second, file.constant("shape", np.int32([-1, 8]))], (1, 8))
    return file.finish(file.add("HARD_SWISH", [dense(moved)], (1, 8)))


def planned(model, skipped=None):
    return plan_integers(model, dict.fromkeys(model.activations(), (-4.0, 4.0)), skipped=skipped)


def test_regions_hang_together_between_kernels():
    """What only moves values is none, nor is an operator that was not measured."""
    model = chain()
    assert regions_between_kernels(model, planned(model), COSTS) == [(1, 2)]


def test_time_counts_operators_and_conversions():
    model = chain()
    moving = 8e-3  # of the RESHAPE, in either form
    ends = Ends(float_inputs=False, float_outputs=False)
    assert light_microseconds(model, planned(model), COSTS, ends) == pytest.approx(2 * 8e-3 + moving)
    # 8 values each: two operators at 2 ns, one tensor dequantized and one quantized.
    in_float = planned(model, dict.fromkeys((1, 2), "float"))
    assert light_microseconds(model, in_float, COSTS, ends) == pytest.approx(8e-3 * (2 + 2 + 100 + 10) + moving)
    assert light_microseconds(model, planned(model), COSTS, Ends()) == pytest.approx(8e-3 * (2 + 100 + 10) + moving)


CHAIN = chain()
PLAN = planned(CHAIN)


@settings(deadline=None, max_examples=50)
@given(noise=st.floats(0.0, 2.0), time=st.floats(0.5, 3.0), before=st.floats(1e-3, 1.0), budget=st.floats(1.0, 2.0))
def test_islands_cost_no_more_than_the_budget_and_are_worth_it(noise, time, before, budget):
    judged = {False: Judged(before, 10.0), True: Judged(noise * before, time * 10.0)}
    found = choose_islands(CHAIN, PLAN, lambda in_float: judged[bool(in_float)], COSTS, budget)
    if found.regions:
        assert found.regions == ((1, 2),) and set(found.reasons) == {1, 2}
        assert time <= budget, "more than the budget"
        assert time < 1.0 or noise < 1.0, "no gain at all"
    elif time < 1.0 - LEAST_SAVING * budget:
        assert noise > 1.0, "faster and as exact, but not taken"
    assert found.note.startswith(
        "activations='auto': " + ("2 operators in 1 island" if found.regions else "no islands")
    )


def test_rounded_activations_are_those_of_the_grids():
    """All read the rounded form of what integers write; of a float value, integers alone."""
    model = chain()
    x = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)
    plan = planned(model, {1: "float", 2: "float"})
    rounded = with_rounded_activations(model, plan)
    names = {rounded.name(index): index for index in range(len(rounded.tensors))}
    wanted = {name: names[name] for name in ("fully_connected_0_rounded", "add_1", "mul_2", "mul_2_rounded")}
    values = TensorRunner(rounded, wanted.values()).values({"x": x})
    first, summed, product, read = (values[wanted[name]] for name in wanted)
    grid = plan.grids[model.operators[0].outputs[0]]
    steps = first / grid.scale
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
    np.testing.assert_allclose(summed, 2 * first, rtol=1e-6)
    np.testing.assert_allclose(product, summed * first, rtol=1e-5)
    assert np.abs(read - product).max() > 1e-3, "a float value is rounded for the dense layer that reads it"
    assert not [index for name, index in names.items() if name.startswith("reshape") and name.endswith("rounded")]


def encoder_of_tokens():
    """Two blocks with the sums behind each normalized, as the first transformers have them."""
    keras.utils.set_random_seed(3)
    inputs = x = keras.Input((24, 64), name="x")
    for number in range(2):
        x = layers.LayerNormalization()(layers.Add()([x, layers.MultiHeadAttention(2, 32)(x, x)]))
        y = layers.Dense(96, activation="gelu", name=f"up_{number}")(x)
        x = layers.LayerNormalization()(layers.Add()([x, layers.Dense(64, name=f"down_{number}")(y)]))
    return keras.Model(inputs, x, name="encoder_of_tokens")


@pytest.fixture(scope="module")
def transformer():
    """(model, samples, outputs of the float model, static file, file with islands)."""
    model = encoder_of_tokens()
    x = samples(model)
    static, auto = (
        tfptq.quantize_keras_model(model, x, CHANNEL.replace(activations=kind, rounding="nearest"), progress=False)
        for kind in ("static", "auto")
    )
    return model, x, model.predict(x, verbose=0), static, auto


def test_a_transformer_gains(transformer):
    _, x, expected, static, auto = transformer
    before, after = (signal_to_noise(expected, run(it.tflite, {"x": x})["output_0"]) for it in (static, auto))
    assert after > before + 2.0
    (note,) = [line for line in auto.report.notes if line.startswith("activations='auto'")]
    assert "islands in float give activations" in note
    islands = [item for item in auto.report.float_operators if "island in float" in item.reason]
    assert {"SOFTMAX", "BATCH_MATMUL"} <= {item.operator for item in islands}
    assert not [line for line in static.report.notes if "auto" in line]
    assert tfptq.verify(auto.tflite).checks


def test_kernels_stay_on_integers(transformer):
    *_, auto = transformer
    model = TFLiteModel(auto.tflite)
    dense = [operator for operator in model.operators if model.operator_name(operator) == "FULLY_CONNECTED"]
    assert dense and not any(model.is_float(operator.outputs[0]) for operator in dense)


def test_a_file_without_islands_is_the_static_one():
    model = mobile()
    x = samples(model)
    static, auto = (
        tfptq.quantize_keras_model(
            model, x, CHANNEL.replace(activations=kind, metadata="none", rounding="nearest"), progress=False
        )
        for kind in ("static", "auto")
    )
    assert auto.tflite == static.tflite
    assert any("no islands in float" in line for line in auto.report.notes)


def test_islands_and_overrides():
    """What overrides put into float stays there, and their widths stay."""
    model = encoder()
    x = samples(model)
    config = CHANNEL.replace(
        activations="auto",
        rounding="nearest",
        overrides=[tfptq.override("up", skip=True), tfptq.override("down", activations="dynamic")],
    )
    result = tfptq.quantize_keras_model(model, x, config, progress=False)
    assert signal_to_noise(model.predict(x, verbose=0), run(result.tflite, {"x": x})["output_0"]) > 25.0
    reasons = {item.reason for item in result.report.float_operators}
    assert "the config skips layer 'up'" in reasons and "activations='dynamic'" in reasons


def test_an_exported_simulation_has_islands(transformer):
    _, x, expected, _, auto = transformer
    again = tfptq.export_simulation(auto.keras_model, x, auto.config, progress=False)
    assert any("islands in float give" in line for line in again.report.notes)
    assert signal_to_noise(expected, run(again.tflite, {"x": x})["output_0"]) > 25.0


def test_a_model_without_a_float_output_has_none():
    """Nothing tells what islands would win."""
    inputs = keras.Input((8,), name="x")
    hidden = layers.Dense(16, activation="gelu")(inputs)
    model = keras.Model(inputs, keras.ops.greater(layers.Dense(4)(hidden), 0.0))
    x = samples(model)
    result = tfptq.quantize_keras_model(model, x, CHANNEL.replace(activations="auto"), progress=False)
    assert not [item for item in result.report.float_operators if "island" in item.reason]
    assert any("no floating point output varies" in line for line in result.report.notes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "micro"}, "activations='auto' on target 'micro'.*targets with such costs: 'cpu'"),
        ({"activation_bits": 16}, "16-bit activations hold without islands"),
        ({"overrides": [tfptq.override("up", activations="auto")]}, "override for 'up' has activations='auto'"),
    ],
)
def test_configs_that_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CHANNEL, activations="auto", **changes)


def test_islands_need_samples():
    with pytest.raises(ValueError, match="dataset=None goes with float activations alone"):
        tfptq.quantize_keras_model(encoder(), None, CHANNEL.replace(activations="auto"), progress=False)


def test_a_config_survives_json():
    config = CHANNEL.replace(activations="auto")
    assert tfptq.QuantizationConfig.from_json(config.to_json()) == config
    assert tfptq.QuantizationConfig.from_compact_json(config.to_compact_json()) == config
