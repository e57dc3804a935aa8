"""Small files that would cost much time or memory if readers did not keep to the size of the file.

None of them may take much memory, whatever comes out. The time is not measured: a reader that is not linear hangs.
"""

import tracemalloc

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hand_made import VIEWS, FileBuilder, conv_layer, random_weight
from hostile_files import KINDS, conv, dense, tensor, with_message

from tfptq.npu import Executor
from tfptq.tflite.flatbuffer import FormatError
from tfptq.tflite.inspect import inspect
from tfptq.tflite.layouts import IM2COL_INT2, INLINE
from tfptq.tflite.metadata import BlockMetadata, read
from tfptq.tflite.model import pack_model
from tfptq.tflite.verify import verify

#: Bytes of memory for each byte of a file, and for the smallest.
MEMORY, LEAST_MEMORY = 60, 20_000_000
#: How often hostile files repeat what they repeat.
MANY = 800


def outcome(function, file):
    """What comes out, a value or one of our errors, within the memory that a file may take."""
    tracemalloc.start()
    try:
        found = function(file)
        if hasattr(found, "render"):
            assert len(found.render()) + len(found.to_json()) < MEMORY * len(file) + LEAST_MEMORY
    except FormatError as error:
        assert len(str(error)) < 5000
        found = error
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MEMORY * len(file) + LEAST_MEMORY, f"{function.__name__}: {peak:,} bytes for {len(file):,}"
    return found


def refused(file, message, *functions):
    for function in (read, verify, inspect, Executor):
        found = outcome(function, file)
        if function in (functions or (read, verify, inspect, Executor)):
            assert isinstance(found, FormatError), function.__name__
            assert message in str(found)


def accepted(file):
    return [outcome(function, file) for function in (read, verify, inspect, Executor)]


def another(operator, **changes):
    fields = {"opcodeIndex": operator.opcodeIndex, "inputs": operator.inputs, "outputs": operator.outputs, **changes}
    copy = schema.OperatorT(**fields)
    copy.builtinOptions, copy.builtinOptionsType = operator.builtinOptions, operator.builtinOptionsType
    return copy


def test_many_kernels_into_one_product_of_many_inputs():
    builder = dense()
    dequantize, multiply = builder._operator_code("DEQUANTIZE"), len(builder.model.operatorCodes)
    builder.model.operatorCodes.append(schema.OperatorCodeT(18, None, 1, 18))
    target = builder._tensor("target", (4, 4), KINDS.FLOAT32, None)
    view = VIEWS["FULLY_CONNECTED"]((4, 4))
    for number in range(MANY // 4):
        weight = random_weight(np.random.default_rng(number), view, "float", (4, 4), 4)
        builder.weight(weight, view, layout=INLINE, tensor_name=f"k{number}")
        builder.graph.operators.append(schema.OperatorT(dequantize, [builder.blocks[-1].tensor], [target]))
    builder.graph.operators.append(schema.OperatorT(multiply, [target] * 60_000, [target]))
    refused(builder.finish(), "no operator with a kernel reads it", verify, Executor)


@pytest.mark.parametrize("outputs", [8, 4000])
def test_thousands_of_convolutions_share_one_kernel(outputs):
    builder = conv((outputs, 1, 1, 8), kind="float", block=(1, 8))
    builder.graph.operators += [another(builder.graph.operators[0]) for _ in range(MANY - 1)]
    *_, result, _, executor = accepted(builder.finish())
    assert len(result.checks) == 3 and len(executor.layers) == MANY
    assert all(layer.codes is executor.layers[0].codes for layer in executor.layers)


def test_thousands_of_biases_share_one_kernel():
    builder = conv((400, 1, 1, 8), kind="float", block=(1, 8))
    builder.finish()
    first = builder.graph.operators[0]
    bias = builder.graph.tensors[first.inputs[2]]
    for number in range(MANY):
        twin = schema.TensorT(name=f"b{number}", shape=bias.shape, type=bias.type, buffer=bias.buffer)
        twin.quantization = bias.quantization
        builder.graph.tensors.append(twin)
        builder.graph.operators.append(another(first, inputs=[*first.inputs[:2], len(builder.graph.tensors) - 1]))
    refused(pack_model(builder.model), "shares parts so often")


def test_codes_that_thousands_of_operators_unpack():
    builder = dense(INLINE, shape=(64, 64))
    way = builder.graph.operators[1:5]
    for number in range(MANY // 4):
        index, inputs = {}, None
        for step in way:
            result = builder._tensor(f"t{number}", builder.graph.tensors[step.outputs[0]].shape, KINDS.FLOAT32, None)
            inputs = [index.get(at, at) for at in step.inputs]
            builder.graph.operators.append(another(step, inputs=inputs, outputs=[result]))
            index[step.outputs[0]] = result
    refused(builder.finish(), "several operators unpack its codes", verify)


def test_kernels_that_share_one_buffer():
    builder = FileBuilder((1, 256))
    for _ in range(40):
        conv_layer(builder, np.random.default_rng(0), (256, 256), "FULLY_CONNECTED", kind="float", block=(256, 256))
    kernels = [builder.graph.tensors[blocks.tensor] for blocks in builder.blocks]
    for kernel in kernels[1:]:
        builder.model.buffers[kernel.buffer].data = None
        kernel.buffer = kernels[0].buffer
    refused(builder.finish(), "too many tensors share the bytes", verify, Executor)


def test_more_scales_than_the_file_can_hold():
    view = VIEWS["FULLY_CONNECTED"]((1000, 1000))
    weight = random_weight(np.random.default_rng(0), view, "integer", (1, 1), 2)
    weight.scales.factors[:] = 1
    builder = FileBuilder((1, 1000))
    for number in range(8):
        builder.weight(weight, view, layout=IM2COL_INT2, tensor_name=f"k{number}")
        builder.graph.tensors[builder.blocks[-1].tensor].buffer = 1
        if number:
            builder.model.buffers[-1].data = None
    refused(builder.finish(), "more scales than the file can hold")


def test_a_kernel_without_bytes():
    builder = dense()
    tensor(builder, "layer_0/kernel").shape = [2**15, 2**15]
    tensor(builder, "layer_0/kernel").buffer = 0
    tensor(builder, "layer_0/kernel").quantization = None
    refused(pack_model(with_metadata(builder)), "not a constant")


def with_metadata(builder):
    """The model with metadata that was made before the last change."""
    model = builder.model
    good = dense()
    good.finish()
    buffer = good.model.buffers[good.model.metadata[0].buffer]
    model.buffers.append(buffer)
    model.metadata = [schema.MetadataT(name="TFPTQ_BLOCKS", buffer=len(model.buffers) - 1)]
    return model


def test_tensors_of_seventy_axes():
    builder = dense()
    tensor(builder, "layer_0/kernel").shape = [4, 4, *[1] * 68]
    refused(pack_model(with_metadata(builder)), "70 axes")


@pytest.mark.parametrize("config", ['{"a": ' + "[" * 600 + "]" * 600 + "}", '{"a": ' + "7" * 5000 + "}"])
def test_configs_that_no_reader_can_hold(config):
    refused(with_message(dense(), config=config), "config in the block metadata cannot be read")


def test_long_names_and_many_operators():
    builder = dense()
    long = "n" * 500_000
    builder.model.operatorCodes.append(schema.OperatorCodeT(32, long, 1, 32))
    custom = schema.OperatorT(
        len(builder.model.operatorCodes) - 1, [0], [builder._tensor(long, (1,), KINDS.INT8, None)]
    )
    builder.graph.operators += [custom] * MANY
    accepted(builder.finish())


def test_long_names_of_many_outputs():
    builder = dense()
    index = builder._tensor("n" * 500_000, (1,), KINDS.INT8, None)
    builder.finish()
    builder.graph.outputs = [index] * 5000
    refused(pack_model(builder.model), "repeat long names too often", inspect)


def test_long_names_of_undescribed_kernels():
    builder = dense()
    kernel = builder._tensor("n" * 500_000, (4, 4), KINDS.INT8, np.ones((4, 4), np.int8), [1.0], [0])
    first = builder.graph.operators[0]
    builder.graph.operators += [another(first, inputs=[first.inputs[0], kernel])] * MANY
    _, result, _, _ = accepted(builder.finish())
    assert len(result.undescribed) == MANY


# Messages that point to one part from many places; the object API writes none of these.


def shared_vector(field, count, repeats):
    """A file in which ``repeats`` tables point to one vector of ``count`` numbers."""
    builder = flatbuffers.Builder(1024)
    vector = builder.CreateNumpyVector(np.ones(count, np.int32))
    tables = []
    for _ in range(repeats):
        if field == "operator":
            schema.OperatorStart(builder)
            schema.OperatorAddInputs(builder, vector)
            tables.append(schema.OperatorEnd(builder))
        elif field == "shape":
            schema.TensorStart(builder)
            schema.TensorAddShape(builder, vector)
            tables.append(schema.TensorEnd(builder))
        else:
            schema.QuantizationParametersStart(builder)
            schema.QuantizationParametersAddScale(builder, vector)
            found = schema.QuantizationParametersEnd(builder)
            schema.TensorStart(builder)
            schema.TensorAddQuantization(builder, found)
            tables.append(schema.TensorEnd(builder))
    builder.StartVector(4, len(tables), 4)
    for table in tables:
        builder.PrependUOffsetTRelative(table)
    listed = builder.EndVector()
    schema.SubGraphStart(builder)
    (schema.SubGraphAddOperators if field == "operator" else schema.SubGraphAddTensors)(builder, listed)
    graph = schema.SubGraphEnd(builder)
    schema.ModelStartSubgraphsVector(builder, 1)
    builder.PrependUOffsetTRelative(graph)
    graphs = builder.EndVector()
    schema.ModelStart(builder)
    schema.ModelAddVersion(builder, 3)
    schema.ModelAddSubgraphs(builder, graphs)
    builder.Finish(schema.ModelEnd(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize("field", ["operator", "shape", "scale"])
def test_vectors_that_thousands_of_tables_share(field):
    refused(shared_vector(field, 60_000, MANY), "shares parts so often")


def test_metadata_of_nothing_but_weights():
    builder = dense()
    found = outcome(read, builder.finish(BlockMetadata("{}", 0, {}, ())))
    assert found.tensors == ()
