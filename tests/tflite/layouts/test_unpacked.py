"""The way from codes to a float kernel, and composites around it, when they compute something else."""

import itertools

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers
from hostile_files import KINDS, dense, operator, refused, second_mul, tensor

from tfptq.tflite.checks import VerificationError
from tfptq.tflite.layouts import COMPOSITE, INLINE
from tfptq.tflite.verify import verify

# The way from the codes to the operator.


def test_the_file_of_the_attacks_below_is_good():
    builder = dense(INLINE)
    kinds = [builder.model.operatorCodes[it.opcodeIndex].builtinCode for it in builder.graph.operators]
    wanted = ["DEQUANTIZE", "DEQUANTIZE", "MUL", "RESHAPE", "FULLY_CONNECTED", "QUANTIZE"]
    assert kinds == [getattr(schema.BuiltinOperator, kind) for kind in wanted]
    assert verify(builder.finish())


@pytest.mark.parametrize("place", [0, 1, 2])
def test_another_operator_on_the_way_is_refused(place):
    builder = dense(INLINE)
    second_mul(builder, place)
    refused(builder, "gets it by another way than that of the layout inline")


def fuse(builder):
    operator(builder, "MUL").builtinOptions.fusedActivationFunction = 1


def reshape(builder):
    operator(builder, "RESHAPE").builtinOptions.newShape = [2, 8]


def reshape_by_constant(builder):
    target = builder._tensor("target", (2,), KINDS.INT32, np.int32([8, 2]))
    operator(builder, "RESHAPE").inputs = [operator(builder, "RESHAPE").inputs[0], target]


def turn_order(builder):
    builder.graph.operators[1:3] = builder.graph.operators[2:0:-1]


def write_codes(builder):
    builder.graph.operators[0].outputs = [*builder.graph.operators[0].outputs, builder.blocks[-1].tensor]


def write_factors(builder):
    builder.graph.operators[0].outputs = [*builder.graph.operators[0].outputs, builder.blocks[-1].scales_tensor]


def take_codes_as_input(builder):
    builder.graph.inputs = [*builder.graph.inputs, builder.blocks[-1].tensor]


def make_variable(builder):
    tensor(builder, "layer_0/codes").isVariable = True


def make_sparse(builder):
    tensor(builder, "layer_0/codes").sparsity = schema.SparsityParametersT()


def make_external(builder):
    tensor(builder, "layer_0/codes").externalBuffer = 1


def half_way(builder):
    operator(builder, "MUL").outputs = [*operator(builder, "MUL").outputs, builder.graph.operators[0].outputs[0]]


def int8_reader(builder):
    reader = operator(builder, "FULLY_CONNECTED")
    reader.inputs[0] = 0  # in place of what was dequantized


def shuffle(builder):
    operator(builder, "FULLY_CONNECTED").builtinOptions.weightsFormat = 1


WAYS = {
    "MUL behind it has a fused activation": fuse,
    r"RESHAPE behind it does not make it \(4, 4\)": reshape,
    r"does not make it \(4, 4\)": reshape_by_constant,
    "run in the wrong order": turn_order,
    "an operator or an input of its subgraph overwrites it": write_codes,
    "overwrites it": take_codes_as_input,
    "it is a variable": make_variable,
    "it is sparse": make_sparse,
    "it has its bytes in another file": make_external,
    "the MUL behind it has 2 outputs": half_way,
    "with activations of INT8": int8_reader,
    "shuffled format 1": shuffle,
}


@pytest.mark.parametrize("message", WAYS)
def test_a_way_that_computes_another_kernel_is_refused(message):
    builder = dense(INLINE)
    WAYS[message](builder)
    refused(builder, message)


def test_factors_that_are_overwritten_are_refused():
    builder = dense(INLINE)
    write_factors(builder)
    with pytest.raises(VerificationError, match="no float32 constant"):
        verify(builder.finish())


def test_a_tensor_that_two_operators_write_is_no_way():
    builder = dense(INLINE)
    operator(builder, "QUANTIZE").outputs = [operator(builder, "RESHAPE").outputs[0]]
    refused(builder, "gets it by another way")


def test_codes_that_are_unpacked_twice_are_refused():
    builder = dense(INLINE)
    copies = [schema.OperatorT(it.opcodeIndex, it.inputs, None) for it in builder.graph.operators[1:5]]
    for copy, original in zip(copies, builder.graph.operators[1:5], strict=True):
        copy.outputs = [builder._tensor("copy", builder.graph.tensors[original.outputs[0]].shape, KINDS.FLOAT32, None)]
        copy.builtinOptions, copy.builtinOptionsType = original.builtinOptions, original.builtinOptionsType
    for before, after in itertools.pairwise(copies):
        place = list(after.inputs).index(builder.graph.operators[1 + copies.index(before)].outputs[0])
        after.inputs = [before.outputs[0] if at == place else index for at, index in enumerate(after.inputs)]
    builder.graph.operators[5:5] = copies
    with pytest.raises(VerificationError, match="several operators unpack its codes"):
        verify(builder.finish())


# Composites.


def composite(builder):
    return operator(builder, "STABLEHLO_COMPOSITE").builtinOptions2


def rename(builder):
    composite(builder).name = "tfptq.block_conv_2d"


def other_attributes(builder):
    found = flexbuffers.Loads(bytearray(composite(builder).compositeAttributes))
    composite(builder).compositeAttributes = np.frombuffer(flexbuffers.Dumps({**found, "bits": 3}), np.uint8)


def other_version(builder):
    composite(builder).version = 2


def more_inside(builder):
    inner = builder.model.subgraphs[1]
    inner.tensors.append(schema.TensorT(name="spare", shape=[4, 4], type=KINDS.FLOAT32, buffer=0))
    first = inner.operators[0]
    inner.operators.append(schema.OperatorT(first.opcodeIndex, first.inputs, [len(inner.tensors) - 1]))


def other_result(builder):
    inner = builder.model.subgraphs[1]
    inner.outputs = list(inner.operators[2].outputs)


def run_twice(builder):
    builder.graph.operators.append(operator(builder, "STABLEHLO_COMPOSITE"))


def never_run(builder):
    composite(builder).decompositionSubgraphIndex = 0


COMPOSITES = {
    "its composite is named 'tfptq.block_conv_2d', expected 'tfptq.block_fully_connected'": rename,
    "the attributes of its composite are not those of the metadata": other_attributes,
    "its composite has the version 2": other_version,
    "the decomposition of its composite holds DEQUANTIZE, MUL, RESHAPE, FULLY_CONNECTED, DEQUANTIZE": more_inside,
    "does not return what its operator writes": other_result,
    "2 operators run the decomposition": run_twice,
    "in a subgraph that nothing runs": never_run,
}


@pytest.mark.parametrize("message", COMPOSITES)
def test_composites_that_hold_something_else_are_refused(message):
    builder = dense(COMPOSITE)
    assert verify(builder.finish())
    COMPOSITES[message](builder)
    refused(builder, message)
