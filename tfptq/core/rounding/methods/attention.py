"""Attention Round: learn the rounding of every weight, with any level in reach.

Each weight has an offset ``a`` in units of its scale, and ``ŵ = s * clip(round(w/s + a))``. The rounding
passes the gradient ``G = dL/dŵ * s`` on, damped by how far the offset has strayed::

    dL/da = G * (1/2 + 1/2 erf( a / (√2 τ)))    where G > 0, which lowers a
            G * (1/2 - 1/2 erf( a / (√2 τ)))    otherwise, which raises a

A move back to the float weight is easy, a move further away ever harder: levels near ``w`` get most attention, as
under a Gaussian of width τ, but none is excluded. (AdaRound only has the two neighbours.)

``L`` is the layer's quadratic, so a step costs one product with A, whatever the number of samples. Where a code is
at its limit, a gradient that pushes further out is dropped. The iterate with the least objective is kept for each
row; the last one is rarely the best, since rounding makes the path jump.

Source: arXiv 2207.03088, equations 4 to 8. It starts from the codes of coordinate rounding, which is our own, and ends
with a descent from the best iterate.
"""

import math
from dataclasses import dataclass

import numpy as np

from tfptq.core.rounding.methods.coordinate import coordinate_codes, descend
from tfptq.core.rounding.problem import RoundingProblem
from tfptq.core.rounding.registry import rounding_method


@dataclass(frozen=True)
class AttentionRoundOptions:
    """Options of Attention Round."""

    tau: float = 0.5  # width of the attention, in units of the scale
    steps: int = 500  # of Adam
    learning_rate: float = 1e-2  # of Adam at the start, in units of the scale; decays to 0

    def __post_init__(self):
        if self.tau <= 0.0 or self.learning_rate <= 0.0:
            raise ValueError(f"tau is {self.tau} and learning_rate {self.learning_rate}; both must be positive")
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; it must be at least 1")


@rounding_method("attention", AttentionRoundOptions)
def attention_codes(problem: RoundingProblem, options: AttentionRoundOptions) -> np.ndarray:
    """Codes ``[G, P, K]`` of a problem by Attention Round."""
    return descend(problem, best_iterate(problem, coordinate_codes(problem) - problem.ratio, options))


def best_iterate(problem: RoundingProblem, offsets: np.ndarray, options: AttentionRoundOptions) -> np.ndarray:
    """The codes with the least objective for each row on the way from some offsets; all are ``[G, P, K]``."""
    from tfptq.core.rounding.tensors import learn

    settings = float(options.tau), float(options.learning_rate), options.steps
    return learn(_optimise, problem, offsets, *settings).astype(np.float64)


def _optimise(ratio, scale, gram, residual, per_unit, code_range, offsets, tau, learning_rate, steps):
    """Adam over offsets ``[G, P, K]``. Returns the best codes of each row."""
    import tensorflow as tf

    from tfptq.core.rounding.tensors import minimise

    def gradient(offsets, _, state):
        codes = tf.round(ratio + offsets)
        outward = tf.cast(codes >= code_range[1], tf.float32) - tf.cast(codes <= code_range[0], tf.float32)
        codes = tf.clip_by_value(codes, code_range[0], code_range[1])
        best_codes, least = state
        error = scale * (codes - ratio)
        slope = tf.matmul(error, gram) - residual
        objective = tf.reduce_sum((slope - residual) * error, axis=2, keepdims=True)
        better = objective < least
        state = tf.where(better, codes, best_codes), tf.minimum(objective, least)
        slope *= 2.0 * scale * per_unit
        attention = 0.5 + 0.5 * tf.sign(slope) * tf.math.erf(offsets / (math.sqrt(2.0) * tau))
        return tf.where(slope * outward < 0.0, 0.0, slope * attention), state

    none = tf.zeros_like(ratio), tf.fill(tf.shape(ratio[:, :, :1]), math.inf)
    _, (codes, _) = minimise(gradient, offsets, none, steps, learning_rate)
    return codes
