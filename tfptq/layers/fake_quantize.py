"""Fake quantization with straight-through gradients, bit-equal to the numpy grids in ``tfptq.core.affine``.

``fake_quantize`` maps each value to the nearest point of a grid: ``r = s * (clip(rint(x / s) + z, low, high) - z)``.
Its gradient passes straight through (``dr/dx = 1``) where the code fits, and is 0 where the code was clipped
(straight-through estimator, Bengio et al., arXiv 1308.3432).

The numpy grids divide in float64. Here everything is float32, the only real type that converts to ``.tflite``, so the
quotient of a value next to a tie may fall on the wrong side of it. ``nearest_codes`` looks at the exact remainder
``x - q s`` and moves ``q`` by one where that is more than half a step: the products of a code (at most 16 bits) with
the three 8-bit parts of ``s`` are exact in float32, and so are the differences, which never need more bits than ``x``
and ``s`` have.
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
    """``rint(values / scale)``, exact for codes of up to 16 bits; ties go to the even code.

    Args:
        values: float32 tensor.
        scale: positive float32 tensor, broadcastable to ``values``.

    Returns:
        float32 tensor of whole numbers, not clipped.
    """
    codes = ops.round(values / scale)
    remainder = values
    for part in _split(scale):
        remainder = remainder - codes * part
    up = ops.cast(remainder > 0.5 * scale, "float32")
    down = ops.cast(remainder < -0.5 * scale, "float32")
    return codes + up - down


def fake_quantize(values: Any, scale: Any, zero_point: Any, low: int, high: int) -> Any:
    """Nearest points of an affine grid, with straight-through gradients. A scale of 0 stands for no grid.

    Args:
        values: floating point tensor of any shape.
        scale: float32 tensor, broadcastable to ``values``; where it is 0, values pass unchanged.
        zero_point: whole number as float32, broadcastable to ``values``.
        low: smallest code.
        high: largest code.

    Returns:
        Tensor of the shape and type of ``values``.
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
