"""Float files that somebody else made: what is taken, and what is refused by name."""

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from float_files import FloatModel, convolution

import tfptq
from tfptq.float_file.file_model import tflite_model
from tfptq.float_file.foreign_file import read_float_model
from tfptq.tflite.model import TFLiteModel

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(5, 3, 3, 4)).astype(np.float32)
SAMPLES = RNG.normal(size=(16, 8, 8, 4)).astype(np.float32)


def small():
    graph = FloatModel()
    return graph.finish(convolution(graph, graph.input("x", (1, 8, 8, 4)), KERNEL))


def quantize(data, samples=SAMPLES, **arguments):
    config = tfptq.QuantizationConfig(tfptq.PerChannel())
    return tfptq.quantize(data, samples, config, progress=False, **arguments)


def test_a_file_without_signature_goes_by_its_tensors():
    model = small()
    model.root.signatureDefs = None
    found = tflite_model(model.to_bytes())
    assert [(each.name, each.shape, each.dtype) for each in found.inputs] == [("x", (None, 8, 8, 4), "float32")]
    assert [kernel.id.owner for kernel in found.float_file.kernels] == ["conv"]
    assert len(quantize(model.to_bytes(), {"x": SAMPLES}).report.layers) == 1


def test_a_fixed_batch_is_filled():
    model = small()
    for index in (*model.subgraph.inputs, *model.subgraph.outputs):
        model.tensors[index].shape = np.array([3, *model.shape(index)[1:]], np.int32)
        model.tensors[index].shapeSignature = None
    result = quantize(model.to_bytes())
    interpreter = tf.lite.Interpreter(model_content=result.tflite)
    assert list(interpreter.get_input_details()[0]["shape"]) == [3, 8, 8, 4]
    assert result.report.samples == 16


def test_samples_that_do_not_fit_are_refused():
    data = small().to_bytes()
    with pytest.raises(tfptq.DataError, match=r"input 'x' is float32 of shape \[batch, 8, 8, 3\]; the model asks for"):
        quantize(data, SAMPLES[..., :3])
    with pytest.raises(tfptq.DataError, match="input 'x' is missing, 'y' is no input"):
        quantize(data, {"y": SAMPLES})


def test_tensors_of_one_name_and_of_none():
    model = small()
    for tensor in model.tensors:
        tensor.name = b""
    model.root.signatureDefs[0].inputs[0].name = b"x"
    renamed = read_float_model(model.to_bytes(), "net")
    names = [renamed.name(index) for index in range(len(renamed.tensors))]
    assert len(set(names)) == len(names) and all(names)
    result = quantize(model.to_bytes())
    assert [layer.name for layer in result.report.layers] == ["conv_2d"]


def test_empty_buffers_are_no_constants():
    model = small()
    buffer = schema.BufferT()
    buffer.data = np.zeros(0, np.uint8)
    model.root.buffers.append(buffer)
    for index in (*model.subgraph.inputs, *model.subgraph.outputs):
        model.tensors[index].buffer = len(model.root.buffers) - 1
    found = tflite_model(model.to_bytes())
    assert not found.float_file.model.is_constant(found.float_file.model.subgraph.inputs[0])


def test_float16_constants_become_float32():
    graph = FloatModel()
    x = graph.input("x", (1, 4))
    half = graph.constant("half", RNG.normal(size=(3, 4)).astype(np.float16))
    kernel = graph.add("DEQUANTIZE", [half], (3, 4), "wide")
    graph.model.tensors[kernel].shapeSignature = None
    y = graph.add("FULLY_CONNECTED", [x, kernel, -1], (1, 3), options=schema.FullyConnectedOptionsT())
    model = read_float_model(graph.finish(y).to_bytes(), "net")
    assert [model.operator_name(operator) for operator in model.operators] == ["FULLY_CONNECTED"]
    constant = model.constant(model.operators[0].inputs[1])
    np.testing.assert_array_equal(constant, graph.model.constant(half).astype(np.float32))


def two_signatures(tmp_path):
    class Module(tf.Module):
        def __init__(self):
            super().__init__()
            self.kernel = tf.Variable(RNG.normal(size=(4, 3)), dtype=tf.float32)

        @tf.function(input_signature=[tf.TensorSpec([None, 4], name="x")])
        def once(self, x):
            return {"y": x @ self.kernel}

        @tf.function(input_signature=[tf.TensorSpec([None, 3], name="z")])
        def back(self, z):
            return {"w": tf.nn.relu(tf.matmul(z, self.kernel, transpose_b=True))}

    module = Module()
    tf.saved_model.save(module, str(tmp_path), signatures={"once": module.once, "back": module.back})
    return tf.lite.TFLiteConverter.from_saved_model(str(tmp_path), signature_keys=["once", "back"]).convert()


def test_a_signature_is_chosen(tmp_path):
    data = two_signatures(tmp_path)
    assert len(TFLiteModel(data).root.subgraphs) == 2
    for signature, name, size in (("once", "x", 4), ("back", "z", 3)):
        result = quantize(data, {name: RNG.normal(size=(16, size))}, signature=signature)
        assert list(tf.lite.Interpreter(model_content=result.tflite).get_signature_list()) == [signature]
    with pytest.raises(
        ValueError, match="model has no signature 'other'; its signatures: '(once|back)', '(once|back)'"
    ):
        quantize(data, SAMPLES, signature="other")


def test_a_quantized_file_is_refused():
    quantized = quantize(small().to_bytes()).tflite
    with pytest.raises(
        ValueError, match="is quantized already: .* of its tensors are INT8 with scales. Pass the float"
    ):
        quantize(quantized)


def test_operators_of_tensorflow_and_of_others_are_named():
    for code, expected in ((b"FlexErf", "needs the operator Erf of TensorFlow"), (b"Mine", "LiteRT cannot run .*Mine")):
        graph = FloatModel()
        x = graph.input("x", (1, 4))
        y = graph.add("ABS", [x], (1, 4))
        graph.model.root.operatorCodes[0].builtinCode = schema.BuiltinOperator.CUSTOM
        graph.model.root.operatorCodes[0].deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
        graph.model.root.operatorCodes[0].customCode = code
        with pytest.raises(ValueError, match=expected):
            tflite_model(graph.finish(y).to_bytes())


def test_a_state_is_refused():
    class Counter(tf.Module):
        def __init__(self):
            super().__init__()
            self.total = tf.Variable(tf.zeros((1, 4)))

        @tf.function(input_signature=[tf.TensorSpec([1, 4])])
        def __call__(self, x):
            return self.total.assign_add(x)

    module = Counter()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.__call__.get_concrete_function()], module)
    converter.experimental_enable_resource_variables = True
    with pytest.raises(ValueError, match="keeps values between calls"):
        tflite_model(converter.convert())


def test_damaged_files_are_refused():
    data = small().to_bytes()
    for broken in (b"", b"no model", data[: len(data) // 2], data[:-200], b"TFL3" * 100):
        with pytest.raises(tfptq.FormatError, match="model is no .tflite file that can be read"):
            tflite_model(broken)
    with pytest.raises(FileNotFoundError, match="there is no model file nowhere.tflite"):
        tflite_model("nowhere.tflite")
    rng = np.random.default_rng(0)
    for _ in range(150):  # an error that says so, or a file that is taken; never anything else
        damaged = bytearray(data)
        for at in rng.integers(0, len(data) // 3, 3):
            damaged[at] = rng.integers(0, 256)
        try:
            tflite_model(bytes(damaged))
        except ValueError as error:
            assert "model" in str(error)


def test_inputs_that_no_samples_fit_are_refused():
    graph = FloatModel()
    x, y = graph.input("x", (1, 4)), graph.input("y", (1, 4))
    total = graph.add("ADD", [x, y], (1, 4), options=schema.AddOptionsT())
    model = graph.finish(total)
    model.tensors[y].shape, model.tensors[y].shapeSignature = np.array([4], np.int32), None
    with pytest.raises(ValueError, match=r"inputs of model have different first sizes: 'x' \[None, 4\], 'y' \[4\]"):
        tflite_model(model.to_bytes())
