import numpy as np
import pytest
from layout_files import BLOCKS, EVERYWHERE, LAYERS, emitted, output, samples

import tfptq
from tfptq.config import PerChannel, QuantizationConfig
from tfptq.tflite.layouts import WEIGHTS_ONLY, LayoutRequest
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.verify import VerificationError

pytestmark = pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")


@pytest.mark.parametrize("kind", ["conv", "grouped", "depthwise", "multiplied", "conv1d", "transposed", "dense"])
@pytest.mark.parametrize("bits", [8, 4])
def test_it_computes_as_the_float_weights_do(kind, bits):
    assert kind in LAYERS
    file, dequantized, _ = emitted(kind, WEIGHTS_ONLY, QuantizationConfig(PerChannel(), weight_bits=bits))
    for resolver, runtime in EVERYWHERE:
        expected = output(dequantized, samples(kind), resolver, runtime)
        found = output(file, samples(kind), resolver, runtime)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert "weights_only tensor" in tfptq.verify(file).render()


@pytest.mark.parametrize("config", [it for it in BLOCKS.values() if not it.granularity.has_blocks], ids=str)
def test_one_scale_for_all_channels(config):
    file, dequantized, _ = emitted("conv", WEIGHTS_ONLY, config)
    expected = output(dequantized, samples("conv"), "BUILTIN", "litert")
    found = output(file, samples("conv"), "BUILTIN", "litert")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_rows_of_several_scales_are_refused():
    problem = WEIGHTS_ONLY.obstacle(LayoutRequest("CONV_2D", (8, 16, 9), (1, 4), "integer", 4))
    assert "several scales" in problem


def test_a_kernel_that_comes_another_way_is_found():
    file, _, _ = emitted("dense", WEIGHTS_ONLY, QuantizationConfig(PerChannel()))
    model = TFLiteModel(file)
    (unpack,) = (each for each in model.operators if model.operator_name(each) == "DEQUANTIZE")
    unpack.opcodeIndex = model.operator_code("NEG", 1)
    with pytest.raises(VerificationError):
        tfptq.verify(model.to_bytes())
