"""Which operators are described, and which are named as not described."""

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hand_made import CONFIG, VIEWS, conv_layer, network, random_weight
from hostile_files import KINDS, dense, describe, operator, refused, second_mul

import tfptq
from tfptq.tflite.checks import VerificationError
from tfptq.tflite.layouts import COMPOSITE, INLINE, NATIVE
from tfptq.tflite.metadata import BlockMetadata
from tfptq.tflite.verify import verify

# Every operator is described once, or named.


def test_metadata_that_describes_nothing_is_refused():
    with pytest.raises(VerificationError, match="describes no tensor"):
        verify(network().finish(BlockMetadata(CONFIG, 0, {}, ())))


def test_a_file_of_floats_has_its_digest_alone():
    """Nothing has codes where weights are float16."""
    inputs = keras.Input((8,))
    model = keras.Model(inputs, keras.layers.Dense(4)(inputs))
    tflite = tfptq.quantize_keras_model(model, None, "float16", progress=False).tflite
    result = verify(tflite)
    assert result.checks == () and result.undescribed == () and result.digest
    assert "no tensor of codes: weights are floats" in result.render()


@pytest.mark.parametrize("left_out", range(4))
def test_kernels_without_a_description_are_named(left_out):
    builder = network()
    kinds = ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "FULLY_CONNECTED"]
    assert verify(builder.finish()).undescribed == ()
    del builder.blocks[left_out]
    result = verify(builder.finish())
    (found,) = result.undescribed
    assert (found.operator, found.output) == (kinds[left_out], f"layer_{left_out}/output")
    assert f"reads 'layer_{left_out}/kernel', INT" in found.reason
    assert f"not described: {kinds[left_out]} layer_{left_out}/output, reads" in result.render()
    assert "3 tensors verified" in result.render()


def test_a_kernel_behind_other_operators_is_named():
    builder = dense(INLINE)
    second_mul(builder, 2)
    conv_layer(builder, np.random.default_rng(0), (4, 4), "FULLY_CONNECTED")
    del builder.blocks[0]
    (found,) = verify(builder.finish()).undescribed
    assert (found.operator, found.output) == ("FULLY_CONNECTED", "layer_0/y")
    assert found.reason == "reads 'layer_0/codes', INT4, constant"


def test_a_kernel_that_is_computed_is_named():
    builder = conv_layer(dense(), np.random.default_rng(0), (4, 4), "FULLY_CONNECTED")
    (reader,) = [it for it in builder.graph.operators if "layer_1" in builder.graph.tensors[it.outputs[0]].name]
    reader.inputs[1] = reader.inputs[0]
    del builder.blocks[1]
    (found,) = verify(builder.finish()).undescribed
    assert found.reason == "reads 'layer_0/output', INT8, computed at run time"


def test_a_product_with_a_constant_of_codes_is_named():
    builder = dense()
    table = builder._tensor("table", (4, 4), KINDS.INT8, np.ones((4, 4), np.int8), [1.0], [0])
    builder.graph.operators.append(schema.OperatorT(len(builder.model.operatorCodes), [builder.last, table], [0]))
    builder.graph.operators[-1].outputs = [builder._tensor("product", (1, 4), KINDS.INT8, None, [1.0], [0])]
    builder.model.operatorCodes.append(schema.OperatorCodeT(126, None, 1, 126))  # BATCH_MATMUL
    (found,) = verify(builder.finish()).undescribed
    assert (found.operator, found.reason) == ("BATCH_MATMUL", "reads 'table', INT8, constant")


def test_an_operator_that_is_not_known_is_named():
    builder = dense()
    table = builder._tensor("table", (4, 4), KINDS.INT8, np.ones((4, 4), np.int8), [1.0], [0])
    result = builder._tensor("result", (1, 4), KINDS.INT8, None, [1.0], [0])
    builder.graph.operators.append(schema.OperatorT(len(builder.model.operatorCodes), [builder.last, table], [result]))
    builder.model.operatorCodes.append(schema.OperatorCodeT(32, "Mine", 1, 32))
    (found,) = verify(builder.finish()).undescribed
    assert (found.operator, found.reason) == ("CUSTOM Mine", "reads 'table', INT8, constant")


def test_float_kernels_need_no_description():
    builder = dense(INLINE)
    x = operator(builder, "FULLY_CONNECTED").inputs[0]
    kernel = builder._tensor("float", (4, 4), KINDS.FLOAT16, np.ones((4, 4), np.float16))
    unpacked = builder._operator("DEQUANTIZE", [kernel], "unpacked", (4, 4))
    builder._operator("FULLY_CONNECTED", [x, unpacked], "y", (1, 4), schema.FullyConnectedOptionsT())
    assert verify(builder.finish()).undescribed == ()


def test_a_description_that_no_operator_reads_is_refused():
    builder = dense()
    view = VIEWS["FULLY_CONNECTED"]((4, 4))
    builder.weight(random_weight(np.random.default_rng(0), view), view, tensor_name="spare")
    refused(builder, "tensor 'spare': no operator with a kernel reads it")


def test_a_kernel_that_is_read_as_something_else_is_not_described():
    builder = dense()
    reader = operator(builder, "FULLY_CONNECTED")
    reader.inputs = [reader.inputs[0], builder._tensor("other", (4, 4), KINDS.FLOAT32, np.ones((4, 4), np.float32)), 1]
    refused(builder, "no operator with a kernel reads it")


def test_the_layout_decides_the_way():
    builder = dense(INLINE)
    describe(builder, layout=COMPOSITE)
    refused(builder, "the decomposition of its composite holds")
    builder = dense(NATIVE, shape=(4, 32), block=(1, 32))
    describe(builder, layout=INLINE)
    with pytest.raises(ValueError):  # its block scales are float16, and read no way by inline
        verify(builder.finish())
