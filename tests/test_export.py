"""``export_simulation``: a Keras simulation, trained or not, becomes a file."""

import keras
import numpy as np
import pytest
from keras import layers
from plain_config import plain_config
from stock_runtimes import RESOLVERS, details, run_decoded, signal_to_noise

import tfptq
from tfptq.config import PerBlock, PerChannel, QuantizationConfig
from tfptq.layers import (
    ActivationQuantizer,
    DefaultQuantizeConfig,
    Quantizer,
    quantize_annotate_layer,
    quantize_apply,
    quantize_model,
    wrappers,
)
from tfptq.tflite.metadata import metadata_of
from tfptq.tflite.model_reader import read_model
from tfptq.tflite.stored_codes import stored_codes


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def labels(images):
    return (images.mean(axis=(1, 2)).argmax(axis=1)).astype(np.int32)


def network():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(16, 3, use_bias=False, name="first")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.DepthwiseConv2D(3, activation="relu", name="depthwise")(x)
    x = layers.Add()([x, layers.Conv2D(16, 1, activation="relu", name="inner")(x)])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(3, name="scores")(x), name="network")


def quantize(images, preset, **changes):
    config = QuantizationConfig.from_preset(preset).replace(**{"target": "any"} | changes)
    return tfptq.quantize_keras_model(network(), images, config, progress=False)


def export(simulation, images, config=None):
    return tfptq.export_simulation(simulation, images, config, progress=False)


def kernels(data):
    """Codes and scales of each kernel of a file."""
    model = read_model(data)
    blocks = metadata_of(model).tensors
    return [(stored_codes(item, model), item.scales().values()) for item in blocks]


def train(simulation, images, labels):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    simulation.compile(keras.optimizers.Adam(0.01), loss)
    return simulation.fit(images, labels, batch_size=8, epochs=12, verbose=0).history["loss"]


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("w8a8_shift", {}),
        ("w8a8_layer", {}),
        ("w4a8_channel", {}),
        ("w4a8_channel", {"target": "cpu"}),
        ("w4a8_channel", {"target": "micro"}),
        ("w4a8_block", {"edge_bits": None}),
        ("w4a8_block", {"scaler": "shift", "granularity": PerBlock(4, 4), "layout": "int8"}),
        ("w4a8_mixed", {}),
        ("w2_mixed", {"target": "cpu", "latency_budget": 100.0}),
        ("w8a8_channel", {"input_type": "int8", "output_type": "uint8"}),
    ],
)
def test_an_untrained_simulation_gives_its_file_back(images, preset, changes):
    result = quantize(images, preset, **changes)
    again = export(result.keras_model, images)
    tfptq.verify(again.tflite)
    for (codes, scales), (expected, of_file) in zip(kernels(again.tflite), kernels(result.tflite), strict=True):
        np.testing.assert_array_equal(codes, expected)
        np.testing.assert_allclose(scales, of_file, rtol=1e-6)
    assert details(again.tflite)[0]["image"]["dtype"] == details(result.tflite)[0]["image"]["dtype"]
    outputs = [run_decoded(item.tflite, {"image": images})["output_0"] for item in (result, again)]
    assert signal_to_noise(*outputs) > 35.0


@pytest.mark.parametrize("preset", ["w8a8_shift", "w4a8_channel", "w4a8_block"])
def test_training_gets_into_the_file(images, labels, preset, tmp_path):
    result = quantize(images, preset)
    before = [np.array(weight) for weight in result.keras_model.get_weights()]
    losses = train(result.keras_model, images, labels)
    assert losses[-1] < losses[0]
    trained = [np.array(weight) for weight in result.keras_model.get_weights()]
    result.keras_model.save(tmp_path / "trained.keras")
    exported = export(tmp_path / "trained.keras", images)
    assert any((one != other).any() for one, other in zip(before, trained, strict=True))
    for one, other in zip(trained, result.keras_model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)  # it only reads
    changed = [(a != b).mean() for (a, _), (b, _) in zip(kernels(exported.tflite), kernels(result.tflite), strict=True)]
    assert max(changed) > 0.0
    simulated = result.keras_model.predict(images, verbose=0)
    found = {name: run_decoded(exported.tflite, {"image": images}, name)["output_0"] for name in RESOLVERS}
    for outputs in found.values():
        assert signal_to_noise(simulated, outputs) > 25.0
    assert {layer.rounding for layer in exported.report.layers} == {"nearest"}
    assert [layer.bits for layer in exported.report.layers] == [layer.bits for layer in result.report.layers]


def test_values_beyond_a_grid_are_cut_off_as_in_training(images):
    """The grids of the simulation are those of the file, although the trained network would leave them."""
    result = quantize(images, "w8a8_channel")
    head = next(wrapper for wrapper in wrappers(result.keras_model) if wrapper.layer.name == "scores")
    low, high = head.quantized_outputs[0].grid().real_range
    head.layer.bias.assign_add([10.0 * (high - low)] * 3)
    (outputs,) = run_decoded(export(result.keras_model, images).tflite, {"image": images}).values()
    np.testing.assert_allclose(outputs, high, rtol=1e-5)
    np.testing.assert_allclose(result.keras_model.predict(images, verbose=0), high, rtol=1e-5)


def test_a_model_that_was_only_trained_with_wrappers(images, labels):
    """TFMOT's way: annotate, apply, train; no post-training quantization before."""
    config = plain_config(PerChannel(), weight_bits=4, input_type="int8", target="any")
    simulation = quantize_model(network(), config)
    train(simulation, images, labels)
    exported = export(simulation, images)
    (outputs,) = run_decoded(exported.tflite, {"image": images}).values()
    assert signal_to_noise(simulation.predict(images, verbose=0), outputs) > 20.0
    assert details(exported.tflite)[0]["image"]["dtype"] == np.int8
    assert {layer.name: layer.bits for layer in exported.report.layers}["first"] == 4


def test_a_simulation_inside_of_another_model(images):
    simulation = quantize(images, "w8a8_channel").keras_model
    inputs = keras.Input((8, 8, 3), name="image")
    outer = keras.Model(inputs, layers.Dense(2, name="after")(simulation(inputs)))
    exported = export(outer, images)
    (outputs,) = run_decoded(exported.tflite, {"image": images}).values()
    assert signal_to_noise(outer.predict(images, verbose=0), outputs) > 30.0
    assert [layer.name for layer in exported.report.layers] == ["first", "depthwise", "inner", "scores"]
    with pytest.raises(ValueError, match="is a simulation of a quantized one; tfptq.export_simulation"):
        tfptq.quantize_keras_model(outer, images, progress=False)


@pytest.mark.parametrize("changes", [{"target": "micro"}, {"target": "any"}, {"layout": "int4"}, {"layout": "inline"}])
def test_codes_that_the_converter_turns_around_still_fit(images, changes):
    """A negative factor of a BatchNorm is fused into the kernel; -8 has no mirror image in 4 bits."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), name="image")
    norm = layers.BatchNormalization(name="norm")
    model = keras.Model(inputs, norm(layers.Conv2D(6, 3, use_bias=False, name="turned")(inputs)))
    norm.set_weights([np.float32([1, -1, 2, -2, 1, -1]), *norm.get_weights()[1:]])
    simulation = quantize_model(model, plain_config(PerChannel(), weight_bits=4, weight_scale="mse"))
    (quantized,) = wrappers(simulation)[0].quantized_weights
    quantized.variable.assign(1.2 * quantized.variable)  # as training may
    assert quantized.quantized_weight().codes[[1, 3, 5]].min() == -8
    exported = export(simulation, images, plain_config(**changes))
    tfptq.verify(exported.tflite)
    assert any("codes from -7 on in the file, and from -8" in note for note in exported.report.notes)
    (outputs,) = run_decoded(exported.tflite, {"image": images}).values()
    assert signal_to_noise(simulation.predict(images, verbose=0), outputs) > 25.0


def test_sixteen_bit_activations(images):
    result = quantize(images, "w8a8_channel", activation_bits=16)
    (outputs,) = run_decoded(export(result.keras_model, images).tflite, {"image": images}).values()
    assert signal_to_noise(result.keras_model.predict(images, verbose=0), outputs) > 50.0


def test_inputs_and_outputs_in_dicts(images):
    keras.utils.set_random_seed(0)
    left, right = keras.Input((4,), name="left_in"), keras.Input((4,), name="right_in")
    shared = layers.Dense(6, activation="relu", name="shared")
    x = layers.Concatenate()([shared(left), shared(right)])
    outputs = {"score": layers.Dense(2, name="two")(x), "sum": layers.Dense(1, name="one")(x)}
    model = keras.Model({"right": right, "left": left}, outputs)
    data = dict(zip(("left", "right"), np.random.default_rng(0).normal(size=(2, 64, 4)).astype("f4"), strict=True))
    simulation = tfptq.quantize_keras_model(model, data, "w8a8_channel", progress=False).keras_model
    found = run_decoded(export(simulation, data).tflite, {f"{name}_in": values for name, values in data.items()})
    for name, expected in simulation.predict(data, verbose=0).items():
        assert signal_to_noise(expected, found[name]) > 30.0


def test_layers_without_wrappers_stay_float(images):
    inputs = keras.Input((8, 8, 3), name="image")
    x = quantize_annotate_layer(layers.Conv2D(4, 3, name="coded"))(inputs)
    x = layers.Flatten()(layers.Conv2D(4, 3, name="plain")(x))
    simulation = quantize_apply(keras.Model(inputs, x), plain_config(PerChannel(), weight_bits=4))
    report = export(simulation, images).report
    assert [layer.name for layer in report.layers] == ["coded"]
    assert [layer.name for layer in report.skipped] == ["plain"]


def test_a_config_decides_on_layouts_and_types(images):
    result = quantize(images, "w4a8_channel")
    config = QuantizationConfig.from_preset("w8a8_shift").replace(layout="int8", output_type="int8")
    exported = export(result.keras_model, images, config)
    assert {layer.layout for layer in exported.report.layers} == {"int8"}
    assert sorted({layer.bits for layer in exported.report.layers}) == [4, 8]
    assert details(exported.tflite)[1]["output_0"]["dtype"] == np.int8
    assert export(result.keras_model, images, exported.config).tflite == exported.tflite


def test_float_models_and_simulations_are_told_apart(images):
    with pytest.raises(ValueError, match="has no QuantizeWrapper layers.*quantize_keras_model"):
        export(network(), images)
    simulation = quantize(images, "w8a8_channel").keras_model
    with pytest.raises(ValueError, match="is a simulation of a quantized one; tfptq.export_simulation"):
        tfptq.quantize_keras_model(simulation, images, progress=False)


@keras.saving.register_keras_serializable(package="test_export")
class WithoutCodes(DefaultQuantizeConfig):
    """A kernel on an activation's grid."""

    def get_weights_and_quantizers(self, layer):
        return [(layer.kernel, ActivationQuantizer())]


@keras.saving.register_keras_serializable(package="test_export")
class Halves(Quantizer):
    """A user's own quantizer."""

    def build(self, tensor_shape, name, wrapper):
        return {}

    def __call__(self, inputs, training, weights):
        return keras.ops.round(2.0 * inputs) / 2.0

    def get_config(self):
        return {}


@keras.saving.register_keras_serializable(package="test_export")
class OwnOutputs(DefaultQuantizeConfig):
    """Outputs without a range."""

    def get_output_quantizers(self, layer):
        return [Halves()]


@keras.saving.register_keras_serializable(package="test_export")
class OwnActivations(DefaultQuantizeConfig):
    """A quantizer behind the activation function inside of the layer."""

    def get_activations_and_quantizers(self, layer):
        return [(layer.activation, Halves())]

    def set_quantize_activations(self, layer, quantize_activations):
        (layer.activation,) = quantize_activations


def test_quantizers_of_the_user(images):
    inputs = keras.Input((8, 8, 3), name="image")
    config = plain_config(PerChannel())

    def simulation(quantize_config):
        layer = quantize_annotate_layer(layers.Conv2D(4, 3, activation="relu", name="own"), quantize_config(config))
        return quantize_apply(keras.Model(inputs, layer(inputs)))

    with pytest.raises(ValueError, match="'output_0' of layer 'own' has the quantizer Halves.*ActivationQuantizer"):
        export(simulation(OwnOutputs), images)
    (note,) = export(simulation(OwnActivations), images).report.notes
    assert "activation functions inside of layer 'own' have quantizers" in note


def test_weights_without_codes_are_named(images):
    def simulation(kind):
        inputs = keras.Input((8, 8, 3), name="image")
        layer = quantize_annotate_layer(
            layers.Conv2D(4, 3, name="odd"), kind(plain_config(PerChannel(), weight_bits=4))
        )
        return quantize_apply(keras.Model(inputs, layer(inputs)))

    with pytest.raises(ValueError, match="the weight 'kernel' of layer 'odd' has the quantizer ActivationQuantizer"):
        export(simulation(WithoutCodes), images)
    model = simulation(DefaultQuantizeConfig)
    (quantized,) = wrappers(model)[0].quantized_weights
    quantized.variables["base"].assign(np.zeros(1))
    with pytest.raises(ValueError, match="layer 'odd': the weight has no scales yet"):
        export(model, images)
