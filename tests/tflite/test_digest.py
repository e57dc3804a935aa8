"""The digest of tensors and operators."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hand_made import network
from hostile_files import tensor

from tfptq.tflite.checks import VerificationError
from tfptq.tflite.serialize import pack_model
from tfptq.tflite.verify import verify

# The digest.


def changed_bytes(name):
    def change(builder):
        buffer = builder.model.buffers[tensor(builder, name).buffer]
        buffer.data = buffer.data.copy()
        buffer.data[3] ^= 1

    return change


def swap_inputs(builder):
    builder.graph.operators[0].inputs = [*builder.graph.operators[0].inputs[:2], -1]


CHANGES = {
    "a code": changed_bytes("layer_0/kernel"),
    "a bias": changed_bytes("layer_0/bias"),
    "the scale of an output": lambda builder: tensor(builder, "layer_3/output").quantization.scale.__setitem__(0, 1.5),
    "a zero point": lambda builder: tensor(builder, "input").quantization.zeroPoint.__setitem__(0, 9),
    "a bias left out": swap_inputs,
    "an activation function": lambda builder: setattr(
        builder.graph.operators[0].builtinOptions, "fusedActivationFunction", 1
    ),
    "a stride": lambda builder: setattr(builder.graph.operators[0].builtinOptions, "strideW", 2),
    "another operator": lambda builder: builder.graph.operators.append(builder.graph.operators[0]),
    "an output": lambda builder: setattr(builder.graph, "outputs", [0]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_after_writing_is_found_by_the_digest(change):
    builder = network()
    assert verify(builder.finish()).digest
    CHANGES[change](builder)
    builder.graph.outputs, outputs = [builder.last], builder.graph.outputs
    if change == "an output":
        builder.graph.outputs = outputs
    with pytest.raises(VerificationError, match="the digest differs"):
        verify(pack(builder))


def pack(builder):
    return pack_model(builder.model)


def test_names_and_other_metadata_are_not_in_the_digest():
    builder = network()
    digest = verify(builder.finish()).digest
    tensor(builder, "layer_3/output").name = "renamed"
    builder.model.description = "another"
    builder.model.buffers.append(schema.BufferT(data=np.arange(9, dtype=np.uint8)))
    builder.model.metadata.append(schema.MetadataT(name="labels", buffer=len(builder.model.buffers) - 1))
    result = verify(pack(builder))
    assert result.digest == digest
    assert f"digest {digest}: nothing has been damaged (integrity); it does not tell who" in result.render()
