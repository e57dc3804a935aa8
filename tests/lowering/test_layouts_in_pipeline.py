"""Layouts through the whole pipeline: several in one model, and what the stock runtimes make of them."""

import keras
import numpy as np
import pytest
from keras import layers
from plain_config import plain_config
from stock_runtimes import RESOLVERS, RUNTIMES, run

import tfptq
from tfptq.config import PerBlock, PerChannel, Target, override
from tfptq.tflite.layouts import LayoutError

pytestmark = pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")

EVERYWHERE = [(resolver, runtime) for runtime in RUNTIMES for resolver in RESOLVERS]
#: As "micro", with any batch and float ends.
PACKED = Target("packed", layouts={"CONV_2D": ("int4",), "DEPTHWISE_CONV_2D": ("int4",)})
CHANNEL4 = plain_config(PerChannel(), weight_bits=4, target=PACKED)


def output(file, inputs, resolver, runtime):
    (values,) = run(file, inputs, resolver, runtime).values()
    assert values.any(), f"{runtime} {resolver} computes zeros"
    return values


def network():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), name="x")
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(inputs)
    x = layers.Add()([x, layers.Conv2D(8, 1, name="middle")(layers.DepthwiseConv2D(3, padding="same", name="deep")(x))])
    x = layers.Conv2DTranspose(6, 3, strides=2, name="up")(x)
    x = layers.Dense(64, activation="relu", name="hidden")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(10, name="logits")(x))


def quantized(config):
    x = np.random.default_rng(0).normal(0, 1, (32, 8, 8, 3)).astype(np.float32)
    result = tfptq.quantize_keras_model(network(), x, config.replace(edge_bits=None), progress=False)
    assert tfptq.verify(result.tflite).checks
    assert [row.layout for row in tfptq.inspect(result.tflite).weights] == [row.layout for row in result.report.layers]
    return result, x


def test_mixed_layouts_in_one_model():
    config = CHANNEL4.replace(
        overrides=(
            override("middle", granularity=PerBlock(2, 4), layout="composite"),
            override("hidden", granularity=PerBlock(2, 3), weight_bits=8),
            override("logits", granularity=PerBlock(2, 32), layout="native"),
        )
    )
    result, x = quantized(config)
    found = {row.name: row.layout for row in result.report.layers}
    assert found == {
        "stem": "int4", "deep": "int4", "middle": "composite", "up": "int8", "hidden": "inline", "logits": "native",
    }  # fmt: skip
    reasons = [item.reason for item in result.report.float_operators]
    for layout in ("composite", "inline", "native"):
        assert f"layout {layout} computes in float" in reasons
    assert not any("hold INT4" in line for line in result.report.notes), "the target asks for them"
    assert any("layout native" in line and "zeros" in line for line in result.report.notes)
    assert all(row.output_snr_db is not None and row.output_snr_db > 10 for row in result.report.layers)
    expected = result.keras_model.predict(x, verbose=0)
    for runtime in RUNTIMES:
        for resolver in ("AUTO", "BUILTIN"):
            found = output(result.tflite, {"x": x}, resolver, runtime)
            assert np.abs(found - expected).max() <= 0.03 * np.abs(expected).max()


def test_float_layouts_of_a_model_agree():
    expected = None
    for layout in ("inline", "composite"):
        result, x = quantized(plain_config(PerBlock(2, 4), weight_bits=4, layout=layout))
        expected = result.keras_model.predict(x, verbose=0) if expected is None else expected
        for where in EVERYWHERE:
            found = output(result.tflite, {"x": x}, *where)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
        assert "QUANTIZE" not in {row.operator for row in tfptq.inspect(result.tflite).operators}


def test_integer_layouts_of_a_model_agree():
    pinned = override("*", weight_bits=4)  # of one width in all layouts
    config = CHANNEL4.replace(overrides=(pinned,))
    (small, x), (fast, _) = (quantized(config.replace(target=target)) for target in (PACKED, "any"))
    small_bytes, fast_bytes = (sum(row.bytes_after for row in result.report.layers) for result in (small, fast))
    assert {row.layout for row in fast.report.layers} == {"int8"} and small_bytes < fast_bytes
    assert {row.bits for result in (small, fast) for row in result.report.layers} == {4}
    for runtime in RUNTIMES:
        for resolver in ("BUILTIN", "REF"):
            first, second = (output(result.tflite, {"x": x}, resolver, runtime) for result in (small, fast))
            np.testing.assert_array_equal(first, second)


def test_int4_where_the_target_would_not_have_it_is_told():
    result, _ = quantized(CHANNEL4.replace(target="cpu", overrides=(override("stem", layout="int4"),)))
    assert {row.name: row.layout for row in result.report.layers}["stem"] == "int4"
    (line,) = (line for line in result.report.notes if "hold INT4" in line)
    assert line.startswith("1 of 6 kernels hold INT4") and "7 to 20 times slower" in line and "'int8'" in line


def test_the_pipeline_refuses_a_layout_by_the_name_of_the_layer():
    with pytest.raises(LayoutError, match="layer 'up' cannot have the layout 'int4'.*TRANSPOSE_CONV.*'int8'"):
        quantized(CHANNEL4.replace(layout="int4"))


def test_skipped_layers_need_no_layout():
    result, _ = quantized(CHANNEL4.replace(layout="int4", overrides=(override("up", skip=True),)))
    assert {row.layout for row in result.report.layers} == {"int4"}
