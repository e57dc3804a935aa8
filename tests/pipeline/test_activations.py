"""Plans made after kernels were quantized agree with the one that they were quantized for."""

import dataclasses

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers
from plain_config import plain_config

from tfptq.base.progress import Progress
from tfptq.config import PerChannel, override, resolve_config
from tfptq.float_file.build import make_float_file
from tfptq.lowering.plan import plan_integers
from tfptq.pipeline import activations as pipeline
from tfptq.pipeline.steps import convert, fit, kernel_views, quantized_kernels
from tfptq.prepare.network import prepare

CHANNEL4 = plain_config(PerChannel(), weight_bits=4, edge_bits=None, target="any")
CONFIGS = {
    "w8a8": plain_config(PerChannel()),
    "w4a8": CHANNEL4,
    "w4a6": CHANNEL4.replace(activation_bits=6, activation_aware=True, rounding="coordinate"),
    "w4a16": CHANNEL4.replace(activation_bits=16),
    "inline": CHANNEL4.replace(layout="inline"),
    "skip": CHANNEL4.replace(overrides=(override("second", skip=True),)),
}


def branches():
    """Kernels around what ranges decide on: sums, products, concatenations, a softmax and a sigmoid."""
    inputs = keras.Input((6, 6, 3), name="x")
    first = layers.Conv2D(4, 3, padding="same", activation="relu", name="first")(inputs)
    second = layers.DepthwiseConv2D(3, padding="same", name="second")(first)
    gated = layers.Multiply()([second, layers.Conv2D(4, 1, activation="sigmoid", name="gate")(first)])
    joined = layers.Concatenate()([layers.Add()([first, gated]), layers.MaxPooling2D(1)(first)])
    third = layers.Conv2D(5, 3, strides=2, name="third")(joined)
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(layers.Flatten()(third)))


def difference():
    """The difference of two large inputs that are equal up to a little noise: its grid is widened."""
    inputs = keras.Input((2,), name="x")
    x = layers.Dense(4, name="second")(inputs)
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    model.get_layer("second").set_weights([np.float32([[50.0] * 4, [-50.0] * 4]), np.zeros(4, np.float32)])
    return model


def samples(model):
    rng = np.random.default_rng(0)
    if len(model.input_shape) == 2:
        base = rng.normal(300.0, 10.0, (64, 1))
        return np.concatenate([base, base + rng.normal(0.0, 0.001, (64, 1))], axis=1).astype(np.float32)
    return rng.normal(size=(32, *model.input_shape[1:])).astype(np.float32)


def fitted(model, config):
    """(the job, activations as calibrated, kernels with codes)."""
    progress = Progress(False)
    network = prepare(model, samples(model), resolve_config(config), 0, progress)
    job = convert(network, resolve_config(config), 0, progress)
    activations = pipeline.calibrate(job)
    return job, activations, fit(job, activations, None, 1 << 30)


def operators_of(kernels):
    return {use.operator: kernel.id for kernel in kernels for use in kernel.uses}


@pytest.mark.parametrize("make", [branches, difference])
@pytest.mark.parametrize("name", CONFIGS)
def test_later_plans_are_plans_for_the_same_kernels(make, name):
    job, calibrated, kernels = fitted(make(), CONFIGS[name])
    again = pipeline.calibrate_again(job, calibrated, kernels)
    final, settled = pipeline.with_headroom(job, again, kernels)
    there = operators_of(kernels)
    for plan in (calibrated.plan, again.plan, final.plan):
        assert operators_of(quantized_kernels(job, plan)) == there
    assert operators_of(settled) == there
    in_float = {at for at in there if at in job.in_float}
    assert set(there) - in_float <= set(final.plan.operators) and not in_float & set(final.plan.operators)
    assert bool(in_float) == (name == "inline")
    assert (("second", "kernel") in there.values()) == (name != "skip")
    for kernel in settled:
        for use in kernel.uses:
            assert use.operator in in_float or {use.input, use.output} <= set(final.plan.grids)


@pytest.mark.parametrize("make", [branches, difference])
@pytest.mark.parametrize("name", ["w8a8", "w4a8", "w4a6"])
def test_planning_again_changes_no_grid_but_those_that_were_to_be_widened(make, name):
    job, calibrated, kernels = fitted(make(), CONFIGS[name])
    again = pipeline.calibrate_again(job, calibrated, kernels)
    final, settled = pipeline.with_headroom(job, again, kernels)
    assert bool(final.known) == (make is difference)
    planned = pipeline.plan_activations(job, final.measurements, final.known)
    assert (planned.grids, planned.operators) == (final.plan.grids, final.plan.operators)
    outputs = {use.output for kernel in settled for use in kernel.uses}
    assert set(final.known) <= outputs
    for index in outputs - set(final.known):
        assert final.plan.grids[index] == again.plan.grids[index]
    for index, (low, high) in final.known.items():
        grid = final.plan.grids[index]
        assert grid.real_range[0] <= low + grid.scale and grid.real_range[1] >= high - grid.scale
        assert grid.scale > again.plan.grids[index].scale
    fixed_point, unchanged = pipeline.with_headroom(job, final, settled)
    assert fixed_point is final
    assert all(one is other for one, other in zip(settled, unchanged, strict=True))


@pytest.fixture(scope="module")
def float_file():
    model = branches()
    return make_float_file(model, kernel_views(model))


RANGES = st.tuples(st.floats(-20.0, 20.0), st.floats(-20.0, 20.0)).map(lambda ends: (-(2.0 ** ends[0]), 2.0 ** ends[1]))


@settings(max_examples=50)
@given(st.data(), st.sampled_from([8, 16]))
def test_no_range_moves_an_operator_with_a_kernel(float_file, data, bits):
    ranges = {index: data.draw(RANGES) for index in float_file.model.activations()}
    plan = plan_integers(float_file.model, ranges, bits)
    assert {use.operator for use in float_file.uses} <= set(plan.operators)
    assert {index for use in float_file.uses for index in (use.input, use.output)} <= set(plan.grids)


def test_ranges_do_move_other_operators(float_file):
    """Else the test before would say little."""
    alike = dict.fromkeys(float_file.model.activations(), (-1.0, 1.0))
    (product,) = (op for op in float_file.model.operators if float_file.model.operator_name(op) == "MUL")
    tiny = {**alike, product.outputs[0]: (-1e-6, 1e-6)}
    plans = [plan_integers(float_file.model, ranges) for ranges in (alike, tiny)]
    assert len(plans[1].operators) < len(plans[0].operators)


@pytest.mark.parametrize("step", ["calibrate again", "headroom"])
@pytest.mark.parametrize("lost", ["operator", "codes"])
def test_a_plan_for_other_kernels_is_an_internal_error(monkeypatch, step, lost):
    job, calibrated, kernels = fitted(difference(), CONFIGS["w4a8"])
    plan_activations = pipeline.plan_activations

    def plan_without_a_kernel(*arguments):
        plan = plan_activations(*arguments)
        return dataclasses.replace(plan, operators=plan.operators[1:])

    if lost == "operator":
        monkeypatch.setattr(pipeline, "plan_activations", plan_without_a_kernel)
    else:
        kernels = kernels[1:] if step == "calibrate again" else kernels[:1]
    named = "head" if (lost, step) == ("codes", "headroom") else "second"
    with pytest.raises(RuntimeError, match=f"internal error: .* another one for '{named}': on integers without codes"):
        if step == "headroom":
            pipeline.with_headroom(job, calibrated, kernels)
        else:
            pipeline.calibrate_again(job, calibrated, kernels)
