"""Fitting kernels from their values and mean inputs; fitting on statistics is tested with sequential calibration."""

from typing import NamedTuple

import keras
import numpy as np
import pytest
from keras import layers
from plain_config import plain_config
from stock_runtimes import run_decoded, signal_to_noise

import tfptq
from tfptq.config import Calibration, PerChannel, PerTensor, Rounding, override
from tfptq.core.affine import weight_code_limit
from tfptq.fit.kernel import FEW_POSITIONS, asks_for_statistics
from tfptq.fit.measure import measure
from tfptq.fit.measurements import Measurements
from tfptq.fit.order import LARGEST_STEP, fit_kernels, plan_fit, ranges_for_kernels, with_bias_headroom
from tfptq.fit.sequential import SequentialCalibration
from tfptq.float_file.build import make_float_file
from tfptq.float_file.float_file import FloatFile
from tfptq.lowering.choose_layout import LayoutPlan
from tfptq.lowering.plan import IntegerPlan, plan_integers
from tfptq.lowering.quantized_kernel import KernelPlan
from tfptq.pipeline.steps import kernel_views, plan_kernels
from tfptq.tflite.layouts import INT8

CALIBRATION = Calibration("min_max")
CONFIG = plain_config(PerChannel(), target="any")
IN_INT8 = LayoutPlan((INT8,))


class Task(NamedTuple):
    """What fitting reads."""

    float_file: FloatFile
    measurements: Measurements
    plan: IntegerPlan


def task_of(model, data, known=None):
    """Measurements and grids of a model; ``known`` limits the Keras weights that can be found."""
    weights = {id: view for id, view in kernel_views(model).items() if known is None or id.layer in known}
    float_file = make_float_file(model, weights)
    measurements = measure(float_file, [{"x": data}], CALIBRATION)
    return Task(float_file, measurements, plan_integers(float_file.model, measurements.ranges(CALIBRATION, 8)))


def fit(task, config, sequential=None, **arguments):
    """Kernel id -> the kernel with its codes."""
    plans = plan_kernels(task.float_file, config)
    kernels = [(kernel, plan_fit(kernel, plans[kernel.id], sequential)) for kernel in task.float_file.kernels]
    fitted = fit_kernels(kernels, task.measurements, task.plan.grids, sequential, **arguments)
    return {kernel.id: kernel for kernel in fitted}


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


def test_every_weight_is_fitted_once_by_its_layers_config(model, data):
    task, done = task_of(model, data), []
    fitted = fit(task, CONFIG.replace(weight_bits=4), advance=done.append)
    assert done == [1, 1]
    assert {item.weight.bits for item in fitted.values()} == {4}
    assert {id: len(item.uses) for id, item in fitted.items()} == {("shared", "kernel"): 2, ("head", "kernel"): 1}
    for id, view in kernel_views(model).items():
        weight = fitted[id].weight
        np.testing.assert_allclose(weight.dequantize(), view, atol=weight.scales.values().max())


def test_kernels_of_nobody_are_quantized_by_their_names(model, data):
    config = CONFIG.replace(
        weight_bits=4, overrides=[override("head", weight_bits=8), override("shared", weight_bits=3)]
    )
    fitted = fit(task_of(model, data, known=["head"]), config)
    (stranger,) = (item for id, item in fitted.items() if id.layer is None)  # both uses read one constant
    assert len(stranger.uses) == 2
    assert stranger.id == (None, "shared") and stranger.weight.bits == 3
    assert stranger.weight.scales.count == 3


def test_bias_correction_keeps_the_mean_output(model, data):
    """With one use, W E[x] does not move: what rounding adds to it, the bias takes away."""
    task = task_of(model, data)
    item = fit(task, plain_config(PerTensor(), weight_bits=3))["head", "kernel"]
    (use,) = item.uses
    mean = task.measurements.mean_input(use)
    moved = ((item.weight.dequantize() - kernel_views(model)["head", "kernel"]) * mean).sum(axis=(1, 2))
    np.testing.assert_allclose(item.bias_shift, -moved, rtol=1e-5, atol=1e-7)
    assert np.abs(moved).max() > 1e-3
    _, bias = item.float_values(use)
    np.testing.assert_allclose(bias, np.asarray(model.get_layer("head").bias) - moved, rtol=1e-5)


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
    fitted = fit(task_of(model, data), CONFIG.replace(bias_correction=False))
    assert not any(item.bias_shift.any() for item in fitted.values())


@pytest.mark.parametrize("config", [CONFIG, plain_config(PerTensor()), plain_config(scaler="shift")])
def test_scales_leave_room_for_large_biases(data, config):
    inputs = keras.Input((6, 6, 3), name="x")
    model = keras.Model(inputs, layers.Conv2D(3, 1, name="conv")(inputs))
    model.get_layer("conv").set_weights([np.full((1, 1, 3, 3), 1e-8), np.asarray([1e4, -1e4, 0.0])])
    task = task_of(model, data)
    item = with_bias_headroom(fit(task, config)["conv", "kernel"], task.plan.grids)
    (use,) = item.uses
    scales = item.weight.scale_per_weight[:, 0, 0] * task.plan.grids[use.input].scale
    _, bias = item.stored_values(use)
    assert (np.abs(bias) / scales <= 2**30).all()
    assert with_bias_headroom(item, task.plan.grids) is item  # room enough


def test_results_get_ranges_as_wide_as_a_step_of_their_products_asks_for(data):
    """A result of almost nothing, as the difference of large numbers: runtimes refuse its scale."""
    inputs = keras.Input((6, 6, 3), name="x")
    model = keras.Model(inputs, layers.Conv2D(3, 1, name="conv")(inputs))
    task = task_of(model, data)
    item = fit(task, CONFIG)["conv", "kernel"]
    (use,) = item.uses
    assert ranges_for_kernels([item], task.plan) == {}
    ranges = {**task.measurements.ranges(CALIBRATION, 8), use.output: (-1e-6, 1e-6)}
    plan = plan_integers(task.float_file.model, ranges)
    wider = ranges_for_kernels([item], plan)
    assert set(wider) == {use.output}
    settled = plan_integers(task.float_file.model, {**ranges, **wider})
    step = float(item.weight.scales.values().max()) * settled.grids[use.input].scale
    assert step / settled.grids[use.output].scale == pytest.approx(LARGEST_STEP, rel=0.01)


def test_row_factors_reach_kernel_and_bias(data):
    inputs = keras.Input((6, 6, 3), name="x")
    factors = np.asarray([2.0, -0.5, 1.0], np.float32)
    model = keras.Model(inputs, layers.Conv2D(3, 1, name="conv", bias_initializer="normal")(inputs) * factors)
    task = task_of(model, data)
    item = fit(task, CONFIG)["conv", "kernel"]
    (use,) = item.uses
    values, bias = item.stored_values(use)
    np.testing.assert_allclose(values, use.view.to_view(task.float_file.model.constant(use.tensor)), atol=0.02)
    assert item.bias_shift.any()
    np.testing.assert_allclose(bias, use.bias + factors * item.bias_shift, rtol=1e-6)
    np.testing.assert_allclose(item.float_values(use)[0], values, rtol=1e-6)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("rounding", [Rounding(), Rounding("coordinate")])
def test_codes_whose_sign_will_flip_have_a_mirror_image(data, bits, rounding):
    inputs = keras.Input((6, 6, 3), name="x")
    factors = np.asarray([2.0, -0.5, 1.0], np.float32)
    model = keras.Model(inputs, layers.Conv2D(3, 3, name="conv", use_bias=False)(inputs) * factors)
    kernel = np.full((3, 3, 3, 3), 0.1, np.float32)
    kernel[0, 0, 0] = -1.0  # the scale by weight error is then that of the lowest code
    model.get_layer("conv").set_weights([kernel])
    task = task_of(model, data)
    sequential = SequentialCalibration(task.float_file, [{"x": data}], len(data), 1 << 20)
    config = CONFIG.replace(weight_bits=bits, weight_scale="mse", rounding=rounding)
    item = fit(task, config, sequential)["conv", "kernel"]
    assert item.plan.rounding == rounding.method and item.plan.from_statistics == (rounding.method != "nearest")
    assert item.weight.codes.min() == -weight_code_limit(bits)  # as low as it may
    flipped = item.in_file(item.uses[0])
    assert flipped.codes.max() == weight_code_limit(bits)


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
def test_which_configs_ask_for_statistics(changes, expected):
    assert asks_for_statistics(CONFIG.replace(**changes), (4, 8, 9)) == expected


class TooLittle:
    """Sequential calibration whose statistics cannot be had; records how many positions were wanted."""

    def __init__(self):
        self.fewest = []

    def obstacle(self, kernel, fewest_positions):
        self.fewest.append(fewest_positions)
        return "for a reason"


def test_the_plan_says_why_a_kernel_has_no_statistics(model, data):
    kernel, learned = (
        task_of(model, data).float_file.kernel("head"),
        KernelPlan(CONFIG.replace(rounding=Rounding("coordinate")), IN_INT8),
    )
    sequential = TooLittle()
    plan = plan_fit(kernel, learned, sequential)
    assert (plan.rounding, plan.from_statistics, plan.reason) == ("nearest", False, "for a reason")
    part = KernelPlan(learned.config.replace(statistics_samples=4), IN_INT8)
    plan_fit(kernel, part, sequential)
    assert sequential.fewest == [0, FEW_POSITIONS]
    plain = KernelPlan(CONFIG, IN_INT8)
    assert plan_fit(kernel, plain, sequential) is plain and plan_fit(kernel, learned, None) is learned
