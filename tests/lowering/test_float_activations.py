"""Files with float activations: what lies where, and what every stock resolver makes of them."""

import functools
import hashlib

import dynamic_models
import keras
import numpy as np
import pytest
from dynamic_models import samples
from keras import layers
from stock_runtimes import RESOLVERS, RUNTIMES, run, signal_to_noise

import tfptq
from tfptq.config import PerChannel, QuantizationConfig, override
from tfptq.float_file import build
from tfptq.tflite.layouts import LayoutError
from tfptq.tflite.model import TFLiteModel

pytestmark = pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")

encoder, mobile = functools.cache(dynamic_models.encoder), functools.cache(dynamic_models.mobile)
NETWORKS = {"encoder": encoder, "mobile": mobile}
_MADE = {}


@pytest.fixture(autouse=True, scope="module")
def converted_once():
    """The converter takes most of the time of a test, and gets the same few networks from all of them."""
    converted = {}
    convert = build.convert_float

    def once(model, single, steps_of):
        digest = hashlib.sha256(model.to_json().encode())
        for weight in model.get_weights():
            digest.update(weight.tobytes())
        key = digest.hexdigest(), single
        if key not in converted:
            converted[key] = convert(model, single, steps_of)
        return converted[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "convert_float", once)
        yield


def computed(model, x):
    """Outputs of a Keras model; ``predict`` would trace it first."""
    return np.asarray(model(x, training=False))


def made(network, preset):
    """(result, samples, outputs of the float model, outputs of the simulation), made once."""
    if (network, preset) not in _MADE:
        model = NETWORKS[network]()
        x = samples(model)
        config = QuantizationConfig.from_preset(preset).replace(rounding="coordinate")  # which is fast
        result = tfptq.quantize_keras_model(model, x, config, progress=False)
        _MADE[network, preset] = result, x, computed(model, x), computed(result.keras_model, x)
    return _MADE[network, preset]


def layouts_of(result):
    return {row.name: (row.layout, row.bits) for row in result.report.layers}


def kinds(tflite):
    return {row.operator for row in tfptq.inspect(tflite).operators}


def versions(tflite, kind):
    model = TFLiteModel(tflite)
    found = [operator for operator in model.operators if model.operator_name(operator) == kind]
    return {model.root.operatorCodes[operator.opcodeIndex].version for operator in found}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    ("preset", "least"), [("w8_dynamic", 30.0), ("w4_dynamic_channel", 15.0), ("w4_dynamic_block", 15.0)]
)
def test_stock_kernels_compute_what_was_fitted(network, preset, least):
    result, x, expected, simulated = made(network, preset)
    blocks = any(layout == "native" for layout, _ in layouts_of(result).values())
    for runtime in RUNTIMES:
        for resolver in RESOLVERS:
            (found,) = run(result.tflite, {"x": x}, resolver, runtime).values()
            if blocks and resolver == "REF":
                assert signal_to_noise(expected, found) < 6.0, "blocks have reference kernels now: tell the report"
                continue
            assert found.any(), f"{runtime} {resolver} computes zeros"
            assert signal_to_noise(expected, found) > least
            # Keras does not simulate the rounding of activations at run time.
            assert signal_to_noise(simulated, found) > 30.0


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("preset", ["w8_dynamic", "w4_dynamic_channel", "w4_dynamic_block"])
def test_no_activation_is_quantized_in_the_graph(network, preset):
    result = made(network, preset)[0]
    assert "QUANTIZE" not in kinds(result.tflite)
    model = TFLiteModel(result.tflite)
    unpacked = {op.inputs[0] for op in model.operators if model.operator_name(op) == "DEQUANTIZE"}
    assert all(map(model.is_constant, unpacked))
    assert result.report.float_operators == ()
    assert [row.layout for row in tfptq.inspect(result.tflite).weights] == [row.layout for row in result.report.layers]
    assert not tfptq.verify(result.tflite).undescribed


def test_layouts_of_a_transformer():
    eight = layouts_of(made("encoder", "w8_dynamic")[0])
    assert set(eight.values()) == {("int8", 8)} and len(eight) == 8
    channels = layouts_of(made("encoder", "w4_dynamic_channel")[0])
    assert channels.pop("patches") == ("int8", 8)
    assert set(channels.values()) == {("fully_connected_int4", 4)}
    result = made("encoder", "w4_dynamic_block")[0]
    blocks = layouts_of(result)
    assert blocks.pop("patches") == ("int8", 8)
    assert set(blocks.values()) == {("native", 4)}
    assert versions(result.tflite, "FULLY_CONNECTED") == {12}, "older runtimes would take one scale for all channels"
    assert versions(result.tflite, "CONV_2D") == {5}
    assert any("no blocks, but a scale per channel: patches" in line for line in result.report.notes)
    assert any("reference resolver computes zeros" in line for line in result.report.notes)


def test_layouts_of_convolutions():
    found = layouts_of(made("mobile", "w4_dynamic_channel")[0])
    assert found == {
        "stem": ("int8", 8),
        "depthwise": ("weights_only", 8),
        "pointwise": ("fully_connected_int4", 4),
        "up": ("int8", 8),
        "logits": ("fully_connected_int4", 4),
    }


def test_learned_codes_are_nearer_than_nearest_ones():
    learned, x, expected, _ = made("encoder", "w4_dynamic_block")
    nearest = tfptq.quantize_keras_model(encoder(), None, "w4_dynamic_block", progress=False)
    first, second = (signal_to_noise(expected, run(it.tflite, {"x": x})["output_0"]) for it in (learned, nearest))
    assert first > second + 2.0


@pytest.mark.parametrize("bits", [2, 3])
def test_fewer_bits(bits):
    model = encoder()
    x = samples(model)
    config = QuantizationConfig.from_preset("w4_dynamic_channel").replace(weight_bits=bits, rounding="nearest")
    result = tfptq.quantize_keras_model(model, x, config, progress=False)
    assert layouts_of(result)["up"] == ("fully_connected_int2" if bits == 2 else "fully_connected_int4", bits)
    simulated = computed(result.keras_model, x)
    for resolver in RESOLVERS:
        found = run(result.tflite, {"x": x}, resolver)["output_0"]
        assert signal_to_noise(simulated, found) > 30.0


def test_weights_only():
    model = mobile()
    x = samples(model)
    config = QuantizationConfig(PerChannel(), activations="float", weight_scale="mse")
    for bits in (8, 4):
        result = tfptq.quantize_keras_model(model, x, config.replace(weight_bits=bits, edge_bits=None), progress=False)
        assert set(layouts_of(result).values()) == {("weights_only", bits)}
        simulated = computed(result.keras_model, x)
        for runtime in RUNTIMES:
            for resolver in RESOLVERS:
                found = run(result.tflite, {"x": x}, resolver, runtime)["output_0"]
                assert signal_to_noise(simulated, found) > 80.0
        assert tfptq.verify(result.tflite).checks


def test_float16():
    model = encoder()
    x = samples(model)
    expected = computed(model, x)
    for dataset in (x, None):
        result = tfptq.quantize_keras_model(model, dataset, "float16", progress=False)
        assert len(result.tflite) < 0.6 * len(result.float_tflite)
        assert {row.reason for row in result.report.skipped} == {"its weights are float16"}
        for runtime in RUNTIMES:
            for resolver in RESOLVERS:
                found = run(result.tflite, {"x": x}, resolver, runtime)["output_0"]
                assert signal_to_noise(expected, found) > 55.0


def test_overrides_mix_kinds_of_activations():
    """Integers inside of a float file, and float layers inside of one on integers."""
    model = mobile()
    x = samples(model)
    islands = (override("pointwise", activations="static"), override("depthwise", activations="static"))
    config = QuantizationConfig.from_preset("w8_dynamic").replace(overrides=islands)
    result = tfptq.quantize_keras_model(model, x, config, progress=False)
    assert layouts_of(result)["depthwise"] == ("int8", 8)
    operators = [row.operator for row in tfptq.inspect(result.tflite).operators]
    assert operators.count("QUANTIZE") == operators.count("DEQUANTIZE") == 1
    assert signal_to_noise(computed(model, x), run(result.tflite, {"x": x})["output_0"]) > 25.0

    float_layers = (override("logits", activations="dynamic"), override("stem", activations="float", weight_bits=16))
    config = QuantizationConfig.from_preset("w8a8_channel").replace(overrides=float_layers)
    result = tfptq.quantize_keras_model(model, x, config, progress=False)
    reasons = {item.reason for item in result.report.float_operators}
    assert "activations='dynamic'" in reasons and "layer 'stem' has float16 weights" in reasons
    for resolver in RESOLVERS:
        assert signal_to_noise(computed(model, x), run(result.tflite, {"x": x}, resolver)["output_0"]) > 20.0


def test_layouts_on_integers_alone_are_refused():
    config = QuantizationConfig(PerChannel(), activations="dynamic", weight_bits=4, layout="int4", edge_bits=None)
    with pytest.raises(LayoutError, match="layer 'stem' cannot have the layout 'int4': its operators compute on integ"):
        tfptq.quantize_keras_model(mobile(), samples(mobile()), config, progress=False)


def test_kernels_of_the_converter_are_dynamic_as_well():
    """A layer that tfptq does not know has constants that are kernels in the file."""

    class Twice(keras.layers.Layer):
        def build(self, shape):
            self.table = self.add_weight(shape=(shape[-1], 32), name="table", initializer="glorot_uniform")

        def call(self, x):
            return keras.ops.matmul(keras.ops.relu(keras.ops.matmul(x, self.table)), keras.ops.transpose(self.table))

    inputs = keras.Input((16,), name="x")
    model = keras.Model(inputs, layers.Dense(8, name="logits")(Twice()(inputs)))
    x = samples(model)
    result = tfptq.quantize_keras_model(model, x, "w8_dynamic", progress=False)
    assert "QUANTIZE" not in kinds(result.tflite)
    assert {row.layout for row in result.report.layers} == {"int8"}
    assert signal_to_noise(computed(model, x), run(result.tflite, {"x": x})["output_0"]) > 30.0


def test_a_file_made_without_samples_says_so():
    model = encoder()
    result = tfptq.quantize_keras_model(model, config="w8_dynamic", progress=False)
    assert result.report.samples == 0 and result.report.findings == () and result.report.outputs == {}
    assert any("made without samples" in line for line in result.report.notes)
    with pytest.raises(ValueError, match="dataset=None goes with float activations alone"):
        tfptq.quantize_keras_model(encoder(), progress=False)
    x = samples(model)
    assert signal_to_noise(computed(model, x), run(result.tflite, {"x": x})["output_0"]) > 25.0
    again = tfptq.quantize_keras_model(model, config="w8_dynamic", progress=False)
    assert again.tflite == result.tflite
