"""Fitting weights from their values and mean inputs; fitting on statistics is tested with the prefix."""

import keras
import numpy as np
import pytest
from keras import layers
from stock_runtimes import run_decoded, signal_to_noise

import tfptq
from tfptq.config import Calibration, PerChannel, PerTensor, QuantizationConfig, Rounding
from tfptq.core.affine import weight_code_limit
from tfptq.fit.kernel import UNMATCHED_CONFIG, FittingTask, needs_statistics
from tfptq.fit.measure import measure
from tfptq.fit.order import bindings_by_key, fit_weights, with_room_for_biases
from tfptq.fit.sequential import SequentialCalibration
from tfptq.float_file.build import make_float_file
from tfptq.float_file.matching import is_keras_weight
from tfptq.layers import weight_specs
from tfptq.lowering.plan import plan_integers

CALIBRATION = Calibration("min_max")
CONFIG = QuantizationConfig(PerChannel())


def task_of(model, data, config, known=None):
    """A fitting task and all bindings; ``known`` limits the Keras weights that can be matched."""
    weights = {
        (layer.name, spec.name): spec.view.to_view(np.asarray(spec.variable))
        for layer in model.layers
        if layer.weights and (known is None or layer.name in known)
        for spec in weight_specs(layer)
    }
    float_file = make_float_file(model, weights)
    measurements = measure(float_file, [{"x": data}], CALIBRATION)
    plan = plan_integers(float_file.model, measurements.ranges(CALIBRATION, 8))
    return FittingTask(float_file, weights, measurements, plan.grids, lambda key: config, 0), float_file.bindings


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(0).normal(1.0, 1.0, (16, 6, 6, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3), name="x")
    shared = layers.Conv2D(3, 3, padding="same", bias_initializer="normal", name="shared")
    y = shared(layers.ReLU()(shared(inputs)))
    return keras.Model(
        inputs, layers.Dense(2, bias_initializer="normal", name="head")(layers.GlobalAveragePooling2D()(y))
    )


def test_uses_are_grouped_by_weight(model, data):
    _, bindings = task_of(model, data, CONFIG)
    grouped = bindings_by_key(bindings)
    assert {key: len(bindings) for key, bindings in grouped.items()} == {("shared", "kernel"): 2, ("head", "kernel"): 1}


def test_every_weight_is_fitted_once_by_its_layers_config(model, data):
    task, bindings = task_of(model, data, CONFIG.replace(weight_bits=4))
    done = []
    fitted = fit_weights(task, bindings, advance=done.append)
    assert done == [1, 1]
    assert {item.weight.bits for item in fitted.values()} == {4}
    assert len(fitted["shared", "kernel"].bindings) == 2
    for key, item in fitted.items():
        np.testing.assert_allclose(item.weight.dequantize(), task.weights[key], atol=item.weight.scales.values().max())


def test_kernels_of_nobody_are_quantized_per_channel(model, data):
    task, bindings = task_of(model, data, CONFIG.replace(weight_bits=4), known=["head"])
    fitted = fit_weights(task, bindings)
    strangers = [item for key, item in fitted.items() if not is_keras_weight(key)]
    assert len(strangers) == 1  # both uses read one constant
    assert strangers[0].weight.bits == UNMATCHED_CONFIG.weight_bits == 8
    assert strangers[0].weight.scales.count == 3


def test_bias_correction_keeps_the_mean_output(model, data):
    """With one use, W E[x] does not move: what rounding adds to it, the bias takes away."""
    task, bindings = task_of(model, data, QuantizationConfig(PerTensor(), weight_bits=3))
    item = fit_weights(task, bindings)["head", "kernel"]
    view, mean = task.weights["head", "kernel"], task.measurements.input_means[item.bindings[0].operator]
    moved = ((item.weight.dequantize() - view) * mean).sum(axis=(1, 2))
    np.testing.assert_allclose(item.bias_shift, -moved, rtol=1e-5, atol=1e-7)
    assert np.abs(moved).max() > 1e-3
    (binding,) = item.bindings
    np.testing.assert_allclose(item.bias_of(task.float_file, binding), task.float_file.bias(binding) - moved, rtol=1e-5)


def test_a_shared_bias_heeds_the_use_with_small_inputs(data):
    """What is a rounding error beside large outputs would drown small ones."""
    inputs = [keras.Input((6, 6, 3), name=name) for name in ("quiet", "loud")]
    conv = layers.Conv2D(3, 3, name="conv")
    model = keras.Model(inputs, [conv(x) for x in inputs])
    samples = {"quiet": data, "loud": 100.0 * data[::-1]}
    result = tfptq.quantize_keras_model(model, samples, CONFIG.replace(weight_bits=4), progress=False)
    expected = dict(zip(("quiet", "loud"), model.predict(samples, verbose=0), strict=True))
    found = run_decoded(result.tflite, samples).values()
    ratios = [max(signal_to_noise(wanted, values) for values in found) for wanted in expected.values()]
    plain = tfptq.quantize_keras_model(
        model, samples, CONFIG.replace(weight_bits=4, bias_correction=False), progress=False
    )
    without = run_decoded(plain.tflite, samples).values()
    assert ratios[0] > max(signal_to_noise(expected["quiet"], values) for values in without)
    assert min(ratios) > 15


def test_no_bias_correction_when_not_asked(model, data):
    task, bindings = task_of(model, data, CONFIG.replace(bias_correction=False))
    assert not any(item.bias_shift.any() for item in fit_weights(task, bindings).values())


@pytest.mark.parametrize("config", [CONFIG, QuantizationConfig(PerTensor()), QuantizationConfig(scaler="shift")])
def test_scales_leave_room_for_large_biases(data, config):
    inputs = keras.Input((6, 6, 3), name="x")
    model = keras.Model(inputs, layers.Conv2D(3, 1, name="conv")(inputs))
    model.get_layer("conv").set_weights([np.full((1, 1, 3, 3), 1e-8), np.asarray([1e4, -1e4, 0.0])])
    task, bindings = task_of(model, data, config)
    item = with_room_for_biases(task, fit_weights(task, bindings), task.grids)["conv", "kernel"]
    scales = item.weight.scale_per_weight[:, 0, 0] * task.grids[bindings[0].input].scale
    assert (np.abs(item.bias_of(task.float_file, bindings[0])) / scales <= 2**30).all()


def test_row_factors_reach_kernel_and_bias(data):
    inputs = keras.Input((6, 6, 3), name="x")
    factors = np.asarray([2.0, -0.5, 1.0], np.float32)
    model = keras.Model(inputs, layers.Conv2D(3, 1, name="conv", bias_initializer="normal")(inputs) * factors)
    task, bindings = task_of(model, data, CONFIG)
    item = fit_weights(task, bindings)["conv", "kernel"]
    (binding,) = bindings
    np.testing.assert_allclose(item.kernel_of(binding), task.float_file.kernel(binding), atol=0.02)
    expected = task.float_file.bias(binding) + factors * item.bias_shift
    np.testing.assert_allclose(item.bias_of(task.float_file, binding), expected, rtol=1e-6)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("rounding", [Rounding(), Rounding("coordinate")])
def test_codes_whose_sign_will_flip_have_a_mirror_image(data, bits, rounding):
    inputs = keras.Input((6, 6, 3), name="x")
    factors = np.asarray([2.0, -0.5, 1.0], np.float32)
    model = keras.Model(inputs, layers.Conv2D(3, 3, name="conv", use_bias=False)(inputs) * factors)
    kernel = np.full((3, 3, 3, 3), 0.1, np.float32)
    kernel[0, 0, 0] = -1.0  # the scale by weight error is then that of the lowest code
    model.get_layer("conv").set_weights([kernel])
    task, bindings = task_of(model, data, CONFIG.replace(weight_bits=bits, weight_scale="mse", rounding=rounding))
    prefix = SequentialCalibration(task.float_file, [{"x": data}], len(data), 1 << 20)
    item = fit_weights(task, bindings, prefix)["conv", "kernel"]
    assert item.weight.codes.min() == -weight_code_limit(bits)  # as low as it may
    flipped = item.weight.times_rows(item.bindings[0].row_factors)
    assert flipped.codes.max() <= weight_code_limit(bits)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, False),
        ({"weight_scale": "mse"}, False),
        ({"weight_scale": "output"}, True),
        ({"rounding": Rounding("attention")}, True),
        ({"rounding": Rounding("coordinate", most_inputs=72)}, True),
        ({"rounding": Rounding("coordinate", most_inputs=71)}, False),
    ],
)
def test_which_configs_need_statistics(changes, expected):
    assert needs_statistics(CONFIG.replace(**changes), (4, 8, 9)) == expected
