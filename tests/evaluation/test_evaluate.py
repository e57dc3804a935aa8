import keras
import numpy as np
import pytest
import tensorflow as tf

import tfptq

QUICK = {"latency_seconds": 0, "progress": False}


@pytest.fixture(scope="module")
def result(digits, digits_convnet):
    config = tfptq.QuantizationConfig.from_preset("w8a8_channel").replace(input_type="int8", output_type="int8")
    return tfptq.quantize_keras_model(digits_convnet, digits.x_train[:64], config, progress=False)


def test_a_result_with_integer_ends_beside_its_float_model(digits, digits_convnet, result):
    found = result.evaluate(digits.x_test, digits.y_test, latency_seconds=0.01, progress=False)
    scores = digits_convnet.predict(digits.x_test, verbose=0)
    (score,) = found.scores
    assert score.float_value == pytest.approx(np.mean(scores.argmax(axis=1) == digits.y_test), abs=1e-9)
    assert score.value > 0.9 and score.drop_error < 0.02 and found.agreement > 0.95 and found.snr_db > 20
    assert (found.samples, found.bytes, found.float_bytes) == (397, len(result.tflite), len(result.float_tflite))
    assert found.latency.milliseconds > 0 and found.latency.float_milliseconds > 0
    assert f"{found.bytes:,}" in str(found)


def test_paths_bytes_and_kinds_of_float_models_agree(digits, digits_convnet, result, tmp_path):
    file, model = result.save(tmp_path / "net.tflite"), tmp_path / "net.keras"
    digits_convnet.save(model)
    data = (digits.x_test[:50], digits.y_test[:50])
    whole = tfptq.evaluate(file, data, digits_convnet, **QUICK)
    assert tfptq.evaluate(result.tflite, data, model, **QUICK) == whole
    (tmp_path / "float.tflite").write_bytes(result.float_tflite)
    of_files = tfptq.evaluate(file, data, tmp_path / "float.tflite", **QUICK)
    assert of_files.scores == whole.scores and of_files.fidelities[0].agreement == whole.fidelities[0].agreement
    alone = tfptq.evaluate(file, data, **QUICK)
    assert alone.fidelities == () and alone.float_bytes is None and alone.score == whole.score


@pytest.mark.parametrize("threads", [1, 3])
def test_streams_and_threads_make_no_difference(digits, result, threads):
    stream = tf.data.Dataset.from_tensor_slices((digits.x_test[:50], digits.y_test[:50]))
    found = tfptq.evaluate(result, stream, threads=threads, **QUICK)
    assert found == result.evaluate(digits.x_test[:50], digits.y_test[:50], **QUICK)


def test_without_labels_or_metric(digits, result):
    for metric in ("accuracy", "none", None):
        found = result.evaluate(digits.x_test[:50], metric=metric, **QUICK)
        assert found.scores == () and found.drop is None and found.agreement > 0.9
    assert tfptq.evaluate(result, (digits.x_test[:9], ["no", "matter"]), metric=None, **QUICK).samples == 9


def test_one_column_that_is_a_probability(digits):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(1, activation="sigmoid")]
    model = keras.Sequential(layers)
    model.compile("adam", "binary_crossentropy")
    model.fit(digits.x_train, digits.y_train > 4, epochs=5, verbose=0)
    result = tfptq.quantize_keras_model(model, digits.x_train[:64], progress=False)
    found = result.evaluate(digits.x_test, digits.y_test > 4, **QUICK)
    expected = np.mean((model.predict(digits.x_test, verbose=0)[:, 0] > 0.5) == (digits.y_test > 4))
    assert found.float_score == pytest.approx(expected) and abs(found.drop) < 0.02 and found.agreement > 0.95


@pytest.fixture(scope="module")
def several():
    """Two inputs, one of them token ids; two outputs, named, of which one has an axis more."""
    keras.utils.set_random_seed(0)
    x, ids = keras.Input((6, 4), name="features"), keras.Input((6,), dtype="int32", name="ids")
    both = keras.layers.Concatenate()([x, keras.layers.Embedding(20, 4)(ids)])
    hidden = keras.layers.Dense(8, activation="relu")(both)
    tags = keras.layers.Dense(3, activation="softmax", name="tagger")(hidden)
    value = keras.layers.Dense(1, name="value")(keras.layers.GlobalAveragePooling1D()(hidden))
    model = keras.Model({"a": x, "b": ids}, {"tags": tags, "amount": value})
    rng = np.random.default_rng(0)
    samples = {"a": rng.normal(size=(40, 6, 4)).astype(np.float32), "b": rng.integers(0, 20, (40, 6))}
    return model, samples, tfptq.quantize_keras_model(model, samples, progress=False)


def test_several_inputs_and_outputs(several):
    model, samples, result = several
    expected = model.predict(samples, verbose=0)
    labels = {"tags": expected["tags"].argmax(axis=-1), "amount": expected["amount"]}
    metric = {"tags": "accuracy", "amount": "MeanSquaredError"}
    found = result.evaluate(samples, labels, metric=metric, **QUICK)
    by_name = {score.output: score for score in found.scores}
    assert by_name["tags"].float_value == 1.0 and 0.9 < by_name["tags"].value <= 1.0
    assert by_name["amount"].float_value < 1e-6 < by_name["amount"].value
    assert {item.output: item.agreement is None for item in found.fidelities} == {"tags": False, "amount": True}
    assert min(item.snr_db for item in found.fidelities) > 20
    assert tfptq.evaluate(result.tflite, (samples, labels), model, metric, **QUICK).scores == found.scores
    listed = [samples["a"], samples["b"]]
    assert result.evaluate(listed, **QUICK).fidelities == found.fidelities
    named = {"features": samples["a"], "ids": samples["b"]}
    assert tfptq.evaluate(result.tflite, named, result.float_tflite, **QUICK).fidelities == found.fidelities
    with pytest.raises(tfptq.DataError, match="the order of the inputs is not known"):
        tfptq.evaluate(result.tflite, listed, **QUICK)


class Pair(keras.Model):
    """Takes a list of inputs that are not interchangeable."""

    def __init__(self):
        super().__init__(name="pair")
        self.head = keras.layers.Dense(3)

    def call(self, inputs):
        return self.head(inputs[0] - 0.1 * inputs[1])


def test_float_models_whose_graph_is_not_known(tmp_path):
    keras.utils.set_random_seed(0)
    model = Pair()
    samples = list(np.random.default_rng(0).normal(size=(2, 40, 6)).astype(np.float32))
    labels = np.argmax(model(samples), axis=-1)
    result = tfptq.quantize(model, samples, progress=False)
    whole = result.evaluate(samples, labels, **QUICK)
    assert whole.float_score == 1.0 and whole.snr_db > 25.0
    assert tfptq.evaluate(result.tflite, (samples, labels), model, **QUICK) == whole


def test_float_models_of_other_kinds(digits, digits_convnet, result, tmp_path):
    data = digits.x_test[:20]
    expected = result.evaluate(data, **QUICK).fidelities
    digits_convnet.export(tmp_path / "net", verbose=False)
    (found,) = tfptq.evaluate(result.tflite, data, tmp_path / "net", **QUICK).fidelities
    assert found.snr_db == pytest.approx(expected[0].snr_db, abs=0.1)


def test_files_that_take_one_sample_at_a_time():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 3))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GRU(4)(inputs)))
    samples = np.random.default_rng(0).normal(size=(9, 4, 3)).astype(np.float32)
    result = tfptq.quantize_keras_model(model, samples, progress=False)
    found = result.evaluate(samples, **QUICK)
    assert found.samples == 9 and found.snr_db > 20


def other_model(inputs, outputs):
    x = [keras.Input((8, 8, 1)) for _ in range(inputs)]
    flat = keras.layers.Flatten()(x[0] if inputs == 1 else keras.layers.Add()(x))
    return keras.Model(x, [keras.layers.Dense(size)(flat) for size in outputs])


@pytest.mark.parametrize(
    "model, message",
    [
        (lambda: other_model(2, [10]), "the file has 1 inputs, and the model 2"),
        (lambda: other_model(1, [10, 3]), "the file has 1 outputs, and the float model 2"),
        (lambda: other_model(1, [4]), "and that of the float model .*: it is another model"),
        (lambda: "net.onnx", "must end in .keras, .h5 or .tflite"),
    ],
)
def test_another_model_is_refused(digits, result, model, message):
    with pytest.raises(ValueError, match=message):
        tfptq.evaluate(result.tflite, digits.x_test[:9], model(), **QUICK)


def test_what_is_refused(digits, result):
    with pytest.raises(tfptq.FormatError):
        tfptq.evaluate(b"no file at all", digits.x_test)
    with pytest.raises(TypeError, match="file is a int; pass a path"):
        tfptq.evaluate(3, digits.x_test)
    with pytest.raises(tfptq.DataError, match="evaluation data for input 'image' is float32 of shape"):
        tfptq.evaluate(result, digits.x_test[:, :4], **QUICK)
    with pytest.raises(tfptq.DataError, match="the labels are from 0 to 10"):
        result.evaluate(digits.x_test[:11], np.arange(11), **QUICK)
