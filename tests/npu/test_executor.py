import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from hand_made import VIEWS, FileBuilder, one_layer, random_weight

from tfptq.core.blocks import BlockScales, QuantizedWeight
from tfptq.npu import Executor, compare_with_stock
from tfptq.tflite.layouts import INLINE

RELU, RELU_N1_TO_1, RELU6 = 1, 2, 3


def codes(shape, seed=0):
    return np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)


def assert_equal_to_stock(file, shape, seed=0, rescales_per_output=1):
    (comparison,) = compare_with_stock(file, codes(shape, seed))
    output = comparison.run.output
    assert comparison.equal, f"{comparison.mismatches} of {output.size}, up to {comparison.largest_difference}"
    assert np.unique(output).size > 2  # not all zeros, not all saturated
    assert comparison.run.rescales == rescales_per_output * output.size
    return comparison.run


CONVOLUTIONS = [
    {"padding": 0},
    {"padding": 1},
    {"padding": 0, "strideH": 2, "strideW": 3},
    {"padding": 1, "strideH": 2, "strideW": 2},
    {"padding": 0, "dilationHFactor": 2, "dilationWFactor": 3},
    {"padding": 1, "dilationHFactor": 2, "dilationWFactor": 1, "strideW": 1},
    {"padding": 0, "fusedActivationFunction": RELU},
    {"padding": 0, "fusedActivationFunction": RELU6},
    {"padding": 0, "fusedActivationFunction": RELU_N1_TO_1},
]


@pytest.mark.parametrize("options", CONVOLUTIONS)
@pytest.mark.parametrize("kind, kernel", [("CONV_2D", (9, 3, 2, 5)), ("DEPTHWISE_CONV_2D", (1, 3, 2, 5))])
def test_shift_scaler_equals_stock(kind, kernel, options):
    shape = (2, 11, 12, 5)
    for seed in range(3):
        run = assert_equal_to_stock(one_layer(kind, kernel, shape, seed, grid=(0.02, 5), **options), shape, seed)
    assert run.multipliers == 1


@pytest.mark.parametrize("kind_of_scale", ["shift", "float"])
def test_depth_multiplier(kind_of_scale):
    shape = (1, 6, 6, 3)
    file = one_layer("DEPTHWISE_CONV_2D", (1, 3, 3, 6), shape, kind_of_scale=kind_of_scale, grid=(0.05, -7))
    assert_equal_to_stock(file, shape)


def test_grouped_convolution():
    shape = (1, 6, 6, 8)
    file = one_layer("CONV_2D", (6, 3, 3, 4), shape, grid=(0.02, 5))  # two groups of 4 channels
    assert_equal_to_stock(file, shape)


@pytest.mark.parametrize("padding, size", [(0, (12, 18)), (0, (11, 17)), (1, (13, 20)), (1, (14, 21))])
def test_transposed_convolution(padding, size):
    shape, out = (1, 6, 6, 4), (1, *size, 5)
    file = one_layer(
        "TRANSPOSE_CONV", (5, 3, 4, 4), shape, output_shape=out, padding=padding, strideH=2, strideW=3, grid=(0.02, 5)
    )
    assert_equal_to_stock(file, shape)


@pytest.mark.parametrize("grid", [(0.3, 0), (0.08, -128), (0.0007, 127)])
@pytest.mark.parametrize("bias", [True, None])
def test_dense_over_the_range_of_multipliers(grid, bias):
    shape = (40, 64)
    for seed in range(3):
        assert_equal_to_stock(one_layer("FULLY_CONNECTED", (30, 64), shape, seed, grid, bias), shape, seed)


@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"])
def test_multiplier_above_one(kind):
    """The accumulator is shifted to the left in the first channels and to the right in the last."""
    kernel, shape = {
        "CONV_2D": ((4, 1, 1, 3), (1, 4, 4, 3)),
        "DEPTHWISE_CONV_2D": ((1, 1, 1, 4), (1, 4, 4, 4)),
        "FULLY_CONNECTED": ((4, 3), (8, 3)),
    }[kind]
    view = VIEWS[kind](kernel)
    weight_codes = np.random.default_rng(0).integers(-1, 2, view.view_shape).astype(np.int8)
    factors = np.array([[0], [-1], [-2], [-3]], np.int8)
    weight = QuantizedWeight(weight_codes, BlockScales("shift", np.float32([7.3]), factors, (1, view.view_shape[1])), 8)
    file = one_layer(kind, kernel, shape, weight=weight, bias=np.array([3, -2, 1, 0]), grid=(0.31, 4))
    comparisons = compare_with_stock(file, (codes(shape) // 10).astype(np.int8))
    assert comparisons[0].equal


@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"])
def test_ties(kind):
    """Powers of two as scales: every second to sixteenth result is a tie, of both signs."""
    kernel, shape = {
        "CONV_2D": ((4, 1, 1, 3), (1, 20, 20, 3)),
        "DEPTHWISE_CONV_2D": ((1, 1, 1, 4), (1, 20, 20, 4)),
        "FULLY_CONNECTED": ((4, 3), (400, 3)),
    }[kind]
    view = VIEWS[kind](kernel)
    weight_codes = np.random.default_rng(0).integers(-9, 10, view.view_shape).astype(np.int8)
    factors = np.array([[0], [-1], [-2], [-3]], np.int8)
    scales = BlockScales("shift", np.float32([2**-3]), factors, (1, view.view_shape[1]))
    options = {} if kind == "FULLY_CONNECTED" else {"strideW": 1, "strideH": 1}
    if kind == "DEPTHWISE_CONV_2D":
        options["depthMultiplier"] = 1
    builder = FileBuilder(shape, scale=2**-2, zero_point=0)
    builder.layer(kind, QuantizedWeight(weight_codes, scales, 8), view, np.zeros(4), (2**-2, 5), **options)
    assert_equal_to_stock(builder.finish(), shape)


@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"])
def test_one_scale_for_the_layer(kind):
    kernel, shape = {
        "CONV_2D": ((9, 3, 3, 5), (1, 8, 8, 5)),
        "DEPTHWISE_CONV_2D": ((1, 3, 3, 5), (1, 8, 8, 5)),
        "FULLY_CONNECTED": ((9, 60), (50, 60)),
    }[kind]
    view = VIEWS[kind](kernel)
    for seed in range(8):
        weight = random_weight(np.random.default_rng(seed), view, "float", block=view.view_shape[:2])
        run = assert_equal_to_stock(one_layer(kind, kernel, shape, seed, weight=weight, grid=(0.11, 5)), shape, seed)
    assert run.multipliers == 1


@pytest.mark.parametrize("kind_of_scale", ["integer", "shift"])
@pytest.mark.parametrize("shared_base", [True, False])
@pytest.mark.parametrize("block", [(2, 2), (4, 3), (1, 4), (9, 1)])
@pytest.mark.parametrize(
    "kind, kernel, shape",
    [
        ("CONV_2D", (9, 3, 2, 7), (1, 8, 8, 7)),
        ("FULLY_CONNECTED", (9, 7), (30, 7)),
        ("TRANSPOSE_CONV", (9, 3, 3, 7), (1, 4, 4, 7)),
    ],
)
def test_blocks_equal_stock(kind, kernel, shape, block, shared_base, kind_of_scale):
    options = {"output_shape": (1, 8, 8, 9), "strideH": 2, "strideW": 2} if kind == "TRANSPOSE_CONV" else {}
    if kind_of_scale == "shift":
        options["grid"] = (0.01, -9)
    file = one_layer(
        kind, kernel, shape, kind_of_scale=kind_of_scale, block=block, bits=4, shared_base=shared_base, **options
    )
    columns = -(-kernel[-1] // block[1])
    run = assert_equal_to_stock(file, shape, rescales_per_output=columns + 1)
    assert run.multipliers <= -(-9 // block[0])


def test_blocks_of_a_grouped_convolution():
    shape = (1, 6, 6, 8)
    file = one_layer("CONV_2D", (6, 3, 3, 4), shape, kind_of_scale="integer", block=(2, 3), bits=4)
    assert_equal_to_stock(file, shape, rescales_per_output=3)


def test_float_blocks_are_rescaled_in_fixed_point():
    view = VIEWS["FULLY_CONNECTED"]((9, 20))
    weight = random_weight(np.random.default_rng(0), view, "float", block=(2, 6), bits=4)
    builder = FileBuilder((5, 20)).float_layer("FULLY_CONNECTED", weight, view, INLINE, (0.02, 4), (5, 9))
    (comparison,) = compare_with_stock(builder.finish(), codes((5, 20)))
    assert comparison.largest_difference <= 1
    assert comparison.mismatches <= 2
    assert comparison.run.rescales == 45 * 5
    assert comparison.run.multipliers > 5 * 4


def test_refuses_files_without_metadata_and_wrong_inputs():
    builder = FileBuilder((4, 6))
    view = VIEWS["FULLY_CONNECTED"]((3, 6))
    builder.layer("FULLY_CONNECTED", random_weight(np.random.default_rng(0), view), view)
    with pytest.raises(ValueError, match="TFPTQ_BLOCKS"):
        Executor(builder.finish(metadata=None))
    executor = Executor(builder.finish())
    with pytest.raises(ValueError, match="layer_0.*float32"):
        executor.run_layer(0, np.zeros((4, 6), np.float32))
    with pytest.raises(ValueError, match="layer_0.*7 input codes"):
        executor.run_layer(0, np.zeros((1, 7), np.int8))


def test_layers_it_cannot_run_are_listed_with_the_reason():
    builder = FileBuilder((4, 6))
    view = VIEWS["FULLY_CONNECTED"]((3, 6))
    builder.layer("FULLY_CONNECTED", random_weight(np.random.default_rng(0), view), view)
    builder.graph.operators[0].builtinOptions.fusedActivationFunction = 4
    executor = Executor(builder.finish())
    assert executor.layers == []
    assert "TANH" in executor.skipped["layer_0"]


def test_a_bias_that_is_not_finite_is_no_layer():
    view = VIEWS["FULLY_CONNECTED"]((3, 6))
    weight = random_weight(np.random.default_rng(0), view, "float", (3, 6), 4)
    builder = FileBuilder((4, 6)).float_layer("FULLY_CONNECTED", weight, view, INLINE)
    bias = next(tensor for tensor in builder.graph.tensors if tensor.name == "layer_0/bias")
    builder.model.buffers[bias.buffer].data = np.frombuffer(np.float32([1, np.nan, 2]).tobytes(), np.uint8)
    assert "not finite" in Executor(builder.finish()).skipped["layer_0"]


def test_a_transposed_convolution_takes_inputs_of_its_output_only():
    file = one_layer("TRANSPOSE_CONV", (5, 3, 3, 4), (1, 6, 6, 4), output_shape=(1, 12, 12, 5), strideH=2, strideW=2)
    with pytest.raises(ValueError, match="do not fit a kernel"):
        Executor(file).run_layer(0, codes((1, 7, 6, 4)))


def test_mobilenet_sized_layer_is_quick():
    shape = (1, 56, 56, 24)
    file = one_layer("CONV_2D", (144, 1, 1, 24), shape, grid=(0.05, 0))
    interpreter = Interpreter(model_content=file, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    assert Executor(file).run_layer(0, codes(shape)).output.shape == (1, 56, 56, 144)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (codes((1, 6, 6, 4)), r"int8 of shape \(1, 6, 6, 4\); the file takes int8 of shape \(N, 6, 6, 3\)"),
        (codes((6, 6, 3)), r"int8 of shape \(6, 6, 3\); the file takes int8 of shape \(N, 6, 6, 3\)"),
        (np.zeros((1, 6, 6, 3), np.float32), "found float32 of shape .*; the file takes int8"),
        ([codes((1, 6, 6, 3))] * 2, "there are 2 inputs; the file has 1: "),
        ({"photo": codes((1, 6, 6, 3))}, r"inputs are named \['photo'\]; the file has "),
    ],
)
def test_inputs_that_do_not_fit_the_file_are_named(inputs, message):
    with pytest.raises(ValueError, match=message):
        compare_with_stock(one_layer("CONV_2D", (4, 3, 3, 3), (1, 6, 6, 3)), inputs)
