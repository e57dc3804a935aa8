"""Small good files of one layer, to be changed into files that say wrong things, as their author would make them.

``FileBuilder.finish`` makes checksums and the digest of the changed file.
"""

from dataclasses import replace

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hand_made import VIEWS, FileBuilder, conv_layer, half_scales, random_weight

from tfptq.npu import Executor
from tfptq.tflite.blocks_schema import blocks_schema
from tfptq.tflite.checks import VerificationError
from tfptq.tflite.flatbuffer import read_message
from tfptq.tflite.flatbuffer_writer import write_message
from tfptq.tflite.layouts import COMPOSITE, INLINE, NATIVE
from tfptq.tflite.model import pack_model
from tfptq.tflite.verify import verify

KINDS = schema.TensorType


def dense(layout=None, bits=4, shape=(4, 4), kind="float", block=None):
    view = VIEWS["FULLY_CONNECTED"](shape)
    weight = random_weight(np.random.default_rng(0), view, kind, block, bits)
    builder = FileBuilder((1, shape[1]))
    if layout is NATIVE:
        weight = half_scales(weight)
    if layout in (INLINE, COMPOSITE, NATIVE):
        return builder.float_layer("FULLY_CONNECTED", weight, view, layout)
    return builder.layer("FULLY_CONNECTED", weight, view, **({} if layout is None else {"layout": layout}))


def conv(kernel=(4, 3, 3, 2), operator="CONV_2D", **scales):
    builder = FileBuilder((1, 6, 6, kernel[3]))
    return conv_layer(builder, np.random.default_rng(0), kernel, operator, **scales)


def transposed():
    view = VIEWS["TRANSPOSE_CONV"]((4, 3, 3, 2))
    weight = random_weight(np.random.default_rng(0), view)
    options = {"strideW": 1, "strideH": 1}
    return FileBuilder((1, 6, 6, 2)).layer("TRANSPOSE_CONV", weight, view, output_shape=(1, 8, 8, 4), **options)


def tensor(builder, name):
    return next(tensor for graph in builder.model.subgraphs for tensor in graph.tensors if tensor.name == name)


def operator(builder, kind):
    code = getattr(schema.BuiltinOperator, kind)
    return next(
        operator
        for graph in builder.model.subgraphs
        for operator in graph.operators
        if builder.model.operatorCodes[operator.opcodeIndex].builtinCode == code
    )


def describe(builder, **changes):
    builder.blocks[-1] = replace(builder.blocks[-1], **changes)


def refused(builder, message):
    file = builder.finish()
    for check in (verify, Executor):
        with pytest.raises(VerificationError, match=message):
            check(file)


def second_mul(builder, place=1):
    """Another MUL with 2.0 behind one of the operators of the way."""
    graph = builder.graph
    behind = graph.operators[1 + place]
    two = builder._tensor("two", (1,), KINDS.FLOAT32, np.float32([2]))
    doubled = builder._tensor("doubled", graph.tensors[behind.outputs[0]].shape, KINDS.FLOAT32, None)
    builder.model.operatorCodes.append(schema.OperatorCodeT(18, None, 1, 18))
    extra = schema.OperatorT(len(builder.model.operatorCodes) - 1, [behind.outputs[0], two], [doubled])
    for reader in graph.operators:
        reader.inputs = [doubled if index == behind.outputs[0] else index for index in reader.inputs]
    graph.operators.insert(2 + place, extra)


def with_message(builder, **changes):
    """The file with other values in the message of its metadata; ``weights`` is a function of the old bytes."""
    builder.finish()
    buffer = builder.model.buffers[builder.model.metadata[0].buffer]
    root = vars(read_message(bytes(buffer.data), blocks_schema()))
    values = {name: root[name] for name in ("schema_version", "config", "seed", "packages", "weights", "digest")}
    if "weights" in changes:
        changes["weights"] = np.frombuffer(changes["weights"](root["weights"].tobytes()), np.uint8)
    buffer.data = np.frombuffer(write_message({**values, **changes}, blocks_schema()), np.uint8)
    return pack_model(builder.model)
