"""Every layout, for every kind of layer, on every stock runtime."""

import functools
import math

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers
from hypothesis import given
from hypothesis import strategies as st
from keras import layers
from stock_runtimes import RESOLVERS, RUNTIMES, run

import tfptq
from tfptq.config import PerBlock, PerChannel, PerTensor, QuantizationConfig
from tfptq.core.affine import weight_code_range
from tfptq.core.blocks import BlockScales, QuantizedWeight, WeightView, float_scales, quantize_nearest
from tfptq.float_file.convert import convert_float
from tfptq.float_file.matching import bind_weights, replace_kernel
from tfptq.lowering.describe import describe
from tfptq.lowering.emit import emit, plan_integers
from tfptq.lowering.kernel_plan import KernelPlan
from tfptq.tflite.layouts.choose import INTEGER_LAYOUTS, LayoutError, layout_obstacle, plan_layout, settle_layout
from tfptq.tflite.layouts.constants import half_scales, pack_int4
from tfptq.tflite.layouts.sizes import stored_bytes
from tfptq.tflite.layouts.unpacking import unpacking
from tfptq.tflite.metadata import attach
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.model_reader import _unpack_int4, read_model
from tfptq.tflite.verify import VerificationError

pytestmark = pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")

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
STEP = 8 / 255  # of the output grid


@functools.cache
def float_file(kind):
    layer, shape = LAYERS[kind]
    keras.utils.set_random_seed(1)
    return convert_float(keras.Sequential([keras.Input(shape, name="x"), layer()]))


def emitted(kind, layout, config):
    """(file in a layout, float file with the same weights, the kernel plan)."""
    model = TFLiteModel(float_file(kind))
    (binding,) = bind_weights(model, {})
    weight = binding.view.to_view(model.constant(binding.kernel))
    weight = quantize_nearest(weight, config.scales_of(weight), config.weight_bits)
    kernel = KernelPlan(binding, weight, np.linspace(-1, 1, len(weight.codes), dtype=np.float32), layout)
    skipped = {} if layout in INTEGER_LAYOUTS else {binding.operator: "in float"}
    plan = plan_integers(model, dict.fromkeys(model.activations(), (-4.0, 4.0)), skipped=skipped)
    result = emit(float_file(kind), plan, [kernel])
    attach(result.model.root, describe(result, [kernel], config, 0))
    dequantized = kernel.binding.view.from_view(kernel.weight_in_file.dequantize())
    replace_kernel(model, model.operators[binding.operator], dequantized, kernel.bias)
    return result.model.to_bytes(), model.to_bytes(), kernel


def samples(kind, count=3):
    return {"x": np.random.default_rng(2).normal(0, 1, (count, *LAYERS[kind][1])).astype(np.float32)}


def output(file, inputs, resolver, runtime):
    (values,) = run(file, inputs, resolver, runtime).values()
    assert values.any(), f"{runtime} {resolver} computes zeros"
    return values


EVERYWHERE = [(resolver, runtime) for runtime in RUNTIMES for resolver in RESOLVERS]
BLOCKS = {
    "float blocks": QuantizationConfig(PerBlock(2, 3), weight_bits=4),
    "integer blocks of 3 bits": QuantizationConfig(PerBlock(4, 2), "integer", 3),
    "shift blocks of 2 bits": QuantizationConfig(PerBlock(1, 1), "shift", 2),
    "channels of 8 bits": QuantizationConfig(PerChannel(), weight_bits=8),
    "one scale of 5 bits": QuantizationConfig(PerTensor(), weight_bits=5),
    "shift scaler": QuantizationConfig(PerTensor(), "shift", 4),
}


#: Every kind of layer with float blocks, and every kind of blocks with a few kinds of layers.
FLOAT_CASES = [(kind, "float blocks") for kind in LAYERS] + [
    (kind, config) for kind in ("conv", "depthwise", "dense") for config in BLOCKS if config != "float blocks"
]


@pytest.mark.parametrize(("kind", "config"), FLOAT_CASES)
@pytest.mark.parametrize("layout", ["inline", "composite"])
def test_layouts_in_float_compute_the_dequantized_weights(kind, layout, config):
    file, dequantized, kernel = emitted(kind, layout, BLOCKS[config])
    for where in EVERYWHERE if config == "float blocks" else [("AUTO", "litert"), ("REF", "tf.lite")]:
        expected = output(dequantized, samples(kind), *where)
        found = output(file, samples(kind), *where)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max(), err_msg=str(where))
    assert f"{layout} tensor with {kernel.weight.bits}-bit codes" in tfptq.verify(file).render()
    (row,) = tfptq.inspect(file).weights
    assert (row.layout, row.bits, row.operator) == (layout, kernel.weight.bits, "DEQUANTIZE")
    names = [tensor.name for graph in read_model(file).subgraphs for tensor in graph.tensors]
    assert len(set(names)) == len(names)


INT4_CASES = [(kind, "channel") for kind in LAYERS if kind != "transposed"] + [
    (kind, config) for kind in ("conv", "depthwise", "dense") for config in ("tensor", "shift scaler", "one column")
]


@pytest.mark.parametrize(("kind", "config"), INT4_CASES)
def test_int4_equals_int8(kind, config):
    config = {
        "channel": QuantizationConfig(PerChannel(), weight_bits=4),
        "tensor": QuantizationConfig(PerTensor(), weight_bits=4),
        "shift scaler": QuantizationConfig(PerTensor(), "shift", 4),
        "one column": QuantizationConfig(PerBlock(2, 64), "integer", 3),
    }[config]
    (int4, _, kernel), (int8, _, _) = emitted(kind, "int4", config), emitted(kind, "int8", config)
    assert tfptq.inspect(int4).weights[0].bytes == math.ceil(kernel.weight.codes.size / 2)
    assert tfptq.verify(int4).checks
    for resolver, runtime in EVERYWHERE:
        difference = np.abs(
            output(int4, samples(kind), resolver, runtime) - output(int8, samples(kind), resolver, runtime)
        )
        # XNNPACK rounds otherwise than the other kernels and does not run all INT4 layers.
        assert difference.max() <= (1.01 * STEP if resolver == "AUTO" else 0.0), (resolver, runtime)


@pytest.mark.parametrize("blocks", [(1, 32), (4, 32), (2, 64)])
def test_native_layout_inside_its_window(blocks):
    config = QuantizationConfig(PerBlock(*blocks), weight_bits=4, layout="native")
    file, dequantized, kernel = emitted("wide", "native", config)
    for resolver, runtime in EVERYWHERE:
        (found,) = run(file, samples("wide"), resolver, runtime).values()
        expected = output(dequantized, samples("wide"), resolver, runtime)
        if resolver == "REF":
            # The reason that native is only taken when it is asked for.
            np.testing.assert_array_equal(found, np.broadcast_to(kernel.bias, found.shape))
            continue
        # Activations are quantized to 8 bits for each sample at run time.
        assert np.abs(found - expected).max() <= 0.02 * np.abs(expected).max()
    assert "native tensor" in tfptq.verify(file).render()
    scales = kernel.weight_in_file.scales.values()
    np.testing.assert_array_equal(scales, scales.astype(np.float16).astype(np.float32))


def test_float16_scales_must_be_precise():
    for value in (1e-6, 1e6):
        with pytest.raises(ValueError, match="do not fit float16.*choose the layout 'inline'"):
            half_scales(float_scales(np.array([[0.01, value]]), (1, 32)))


# Choice of a layout.

INTEGER4 = QuantizationConfig(PerBlock(2, 16), "integer", 4)
FLOAT4 = QuantizationConfig(PerBlock(2, 32), weight_bits=4)
CHANNEL4 = QuantizationConfig(PerChannel(), weight_bits=4)
CONV, DENSE = ("CONV_2D", (8, 64, 9)), ("FULLY_CONNECTED", (8, 64, 1))


@pytest.mark.parametrize(
    ("config", "where", "size", "speed"),
    [
        (CHANNEL4, CONV, "size", "int8"),
        (CHANNEL4, ("DEPTHWISE_CONV_2D", (8, 1, 9)), "size", "int8"),
        (CHANNEL4, ("TRANSPOSE_CONV", (8, 64, 9)), "int8", "int8"),
        (CHANNEL4.replace(weight_bits=8), DENSE, "int8", "int8"),
        (CHANNEL4.replace(activation_bits=16), DENSE, "int8", "int8"),
        (FLOAT4, CONV, "inline", "inline"),
        (FLOAT4, DENSE, "inline", "inline"),
        (FLOAT4, ("DEPTHWISE_CONV_2D", (8, 1, 9)), "size", "int8"),
        (INTEGER4, CONV, "size", "int8"),
    ],
)
def test_choice(config, where, size, speed):
    assert plan_layout("layer", config.replace(layout="size"), *where) == size
    assert plan_layout("layer", config.replace(layout="speed"), *where) == speed


def test_size_is_settled_by_the_codes():
    codes = np.full((4, 2, 1), 3, np.int8)
    small = BlockScales("integer", np.ones(2, np.float32), np.array([[1, 2], [2, 1]], np.int8), (2, 1))
    large = BlockScales("integer", np.ones(2, np.float32), np.array([[1, 2], [3, 1]], np.int8), (2, 1))
    assert settle_layout("layer", "size", QuantizedWeight(codes, small, 3)) == "int4"
    assert settle_layout("layer", "size", QuantizedWeight(codes, large, 3)) == "int8"
    assert settle_layout("layer", "inline", QuantizedWeight(codes, large, 3)) == "inline"
    lowest = np.full((4, 2, 1), -4, np.int8)
    assert settle_layout("layer", "size", QuantizedWeight(lowest, small, 3)) == "int4"
    with pytest.raises(
        LayoutError,
        match="'layer' cannot have the layout 'int4'.* from 0 to 9, and INT4 from -8 to 7.*'int8', 'inline'",
    ):
        settle_layout("layer", "int4", QuantizedWeight(codes, large, 3))


@pytest.mark.parametrize(
    ("layout", "config", "where", "message"),
    [
        ("int4", CHANNEL4.replace(weight_bits=8), CONV, "8 bits; it can have 'int8', 'inline', 'composite'"),
        ("int4", CHANNEL4, ("TRANSPOSE_CONV", (8, 4, 9)), "no INT4 kernel for TRANSPOSE_CONV; it can have 'int8'"),
        ("int4", CHANNEL4.replace(activation_bits=16), CONV, "8-bit activations only"),
        ("int4", FLOAT4, CONV, "float scales for every 32 of its 64 input channels.*; it can have 'inline'"),
        ("int8", FLOAT4, DENSE, "float scales for every 32.*; it can have 'native', 'inline', 'composite'"),
        ("native", FLOAT4, CONV, "FULLY_CONNECTED and not for CONV_2D"),
        ("native", FLOAT4.replace(weight_bits=8), DENSE, "8 bits"),
        ("native", FLOAT4, ("FULLY_CONNECTED", (3, 64, 1)), "3 outputs"),
        ("native", FLOAT4, ("FULLY_CONNECTED", (8, 80, 1)), "32 of 80 inputs"),
        ("native", FLOAT4, ("FULLY_CONNECTED", (8, 16, 1)), "16 of 16 inputs"),
        ("native", FLOAT4.replace(granularity=PerBlock(2, 16)), DENSE, "16 of 64 inputs"),
        ("native", INTEGER4, DENSE, "16 of 64 inputs.*; it can have 'int8', 'inline', 'composite'$"),
        ("native", INTEGER4.replace(scaler="shift"), DENSE, "; it can have 'int8', 'inline', 'composite'$"),
        ("native", CHANNEL4, CONV, "; it can have 'int8', 'int4', 'inline', 'composite'$"),
        ("native", QuantizationConfig(PerTensor(), "shift", 4), DENSE, "shifts span more than the float16"),
    ],
)
def test_impossible_layouts_are_refused(layout, config, where, message):
    with pytest.raises(LayoutError, match=f"layer 'block_1' cannot have the layout '{layout}': .*{message}"):
        plan_layout("block_1", config.replace(layout=layout), *where)
    assert layout_obstacle("inline", config, *where) is None


# Constants.


@given(st.lists(st.integers(-7, 7), min_size=1, max_size=9))
def test_packing_round_trip(codes):
    codes = np.array(codes, np.int8)
    packed = pack_int4(codes)
    assert packed.size == math.ceil(codes.size / 2)
    np.testing.assert_array_equal(_unpack_int4(packed, codes.size), codes)


VIEWS = [
    lambda o, i: WeightView((o, 2, 3, i), (0,), (3,), (1, 2)),
    lambda o, i: WeightView((1, 2, 3, o), (3,), (0,), (1, 2)),
    lambda o, i: WeightView((o, i), (0,), (1,), ()),
    lambda o, i: WeightView((o, 2, i), (0,), (2, 1), ()),
]


@given(st.sampled_from(VIEWS), *[st.integers(1, 9)] * 4, st.sampled_from([2, 4, 8]))
def test_unpacked_kernels_are_exact(view, outputs, inputs, height, width, bits):
    view = view(outputs, inputs)
    rng = np.random.default_rng(outputs * 1000 + inputs * 100 + height * 10 + width)
    outputs, inputs, _ = view.view_shape
    height, width = min(height, outputs), min(width, inputs)
    scales = float_scales(rng.uniform(0.01, 1, (-(-outputs // height), -(-inputs // width))), (height, width))
    low, high = weight_code_range(bits)
    weight = QuantizedWeight(rng.integers(low, high + 1, view.view_shape).astype(np.int8), scales, bits)
    parts = unpacking(weight, view)
    assert parts.codes.ndim <= 4 and parts.four_bits == (bits <= 4)
    kernel = (parts.codes * parts.factors).reshape(view.shape)
    np.testing.assert_array_equal(kernel, view.from_view(weight.dequantize()))
    if outputs % height == 0 and inputs % width == 0 and len(view.input_axes) == 1:
        assert parts.factors.size == scales.count


@pytest.mark.parametrize("layout", ["int8", "int4", "native", "inline", "composite"])
def test_stored_bytes_are_those_of_the_file(layout):
    config = QuantizationConfig(PerBlock(2, 64 if layout in INTEGER_LAYOUTS else 32), weight_bits=4)
    file, _, kernel = emitted("wide", layout, config)
    model = TFLiteModel(file)
    subgraph, index = model.places()[tfptq.inspect(file).weights[0].tensor]
    tensors = model.root.subgraphs[subgraph].tensors
    scales = [tensor for tensor in tensors if tensor.name.endswith(b"/scales")]
    found = sum(len(model.root.buffers[tensor.buffer].data) for tensor in (tensors[index], *scales))
    if layout in INTEGER_LAYOUTS:
        found += 4 * len(tensors[index].quantization.scale)
    assert stored_bytes(layout, kernel.weight_in_file, kernel.binding.view) == found


def tampered(file, name, change):
    model = TFLiteModel(file)
    subgraph, index = model.places()[name]
    buffer = model.root.buffers[model.root.subgraphs[subgraph].tensors[index].buffer]
    buffer.data = np.array(buffer.data, np.uint8)
    change(buffer.data)
    return model.to_bytes()


@pytest.mark.parametrize("layout", ["native", "inline", "composite"])
def test_tampering_with_scales_is_found(layout):
    file, _, _ = emitted("wide", layout, QuantizationConfig(PerBlock(2, 32), weight_bits=3))
    name = tfptq.inspect(file).weights[0].tensor

    def nudge(data):
        data[0] ^= 1

    def lowest_code(data):
        data[0] = 0x88

    with pytest.raises(VerificationError, match="block scales differ"):
        tfptq.verify(tampered(file, "composite_1/scales" if layout == "composite" else f"{name}/scales", nudge))
    with pytest.raises(VerificationError, match="not between -4 and 3"):
        tfptq.verify(tampered(file, name, lowest_code))


# Composites.


def test_composites_say_what_they_hold():
    file, _, _ = emitted("conv", "composite", QuantizationConfig(PerBlock(2, 3), "integer", 3))
    model = TFLiteModel(file)
    (operator,) = [op for op in model.operators if model.operator_name(op) == "STABLEHLO_COMPOSITE"]
    options = operator.builtinOptions2
    assert options.name == b"tfptq.block_conv_2d" and options.version == 1
    assert flexbuffers.Loads(bytearray(options.compositeAttributes)) == {
        "bits": 3,
        "block_inputs": 3,
        "block_outputs": 2,
        "scale_kind": "integer",
    }
    inner = model.root.subgraphs[options.decompositionSubgraphIndex]
    kinds = [model.operator_name(operator) for operator in inner.operators]
    assert kinds == ["DEQUANTIZE", "MUL", "RESHAPE", "CONV_2D"]
    codes = inner.tensors[inner.operators[0].inputs[0]]
    assert codes.type == schema.TensorType.INT4


@pytest.mark.parametrize("layout", ["int4", "inline", "composite"])
def test_a_layer_used_twice(layout):
    inputs = keras.Input((8, 8, 4), name="x")
    layer = layers.Conv2D(4, 3, padding="same", name="twice")
    model = keras.Model(inputs, layer(layers.MaxPooling2D()(layer(inputs))))
    x = np.random.default_rng(0).normal(0, 1, (16, 8, 8, 4)).astype(np.float32)
    config = QuantizationConfig(PerChannel(), weight_bits=4, edge_bits=None, layout=layout)
    result = tfptq.quantize_keras_model(model, x, config, progress=False)
    assert len(tfptq.inspect(result.tflite).weights) == (2 if layout == "composite" else 1)
    assert tfptq.verify(result.tflite).checks
    expected = result.keras_model.predict(x, verbose=0)
    for resolver, runtime in EVERYWHERE:
        found = output(result.tflite, {"x": x}, resolver, runtime)
        assert np.abs(found - expected).max() <= (0.03 if layout == "int4" else 1e-5) * np.abs(expected).max()
