import numpy as np
import pytest
from layout_files import EVERYWHERE, emitted, output, samples
from plain_config import plain_config
from stock_runtimes import run

import tfptq
from tfptq.config import PerBlock
from tfptq.core.blocks import float_scales
from tfptq.tflite.layouts import NATIVE

pytestmark = pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")


@pytest.mark.parametrize("blocks", [(1, 32), (4, 32), (2, 64)])
def test_native_layout_inside_its_window(blocks):
    config = plain_config(PerBlock(*blocks), weight_bits=4, layout="native")
    file, dequantized, kernel = emitted("wide", NATIVE, config)
    for resolver, runtime in EVERYWHERE:
        (found,) = run(file, samples("wide"), resolver, runtime).values()
        expected = output(dequantized, samples("wide"), resolver, runtime)
        if resolver == "REF":
            # The reason that native is only taken when it is asked for.
            np.testing.assert_array_equal(found, np.broadcast_to(kernel.bias_shift, found.shape))
            continue
        # Activations are quantized to 8 bits for each sample at run time.
        assert np.abs(found - expected).max() <= 0.02 * np.abs(expected).max()
    assert "native tensor" in tfptq.verify(file).render()
    scales = kernel.in_file(kernel.uses[0]).scales.values()
    np.testing.assert_array_equal(scales, scales.astype(np.float16).astype(np.float32))


def test_float16_scales_must_be_precise():
    for value in (1e-6, 1e6):
        with pytest.raises(ValueError, match="do not fit float16.*choose the layout 'inline'"):
            NATIVE.stored_scales(float_scales(np.array([[0.01, value]]), (1, 32)))
