import numpy as np
import pytest
from float_files import FloatModel, convolution
from hand_made import FileBuilder, conv_layer

from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.runtime import TensorRunner

RNG = np.random.default_rng(0)


@pytest.fixture
def model():
    """relu(conv(a)) * b."""
    graph = FloatModel()
    a, b = graph.input("a", (1, 4, 4, 2)), graph.input("b", (1, 4, 4, 3))
    y = convolution(graph, a, RNG.normal(size=(3, 1, 1, 2)), name="y")
    y = graph.add("RELU", [y], (1, 4, 4, 3), "relu")
    return graph.finish(graph.add("MUL", [y, b], (1, 4, 4, 3), "z"))


def test_all_tensors_can_be_seen(model):
    wanted = list(model.activations())
    runner = TensorRunner(model.to_bytes(), wanted)
    assert runner.input_names == ["a", "b"]
    kernel = model.constant(model.operators[0].inputs[1])[:, 0, 0]
    for size in (3, 1, 5):
        batch = {name: RNG.normal(size=(size, 4, 4, depth)).astype(np.float32) for name, depth in (("a", 2), ("b", 3))}
        found = {model.name(index): values for index, values in runner.values(batch).items()}
        convolved = batch["a"] @ kernel.T
        np.testing.assert_array_equal(found["a"], batch["a"])
        np.testing.assert_allclose(found["y"], convolved, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found["z"], np.maximum(convolved, 0) * batch["b"], rtol=1e-5, atol=1e-6)


def test_only_wanted_tensors_are_shown(model):
    (relu,) = (index for index in range(len(model.tensors)) if model.name(index) == "relu")
    batch = {"a": np.ones((1, 4, 4, 2), np.float32), "b": np.ones((1, 4, 4, 3), np.float32)}
    assert list(TensorRunner(model.to_bytes(), [relu, relu]).values(batch)) == [relu]


def test_the_model_is_left_alone(model):
    before = model.to_bytes()
    TensorRunner(before, model.activations())
    assert model.to_bytes() == before


def test_integer_inputs_get_codes():
    builder = FileBuilder((1, 6, 6, 4), scale=0.5, zero_point=3)
    data = conv_layer(builder, RNG).finish()
    (source,) = TFLiteModel(data).subgraph.inputs
    values = np.asarray([-100.0, -0.26, 0.0, 0.4, 100.0], np.float32)
    batch = np.zeros((1, 6, 6, 4), np.float32)
    batch.reshape(-1)[:5] = values
    found = TensorRunner(data, [source]).values({"input": batch})[source]
    np.testing.assert_array_equal(found.reshape(-1)[:6], [-128, 2, 3, 4, 127, 3])
