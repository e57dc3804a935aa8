"""The same network from any source: Keras of any kind, tf_keras, SavedModel, float ``.tflite``."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from plain_config import plain_config
from stock_runtimes import RESOLVERS, run_decoded, signal_to_noise

import tfptq
from tfptq import PerChannel, override
from tfptq.float_file.convert import convert_float

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(32, 8, 8, 3)).astype(np.float32)
PLAIN = plain_config(PerChannel(), rounding="coordinate", weight_bits=4, target="any")


def convolutions():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), name="pixels")
    x = layers.Conv2D(6, 3, activation="relu", name="stem")(inputs)
    x = layers.DepthwiseConv2D(3, activation="relu", name="deep")(x)
    x = layers.Conv2D(12, 1, activation="relu", name="point")(x)
    return keras.Model(inputs, layers.Dense(4, name="logits")(layers.GlobalAveragePooling2D()(x)))


@pytest.fixture(scope="module")
def network():
    return convolutions()


@pytest.fixture(scope="module")
def float_file(network):
    return convert_float(network)


def quantize(source, config=PLAIN, data=IMAGES, **arguments):
    return tfptq.quantize(source, data, config, progress=False, **arguments)


def codes_of(tflite):
    interpreter = tf.lite.Interpreter(model_content=tflite)
    interpreter.allocate_tensors()
    details = interpreter.get_tensor_details()
    per_channel = [each for each in details if len(each["quantization_parameters"]["scales"]) > 1]
    return sorted(interpreter.get_tensor(each["index"]).tobytes() for each in per_channel)


def check(result, expected, name="pixels", data=IMAGES, least=20.0):
    for resolver in RESOLVERS:
        found = run_decoded(result.tflite, {name: data}, resolver)
        assert signal_to_noise(expected, next(iter(found.values()))) > least


def test_a_tflite_file_gives_the_codes_of_its_keras_model(network, float_file):
    keras_way, file_way = quantize(network), quantize(float_file)
    assert codes_of(keras_way.tflite) == codes_of(file_way.tflite) and len(codes_of(file_way.tflite)) >= 4
    assert keras_way.keras_model is not None and file_way.keras_model is None
    rows = [(layer.name, layer.bits, layer.granularity, layer.rounding) for layer in file_way.report.layers]
    assert rows == [(layer.name, layer.bits, layer.granularity, layer.rounding) for layer in keras_way.report.layers]
    assert [row[0] for row in rows] == ["stem", "deep", "point", "logits"]
    check(file_way, network.predict(IMAGES, verbose=0), least=15.0)
    (note,) = (line for line in file_way.report.notes if "float file" in line)
    assert "there is no Keras simulation" in note and "a .tflite file has no Keras graph" in note
    assert not any("float file" in line for line in keras_way.report.notes)


def test_the_ways_are_one(network, float_file, tmp_path):
    path = tmp_path / "net.tflite"
    path.write_bytes(float_file)
    assert quantize(path).tflite == quantize(str(path)).tflite == quantize(float_file).tflite
    network.save(tmp_path / "net.keras")
    assert quantize(tmp_path / "net.keras").tflite == quantize(network).tflite
    assert tfptq.quantize_keras_model(network, IMAGES, PLAIN, progress=False).tflite == quantize(network).tflite


@pytest.mark.parametrize("preset", ["w8a8_shift", "w4a8_channel", "w4a8_mixed"])
def test_presets_on_files(network, float_file, preset):
    result = quantize(float_file, preset)
    check(result, network.predict(IMAGES, verbose=0), least=10.0)
    bits = {layer.name: layer.bits for layer in result.report.layers}
    assert bits["stem"] == 8  # at the edge
    assert (4 in bits.values()) == preset.startswith("w4")


def test_overrides_match_kernels_of_a_file_by_name(float_file):
    config = PLAIN.replace(overrides=[override("po*", weight_bits=3), override("deep", skip=True)])
    result = quantize(float_file, config)
    assert {layer.name: layer.bits for layer in result.report.layers} == {"stem": 4, "point": 3, "logits": 4}
    (left,) = result.report.float_operators
    assert left.operator == "DEPTHWISE_CONV_2D" and left.reason == "the config skips 'deep'"
    with pytest.raises(ValueError, match="'nobody' matches no weighted layer; there are: stem, deep, point, logits"):
        quantize(float_file, PLAIN.replace(overrides=[override("nobody", weight_bits=8)]))


def test_a_saved_model(network, tmp_path):
    network.export(tmp_path / "net", verbose=False)
    result = quantize(tmp_path / "net")
    check(result, network.predict(IMAGES, verbose=0), least=15.0)
    assert [layer.name for layer in result.report.layers] == ["stem", "deep", "point", "logits"]
    with pytest.raises(ValueError, match="has no signature 'other'; its signatures: serv"):
        quantize(tmp_path / "net", signature="other")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="is no SavedModel: it has no saved_model.pb"):
        quantize(tmp_path / "empty")


class Plain(layers.Layer):
    """Cannot be made anew: Keras cannot store its argument."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.inner, self.function = layers.Dense(8, activation="relu", name="inner"), function

    def build(self, shape):
        self.inner.build(shape)
        self.position = self.add_weight(shape=shape[1:], initializer="random_normal", name="position")

    def call(self, inputs):
        return self.inner(self.function(inputs) + self.position)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="subclassed")
        self.stem = layers.Conv2D(6, 3, activation="relu", name="stem")
        self.pool = layers.GlobalAveragePooling2D()
        self.head = layers.Dense(4, name="head")

    def call(self, inputs, training=False):
        x = self.stem(inputs)
        return self.head(self.pool(x * 1.5 if training else x))


def variables_of(model):
    return [keras.ops.convert_to_numpy(variable).copy() for variable in model.variables]


def subclassed():
    keras.utils.set_random_seed(0)
    model = Subclassed()
    model(IMAGES[:1])
    return model, ["stem", "head"]


def functional_with_a_layer_without_config():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3, activation="relu", name="stem")(inputs))
    return keras.Model(inputs, layers.Dense(4, name="head")(Plain(lambda x: 2.0 * x, name="own")(x))), [
        "stem",
        "own/inner",
        "head",
    ]


def functional_with_a_subclassed_model_inside():
    model, _ = subclassed()
    inputs = keras.Input((8, 8, 3), name="pixels")
    x = layers.Conv2D(3, 3, padding="same", name="first")(inputs)
    return keras.Model(inputs, model(x)), ["first", "subclassed/stem", "subclassed/head"]


def nested():
    inputs = keras.Input((8, 8, 3), name="pixels")
    return keras.Model(inputs, layers.Dense(2, name="last")(convolutions()(inputs))), None


@pytest.mark.parametrize(
    "build",
    [subclassed, functional_with_a_layer_without_config, functional_with_a_subclassed_model_inside, nested],
)
def test_keras_models_of_any_kind_stay_as_they_are(build):
    model, names = build()
    before, expected = variables_of(model), model.predict(IMAGES, verbose=0)
    nodes = [len(layer._inbound_nodes) for layer in model._flatten_layers()]
    result = quantize(model)
    for now, then in zip(variables_of(model), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert nodes == [len(layer._inbound_nodes) for layer in model._flatten_layers()]
    (name,) = tf.lite.Interpreter(model_content=result.tflite).get_signature_runner().get_input_details()
    check(result, expected, name, least=15.0)
    notes = [line for line in result.report.notes if "taken as a float file" in line]
    assert len(notes) == (names is not None)
    if names is not None:
        assert [layer.name for layer in result.report.layers] == names
        assert {layer.bits for layer in result.report.layers if layer.name != "stem"} >= {4}


class Pair(keras.Model):
    def __init__(self):
        super().__init__(name="pair")
        self.embedding = layers.Embedding(10, 6)
        self.out = layers.Dense(3, name="out")

    def call(self, inputs):
        return {"scores": self.out(keras.ops.mean(self.embedding(inputs["ids"]), 1) * inputs["weights"])}


def test_inputs_of_a_subclassed_model_are_those_of_the_samples():
    model = Pair()
    data = {"weights": RNG.normal(size=(16, 6)), "ids": RNG.integers(0, 10, (16, 5))}
    with pytest.raises(ValueError, match="'pair' is not built"):
        quantize(model, data=data)
    expected = model({name: values[:] for name, values in data.items()})["scores"]
    result = quantize(model, data=data)
    feed = {"weights": data["weights"].astype(np.float32), "ids": data["ids"].astype(np.int32)}
    for resolver in RESOLVERS:
        assert signal_to_noise(np.asarray(expected), run_decoded(result.tflite, feed, resolver)["scores"]) > 15.0

    def batches():
        for at in range(0, 16, 4):
            yield {name: values[at : at + 4] for name, values in data.items()}, np.zeros(4)

    assert quantize(model, data=batches).tflite == result.tflite


def test_random_layers_are_refused_still():
    class Noise(layers.Layer):
        def call(self, inputs):
            return inputs + keras.random.normal(keras.ops.shape(inputs))

    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layers.Conv2D(2, 3)(Noise()(inputs)))
    with pytest.raises(tfptq.FloatEqualityError, match="random at inference"):
        quantize(model)


def test_a_tf_keras_model():
    tf_keras = pytest.importorskip("tf_keras")
    tf_keras.utils.set_random_seed(0)
    inputs, meta = tf_keras.Input((8, 8, 3), name="pixels"), tf_keras.Input((2,), name="meta")
    x = tf_keras.layers.Conv2D(6, 3, name="stem")(inputs)
    x = tf_keras.layers.ReLU()(tf_keras.layers.BatchNormalization()(x))
    x = tf_keras.layers.Concatenate()([tf_keras.layers.GlobalAveragePooling2D()(x), meta])
    model = tf_keras.Model([inputs, meta], tf_keras.layers.Dense(4, name="logits")(x))
    data = [IMAGES, RNG.normal(size=(32, 2)).astype(np.float32)]
    result = quantize(model, data=data)
    assert [layer.name for layer in result.report.layers] == ["stem", "logits"]
    expected = model.predict(data, verbose=0)
    found = run_decoded(result.tflite, {"pixels": data[0], "meta": data[1]}, next(iter(RESOLVERS)))
    assert signal_to_noise(expected, next(iter(found.values()))) > 15.0
    plain = tf_keras.Sequential([tf_keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="not built"):
        quantize(plain, data=data[1])


def test_a_keras_file_of_keras_2(tmp_path, monkeypatch):
    tf_keras = pytest.importorskip("tf_keras")
    inputs = tf_keras.Input((8, 8, 3), name="pixels")
    x = tf_keras.layers.BatchNormalization()(tf_keras.layers.Conv2D(6, 3, name="stem")(inputs))
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(4)(tf_keras.layers.GlobalAveragePooling2D()(x)))
    model.save(tmp_path / "net.keras")
    assert quantize(tmp_path / "net.keras").tflite == quantize(model).tflite
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "tf_keras", None)
        with pytest.raises(ValueError, match="was saved by Keras 2, .*; install tf_keras, or load it"):
            quantize(tmp_path / "net.keras")


def test_a_saved_model_whose_variables_are_not_tracked(network, tmp_path):
    """As TensorFlow saves models of Keras 3; the converter makes a file that reads variables nobody has set."""
    tf.saved_model.save(network, str(tmp_path / "net"))
    result = quantize(tmp_path / "net")
    check(result, network.predict(IMAGES, verbose=0), "inputs", least=15.0)
    assert len(result.report.layers) == 4 and min(result.report.outputs.values()) > 15.0


class Counter(tf.Module):
    """Its results depend on the calls before."""

    def __init__(self):
        self.total = tf.Variable(tf.zeros(4))

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
    def __call__(self, x):
        return x + self.total.assign_add(tf.reduce_sum(x, 0))


def test_a_saved_model_that_keeps_a_state_is_refused(tmp_path):
    counter = Counter()
    tf.saved_model.save(counter, str(tmp_path / "net"), signatures=counter.__call__)
    with pytest.raises(ValueError, match="keeps values between calls"):
        quantize(tmp_path / "net", data=np.ones((4, 4), np.float32))


def test_a_saved_model_inside_of_a_keras_model(network, tmp_path):
    network.export(tmp_path / "inner", verbose=False)
    inputs = keras.Input(IMAGES.shape[1:], name="pixels")
    found = layers.TFSMLayer(tmp_path / "inner", call_endpoint="serve")(inputs)
    model = keras.Model(inputs, layers.Dense(3, name="more")(found))
    result = quantize(model)
    check(result, model.predict(IMAGES, verbose=0), least=15.0)
    assert len(result.report.layers) == 5 and result.keras_model is None


def test_outputs_in_lists_of_lists_are_taken_or_refused_by_name():
    """The converter takes them once tf_keras was imported in the process."""
    inputs = keras.Input((8,), name="x")
    model = keras.Model(inputs, {"a": [layers.Dense(2, name="head")(inputs)], "b": layers.ReLU()(inputs)})
    samples = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    try:
        result = tfptq.quantize(model, samples, progress=False)
    except ValueError as error:
        assert "outputs must be one tensor, or a list or dict" in str(error)
    else:
        assert len(result.report.outputs) == 2 and min(result.report.outputs.values()) > 25.0


def test_a_subclassed_model_without_samples_is_refused_by_name():
    class Net(keras.Model):
        def __init__(self):
            super().__init__(name="net")
            self.head = layers.Dense(2)

        def call(self, inputs):
            return self.head(inputs)

    net = Net()
    net(np.zeros((1, 8), np.float32))
    with pytest.raises(
        ValueError, match=r"'net' \(Net\) does not tell the shapes of its inputs, and there are no samples"
    ):
        tfptq.quantize(net, None, "w8_dynamic", progress=False)


def test_a_tflite_file_with_float_activations_needs_no_samples(float_file):
    result = tfptq.quantize(float_file, None, "w8_dynamic", progress=False)
    assert {row.bits for row in tfptq.inspect(result.tflite).weights} == {8}
    assert "QUANTIZE" not in [row.operator for row in tfptq.inspect(result.tflite).operators]


def test_an_operation_that_keras_cannot_call_again_makes_a_float_file():
    inputs = keras.Input((8, 8, 3), name="image")
    model = keras.Model(inputs, keras.ops.adaptive_average_pool(keras.layers.Conv2D(4, 3)(inputs), (3, 3)))
    samples = np.random.default_rng(0).random((16, 8, 8, 3)).astype(np.float32)
    result = tfptq.quantize(model, samples, "w8a8_channel", progress=False)
    assert [layer.bits for layer in result.report.layers] == [8]
    assert any("cannot be called a second time" in note for note in result.report.notes)
