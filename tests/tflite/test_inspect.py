import json

import numpy as np
import pytest
from hand_made import VIEWS, FileBuilder, conv_layer, random_weight

from tfptq.tflite.inspect import OperatorRow, inspect
from tfptq.tflite.layouts import INT4
from tfptq.tflite.metadata import FormatError
from tfptq.tflite.stored_config import LEFT_OUT


@pytest.fixture
def builder():
    rng = np.random.default_rng(0)
    builder = FileBuilder((1, 5, 5, 3))
    conv_layer(builder, rng, (4, 3, 3, 3))
    conv_layer(builder, rng, (1, 3, 3, 4), "DEPTHWISE_CONV_2D", INT4, bits=4, kind="float")
    view = VIEWS["FULLY_CONNECTED"]((6, 100))
    return builder.layer("FULLY_CONNECTED", random_weight(rng, view, "integer", (2, 30), 4), view)


def test_rows(builder, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(builder.finish())
    found = inspect(path)
    assert found.bytes == path.stat().st_size
    assert [(row.layer, row.operator, row.granularity, row.scales) for row in found.weights] == [
        ("layer_0", "CONV_2D", "tensor", "WES"),
        ("layer_1", "DEPTHWISE_CONV_2D", "channel", "float"),
        ("layer_2", "FULLY_CONNECTED", "block", "integer"),
    ]
    assert [(row.bits, row.count, row.layout, row.bytes) for row in found.weights] == [
        (8, 4, "int8", 108),
        (4, 4, "int4", 18),
        (4, 12, "int8", 600),
    ]
    assert OperatorRow("CONV_2D", "INT8", 1) in found.operators
    assert (found.seed, found.schema_version, found.versions) == (7, 2, {"tfptq": "0.1", "keras": "3"})


def test_render_and_json(builder):
    found = inspect(builder.finish())
    text = found.render()
    for part in ("layer_2", "6x100", "2x30", "WES", "seed 7", "keras 3", "FULLY_CONNECTED  ", "config {}"):
        assert part in text
    values = json.loads(found.to_json())
    assert values["weights"][2]["shape"] == [6, 100]
    assert values["config"] == LEFT_OUT


def test_files_of_others_are_shown_too(builder):
    found = inspect(builder.finish(None))
    assert found.weights == ()
    assert found.config is None
    assert "no block metadata" in found.render()
    assert json.loads(found.to_json())["config"] is None


def test_rubbish_is_refused():
    with pytest.raises(FormatError, match="file identifier"):
        inspect(b"this is not a model at all")
