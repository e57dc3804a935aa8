"""Attention Round as a differentiable function, for losses that are not the quadratic of one layer.

Forward ``q = clip(round(w/s + a))``. Backward the gradient ``G = dL/dq`` is damped as in
``tfptq.core.attention_round``, and dropped where a code is at its limit and would be pushed further out.

Source: arXiv 2207.03088, equations 4 to 8.
"""

import math

import tensorflow as tf


def outward(codes: tf.Tensor, code_range) -> tf.Tensor:
    """-1 and 1 where codes are at or beyond the lower and upper end of their range, 0 elsewhere; float32."""
    return tf.cast(codes >= code_range[1], tf.float32) - tf.cast(codes <= code_range[0], tf.float32)


def attention_codes_of(ratio: tf.Tensor, offsets: tf.Tensor, code_range: tuple[float, float], tau: float) -> tf.Tensor:
    """Codes with Attention Round's gradient with respect to the offsets.

    Args:
        ratio: float32, weights in units of their scales.
        offsets: float32 of the same shape, in the same units.
        code_range: smallest and largest code.
        tau: width of the attention.

    Returns:
        float32 codes, whole numbers.
    """

    @tf.custom_gradient
    def rounded(offsets):
        codes = tf.round(ratio + offsets)
        beyond = outward(codes, code_range)

        def gradient(slope):
            attention = 0.5 + 0.5 * tf.sign(slope) * tf.math.erf(offsets / (math.sqrt(2.0) * tau))
            return tf.where(slope * beyond < 0.0, 0.0, slope * attention)

        return tf.clip_by_value(codes, *code_range), gradient

    return rounded(offsets)
