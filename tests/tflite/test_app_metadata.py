"""Labels and normalization that apps read; slots are those of TFLite Metadata's schema, which others read by."""

import io
import struct
import zipfile

import flatbuffers
import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from flatbuffers.table import Table

import tfptq
from tfptq.tflite.app_metadata import APP_METADATA_KEY, LABELS_FILE
from tfptq.tflite.flatbuffer import read_message
from tfptq.tflite.model_reader import read_model
from tfptq.tflite.schema import own_schema

LABELS = ["cat", "dog", "größer"]
METADATA = tfptq.AppMetadata(LABELS, mean=[127.5], std=[127.5], name="pets", description="cats and dogs")


def network(channels=3, outputs=3):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, channels), name="photo")
    x = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, activation="relu")(inputs))
    return keras.Model(inputs, keras.layers.Dense(outputs, activation="softmax", name="scores")(x))


def samples(channels=3):
    return np.random.default_rng(0).uniform(-1, 1, (32, 8, 8, channels)).astype(np.float32)


@pytest.fixture(scope="module")
def plain():
    return tfptq.quantize_keras_model(network(), samples(), "w8a8_channel", progress=False).tflite


def message(file):
    model = read_model(file)
    return model.buffers[dict(model.metadata)[APP_METADATA_KEY]].tobytes()


def test_quantize_writes_them():
    result = tfptq.quantize_keras_model(network(), samples(), "w8a8_channel", progress=False, app_metadata=METADATA)
    found = read_message(message(result.tflite), own_schema("app_metadata.fbs"))
    (graph,) = found.subgraph_metadata
    (source,), (scores,) = graph.input_tensor_metadata, graph.output_tensor_metadata
    assert (found.name, found.description, found.min_parser_version) == ("pets", "cats and dogs", "1.0.0")
    assert source.name == "photo" and source.content.content_properties.color_space == 1
    (unit,) = source.process_units
    assert unit.options.table == "NormalizationOptions"
    assert unit.options.mean.tolist() == unit.options.std.tolist() == [127.5]
    assert scores.name == "output_0" and [(file.name, file.type) for file in scores.associated_files] == [
        (LABELS_FILE, 2)
    ]
    with zipfile.ZipFile(io.BytesIO(result.tflite)) as archive:
        assert archive.namelist() == [LABELS_FILE]
        assert archive.read(LABELS_FILE).decode() == "cat\ndog\ngrößer\n"
        assert archive.getinfo(LABELS_FILE).compress_type == zipfile.ZIP_STORED


def test_slots_are_those_of_the_schema_that_others_read(plain):
    """By hand, with the numbers of the vtables: 4 + 2 * slot."""
    data = message(tfptq.with_app_metadata(plain, METADATA))
    assert data[4:8] == b"M001"

    def field(table, slot):
        return table.Offset(4 + 2 * slot)

    def child(table, slot):
        return Table(data, table.Indirect(table.Pos + field(table, slot)))

    def element(table, slot, index=0):
        return Table(data, table.Indirect(table.Vector(field(table, slot)) + 4 * index))

    root = Table(data, struct.unpack_from("<I", data)[0])
    graph = element(root, 3)
    source, scores = element(graph, 2), element(graph, 3)
    content, unit = child(source, 3), element(source, 4)
    assert content.Get(flatbuffers.number_types.Uint8Flags, content.Pos + field(content, 0)) == 2  # ImageProperties
    assert unit.Get(flatbuffers.number_types.Uint8Flags, unit.Pos + field(unit, 0)) == 1  # NormalizationOptions
    assert source.String(source.Pos + field(source, 0)) == b"photo"
    labels = element(scores, 6)
    assert labels.String(labels.Pos + field(labels, 0)) == b"labels.txt"
    assert root.String(root.Pos + field(root, 7)) == b"1.0.0"


def test_what_the_file_computes_and_its_names_stay(plain):
    file = tfptq.with_app_metadata(plain, METADATA)
    details, outputs = [], []
    for content in (plain, file):
        runner = Interpreter(model_content=content).get_signature_runner()
        details.append((list(runner.get_input_details()), list(runner.get_output_details())))
        outputs.append(runner(photo=samples()[:1])["output_0"])
    assert details[0] == details[1]
    np.testing.assert_array_equal(*outputs)
    assert tfptq.verify(file).checks and tfptq.inspect(file).weights


def test_twice_is_once_and_the_same_bytes(plain):
    once = tfptq.with_app_metadata(plain, METADATA)
    assert once == tfptq.with_app_metadata(plain, METADATA)
    again = tfptq.with_app_metadata(once, tfptq.AppMetadata(["a", "b", "c"]))
    with zipfile.ZipFile(io.BytesIO(again)) as archive:
        assert archive.read(LABELS_FILE) == b"a\nb\nc\n"
    assert [name for name, _ in read_model(again).metadata].count(APP_METADATA_KEY) == 1


def test_without_labels_there_is_no_archive(plain):
    file = tfptq.with_app_metadata(plain, tfptq.AppMetadata(mean=(1, 2, 3), std=(4, 5, 6)))
    assert not zipfile.is_zipfile(io.BytesIO(file))
    found = read_message(message(file), own_schema("app_metadata.fbs"))
    (unit,) = found.subgraph_metadata[0].input_tensor_metadata[0].process_units
    assert unit.options.std.tolist() == [4, 5, 6]


def test_gray_pictures():
    config = tfptq.QuantizationConfig.from_preset("w8a8_channel").replace(target="web")
    file = tfptq.quantize_keras_model(
        network(1), samples(1), config, progress=False, app_metadata=tfptq.AppMetadata(mean=[0], std=[255])
    ).tflite
    found = read_message(message(file), own_schema("app_metadata.fbs"))
    assert found.subgraph_metadata[0].input_tensor_metadata[0].content.content_properties.color_space == 2


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"labels": ["a", ""]}, "label '': labels are texts of one line"),
        ({"labels": ["a\nb"]}, "label 'a\\\\nb'"),
        ({"mean": [1.0]}, "mean=.* give 1 or 3 numbers for both"),
        ({"mean": [1.0] * 2, "std": [1.0] * 2}, "give 1 or 3 numbers"),
        ({"mean": [0.0], "std": [0.0]}, "those of std above 0"),
        ({"mean": [float("nan")], "std": [1.0]}, "numbers are finite"),
    ],
)
def test_values_that_are_none(values, problem):
    with pytest.raises(ValueError, match=problem):
        tfptq.AppMetadata(**values)


@pytest.mark.parametrize(
    ("metadata", "channels", "problem"),
    [
        (tfptq.AppMetadata(["a", "b"]), 3, r"2 labels do not fit the outputs \[\[None, 3\]\]"),
        (tfptq.AppMetadata(mean=(1, 2, 3), std=(1, 1, 1)), 1, r"does not fit the inputs \[\[None, 8, 8, 1\]\]"),
        (tfptq.AppMetadata(mean=[0], std=[1]), 4, r"one input of pictures, of 1 or 3 channels"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(metadata, channels, problem):
    with pytest.raises(ValueError, match=problem):
        tfptq.quantize_keras_model(
            network(channels), samples(channels), "w8a8_channel", progress=False, app_metadata=metadata
        )
