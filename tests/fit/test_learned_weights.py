"""Weights fitted on statistics, from end to end: rounding methods, blocks of layers, resuming, 16-bit activations."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from plain_config import plain_config
from stock_runtimes import RESOLVERS, run_decoded, signal_to_noise

import tfptq
from tfptq import PerBlock, PerChannel, PerTensor, Rounding
from tfptq.layers import wrappers

SAMPLES = 64


@pytest.fixture(scope="module")
def images():
    """Images whose neighbouring pixels are alike, as in photographs: statistics then have something to tell."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(SAMPLES, 3, 3, 3))
    return np.kron(coarse, np.ones((1, 3, 3, 1)))[:, :8, :8].astype(np.float32) + rng.normal(
        0, 0.2, (SAMPLES, 8, 8, 3)
    ).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    """A stem, an inverted residual block and a head."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 3), name="image")
    stem = layers.Conv2D(8, 3, padding="same", activation="relu6", name="stem")(inputs)
    x = layers.Conv2D(24, 1, activation="relu6", name="expand")(stem)
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu6", name="depthwise")(x)
    x = layers.Add()([stem, layers.Conv2D(8, 1, name="project")(x)])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(4, name="logits")(x), name="network")


def quantize(model, data, config, **arguments):
    return tfptq.quantize_keras_model(model, data, config, progress=False, **arguments)


def _snr(model, images, result):
    found = run_decoded(result.tflite, {"image": images})["output_0"]
    return signal_to_noise(np.asarray(model(images)), found)


def _config(rounding, **changes):
    base = plain_config(
        PerChannel(), weight_bits=3, weight_scale="output", edge_bits=None, rounding=rounding, target="any"
    )
    return base.replace(**changes)


@pytest.fixture(scope="module")
def nearest_snr(model, images):
    return _snr(model, images, quantize(model, images, _config("nearest")))


@pytest.mark.parametrize(
    "rounding",
    [
        Rounding("coordinate"),
        Rounding("attention", steps=60),
        Rounding("adaround", steps=60),
    ],
    ids=["coordinate", "attention", "adaround"],
)
def test_learned_rounding_beats_nearest(model, images, nearest_snr, rounding):
    result = quantize(model, images, _config(rounding))
    assert _snr(model, images, result) > nearest_snr + (0.0 if rounding.method == "adaround" else 1.0)
    weights = {item.layer.name: item.quantized_weights[0].quantized_weight() for item in wrappers(result.keras_model)}
    assert all(weight.codes.min() >= -4 and weight.codes.max() <= 3 for weight in weights.values())


@pytest.mark.parametrize(
    ("granularity", "scaler"),
    [
        (PerTensor(), "float"),
        (PerTensor(), "shift"),
        (PerBlock(2, 4), "integer"),
        (PerBlock(2, 4), "shift"),
    ],
    ids=["tensor", "wes", "integer", "shift"],
)
def test_every_granularity_takes_learned_rounding(model, images, granularity, scaler):
    learned = _config("coordinate", granularity=granularity, scaler=scaler)
    plain = learned.replace(rounding=Rounding("nearest"))
    assert _snr(model, images, quantize(model, images, learned)) > _snr(model, images, quantize(model, images, plain))


def test_a_killed_run_goes_on_with_the_same_bytes(model, images, tmp_path, monkeypatch):
    config = _config(Rounding("attention", steps=20))
    expected = quantize(model, images, config).tflite
    import tfptq.fit.order

    fit_from_statistics, done = tfptq.fit.order.fit_from_statistics, []

    def killed(*arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return fit_from_statistics(*arguments)

    monkeypatch.setattr(tfptq.fit.order, "fit_from_statistics", killed)
    with pytest.raises(KeyboardInterrupt):
        quantize(model, images, config, checkpoint_dir=tmp_path)
    monkeypatch.setattr(
        tfptq.fit.order, "fit_from_statistics", lambda *arguments: done.append(1) or fit_from_statistics(*arguments)
    )
    finished = {path.name: path.stat().st_ino for path in tmp_path.glob("*.bin")}
    assert quantize(model, images, config, checkpoint_dir=tmp_path).tflite == expected
    now = {path.name: path.stat().st_ino for path in tmp_path.glob("*.bin")}
    assert len(finished) == 2 and len(now) == 5
    assert finished.items() <= now.items()  # what was finished is not written again
    assert len(done) == 5  # two before the kill, the other three after it
    with pytest.raises(ValueError, match="another model, config, seed or dataset"):
        quantize(model, images, config.replace(weight_bits=4), checkpoint_dir=tmp_path)


def test_checkpoints_know_all_samples(model, images, tmp_path):
    config = _config(Rounding("coordinate"))
    quantize(model, images, config, checkpoint_dir=tmp_path)
    others = images.copy()
    others[-1] = 1.0 - others[-1]
    with pytest.raises(ValueError, match="another model, config, seed or dataset"):
        quantize(model, others, config, checkpoint_dir=tmp_path)


def test_checkpoints_of_a_shuffled_dataset(model, images, tmp_path):
    """In one order for all passes and runs it will do; in another one each time no run could be resumed."""
    config = _config(Rounding("coordinate"))
    dataset = tf.data.Dataset.from_tensor_slices(images)

    def shuffled():
        return dataset.shuffle(SAMPLES, seed=1, reshuffle_each_iteration=False).batch(8)

    expected = quantize(model, shuffled(), config, checkpoint_dir=tmp_path / "one").tflite
    assert quantize(model, shuffled(), config, checkpoint_dir=tmp_path / "one").tflite == expected
    with pytest.raises(tfptq.DataError, match="reshuffle_each_iteration=False"):
        quantize(model, dataset.shuffle(SAMPLES, seed=1).batch(8), config, checkpoint_dir=tmp_path / "other")
    once = dataset.shuffle(SAMPLES, seed=2, reshuffle_each_iteration=False)
    with pytest.raises(ValueError, match="seed or dataset.*A dataset that is shuffled differs from run to run"):
        quantize(model, once, config, checkpoint_dir=tmp_path / "one")


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_without_statistics_are_told(model, images, monkeypatch, bits):
    monkeypatch.setattr("tfptq.fit.sequential.LARGEST_STATISTICS", 0)
    report = quantize(model, images, _config("coordinate", weight_bits=bits)).report
    assert {layer.rounding for layer in report.layers} == {"nearest"}
    assert any("without statistics" in note for note in report.notes) == (bits < 8)
    monkeypatch.undo()
    report = quantize(model, images, _config("coordinate", weight_bits=bits)).report
    assert {layer.rounding for layer in report.layers} == {"coordinate"}


def test_memory_for_activations_does_not_change_the_file(model, images):
    config = _config(Rounding("coordinate"))
    assert quantize(model, images, config, max_memory=0).tflite == quantize(model, images, config).tflite


@pytest.mark.parametrize("types", [("float32", "float32"), ("int16", "int16")])
def test_sixteen_bit_activations(model, images, types):
    config = plain_config(PerChannel(), activation_bits=16, input_type=types[0], output_type=types[1])
    result = quantize(model, images, config)
    assert not result.report.float_operators
    expected = np.asarray(model(images))
    for resolver in RESOLVERS:
        found = run_decoded(result.tflite, {"image": images}, resolver)["output_0"]
        assert signal_to_noise(expected, found) > 38, resolver


def test_sixteen_bit_activations_behind_a_rescaling():
    """Pixels in -1..1 and 0..2 have scales that TFLite takes for powers of two, and then refuses to add."""
    inputs = keras.Input((8, 8, 1))
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    x = layers.Conv2D(4, 3, padding="same", name="conv")(x)
    rescaled = keras.Model(inputs, x)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 1)).astype(np.float32)
    result = quantize(rescaled, pixels, plain_config(PerChannel(), activation_bits=16))
    assert min(result.report.outputs.values()) > 35.0


@pytest.fixture(scope="module")
def twins():
    """A siamese network: every layer but the head is used for both images."""
    keras.utils.set_random_seed(2)
    inputs = [keras.Input((8, 8, 3), name=name) for name in ("left", "right")]
    conv = layers.Conv2D(12, 3, strides=2, padding="same", activation="relu", name="conv")
    pool, dense = layers.GlobalAveragePooling2D(), layers.Dense(10, name="embedding")
    towers = [dense(pool(conv(each))) for each in inputs]
    return keras.Model(inputs, layers.Dense(4, name="head")(layers.Subtract()(towers)))


def _snr_of_twins(twins, pairs, config):
    result = quantize(twins, pairs, config)
    (found,) = run_decoded(result.tflite, pairs).values()
    return signal_to_noise(twins.predict(pairs, verbose=0), found), result


def test_shared_layers_learn_from_all_their_uses(twins, images):
    pairs = {"left": images, "right": images[::-1]}
    config = _config("attention", weight_bits=4)
    learned, result = _snr_of_twins(twins, pairs, config)
    nearest, _ = _snr_of_twins(twins, pairs, config.replace(rounding=Rounding("nearest")))
    assert {layer.name: layer.rounding for layer in result.report.layers} == {
        name: "attention" for name in ("conv", "embedding", "head")
    }
    assert not any("without statistics" in note for note in result.report.notes)
    assert learned > nearest + 1.0


def test_the_use_with_small_inputs_counts_as_much(images):
    """In the plain sum, the loud image alone would decide."""
    inputs = [keras.Input((8, 8, 3), name=name) for name in ("quiet", "loud")]
    conv = layers.Conv2D(6, 3, bias_initializer="normal", name="conv")
    model = keras.Model(inputs, [conv(each) for each in inputs])
    pairs = {"quiet": images - 1.0, "loud": 100.0 * images[::-1, ::-1] + 50.0}
    found = {}
    for rounding in ("attention", "nearest"):
        result = quantize(model, pairs, _config(rounding))
        outputs = run_decoded(result.tflite, pairs).values()
        wanted = model.predict(pairs, verbose=0)
        found[rounding] = [max(signal_to_noise(each, values) for values in outputs) for each in wanted]
    assert min(found["attention"]) > max(15.0, min(found["nearest"]))
