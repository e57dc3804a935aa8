"""Fake quantization with straight-through gradients, bit-equal to the numpy grids in ``tfptq.core.affine``.

``fake_quantize`` maps each value to the nearest point of a grid: ``r = s * (clip(rint(x / s) + z, low, high) - z)``.
Its gradient is 1 where the code fits and 0 where it is clipped (straight-through estimator, arXiv 1308.3432).

The numpy grids divide in float64. Here everything is float32, the only real type that converts to ``.tflite``, so a
quotient next to a tie may fall on the wrong side. ``nearest_codes`` corrects it by the exact remainder ``x - q s``:
the products of a code (at most 16 bits) with the three 8-bit parts of ``s`` are exact in float32, and so are the
differences, which never need more bits than ``x`` and ``s`` have.
"""

from typing import Any

import keras

ops = keras.ops


def _split(scale: Any) -> tuple[Any, Any, Any]:
    """Three float32 with at most 8 significant bits each that add up to ``scale`` (Veltkamp's splitting)."""

    def leading_bits(value):
        shifted = value * 65537.0  # 2**16 + 1 leaves 24 - 16 bits.
        return shifted - (shifted - value)

    high = leading_bits(scale)
    middle = leading_bits(scale - high)
    return high, middle, scale - high - middle


def nearest_codes(values: Any, scale: Any) -> Any:
    """``rint(values / scale)`` as float32, not clipped; exact for codes of up to 16 bits; ties go to the even code.

    ``scale`` is positive and broadcastable to ``values``, both float32.
    """
    codes = ops.round(values / scale)
    remainder = values
    for part in _split(scale):
        remainder = remainder - codes * part
    up = ops.cast(remainder > 0.5 * scale, "float32")
    down = ops.cast(remainder < -0.5 * scale, "float32")
    return codes + up - down


def fake_quantize(values: Any, scale: Any, zero_point: Any, low: int, high: int) -> Any:
    """Nearest points of an affine grid, with straight-through gradients, in the type of ``values``.

    ``scale`` and ``zero_point`` are float32, broadcastable to ``values``, which pass unchanged where the scale is 0.
    """
    is_set = scale > 0.0
    scale = ops.stop_gradient(ops.where(is_set, scale, 1.0))
    exact = ops.cast(values, "float32")
    constant = ops.stop_gradient(exact)
    codes = nearest_codes(constant, scale) + zero_point
    clipped = ops.clip(codes, low, high)
    quantized = ops.stop_gradient((clipped - zero_point) * scale)
    passed = ops.where(codes == clipped, exact - constant, 0.0)  # 0, with the gradient of the values.
    return ops.cast(ops.where(is_set, quantized + passed, exact), values.dtype)
