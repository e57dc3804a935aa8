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

Source: arXiv 2207.03088, equations 4 to 8.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfptq.config.parts import ROUNDING_STARTS
from tfptq.core.adam import minimise
from tfptq.core.attention_gradient import outward
from tfptq.core.coordinate_rounding import coordinate_codes, descend
from tfptq.core.rounding_problem import RoundingProblem
from tfptq.core.rounding_tensors import ARRAY, COUNT, NUMBER, PROBLEM, problem_tensors


@dataclass(frozen=True)
class AttentionRoundOptions:
    """Options of Attention Round.

    Attributes:
        tau: width of the attention, in units of the scale.
        steps: steps of Adam.
        learning_rate: of Adam at the start, in units of the scale; decays to 0.
        start: first offsets: ``"nearest"`` all 0, ``"gaussian"`` drawn with width ``tau``, ``"coordinate"`` at
            the codes of coordinate rounding.
        polish: sweeps of coordinate descent on the outcome.
    """

    tau: float = 0.5
    steps: int = 500
    learning_rate: float = 1e-2
    start: str = "coordinate"
    polish: int = 20

    def __post_init__(self):
        if self.tau <= 0.0 or self.learning_rate <= 0.0:
            raise ValueError(f"tau is {self.tau} and learning_rate {self.learning_rate}; both must be positive")
        if self.steps < 1 or self.polish < 0:
            raise ValueError(f"steps is {self.steps} and polish {self.polish}; they must be at least 1 and 0")
        if self.start not in ROUNDING_STARTS:
            raise ValueError(f"start is {self.start!r}; it must be one of {', '.join(map(repr, ROUNDING_STARTS))}")


def attention_codes(problem: RoundingProblem, options: AttentionRoundOptions, seed: int = 0) -> np.ndarray:
    """Codes ``[G, P, K]`` of a problem by Attention Round."""
    codes = _optimise(
        *problem_tensors(problem),
        tf.constant(_first_offsets(problem, options, seed), tf.float32),
        *map(tf.constant, (options.tau, options.learning_rate, options.steps)),
    )
    return descend(problem, codes.numpy().astype(np.float64), options.polish)


def _first_offsets(problem: RoundingProblem, options: AttentionRoundOptions, seed: int) -> np.ndarray:
    """float64 ``[G, P, K]``."""
    if options.start == "gaussian":
        return np.random.default_rng(seed).normal(0.0, options.tau, problem.weight.shape)
    if options.start == "nearest":
        return np.zeros_like(problem.weight)
    return coordinate_codes(problem) - problem.ratio


@functools.partial(tf.function, input_signature=[*PROBLEM, ARRAY, NUMBER, NUMBER, COUNT])
def _optimise(ratio, scale, gram, residual, per_unit, code_range, offsets, tau, learning_rate, steps):
    """Adam over offsets ``[G, P, K]``. Returns the best codes of each row."""

    def gradient(offsets, _, state):
        codes = tf.round(ratio + offsets)
        beyond = outward(codes, code_range)
        codes = tf.clip_by_value(codes, code_range[0], code_range[1])
        best_codes, least = state
        error = scale * (codes - ratio)
        slope = tf.matmul(error, gram) - residual
        objective = tf.reduce_sum((slope - residual) * error, axis=2, keepdims=True)
        better = objective < least
        state = tf.where(better, codes, best_codes), tf.minimum(objective, least)
        slope *= 2.0 * scale * per_unit
        attention = 0.5 + 0.5 * tf.sign(slope) * tf.math.erf(offsets / (math.sqrt(2.0) * tau))
        return tf.where(slope * beyond < 0.0, 0.0, slope * attention), state

    none = tf.zeros_like(ratio), tf.fill(tf.shape(ratio[:, :, :1]), math.inf)
    _, (codes, _) = minimise(gradient, offsets, none, steps, learning_rate)
    return codes
