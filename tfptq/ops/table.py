"""The operator table: one row for everything the project knows of a TFLite operator.

Integer rules follow LiteRT's 8-bit quantization specification; for 16-bit activations (16x8) the fixed grids are the
symmetric ones of that mode. An operator without a row, without an ``output_grid`` or with an obstacle stays float
between DEQUANTIZE and QUANTIZE.
"""

from ai_edge_litert import schema_py_generated as schema

from tfptq.core.affine import ActivationGrid
from tfptq.core.channel_graph import Change
from tfptq.ops.operator_spec import (
    Input,
    KernelAxes,
    ModelView,
    Node,
    OperatorSpec,
    OutputGrid,
    WeightedInputs,
)

DATA, SYMMETRIC, KERNEL, BIAS, PARAMETER, STATE, MISSING = Input
OWN, SAME, JOINT = OutputGrid
PERMUTATION, SCALE, ROTATION = Change

_CONV = KernelAxes((0,), (3,), (1, 2))  # [O, kh, kw, I]
_DEPTHWISE = KernelAxes((3,), (0,), (1, 2))  # [1, kh, kw, C]
_DENSE = KernelAxes((0,), (1,), ())  # [O, I]

_SYMMETRIC_16 = ActivationGrid(1 / 32768, 0, 16)
_PROBABILITIES = {8: ActivationGrid(1 / 256, -128), 16: _SYMMETRIC_16}


def _constant_slope(model: ModelView, operator: Node) -> str | None:
    return None if model.is_constant(operator.inputs[1]) else "with a slope that is computed"


def _more_than_4d(model: ModelView, operator: Node) -> str | None:
    return None if len(model.shape(operator.inputs[0])) <= 4 else "of more than 4 dimensions"


def _other_lstm(model: ModelView, operator: Node) -> str | None:
    options = operator.builtinOptions
    if options.fusedActivationFunction != schema.ActivationFunctionType.TANH or options.timeMajor:
        return "with another function than tanh, or with time as the first axis"
    return None


_op = OperatorSpec
_ROWS = (
    # Kernels. The least version for INT4 of DEPTHWISE_CONV_2D is 7, but the reference resolver knows six, which do.
    # A DEPTHWISE_CONV_2D that quantizes its input takes 7 times the time of one in float, which XNNPACK has.
    _op("CONV_2D", (DATA, KERNEL, BIAS), OWN, int8=3, int16=4, int4=7, dynamic=5, kernel=_CONV, twin="convolution"),
    _op(
        "DEPTHWISE_CONV_2D",
        (DATA, KERNEL, BIAS),
        OWN,
        int8=3,
        int16=5,
        int4=6,
        options={"dilationHFactor": 2},
        kernel=_DEPTHWISE,
        twin="depthwise",
    ),
    _op(
        "FULLY_CONNECTED",
        (DATA, KERNEL, BIAS),
        OWN,
        int8=5,
        int16=7,
        int4=10,
        int2=14,
        dynamic=12,
        options={"keepNumDims": 5},
        kernel=_DENSE,
        twin="fully_connected",
    ),
    _op(
        "TRANSPOSE_CONV",
        (PARAMETER, KERNEL, DATA, BIAS),
        OWN,
        int8=3,
        int16=3,
        dynamic=3,
        kernel=_CONV,
        twin="transposed",
    ),
    # The gates' kernels and recurrent kernels; the rest of the rule is ``tfptq.lowering.recurrent``.
    _op(
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        (DATA, *[KERNEL] * 8, *[MISSING] * 3, *[BIAS] * 4, *[MISSING] * 2, STATE, STATE, *[MISSING] * 4),
        OWN,
        int8=3,
        dynamic=2,
        kernel=_DENSE,
        places=(
            *(WeightedInputs(1 + gate, 12 + gate, 0) for gate in range(4)),
            *(WeightedInputs(5 + gate, 12 + gate, 18) for gate in range(4)),
        ),
        obstacle=_other_lstm,
    ),
    # XNNPACK in TF 2.21 takes the second factor's zero point for 0 (also in the converter's own files).
    _op("BATCH_MATMUL", (DATA, SYMMETRIC), OWN, int8=2, int16=3, twin="batch_matmul"),
    # Element by element, on integers.
    _op("ADD", (DATA, DATA), OWN, int8=2, int16=3, arithmetic=True, summing=True, twin="tf.add", follows=ROTATION),
    _op("SUB", (DATA, DATA), OWN, int8=2, int16=5, arithmetic=True, summing=True, twin="tf.subtract", follows=ROTATION),
    _op(
        "MUL",
        (DATA, DATA),
        OWN,
        int8=2,
        int16=4,
        arithmetic=True,
        summing=True,
        twin="tf.multiply",
        follows=PERMUTATION,
    ),
    _op(
        "SQUARED_DIFFERENCE",
        (DATA, DATA),
        OWN,
        int8=2,
        obstacle=_more_than_4d,
        summing=True,
        twin="tf.math.squared_difference",
        follows=PERMUTATION,
    ),
    _op("MAXIMUM", (DATA, DATA), JOINT, int8=2, int16=3, summing=True, twin="tf.maximum", follows=SCALE),
    _op("MINIMUM", (DATA, DATA), JOINT, int8=2, int16=3, twin="tf.minimum", follows=SCALE),
    _op("ABS", (DATA,), OWN, int8=2, int16=2, proportional=True, twin="tf.abs", follows=SCALE),
    _op("SELECT", (PARAMETER, DATA, DATA), JOINT, int8=1, int16=1, chooses=True),
    _op("SELECT_V2", (PARAMETER, DATA, DATA), JOINT, int8=1, int16=1, chooses=True),
    # Truth values, indices. CUMSUM has no integer kernel in LiteRT.
    *(
        _op(name, (DATA, DATA), OWN, int8=2, compares=True, plain_results=(0,))
        for name in ("EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL")
    ),
    _op("ARG_MAX", (DATA, PARAMETER), OWN, int8=2, plain_results=(0,)),
    _op("ARG_MIN", (DATA, PARAMETER), OWN, int8=2, plain_results=(0,)),
    _op("TOPK_V2", (DATA, PARAMETER), SAME, int8=2, plain_results=(1,)),
    _op("RELU", (DATA,), OWN, int8=2, int16=3, clamp=(0.0, None), fusible=True, twin="tf.nn.relu", follows=SCALE),
    _op("RELU6", (DATA,), OWN, int8=2, int16=3, clamp=(0.0, 6.0), fusible=True, twin="tf.nn.relu6", follows=SCALE),
    _op(
        "RELU_N1_TO_1", (DATA,), OWN, int8=1, clamp=(-1.0, 1.0), fusible=True, twin="relu_n1_to_1", follows=PERMUTATION
    ),
    _op("LEAKY_RELU", (DATA,), OWN, int8=2, int16=2, proportional=True, twin="leaky_relu", follows=SCALE),
    _op("PRELU", (DATA, DATA), OWN, int8=1, obstacle=_constant_slope, proportional=True, twin="prelu", follows=SCALE),
    _op("HARD_SWISH", (DATA,), OWN, int8=1, twin="hard_swish", follows=PERMUTATION),
    _op("ELU", (DATA,), OWN, int8=1, twin="tf.nn.elu", follows=PERMUTATION),
    _op("GELU", (DATA,), OWN, int8=2, twin="gelu", follows=PERMUTATION),
    _op("LOGISTIC", (DATA,), OWN, int8=2, int16=3, fixed_grids=_PROBABILITIES, twin="tf.sigmoid", follows=PERMUTATION),
    _op(
        "TANH",
        (DATA,),
        OWN,
        int8=2,
        int16=3,
        fixed_grids={8: ActivationGrid(1 / 128, 0), 16: _SYMMETRIC_16},
        fusible=True,
        twin="tf.tanh",
        follows=PERMUTATION,
    ),
    _op("SOFTMAX", (DATA,), OWN, int8=2, int16=3, fixed_grids=_PROBABILITIES, twin="softmax", follows=PERMUTATION),
    _op("LOG_SOFTMAX", (DATA,), OWN, int8=2, fixed_grids={8: ActivationGrid(16 / 256, 127)}, follows=PERMUTATION),
    _op("L2_NORMALIZATION", (DATA,), OWN, int8=2, fixed_grids={8: ActivationGrid(1 / 128, 0)}, follows=PERMUTATION),
    # Element by element, in float.
    _op("DIV", (DATA, DATA), proportional=True, exact_near_zero=(1,), twin="tf.divide", follows=PERMUTATION),
    _op("FLOOR_MOD", (DATA, DATA), exact_near_zero=(1,), follows=PERMUTATION),
    _op("POW", (DATA, DATA), exact_near_zero=(0,), twin="tf.pow", follows=PERMUTATION),
    _op("NEG", (DATA,), proportional=True, twin="tf.negative", follows=ROTATION),
    _op("EXP", (DATA,), twin="tf.exp", follows=PERMUTATION),
    _op("LOG", (DATA,), exact_near_zero=(0,), follows=PERMUTATION),
    _op("SQRT", (DATA,), proportional=True, exact_near_zero=(0,), twin="tf.sqrt", follows=PERMUTATION),
    _op("RSQRT", (DATA,), exact_near_zero=(0,), twin="tf.math.rsqrt", follows=PERMUTATION),
    _op("SQUARE", (DATA,), proportional=True, twin="tf.square", follows=PERMUTATION),
    _op("FAKE_QUANT", (DATA,), twin="fake_quantization"),
    # Over positions. The reference int8 kernel of SUM is wrong where grids differ (``tfptq.float_file.simplify``).
    _op("AVERAGE_POOL_2D", (DATA,), SAME, int8=2, int16=3, twin="average_pool", follows=ROTATION),
    _op("MAX_POOL_2D", (DATA,), SAME, int8=2, int16=3, twin="max_pool", follows=SCALE),
    _op("MEAN", (DATA, PARAMETER), OWN, int8=2, int16=3, summing=True, twin="mean", follows=ROTATION),
    _op("SUM", (DATA, PARAMETER), OWN, int8=2, int16=3, summing=True, twin="total", follows=ROTATION),
    _op("REDUCE_MAX", (DATA, PARAMETER), SAME, int8=2, int16=3, twin="largest", follows=SCALE),
    _op("REDUCE_MIN", (DATA, PARAMETER), SAME, int8=2, int16=3, follows=SCALE),
    _op("REDUCE_PROD", (DATA, PARAMETER), twin="product"),
    _op("RESIZE_BILINEAR", (DATA, PARAMETER), SAME, int8=2, int16=4, twin="resize_bilinear", follows=ROTATION),
    _op("RESIZE_NEAREST_NEIGHBOR", (DATA, PARAMETER), SAME, int8=2, int16=4, twin="resize_nearest", follows=ROTATION),
    # Moving values around.
    _op("CONCATENATION", (DATA,), JOINT, int8=2, int16=3, any_number=True, twin="concatenation", follows=ROTATION),
    _op("PACK", (DATA,), JOINT, int8=2, int16=4, any_number=True, twin="pack"),
    _op("UNPACK", (DATA,), SAME, int8=2, int16=4),
    _op(
        "RESHAPE", (DATA, PARAMETER), SAME, int8=1, int16=1, moves=True, views=True, twin="tf.reshape", follows=ROTATION
    ),
    _op("SQUEEZE", (DATA,), SAME, int8=1, int16=2, moves=True, views=True, twin="squeeze", follows=ROTATION),
    _op(
        "EXPAND_DIMS",
        (DATA, PARAMETER),
        SAME,
        int8=1,
        int16=1,
        moves=True,
        views=True,
        twin="expand_dims",
        follows=ROTATION,
    ),
    _op("TRANSPOSE", (DATA, PARAMETER), SAME, int8=2, int16=5, moves=True, twin="tf.transpose", follows=ROTATION),
    _op("BROADCAST_TO", (DATA, PARAMETER), SAME, int8=2, int16=2, moves=True),
    _op("REVERSE_V2", (DATA, PARAMETER), SAME, int8=1, int16=1, moves=True),
    _op("TILE", (DATA, PARAMETER), SAME, int8=2, moves=True, twin="tf.tile"),
    _op("SLICE", (DATA, PARAMETER, PARAMETER), SAME, int8=2, int16=4, moves=True, follows=ROTATION),
    _op(
        "STRIDED_SLICE",
        (DATA, *[PARAMETER] * 3),
        SAME,
        int8=2,
        int16=4,
        moves=True,
        twin="strided_slice",
        follows=ROTATION,
    ),
    _op("PAD", (DATA, PARAMETER), SAME, int8=2, int16=3, twin="tf.pad", follows=ROTATION),
    _op("PADV2", (DATA, PARAMETER, DATA), JOINT, int8=2, int16=3, follows=ROTATION),
    _op("MIRROR_PAD", (DATA, PARAMETER), SAME, int8=2, int16=3, follows=ROTATION),
    _op("SPLIT", (PARAMETER, DATA), SAME, int8=2, int16=4),
    _op("SPLIT_V", (DATA, PARAMETER, PARAMETER), SAME, int8=2, int16=2),
    _op("GATHER", (DATA, PARAMETER), SAME, int8=2, int16=4, picks=True, twin="gather"),
    _op("EMBEDDING_LOOKUP", (PARAMETER, DATA), int4=4),
    _op("DEPTH_TO_SPACE", (DATA,), SAME, int8=1),
    _op("SPACE_TO_DEPTH", (DATA,), SAME, int8=2),
    _op(
        "SPACE_TO_BATCH_ND",
        (DATA, *[PARAMETER] * 2),
        SAME,
        int8=2,
        int16=4,
        twin="tf.compat.v1.space_to_batch_nd",
        follows=ROTATION,
    ),
    _op(
        "BATCH_TO_SPACE_ND",
        (DATA, *[PARAMETER] * 2),
        SAME,
        int8=2,
        int16=4,
        twin="tf.compat.v1.batch_to_space_nd",
        follows=ROTATION,
    ),
    # Shapes and types. Version 2 of QUANTIZE is the first that requantizes.
    _op("SHAPE", (DATA,), reads_shape=True, twin="tf.shape"),
    _op("RANK", (DATA,), reads_shape=True),
    _op("QUANTIZE", (DATA,), int8=2, int16=3, converts=True),
    _op("DEQUANTIZE", (DATA,), int8=2, int16=3, int4=6, converts=True),
    _op("CAST", (DATA,), converts=True),
)

#: Name -> row.
OPERATORS: dict[str, OperatorSpec] = {row.name: row for row in _ROWS}
#: Code of a fused activation function -> the operator that does the same.
FUSED_FUNCTIONS: dict[int, OperatorSpec] = {
    getattr(schema.ActivationFunctionType, row.name): row for row in _ROWS if row.fusible
}


def spec_of(name: str) -> OperatorSpec:
    """The row of an operator; an empty one where nothing is known."""
    return OPERATORS.get(name) or OperatorSpec(name)
