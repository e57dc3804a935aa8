"""Bad input is refused before work begins, by a message that says what was found and what to do."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from plain_config import plain_config

import tfptq


@pytest.fixture(scope="module")
def model():
    inputs = keras.Input((4, 4, 2), name="image")
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(inputs)), name="network")


def images(samples=8, shape=(4, 4, 2), dtype=np.float32):
    return np.random.default_rng(0).normal(size=(samples, *shape)).astype(dtype)


def refused(error, message, model, data, config=None):
    with pytest.raises(error, match=message):
        tfptq.quantize_keras_model(model, data, config, progress=False)


# Data.


@pytest.mark.parametrize("empty", [images(0), lambda: iter(()), []], ids=["array", "function", "list"])
def test_empty_dataset(model, empty):
    refused(ValueError, "calibration dataset is empty; give at least one sample", model, empty)


def test_wrong_shape(model):
    message = (
        r"input 'image' is float32 of shape \[batch, 5, 4, 2\]; the model asks for .*\[batch, 4, 4, 2\]; .*reshape"
    )
    refused(ValueError, message, model, images(shape=(5, 4, 2)))
    message = r"float32 of shape \[8, 32\]; the model asks for .*\[batch, 4, 4, 2\]; resize or reshape the samples"
    refused(ValueError, message, model, images(shape=(32,)))


def test_one_sample_without_a_batch_axis(model):
    refused(ValueError, r"input 'image'.*sample\[None\]", model, images()[0])


def test_wrong_dtype(model):
    refused(ValueError, "input 'image' holds strings, the first 'pixel'", model, np.full((8, 4, 4, 2), "pixel"))


def test_values_that_an_integer_input_cannot_hold():
    inputs = keras.Input((3,), dtype="int32", name="tokens")
    model = keras.Model(inputs, layers.Dense(2)(layers.Embedding(5, 4)(inputs)))
    refused(ValueError, "input 'tokens' is float32 and holds values that int32 cannot", model, images(shape=(3,)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_data_that_is_not_finite(model, value):
    data = images()
    data[3, 0, 0, 0] = value
    refused(ValueError, "input 'image' holds NaN, infinity.* first in sample 3 .*drop those samples", model, data)


def test_data_that_is_not_finite_late_in_the_stream(model):
    data = images(80)
    data[70, 0, 0, 0] = np.nan
    refused(ValueError, "input 'image' holds NaN.* first in sample 70 ", model, data)
    refused(ValueError, "input 'image' holds NaN.* first in sample 70 ", model, lambda: (image for image in data))


def test_a_model_that_gives_nan():
    inputs = keras.Input((4, 4, 2), name="image")
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    model.get_layer("norm").moving_variance.assign(np.full(4, -1.0))
    refused(ValueError, "are NaN or infinite on the calibration samples.*layer whose.*'norm'", model, images())


def test_unknown_input_names(model):
    refused(ValueError, "input 'image' is missing, 'picture' is no input", model, {"picture": images()})
    message = r"'imag' is no input; give an array for each input of the model \(image\).*; did you mean 'image'\?"
    refused(ValueError, message, model, {"imag": images()})


@pytest.mark.parametrize("config", ["w8a8_shift", "w4a8_channel"])
@pytest.mark.parametrize("first", [0, 70])
def test_token_ids_beyond_the_vocabulary(config, first):
    """In the first batch, and in one that only calibration or equalization reads."""
    inputs = keras.Input((5,), dtype="int32", name="tokens")
    x = layers.Dense(8, activation="relu")(layers.Flatten()(layers.Embedding(9, 4)(inputs)))
    tokens = np.random.default_rng(0).integers(0, 9, (80, 5))
    tokens[first:, 2] = 50
    message = (
        r"model fails on the calibration samples: (indices\[.*\] = 50 is not in \[0, 9\)|gather index out of.*); give"
    )
    refused(tfptq.DataError, message, keras.Model(inputs, layers.Dense(2)(x)), tokens, config)


def test_a_dataset_of_no_known_kind(model):
    refused(ValueError, "calibration dataset is an int; pass a numpy array", model, 3)
    refused(ValueError, "dataset=None goes with float activations alone", model, None)


# Models.


def test_weights_that_are_not_finite(model):
    broken = keras.models.clone_model(model)
    kernel = np.ones((32, 2), np.float32)
    kernel[0, 0] = np.nan
    broken.get_layer("head").set_weights([kernel, np.zeros(2)])
    refused(ValueError, "weight 'kernel' of layer 'head' has 1 of 64 values.*train or load", broken, images())


def test_all_layers_skipped(model):
    config = plain_config(overrides=(tfptq.override("*", skip=True),))
    refused(ValueError, "config skips all weighted layers; leave at least one", model, images(), config)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="own_call")
        self.head = layers.Dense(2)

    def call(self, inputs):
        return self.head(inputs)


def test_subclassed_model():
    own = Subclassed()
    own(np.zeros((1, 3), np.float32))
    refused(ValueError, "'own_call' cannot be traced on inputs of the shapes 'inputs'", own, images(shape=(4,)))


def test_unbuilt_model():
    refused(ValueError, "not built.*model.build", keras.Sequential([layers.Dense(2)], name="open"), images(shape=(3,)))


def test_something_that_is_no_model():
    refused(TypeError, "the model is an int; pass a keras.Model of Keras 3, or the path of one", 3, images())
    refused(TypeError, "the model is a Dense; pass a keras.Model", layers.Dense(2), images())


def test_a_layer_that_the_converter_refuses():
    inputs = keras.Input((4,), name="values")
    unknown = layers.Lambda(lambda x: keras.ops.fft((x, x))[0], name="spectrum")
    model = keras.Model(inputs, layers.Dense(2)(unknown(inputs)), name="spectral")
    refused(
        ValueError,
        "(?s)TFLite converter cannot convert the model 'spectral'.*Replace the layers",
        model,
        images(shape=(4,)),
    )


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_a_layer_that_the_converter_takes_with_fixed_sizes_only(interpolation):
    inputs = keras.Input((None, None, 2), name="image")
    x = layers.Conv2D(2, 3, padding="same", activation="relu")(inputs)
    x = layers.Conv2D(2, 3, padding="same")(layers.UpSampling2D(interpolation=interpolation)(x))
    message = r"sizes that are left open \(None\), which inputs 'image' have: .* in keras.Input\(shape\)"
    refused(ValueError, message, keras.Model(inputs, x), images())


def test_the_message_of_the_converter_without_its_graph():
    inputs = keras.Input((None, None, 2))
    model = keras.Model(inputs, layers.Conv2D(2, 3)(layers.UpSampling2D()(layers.Conv2D(2, 3)(inputs))))
    with pytest.raises(ValueError, match="TF Select ops: Conv2D") as caught:
        tfptq.quantize_keras_model(model, images(), progress=False)
    assert "func.func" not in str(caught.value) and "note:" not in str(caught.value)


def test_a_file_of_the_converter_that_does_not_run():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(layers.Lambda(tf.math.lgamma)(inputs)), name="gamma")
    message = r"LiteRT cannot run the file .* of the model 'gamma': .*keras.Input\(shape, batch_size=1\)"
    refused(ValueError, message, model, 1.0 + images(shape=(4,)))


def test_a_model_that_keeps_its_state():
    inputs = keras.Input((4, 3), batch_size=1)
    x = layers.GRU(2, stateful=True, name="memory")(layers.Dense(3)(inputs))
    message = "'tracker' changes variables when the model predicts.*build 'memory' with stateful=False"
    refused(ValueError, message, keras.Model(inputs, x, name="tracker"), images(shape=(4, 3)))


def test_a_layer_that_counts_its_calls():
    class Counting(layers.Layer):
        def build(self, shape):
            self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, x):
            self.count.assign_add(1.0)
            return x

    inputs = keras.Input((3,))
    with tfptq.layers.quantize_scope({"Counting": Counting}):
        model = keras.Model(inputs, layers.Dense(2)(Counting()(inputs)), name="counter")
        refused(ValueError, "'counter' changes variables.*take them out of its call", model, images(shape=(3,)))


def test_missing_file(tmp_path, model):
    refused(FileNotFoundError, "there is no model file .*missing.keras", tmp_path / "missing.keras", images())


def test_file_of_another_kind(tmp_path):
    refused(
        ValueError,
        r"saved_model must end in .keras, .h5 or .tflite, or be the folder",
        tmp_path / "saved_model",
        images(),
    )


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_damaged_file(tmp_path, suffix):
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(b"not a model")
    refused(ValueError, f"(?s)damaged{suffix} cannot be read: .*Save the model again", path, images())


class Twice(layers.Layer):
    def call(self, x):
        return 2.0 * x


def half(x):
    return 0.5 * x


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("custom", ["Twice", "half"])
def test_file_with_a_custom_class(tmp_path, suffix, custom):
    inputs = keras.Input((4,), name="values")
    x = Twice()(inputs) if custom == "Twice" else layers.Dense(2, activation=half)(inputs)
    path = tmp_path / f"custom{suffix}"
    keras.Model(inputs, layers.Dense(2)(x)).save(path)
    message = f"custom class or function '{custom}', .*load_model\\(path, custom_objects=.* and pass the model"
    refused(ValueError, message, path, images(shape=(4,)))


def test_other_backend(model, monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    refused(RuntimeError, "backend 'jax'.*KERAS_BACKEND=tensorflow", model, images())


# Configs and paths.


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("w8a9", "preset is 'w8a9'; it must be one of 'w8a8_shift'"),
        ("w4a8_chanel", r"preset is 'w4a8_chanel'; .*; did you mean 'w4a8_channel'\?"),
        ("net.json", r"config is 'net.json'; pass a preset's name, or read the file with QuantizationConfig.from_json"),
    ],
)
def test_unknown_preset(model, config, message):
    refused(ValueError, message, model, images(), config)


def test_a_class_in_the_place_of_a_config(model):
    refused(TypeError, "config is the class QuantizationConfig; pass", model, images(), tfptq.QuantizationConfig)


@pytest.mark.parametrize("config", [8, {"weight_bits": 8}])
def test_wrong_kind_of_config(model, config):
    refused(
        TypeError,
        "config is (an int|a dict); pass a QuantizationConfig, such as .* name of a preset",
        model,
        images(),
        config,
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"seed": -1}, ValueError, "seed is -1; it must be between 0"),
        ({"seed": 2**64}, ValueError, "seed is 18446744073709551616"),
        ({"seed": None}, TypeError, "seed is None; it must be a whole number"),
        ({"max_memory": "1GB"}, TypeError, "max_memory is '1GB'; it must be a whole number"),
        ({"checkpoint_dir": ""}, ValueError, "checkpoint_dir is ''; name a file or a folder"),
        ({"checkpoint_dir": "a\0b"}, ValueError, "checkpoint_dir is 'a.x00b'; name a file or a folder"),
        ({"checkpoint_dir": __file__}, NotADirectoryError, "checkpoint_dir is .*test_bad_input.py', which is a file"),
        ({"checkpoint_dir": f"{__file__}/a/b"}, NotADirectoryError, "a/b', in '.*bad_input.py', which is a file"),
        ({"checkpoint_dir": "/proc/none/work"}, OSError, "no file can be made in the folder /proc"),
    ],
)
def test_arguments_are_checked_before_the_work(arguments, error, message):
    with pytest.raises(error, match=message):
        tfptq.quantize_keras_model(None, None, **arguments)  # neither model nor data are looked at


def test_numbers_of_numpy_are_numbers(model):
    config = plain_config(weight_bits=np.int64(8), rounding="coordinate", statistics_samples=np.int32(8))
    options = {"seed": np.int64(3), "max_memory": np.uint32(10**6), "progress": False}
    result = tfptq.quantize_keras_model(model, images(), config, **options)
    plain = plain_config(rounding="coordinate", statistics_samples=8)
    expected = tfptq.quantize_keras_model(model, images(), plain, seed=3, max_memory=10**6, progress=False)
    assert result.tflite == expected.tflite and type(result.report.seed) is int
    with pytest.raises(TypeError, match="seed is .*True.*; it must be a whole number"):
        tfptq.quantize_keras_model(model, images(), seed=np.True_)


@pytest.mark.parametrize("name", ["im 1", "bild_ä", "class"])
def test_names_that_tensorflow_cannot_export(name):
    inputs = keras.Input((8,), name=name)
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    refused(ValueError, f"names of inputs must consist of ASCII .*, not '{name}'", model, np.ones((4, 8), np.float32))


@pytest.mark.parametrize("preset", ["w8a8_layer", "w8a8_shift"])
@pytest.mark.parametrize("name", ["a b", "größe", "x*y[1]"])
def test_names_of_layers_that_tensorflow_cannot_export(name, preset):
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4, "relu", name=name), layers.Dense(3)])
    with pytest.raises(ValueError, match="names of layers must consist of ASCII .*") as error:
        tfptq.quantize_keras_model(model, np.ones((4, 8), np.float32), preset, progress=False)
    assert repr(name) in str(error.value)


@pytest.mark.parametrize("preset", ["w8a8_layer", "w8a8_shift"])
def test_any_name_of_a_model_will_do(preset):
    stack = [keras.Input((8,)), layers.Dense(4, "relu"), layers.Dense(3)]
    samples = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)
    assert tfptq.quantize_keras_model(keras.Sequential(stack, name="my größe"), samples, preset, progress=False).tflite


@pytest.mark.parametrize("size", [8, None], ids=["fixed", "open"])
def test_outputs_without_values(size):
    inputs = keras.Input((size, 2), name="x")
    x = layers.Dense(2, name="head")(inputs)
    tail = layers.Identity(name="tail")(x[:, 8:])
    message = r"output 'tail' of the model 'network' has the shape \(4, 0, 2\) and holds no values; build .* without it"
    refused(ValueError, message, keras.Model(inputs, [x, tail], name="network"), images(4, (8, 2)))


def test_bad_types_of_inputs():
    message = r"input_type \(with activation_bits=8\) is 'int4'; it must be one of None, 'float32', 'int8', 'uint8'"
    with pytest.raises(ValueError, match=message):
        plain_config(input_type="int4")


def test_unwritable_path(model, tmp_path):
    result = tfptq.quantize_keras_model(model, images(), progress=False)
    with pytest.raises(OSError, match="missing"):
        result.save(tmp_path / "missing" / "model.tflite")
    with pytest.raises(OSError, match=tmp_path.name):
        result.save(tmp_path)
    assert not list(tmp_path.iterdir())
