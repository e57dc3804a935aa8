"""Files with one layer in a given layout, for tests of layouts."""

import functools

import keras
import numpy as np
from float_files import kernels_of
from keras import layers
from plain_config import plain_config
from stock_runtimes import RESOLVERS, RUNTIMES, run

from tfptq.config import PerBlock, PerChannel, PerTensor
from tfptq.core.blocks import quantize_nearest
from tfptq.float_file.convert import convert_float
from tfptq.float_file.matching import replace_kernel
from tfptq.lowering.choose_layout import LayoutPlan
from tfptq.lowering.describe import describe
from tfptq.lowering.emit import emit
from tfptq.lowering.plan import plan_integers
from tfptq.lowering.quantized_kernel import KernelPlan, QuantizedKernel
from tfptq.tflite.layouts import Computes
from tfptq.tflite.metadata import attach
from tfptq.tflite.model import TFLiteModel

#: name -> (layer, shape of a sample)
LAYERS = {
    "conv": (lambda: layers.Conv2D(6, 3, padding="same"), (9, 7, 5)),
    "grouped": (lambda: layers.Conv2D(8, 3, groups=2), (9, 7, 6)),
    "dilated": (lambda: layers.Conv2D(6, 3, dilation_rate=2), (9, 9, 5)),
    "depthwise": (lambda: layers.DepthwiseConv2D(3), (9, 7, 5)),
    "multiplied": (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), (9, 7, 5)),
    "conv1d": (lambda: layers.Conv1D(6, 3), (9, 5)),
    "transposed": (lambda: layers.Conv2DTranspose(6, 3, strides=2), (5, 5, 4)),
    "dense": (lambda: layers.Dense(7), (13,)),
    "sequence": (lambda: layers.Dense(7), (5, 13)),
    "wide": (lambda: layers.Dense(9), (64,)),
}
#: The same for layers whose kernels FULLY_CONNECTED can read. ``None`` is an open size.
PRODUCTS = {
    "dense of rank 2": (lambda: layers.Dense(7), (12,)),
    "dense of rank 3": (lambda: layers.Dense(7, activation="relu"), (5, 16)),
    "dense of rank 4": (lambda: layers.Dense(7, use_bias=False), (3, 5, 8)),
    "pointwise": (lambda: layers.Conv2D(6, 1), (9, 7, 8)),
    "without bias": (lambda: layers.Conv2D(6, 1, use_bias=False), (9, 7, 8)),
    "two outputs": (lambda: layers.Conv2D(2, 1), (4, 4, 12)),
    "relu": (lambda: layers.Conv2D(16, 1, activation="relu"), (5, 5, 4)),
    "relu6": (lambda: layers.Conv2D(5, 1, activation="relu6"), (4, 6, 16)),
    "open sizes": (lambda: layers.Conv2D(6, 1), (None, None, 8)),
    "conv1d": (lambda: layers.Conv1D(6, 1), (9, 4)),
    "strided": (lambda: layers.Conv2D(6, 1, strides=2, activation="relu"), (8, 6, 8)),
    "strided, odd": (lambda: layers.Conv2D(6, 1, strides=2, padding="same"), (9, 7, 4)),
    "strided by 3 and 1": (lambda: layers.Conv2D(6, 1, strides=(3, 1), use_bias=False), (8, 5, 4)),
}
#: The same for kernels with several taps.
WINDOWS = {
    "same": (lambda: layers.Conv2D(6, 3, padding="same"), (9, 7, 4)),
    "valid": (lambda: layers.Conv2D(6, 3, activation="relu"), (9, 7, 8)),
    "even": (lambda: layers.Conv2D(6, (2, 4), padding="same", use_bias=False), (6, 5, 4)),
    "large": (lambda: layers.Conv2D(6, 7, padding="same", activation="relu6"), (8, 9, 4)),
    "strided": (lambda: layers.Conv2D(6, 3, strides=2, padding="same", activation="relu"), (8, 8, 4)),
    "strided, odd": (lambda: layers.Conv2D(6, 3, strides=2, padding="same"), (9, 7, 4)),
    "strided, valid": (lambda: layers.Conv2D(6, 3, strides=2), (8, 10, 4)),
    "strided by 1 and 3": (lambda: layers.Conv2D(6, 5, strides=(1, 3), padding="same"), (7, 11, 4)),
    "dilated": (lambda: layers.Conv2D(6, 3, dilation_rate=2), (9, 9, 4)),
    "conv1d": (lambda: layers.Conv1D(6, 3, padding="same"), (9, 4)),
    "conv1d, strided": (lambda: layers.Conv1D(6, 5, strides=2), (11, 4)),
}
_ALL = {
    **LAYERS,
    **{f"product, {name}": layer for name, layer in PRODUCTS.items()},
    **{f"window, {name}": layer for name, layer in WINDOWS.items()},
}
STEP = 8 / 255  # of the output grid


@functools.cache
def float_file(kind):
    layer, shape = _ALL[kind]
    keras.utils.set_random_seed(1)
    return convert_float(keras.Sequential([keras.Input(shape, name="x"), layer()]))


def emitted(kind, layout, config, computes=None):
    """(file in a layout, float file with the same weights, the kernel); ``computes`` is the usual of the layout."""
    model = TFLiteModel(float_file(kind))
    (found,) = kernels_of(model)
    (use,) = found.uses
    weight = quantize_nearest(found.values, config.scales_of(found.values), config.weight_bits)
    bias = np.linspace(-1, 1, len(weight.codes), dtype=np.float32)
    computes = layout.serves[0] if computes is None else computes
    kernel = QuantizedKernel.of(found, KernelPlan(config, LayoutPlan((layout,), computes)), weight, bias)
    skipped = {} if computes is Computes.INTEGER else {use.operator: "in float"}
    plan = plan_integers(model, dict.fromkeys(model.activations(), (-4.0, 4.0)), skipped=skipped)
    result = emit(float_file(kind), plan, [kernel])
    attach(result.model.root, describe(result, [kernel], config, 0))
    values, bias = kernel.stored_values(use)
    replace_kernel(model, model.operators[use.operator], use, use.view.from_view(values), bias)
    return result.model.to_bytes(), model.to_bytes(), kernel


def samples(kind, count=3):
    return {
        "x": np.random.default_rng(2).normal(0, 1, (count, *(size or 6 for size in _ALL[kind][1]))).astype(np.float32)
    }


def output(file, inputs, resolver, runtime):
    (values,) = run(file, inputs, resolver, runtime).values()
    assert values.any(), f"{runtime} {resolver} computes zeros"
    return values


EVERYWHERE = [(resolver, runtime) for runtime in RUNTIMES for resolver in RESOLVERS]
BLOCKS = {
    "float blocks": plain_config(PerBlock(2, 3), weight_bits=4),
    "integer blocks of 3 bits": plain_config(PerBlock(4, 2), "integer", 3),
    "shift blocks of 2 bits": plain_config(PerBlock(1, 1), "shift", 2),
    "channels of 8 bits": plain_config(PerChannel(), weight_bits=8),
    "one scale of 5 bits": plain_config(PerTensor(), weight_bits=5),
    "shift scaler": plain_config(PerTensor(), "shift", 4),
}
