"""Blocks of kernels whose rounding is learned together: which kernels learn, where they stand, and what is refused."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfptq
import tfptq.fit
from tfptq import QuantizationConfig, Rounding, override
from tfptq.core.affine import weight_code_range
from tfptq.layers import wrappers
from tfptq.reconstruct import LearnedKernel, _BlockTask, reconstruct_block
from tfptq.tflite.matching import WEIGHTED_OPERATORS, replace_kernel
from tfptq.tflite.runtime import TensorRunner
from tfptq.tflite.segments import crossing, extract_segment

BLOCKS = Rounding("coordinate", reconstruction="block", block_steps=20)
CONFIG = QuantizationConfig.from_preset("w4a8_channel").replace(weight_bits=3, edge_bits=None, rounding=BLOCKS)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    coarse = np.kron(rng.normal(size=(32, 2, 2, 3)), np.ones((1, 4, 4, 1)))
    return (coarse + rng.normal(0, 0.3, (32, 8, 8, 3))).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    """A residual block: depthwise without activation function, pointwise with one, and two more."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 3), name="image")
    stem = layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(inputs)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(stem)
    x = layers.Conv2D(8, 1, activation="relu", name="pointwise")(x)
    x = layers.Conv2D(8, 3, padding="same", activation="relu6", name="third")(x)
    x = layers.Add()([layers.Conv2D(8, 1, name="project")(x), stem])
    return keras.Model(inputs, layers.Dense(4, name="head")(layers.GlobalAveragePooling2D()(x)))


@pytest.fixture
def learned(monkeypatch):
    """Arguments and results of each block that is learned, in order."""
    calls = []

    def spy(block_model, block, kernels, *samples, **options):
        found = reconstruct_block(block_model, block, kernels, *samples, **options)
        calls.append((block_model.copy(), block, kernels, samples[0], found))
        return found

    monkeypatch.setattr(tfptq.fit, "reconstruct_block", spy)
    return calls


def quantize(model, images, config):
    return tfptq.quantize_keras_model(model, images, config, progress=False)


def _with_random_codes(model, kernels: list[LearnedKernel]):
    """A copy of a model with random codes in place of those of some kernels, and the offsets that give these codes."""
    changed, rng, offsets = model.copy(), np.random.default_rng(0), []
    for kernel in kernels:
        low, high = weight_code_range(kernel.weight.bits)
        codes = rng.integers(low, high + 1, kernel.ratio.shape)
        operator = changed.operators[kernel.position]
        bias = model.constant(operator.inputs[WEIGHTED_OPERATORS[model.operator_name(operator)].bias])
        values = (codes * kernel.weight.scale_per_weight).astype(np.float32)
        replace_kernel(changed, operator, kernel.view.from_view(values), bias)
        offsets.append(tf.constant((codes - kernel.ratio).astype(np.float32)))
    return changed, offsets


CASES = {
    "plain": ({}, ["depthwise", "pointwise", "third", "project"]),
    "activations of 8 bits": ({"activation_aware": True}, ["depthwise", "pointwise", "third", "project"]),
    "activations of 5 bits": (
        {"activation_aware": True, "activation_bits": 5},
        ["depthwise", "pointwise", "third", "project"],
    ),
    "the first is rounded to nearest": (
        {"overrides": [override("depthwise", rounding="nearest")]},
        ["pointwise", "third", "project"],
    ),
    "one between is rounded to nearest": (
        {"overrides": [override("third", rounding="nearest")]},
        ["depthwise", "pointwise", "project"],
    ),
    "one has too many inputs": (
        {"rounding": Rounding("coordinate", reconstruction="block", block_steps=20, most_inputs=71)},
        ["depthwise", "pointwise", "project"],
    ),
}


@pytest.mark.parametrize(("changes", "names"), CASES.values(), ids=CASES)
def test_every_learning_kernel_is_run_in_its_own_place(model, images, learned, changes, names):
    result = quantize(model, images, CONFIG.replace(**changes))
    codes = {
        wrapper.layer.name: wrapper.weight_slots[0].quantized_weight().codes for wrapper in wrappers(result.keras_model)
    }
    ((block_model, block, kernels, inputs, found),) = [call for call in learned if len(call[2]) == len(names)]
    for kernel, weight, name in zip(kernels, found, names, strict=True):
        np.testing.assert_array_equal(weight.codes, codes[name])
        operator = block_model.operators[kernel.position]
        start = kernel.view.from_view(kernel.weight.dequantize())
        index = operator.inputs[WEIGHTED_OPERATORS[block_model.operator_name(operator)].kernel]
        np.testing.assert_array_equal(block_model.constant(index), start)
    changed, offsets = _with_random_codes(block_model, kernels)
    (source,), (target,) = crossing(changed, block.start), crossing(changed, block.stop)
    part = extract_segment(changed, block.start, block.stop, [target])
    runner = TensorRunner(part, part.subgraph.outputs)
    (expected,) = runner.values({changed.name(source): inputs}).values()
    outputs = _BlockTask(block_model, block, kernels).run(offsets, tf.constant(inputs)).numpy()
    # Where activations are rounded, one may fall on the other side of a tie.
    assert np.mean(np.abs(outputs - expected) > 1e-4 * np.abs(expected).max()) < 0.01


def test_kernels_learn_behind_rounded_activations(model, images):
    aware = CONFIG.replace(activation_aware=True, rounding=dataclasses.replace(BLOCKS, block_steps=150))
    alone = aware.replace(rounding=Rounding("coordinate"))
    together, separate = (wrappers(quantize(model, images, config).keras_model) for config in (aware, alone))
    changed = {
        one.layer.name
        for one, other in zip(together, separate, strict=True)
        if (one.weight_slots[0].quantized_weight().codes != other.weight_slots[0].quantized_weight().codes).any()
    }
    assert {"pointwise", "third"} <= changed  # those with an activation function


def test_each_kernel_has_its_own_width_of_attention(model, images, learned):
    wide = Rounding("coordinate", reconstruction="block", block_steps=20, tau=0.75)
    quantize(model, images, CONFIG.replace(overrides=[override("third", rounding=wide)]))
    assert [[kernel.tau for kernel in call[2]] for call in learned] == [[0.5, 0.5, 0.75, 0.5]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block_steps": 30}, "different block_steps: 'depthwise' 20, 'pointwise' 20, 'third' 30"),
        ({"learning_rate": 0.02}, "different learning_rate: 'depthwise' None, 'pointwise' None, 'third' 0.02"),
    ],
)
def test_layers_of_a_block_must_want_the_same(model, images, changes, message):
    other = dataclasses.replace(BLOCKS, **changes)
    with pytest.raises(ValueError, match=message):
        quantize(model, images, CONFIG.replace(overrides=[override("third", rounding=other)]))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"learning_rate": 0.1}, {"learning_rate": 0.1}),
        ({"method": "adaround", "steps": 5, "learning_rate": 0.1}, {}),
    ],
)
def test_blocks_learn_at_the_rate_of_the_config(model, images, monkeypatch, changes, expected):
    given = []

    def spy(block_model, block, kernels, *samples, steps, seed, **options):
        given.append(options)
        return [kernel.weight for kernel in kernels]

    monkeypatch.setattr(tfptq.fit, "reconstruct_block", spy)
    quantize(model, images, CONFIG.replace(rounding=dataclasses.replace(BLOCKS, **changes)))
    assert given == [expected]


def test_a_kernel_outside_of_the_block_is_refused(model, images, learned):
    quantize(model, images, CONFIG)
    ((block_model, block, kernels, inputs, _),) = learned
    for position in (block.start - 1, block.stop, kernels[-1].position + 1):
        moved = LearnedKernel(position, kernels[0].view, kernels[0].ratio, kernels[0].weight)
        with pytest.raises(ValueError, match=f"is at position {position}"):
            reconstruct_block(block_model, block, [moved], inputs, inputs)
