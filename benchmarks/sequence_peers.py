"""Dynamic files of litert-quantizer, by the best of its algorithms for each kind of scale.

Operators that it has no blocks or no 4 bits for get its 8-bit weights, as ours do.
"""

from collections.abc import Iterable

import numpy as np
from litert_quantizer import qtyping, quantizer
from litert_quantizer.algorithm_manager import AlgorithmName

from benchmarks import measure
from benchmarks.peers import SIGNATURE, signature_inputs

_Operator, _Granularity = qtyping.TFLOperationName, qtyping.QuantGranularity
#: Algorithms that look at weights alone, and all of them.
WITHOUT_DATA = (AlgorithmName.MIN_MAX_UNIFORM_QUANT, AlgorithmName.MSE, AlgorithmName.OCTAV)
CHANNELS = (*WITHOUT_DATA, AlgorithmName.GPTQ)
BLOCKS = (AlgorithmName.MIN_MAX_UNIFORM_QUANT, AlgorithmName.GPTQ)
GRANULARITIES = {
    "channel": _Granularity.CHANNELWISE,
    "block": _Granularity.BLOCKWISE_32,
}


def best_file(
    original: bytes, x: np.ndarray, bits: int, granularity: str, algorithms: Iterable[str]
) -> tuple[str, bytes]:
    """Name of the algorithm with the least error on the calibration samples, and its file."""
    expected, best, least = measure.run(original, x[:64]), ("", b""), np.inf
    for algorithm in algorithms:
        content = dynamic_file(original, x, bits, granularity, algorithm)
        error = float(np.square(measure.run(content, x[:64]) - expected).sum())
        if error < least:
            best, least = (str(algorithm.value), content), error
    return best


def dynamic_file(original: bytes, x: np.ndarray, bits: int, granularity: str, algorithm: str) -> bytes:
    """A dynamic file by one algorithm."""
    made = quantizer.Quantizer(original)
    made.add_dynamic_config(".*", _Operator.ALL_SUPPORTED, 8)
    made.add_dynamic_config(".*", _Operator.FULLY_CONNECTED, bits, GRANULARITIES[granularity], algorithm)
    ranges = made.calibrate({SIGNATURE: signature_inputs(original, x)}) if made.need_calibration else None
    return bytes(made.quantize(ranges, enable_progress_bar=False, enable_progress_report=False).quantized_model)
