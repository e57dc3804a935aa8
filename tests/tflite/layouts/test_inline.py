"""The layouts in float, ``inline`` and ``composite``."""

import numpy as np
import pytest
from layout_files import BLOCKS, EVERYWHERE, LAYERS, emitted, output, samples

import tfptq
from tfptq.tflite.layouts import COMPOSITE, INLINE
from tfptq.tflite.model_reader import read_model

pytestmark = pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")

#: Every kind of layer with float blocks, and every kind of blocks with a few kinds of layers.
FLOAT_CASES = [(kind, "float blocks") for kind in LAYERS] + [
    (kind, config) for kind in ("conv", "depthwise", "dense") for config in BLOCKS if config != "float blocks"
]


@pytest.mark.parametrize(("kind", "config"), FLOAT_CASES)
@pytest.mark.parametrize("layout", [INLINE, COMPOSITE], ids=str)
def test_layouts_in_float_compute_the_dequantized_weights(kind, layout, config):
    file, dequantized, kernel = emitted(kind, layout, BLOCKS[config])
    for where in EVERYWHERE if config == "float blocks" else [("AUTO", "litert"), ("REF", "tf.lite")]:
        expected = output(dequantized, samples(kind), *where)
        found = output(file, samples(kind), *where)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max(), err_msg=str(where))
    assert f"{layout} tensor with {kernel.weight.bits}-bit codes" in tfptq.verify(file).render()
    (row,) = tfptq.inspect(file).weights
    assert (row.layout, row.bits, row.operator) == (layout.name, kernel.weight.bits, "DEQUANTIZE")
    names = [tensor.name for graph in read_model(file).subgraphs for tensor in graph.tensors]
    assert len(set(names)) == len(names)
