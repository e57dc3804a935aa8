"""Files of version 1 of the block metadata, made by tfptq when it was the newest."""

from pathlib import Path

import numpy as np
import pytest
from hand_made import network

from tfptq.npu import Executor
from tfptq.tflite.blocks_schema import blocks_schema
from tfptq.tflite.flatbuffer import FormatError, read_message
from tfptq.tflite.flatbuffer_writer import write_message
from tfptq.tflite.inspect import inspect
from tfptq.tflite.metadata import METADATA_KEY, decode, read
from tfptq.tflite.model_reader import read_model
from tfptq.tflite.verify import verify

DATA = Path(__file__).parent / "data"


def test_old_files_tell_the_same_as_new_ones():
    old, new = DATA / "version_1_network.tflite", network().finish()
    assert (inspect(old).schema_version, inspect(new).schema_version) == (1, 2)
    assert inspect(old).weights == inspect(new).weights
    assert inspect(old).versions == inspect(new).versions
    assert verify(old).checks == verify(new).checks
    assert verify(old).digest is None and len(verify(new).digest) == 64
    for one, other in zip(read(old).tensors, read(new).tensors, strict=True):
        assert (one.base.tobytes(), one.factors.tobytes()) == (other.base.tobytes(), other.factors.tobytes())
    for one, other in zip(Executor(old).layers, Executor(new).layers, strict=True):
        np.testing.assert_array_equal(one.codes, other.codes)


def test_every_kind_of_blocks():
    found = read(DATA / "version_1_kinds.tflite")
    assert (found.schema_version, found.seed, found.versions) == (1, 2**64 - 1, {"tfptq": "1", "keras": "3"})
    assert [(blocks.scale_kind, blocks.layout.name, blocks.factors.shape) for blocks in found.tensors] == [
        ("shift", "int8", (6, 1)),
        ("shift", "int8", (3, 2)),
        ("integer", "int4", (2, 3)),
        ("float", "int8", (1, 1)),
        ("float", "native", (6, 1)),
        ("float", "inline", (2, 2)),
        ("float", "composite", (3, 2)),
    ]


CHANGES = {
    "unknown layout 5": {"layout": 5},
    "unknown scale kind 3": {"scale_kind": 3},
    "granularity does not fit": {"granularity": 2},
    "unknown granularity 3": {"granularity": 3},
    "factors of the wrong type": {"float_factors": [1.0]},
    "no output channels": {"block_outputs": 0},
    "5 factors in 6 rows": {"integer_factors": [0] * 5},
    "factor out of range": {"integer_factors": [16] * 6},
    "7 bits": {"bits": 7},
}


@pytest.mark.parametrize("problem", CHANGES)
def test_contradictions_are_refused(problem):
    model = read_model((DATA / "version_1_kinds.tflite").read_bytes())
    message = bytes(model.buffers[dict(model.metadata)[METADATA_KEY]])
    root = read_message(message, blocks_schema())
    entry = {**vars(root.tensors[0]), **CHANGES[problem]}
    changed = {"schema_version": 1, "config": root.config, "tensors": [entry]}
    with pytest.raises(FormatError, match=problem):
        decode(write_message(changed, blocks_schema()), model)
