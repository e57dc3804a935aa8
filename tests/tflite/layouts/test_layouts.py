"""What all layouts have in common."""

import keras
import numpy as np
import pytest
from keras import layers
from layout_files import EVERYWHERE, emitted, output
from plain_config import plain_config

import tfptq
from tfptq.config import LAYOUTS as CONFIG_LAYOUTS
from tfptq.config import PerBlock, PerChannel
from tfptq.tflite.layouts import COMPOSITE, INLINE, INT4, LAYOUTS, NATIVE, WEIGHTS_ONLY, layout_named
from tfptq.tflite.metadata import blocks_schema
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.verify import VerificationError

pytestmark = pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")


def test_every_layout_has_a_name_in_configs_and_in_the_format():
    integer, float_ = ("int8", "int4"), ("native", "inline", "composite")
    products = ("fully_connected_int4", "fully_connected_int2", "im2col_int4", "im2col_int2")
    assert list(CONFIG_LAYOUTS) == ["size", "speed", *integer, *float_, *products, "weights_only"]
    for layout in LAYOUTS:
        assert layout_named(layout.name) is layout and str(layout) == layout.name
    assert [layout.format_name for layout in LAYOUTS] == list(blocks_schema().enums["Layout"][1])


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_stored_bytes_are_those_of_the_file(layout):
    config = plain_config(PerBlock(2, 32 if layout.scales_in_constant else 64), weight_bits=2)
    file, _, kernel = emitted("wide", layout, config)
    model = TFLiteModel(file)
    subgraph, index = model.places()[tfptq.inspect(file).weights[0].tensor]
    tensors = model.root.subgraphs[subgraph].tensors
    scales = [tensor for tensor in tensors if tensor.name.endswith(b"/scales")]
    found = sum(len(model.root.buffers[tensor.buffer].data) for tensor in (tensors[index], *scales))
    if not layout.scales_in_constant:
        found += 4 * len(tensors[index].quantization.scale)
    assert layout.stored_bytes(kernel.in_file(kernel.uses[0]), kernel.uses[0].view) == found


def tampered(file, name, change):
    model = TFLiteModel(file)
    subgraph, index = model.places()[name]
    buffer = model.root.buffers[model.root.subgraphs[subgraph].tensors[index].buffer]
    buffer.data = np.array(buffer.data, np.uint8)
    change(buffer.data)
    return model.to_bytes()


@pytest.mark.parametrize("layout", [NATIVE, INLINE, COMPOSITE], ids=str)
def test_tampering_with_scales_is_found(layout):
    file, _, _ = emitted("wide", layout, plain_config(PerBlock(2, 32), weight_bits=3))
    name = tfptq.inspect(file).weights[0].tensor

    def nudge(data):
        data[0] ^= 1

    def lowest_code(data):
        data[0] = 0x88

    with pytest.raises(VerificationError, match="the checksum differs"):
        tfptq.verify(tampered(file, "composite_1/scales" if layout is COMPOSITE else f"{name}/scales", nudge))
    with pytest.raises(VerificationError, match="not between -4 and 3"):
        tfptq.verify(tampered(file, name, lowest_code))


@pytest.mark.parametrize("layout", [INT4, INLINE, COMPOSITE, WEIGHTS_ONLY], ids=str)
def test_a_layer_used_twice(layout):
    inputs = keras.Input((8, 8, 4), name="x")
    layer = layers.Conv2D(4, 3, padding="same", name="twice")
    model = keras.Model(inputs, layer(layers.MaxPooling2D()(layer(inputs))))
    x = np.random.default_rng(0).normal(0, 1, (16, 8, 8, 4)).astype(np.float32)
    config = plain_config(PerChannel(), weight_bits=4, edge_bits=None, layout=layout.name)
    result = tfptq.quantize_keras_model(model, x, config, progress=False)
    assert len(tfptq.inspect(result.tflite).weights) == (2 if layout is COMPOSITE else 1)
    assert tfptq.verify(result.tflite).checks
    expected = result.keras_model.predict(x, verbose=0)
    for resolver, runtime in EVERYWHERE:
        found = output(result.tflite, {"x": x}, resolver, runtime)
        assert np.abs(found - expected).max() <= (0.03 if layout is INT4 else 1e-5) * np.abs(expected).max()
