import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from hand_made import FileBuilder, conv_layer

import tfptq
from tfptq.tflite.inspect import Inspection, inspect
from tfptq.tflite.interface import InterfaceRow

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def network():
    image, extra = keras.Input((4, 4, 2), name="image"), keras.Input((3,), name="extra")
    x = keras.layers.Concatenate()([keras.layers.Flatten()(keras.layers.Conv2D(2, 3)(image)), extra])
    outputs = {"scores": keras.layers.Dense(5, activation="softmax")(x), "raw": keras.layers.Dense(2)(x)}
    return keras.Model([image, extra], outputs)


@pytest.mark.parametrize("kind", ["float32", "int8", "uint8"])
def test_what_the_interpreter_says(network, kind):
    data = {"image": RNG.normal(size=(16, 4, 4, 2)), "extra": RNG.normal(size=(16, 3))}
    config = tfptq.QuantizationConfig.from_preset("w8a8_shift").replace(input_type=kind, output_type=kind)
    content = tfptq.quantize_keras_model(network, data, config).tflite
    interpreter = Interpreter(model_content=content)
    runner = interpreter.get_signature_runner()
    rows = inspect(content).inputs_and_outputs
    assert [(row.end, row.index) for row in rows] == [("input", 0), ("input", 1), ("output", 0), ("output", 1)]
    for end, details, order in (
        ("input", runner.get_input_details(), interpreter.get_input_details()),
        ("output", runner.get_output_details(), interpreter.get_output_details()),
    ):
        found = {row.name: row for row in rows if row.end == end}
        assert set(found) == set(details)
        for name, item in details.items():
            row = found[name]
            assert order[row.index]["index"] == item["index"]
            assert np.dtype(row.dtype) == item["dtype"] == np.dtype(kind)
            assert row.shape == (None, *item["shape"][1:])
            if kind == "float32":
                assert row.scale is None and row.zero_point is None
            else:
                assert (np.float32(row.scale), row.zero_point) == item["quantization"]


def test_a_file_without_signatures():
    builder = conv_layer(FileBuilder((1, 5, 5, 3), scale=0.05, zero_point=-3), RNG, (4, 3, 3, 3))
    first, last = inspect(builder.finish()).inputs_and_outputs
    assert first == InterfaceRow("input", 0, "input", (1, 5, 5, 3), "int8", 0.05, -3)
    assert last.end == "output" and last.dtype == "int8" and last.name != "input"


def test_the_table():
    rows = (
        InterfaceRow("input", 0, "image", (None, 8, 8, 1), "int8", 0.00392157, -128),
        InterfaceRow("output", 0, "output_0", (None, 10), "float32", None, None),
    )
    found = Inspection(
        bytes=1,
        inputs_and_outputs=rows,
        weights=(),
        operators=(),
        config=None,
        seed=None,
        versions={},
        schema_version=None,
    )
    head, _, first, last = found.render().split("\n\n")[0].splitlines()
    assert head.split() == ["index", "name", "shape", "type", "scale", "zero", "point"]
    assert first.split() == ["input", "0", "image", "?x8x8x1", "int8", "0.00392157", "-128"]
    assert last.split() == ["output", "0", "output_0", "?x10", "float32"]


def test_files_of_others(network):
    content = tf.lite.TFLiteConverter.from_keras_model(network).convert()
    assert {row.name for row in inspect(content).inputs_and_outputs if row.end == "input"} == {"image", "extra"}


def test_rubbish_is_refused():
    with pytest.raises(tfptq.FormatError, match="file identifier"):
        inspect(b"this is not a model at all")
