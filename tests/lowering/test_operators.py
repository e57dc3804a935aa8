"""Every operator that Keras models lead to, one by one, from ``quantize_keras_model`` to the stock runtimes.

Each case is one output of a small model, and reads the int8 inputs of the model directly; so what the runtimes
disagree about is the operator itself, in steps of the output's grid.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from stock_runtimes import RESOLVERS, RUNTIMES, decoded, details, run, signal_to_noise

import tfptq
from tfptq.ops.table import OPERATORS
from tfptq.tflite.model import TFLiteModel

SAMPLES = 16


@dataclass(frozen=True)
class Case:
    """What one output of a model must be.

    Attributes:
        build: (input a, input b) -> tensor; the inputs are ``[batch, 8, 8, 4]``.
        integer: operators that must run on integers on the way to the output.
        floats: operators that stay float, with a part of the reason; no others may.
        snr: least signal-to-noise ratio to the float model, in dB.
        steps: largest difference between two runtimes, in steps of the output's grid.
        resolvers: those that have the operator.
    """

    build: Callable[[Any, Any], Any]
    integer: tuple[str, ...]
    floats: dict[str, str] = field(default_factory=dict)
    snr: float = 30.0
    steps: int = 1
    resolvers: tuple[str, ...] = tuple(RESOLVERS)


def tensorflow(function):
    """A TensorFlow function as a layer."""
    return layers.Lambda(function)


def one(build, *integer, **options):
    return Case(build, integer, **options)


def sequence(x):
    return layers.Reshape((64, 4))(x)


def activation(name, *integer, **options):
    return Case(lambda a, b: layers.Activation(name)(b if name in ON_B else a), integer, **options)


#: The converter shares the parts of functions of one input, and then does not see what they were parts of.
ON_B = ("hard_sigmoid", "softplus", "mish")
NO_RULE = "no integer rule"
IN_FLOAT = "continues a computation in float"
BETWEEN = "is all that lies between float values"
VARIANCE = "gives a variance to a computation in float"
SAME = {"padding": "same"}

MODELS: dict[str, dict[str, Case]] = {
    "kernels": {
        "conv": one(lambda a, b: layers.Conv2D(6, 3, activation="relu", **SAME)(a), "CONV_2D"),
        "conv_strided": one(lambda a, b: layers.Conv2D(6, 3, strides=2, **SAME)(a), "CONV_2D"),
        "conv_dilated": one(lambda a, b: layers.Conv2D(6, 3, dilation_rate=2)(a), "CONV_2D"),
        "conv_grouped": one(lambda a, b: layers.Conv2D(6, 3, groups=2)(a), "CONV_2D"),
        "depthwise": one(lambda a, b: layers.DepthwiseConv2D(3, strides=2, **SAME)(a), "DEPTHWISE_CONV_2D"),
        "depthwise_multiplier": one(lambda a, b: layers.DepthwiseConv2D(3, depth_multiplier=2)(a), "DEPTHWISE_CONV_2D"),
        "depthwise_dilated": one(lambda a, b: layers.DepthwiseConv2D(3, dilation_rate=2)(a), "DEPTHWISE_CONV_2D"),
        "separable": one(lambda a, b: layers.SeparableConv2D(6, 3)(a), "DEPTHWISE_CONV_2D", "CONV_2D"),
        "transposed": one(lambda a, b: layers.Conv2DTranspose(5, 3, strides=2, **SAME)(a), "TRANSPOSE_CONV"),
        "transposed_valid": one(lambda a, b: layers.Conv2DTranspose(5, 2, strides=2)(a), "TRANSPOSE_CONV"),
    },
    "sequences_and_dense": {
        "dense": one(lambda a, b: layers.Dense(5)(layers.Flatten()(a)), "RESHAPE", "FULLY_CONNECTED"),
        "dense_per_position": one(lambda a, b: layers.Dense(5)(a), "FULLY_CONNECTED"),
        "einsum": one(
            lambda a, b: layers.EinsumDense("abc,cde->abde", (None, 2, 5), bias_axes="de")(sequence(a)),
            "FULLY_CONNECTED",
        ),
        "conv1d": one(lambda a, b: layers.Conv1D(6, 3, padding="causal")(sequence(a)), "CONV_2D"),
        "depthwise1d": one(lambda a, b: layers.DepthwiseConv1D(3)(sequence(a)), "DEPTHWISE_CONV_2D"),
        "separable1d": one(lambda a, b: layers.SeparableConv1D(5, 3)(sequence(a)), "DEPTHWISE_CONV_2D", "CONV_2D"),
        "transposed1d": one(lambda a, b: layers.Conv1DTranspose(5, 3, strides=2)(sequence(a)), "TRANSPOSE_CONV"),
        "matmul": one(lambda a, b: ops.matmul(sequence(a), layers.Permute((2, 1))(sequence(b))), "BATCH_MATMUL"),
        # The second factor's grid is fixed, with another zero point than 0; the requantization is rounded in 2 ways.
        "matmul_softmax": one(
            lambda a, b: ops.matmul(layers.Permute((2, 1))(sequence(a)), layers.Softmax()(sequence(b))),
            "BATCH_MATMUL",
            "SOFTMAX",
            steps=3,
        ),
        "attention": one(
            lambda a, b: layers.MultiHeadAttention(2, 4)(sequence(a), sequence(b)),
            "FULLY_CONNECTED",
            "BATCH_MATMUL",
            "SOFTMAX",
            steps=3,
            snr=25,
        ),
    },
    "arithmetic": {
        "conv": one(lambda a, b: layers.Conv2D(2, 1)(a), "CONV_2D"),
        "add": one(lambda a, b: a + b, "ADD"),
        "add_constant": one(lambda a, b: a + 0.5, "ADD"),
        "subtract": one(lambda a, b: a - b, "SUB"),
        "multiply": one(lambda a, b: a * b, "MUL"),
        "multiply_constant": one(lambda a, b: a * np.arange(1, 5, dtype=np.float32), "MUL"),
        "square": one(lambda a, b: ops.square(a), "MUL"),
        "squared_difference": one(
            lambda a, b: tensorflow(lambda x: tf.math.squared_difference(*x))([a, b]), "SQUARED_DIFFERENCE"
        ),
        "maximum": one(lambda a, b: layers.Maximum()([a, b]), "MAXIMUM"),
        "maximum_constant": one(lambda a, b: ops.maximum(a, 0.1), "MAXIMUM"),
        "minimum": one(lambda a, b: layers.Minimum()([a, b]), "MINIMUM"),
        "divide": one(lambda a, b: b / (1.0 + ops.abs(a)), floats={"ABS": BETWEEN, "ADD": BETWEEN, "DIV": NO_RULE}),
        "absolute": one(lambda a, b: ops.abs(b) * a, "ABS", "MUL"),
    },
    "activations": {
        "conv": one(lambda a, b: layers.Conv2D(2, 1)(a), "CONV_2D"),
        "softmax": activation("softmax", "SOFTMAX"),
        "log_softmax": activation("log_softmax", "LOG_SOFTMAX"),
        "sigmoid": activation("sigmoid", "LOGISTIC"),
        "tanh": activation("tanh", "TANH"),
        "relu": activation("relu", "RELU"),
        "relu6": activation("relu6", "RELU6"),
        "clip": one(lambda a, b: ops.clip(a, -1, 1), "RELU_N1_TO_1"),
        "leaky_relu": activation("leaky_relu", "LEAKY_RELU"),
        "prelu": one(lambda a, b: layers.PReLU(shared_axes=[1, 2], alpha_initializer="glorot_uniform")(b), "PRELU"),
        "hard_swish": activation("hard_swish", "HARD_SWISH"),
        "hard_sigmoid": activation("hard_sigmoid", "ADD", "MUL"),
        "silu": activation("silu", "LOGISTIC", "MUL"),
        "gelu": activation("gelu", "GELU"),
        "gelu_exact": one(lambda a, b: ops.gelu(a, approximate=False), "GELU"),
        "softplus": activation("softplus", floats={"EXP": NO_RULE, "ADD": IN_FLOAT, "LOG": NO_RULE}),
        "exponential": activation("exponential", floats={"EXP": NO_RULE}),
    },
    "normalizations": {
        "conv": one(lambda a, b: layers.Conv2D(2, 1)(a), "CONV_2D"),
        "unit": one(lambda a, b: tensorflow(lambda x: tf.math.l2_normalize(x, axis=-1))(a), "L2_NORMALIZATION"),
        "layer": one(
            lambda a, b: layers.LayerNormalization()(layers.Reshape((8, 32))(a)),
            "MEAN",
            floats={
                **dict.fromkeys(("RSQRT", "NEG"), NO_RULE),
                **dict.fromkeys(("MUL", "ADD"), IN_FLOAT),
                **dict.fromkeys(("SQUARED_DIFFERENCE", "MEAN", "ADD"), VARIANCE),
            },
            steps=4,
            snr=35.0,
        ),
        "root_mean_square": one(
            lambda a, b: a * ops.rsqrt(ops.mean(ops.square(a), axis=-1, keepdims=True) + 1e-3),
            "MUL",
            floats={**dict.fromkeys(("MUL", "MEAN", "ADD"), VARIANCE), "RSQRT": NO_RULE},
            snr=35.0,
        ),
        "batch": one(lambda a, b: layers.BatchNormalization()(a), "DEPTHWISE_CONV_2D"),
        "selu": activation(
            "selu",
            "GREATER",
            "SELECT_V2",
            floats={"EXP": NO_RULE, **dict.fromkeys(("SUB", "MUL"), IN_FLOAT)},
        ),
        "mish": activation("mish", "MUL", floats={"EXP": NO_RULE, "LOG": NO_RULE, "ADD": IN_FLOAT, "TANH": IN_FLOAT}),
    },
    # LiteRT's reference resolver has no ELU at all, not even in float.
    "elu": {
        "conv": one(lambda a, b: layers.Conv2D(2, 1)(a), "CONV_2D", resolvers=("AUTO", "BUILTIN")),
        "elu": activation("elu", "ELU", resolvers=("AUTO", "BUILTIN")),
    },
    "rows": {
        "conv": one(lambda a, b: layers.Conv2D(2, 1)(a), "CONV_2D"),
        "batch": one(lambda a, b: layers.BatchNormalization()(layers.Reshape((8, 32))(a)), "MUL", "ADD"),
    },
    "choices": {
        "conv": one(lambda a, b: layers.Conv2D(2, 1)(a), "CONV_2D"),
        # At the border both choices are alike, so that it matters little on which side of it a code is.
        "where": one(lambda a, b: ops.where(a > b, a, b) * b[..., :1], "GREATER", "SELECT_V2"),
        "where_v1": one(
            lambda a, b: tensorflow(lambda x: tf.raw_ops.Select(condition=x[0] >= x[1], x=x[0], y=x[1]))([a, b]),
            "GREATER_EQUAL",
            "SELECT",
        ),
        "less": one(lambda a, b: ops.where(a < 0.3, a, 0.3), "LESS", "SELECT_V2"),
        "less_equal": one(lambda a, b: ops.where(a <= b[..., :1], b[..., :1], a), "LESS_EQUAL", "SELECT_V2"),
        "equal": one(
            lambda a, b: ops.where(ops.equal(a, ops.max(a, axis=-1, keepdims=True)), a, 0.9 * a), "EQUAL", snr=25.0
        ),
        "not_equal": one(
            lambda a, b: ops.where(ops.not_equal(a, ops.min(a, axis=-1, keepdims=True)), a, 0.9 * a),
            "NOT_EQUAL",
            snr=25.0,
        ),
        # Where two are equal on the grid, another one may be the largest.
        "largest": one(
            lambda a, b: tensorflow(lambda x: tf.cast(tf.argmax(x, axis=-1), tf.float32))(a) * b[..., 0],
            "ARG_MAX",
            floats={"CAST": NO_RULE},
            snr=15.0,
        ),
        "least": one(
            lambda a, b: tensorflow(lambda x: tf.cast(tf.argmin(x, axis=-1), tf.float32))(a) * b[..., 0],
            "ARG_MIN",
            floats={"CAST": NO_RULE},
            snr=15.0,
        ),
        "top": one(lambda a, b: tensorflow(lambda x: tf.math.top_k(x, 2).values)(a), "TOPK_V2"),
    },
    "positions": {
        "conv": one(lambda a, b: layers.Conv2D(2, 1)(a), "CONV_2D"),
        "average_pool": one(lambda a, b: layers.AveragePooling2D(2)(a), "AVERAGE_POOL_2D"),
        "max_pool": one(lambda a, b: layers.MaxPooling2D()(a), "MAX_POOL_2D"),
        "global_average": one(lambda a, b: layers.GlobalAveragePooling2D()(a), "MEAN"),
        "global_max": one(lambda a, b: layers.GlobalMaxPooling2D()(a), "REDUCE_MAX"),
        "minimum": one(lambda a, b: ops.min(a, axis=(1, 2)), "REDUCE_MIN"),
        "mean_of_channels": one(lambda a, b: ops.mean(a, axis=-1), "MEAN"),
        "sum": one(lambda a, b: ops.sum(a, axis=(1, 2)), "MEAN", "MUL"),
        "bilinear": one(lambda a, b: layers.UpSampling2D(interpolation="bilinear")(a), "RESIZE_BILINEAR"),
        "nearest": one(lambda a, b: layers.Resizing(16, 16, "nearest")(a), "RESIZE_NEAREST_NEIGHBOR"),
    },
    "moving": {
        "conv": one(lambda a, b: layers.Conv2D(2, 1)(a), "CONV_2D"),
        "concatenate": one(lambda a, b: layers.Concatenate()([a, b]), "CONCATENATION"),
        "stack": one(lambda a, b: ops.stack([a, b], axis=1), "PACK"),
        "unstack": one(lambda a, b: layers.Add()(ops.unstack(a, axis=3)[:2]), "UNPACK"),
        "reshape": one(lambda a, b: layers.Reshape((16, 16))(a), "RESHAPE"),
        "squeeze": one(lambda a, b: ops.squeeze(a[:, :1], axis=1), "RESHAPE"),
        "reverse": one(lambda a, b: ops.flip(a, axis=1), "REVERSE_V2"),
        "broadcast": one(lambda a, b: tensorflow(lambda x: tf.broadcast_to(x[:, :1], tf.shape(x)))(a), "BROADCAST_TO"),
        "expand": one(lambda a, b: ops.expand_dims(a, 1), "EXPAND_DIMS"),
        "transpose": one(lambda a, b: layers.Permute((3, 1, 2))(a), "TRANSPOSE"),
        "pad": one(lambda a, b: layers.ZeroPadding2D(1)(a), "PAD"),
        "pad_value": one(lambda a, b: ops.pad(a, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=0.3), "PADV2"),
        "mirror": one(lambda a, b: ops.pad(a, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect"), "MIRROR_PAD"),
        "strided_slice": one(lambda a, b: a[:, ::2, ::2, :], "STRIDED_SLICE"),
        "slice": one(lambda a, b: tensorflow(lambda x: tf.slice(x, [0, 1, 1, 0], [-1, 4, 4, -1]))(a), "SLICE"),
        "crop": one(lambda a, b: layers.Cropping2D(1)(a), "STRIDED_SLICE"),
        "split": one(lambda a, b: layers.Add()(ops.split(a, 2, axis=-1)), "SPLIT"),
        "split_sizes": one(lambda a, b: tensorflow(lambda x: tf.split(x, [1, 3], axis=-1)[1])(a), "SPLIT_V"),
        "gather": one(lambda a, b: ops.take(a, [1, 3], axis=-1), "GATHER"),
        "tile": one(lambda a, b: ops.tile(a, (1, 2, 1, 1)), "CONCATENATION"),
        # By a number that is known when the file runs alone: the batch over itself, and 1.
        "tile_by_size": one(
            lambda a, b: tensorflow(
                lambda pair: tf.tile(pair[0], [1, tf.shape(pair[0])[0] // tf.shape(pair[1])[0] + 1, 1, 1])
            )([a, b]),
            "TILE",
        ),
        "depth_to_space": one(lambda a, b: tensorflow(lambda x: tf.nn.depth_to_space(x, 2))(a), "DEPTH_TO_SPACE"),
        "space_to_depth": one(lambda a, b: tensorflow(lambda x: tf.nn.space_to_depth(x, 2))(a), "SPACE_TO_DEPTH"),
        "space_to_batch": one(
            lambda a, b: tensorflow(
                lambda x: tf.batch_to_space(tf.space_to_batch(x, [2, 2], [[0, 0]] * 2), [2, 2], [[0, 0]] * 2)
            )(a),
            "SPACE_TO_BATCH_ND",
            "BATCH_TO_SPACE_ND",
        ),
    },
}
CASES = [pytest.param(group, name, id=f"{group}-{name}") for group, cases in MODELS.items() for name in cases]


class Outcome(NamedTuple):
    file: TFLiteModel
    report: tfptq.Report
    expected: dict[str, np.ndarray]
    found: dict[tuple[str, str], dict[str, np.ndarray]]
    details: dict[str, dict]


@functools.cache
def outcome(group: str) -> Outcome:
    """Quantize a model and run it everywhere."""
    keras.utils.set_random_seed(0)
    a, b = keras.Input((8, 8, 4), name="a"), keras.Input((8, 8, 4), name="b")
    model = keras.Model({"a": a, "b": b}, {name: case.build(a, b) for name, case in MODELS[group].items()}, name=group)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if len(weight.shape) == 1:
            weight.assign(rng.uniform(0.1, 0.3, weight.shape))
    inputs = {name: rng.normal(size=(SAMPLES, 8, 8, 4)).astype(np.float32) for name in "ab"}
    config = tfptq.QuantizationConfig.from_preset("w8a8_channel").replace(input_type="int8", output_type="int8")
    result = tfptq.quantize_keras_model(model, inputs, config, progress=False)
    resolvers = next(iter(MODELS[group].values())).resolvers
    found = {
        (runtime, resolver): run(result.tflite, inputs, resolver, runtime)
        for runtime in RUNTIMES
        for resolver in resolvers
    }
    expected = {name: np.asarray(values) for name, values in model(inputs).items()}
    return Outcome(TFLiteModel(result.tflite), result.report, expected, found, details(result.tflite)[1])


def way(file: TFLiteModel, output: str) -> set[tuple[str, bool]]:
    """(operator, whether it computes on integers) of everything that an output depends on."""
    entries = {entry.name.decode(): entry.tensorIndex for entry in file.root.signatureDefs[0].outputs}
    producers, waiting, seen = file.producers(), [entries[output]], set()
    while waiting:
        at = producers.get(waiting.pop())
        if at is not None and at not in seen:
            seen.add(at)
            waiting += file.operators[at].inputs
    return {_kind(file, file.operators[at]) for at in seen}


def _kind(file: TFLiteModel, operator) -> tuple[str, bool]:
    return file.operator_name(operator), not any(map(file.is_float, (*operator.inputs, *operator.outputs)))


@pytest.mark.parametrize(("group", "name"), CASES)
def test_operators_on_integers(group, name):
    case, model = MODELS[group][name], outcome(group)
    operators = way(model.file, name)
    integer = {operator for operator, on_integers in operators if on_integers}
    assert set(case.integer) <= integer
    left = {operator for operator, on_integers in operators if not on_integers} - {"QUANTIZE", "DEQUANTIZE"}
    assert left == set(case.floats)
    for operator, reason in case.floats.items():
        assert any(item.operator == operator and reason in item.reason for item in model.report.float_operators)


@pytest.mark.parametrize(("group", "name"), CASES)
def test_close_to_the_float_model(group, name):
    model = outcome(group)
    for place, outputs in model.found.items():
        assert outputs[name].dtype == np.int8
        values = decoded(outputs[name], model.details[name])
        assert values.any(), place
        assert values.shape == model.expected[name].shape
        assert signal_to_noise(model.expected[name], values) > MODELS[group][name].snr, place


@pytest.mark.parametrize(("group", "name"), CASES)
def test_runtimes_agree(group, name):
    case, model = MODELS[group][name], outcome(group)
    reference = model.found["litert", case.resolvers[-1]][name].astype(np.int32)
    for place, outputs in model.found.items():
        assert np.abs(outputs[name] - reference).max() <= case.steps, place


def test_every_rule_has_a_case():
    covered = {operator for cases in MODELS.values() for case in cases.values() for operator in case.integer}
    # SUM is rewritten as MEAN and MUL before the rules are asked, the converter makes SQUEEZE a RESHAPE, and LSTM has
    # tests of its own (tests/test_recurrent.py).
    others = {"SUM", "SQUEEZE", "UNIDIRECTIONAL_SEQUENCE_LSTM"}
    assert {name for name, spec in OPERATORS.items() if spec.output_grid is not None} - covered == others
