"""AdaRound: learn for every weight whether to round it down or up. For comparison with Attention Round.

``ŵ = s * clip(floor(w/s) + h(V), -n, n)`` with the rectified sigmoid ``h(V) = clip(σ(V) (ζ - γ) + γ, 0, 1)``,
ζ = 1.1, γ = -0.1. Minimised, over V by Adam, is the layer's quadratic plus a regulariser that drives h to 0 or 1::

    L + Σ (1 - |2h - 1|^β)

β falls from 20 to 2 along a cosine; during the warm-up there is no regulariser. L is counted in units of one code step
of a weight of mean input power, so that one regulariser fits all layers. V starts where h reproduces w.

Source: arXiv 2004.10568, equations 21 to 25.
"""

import math
from dataclasses import dataclass

import numpy as np

from tfptq.core.rounding.problem import RoundingProblem
from tfptq.core.rounding.registry import rounding_method

ZETA, GAMMA = 1.1, -0.1
FIRST_BETA, LAST_BETA = 20.0, 2.0
#: Weight of the push towards 0 and 1, and share of the steps without it.
REGULARISER, WARM_UP = 1.0, 0.2


@dataclass(frozen=True)
class AdaRoundOptions:
    """Options of AdaRound."""

    steps: int = 500  # of Adam
    learning_rate: float = 0.1  # of Adam at the start; decays to 0

    def __post_init__(self):
        if self.steps < 1 or self.learning_rate <= 0.0:
            raise ValueError(
                f"steps is {self.steps} and learning_rate {self.learning_rate}; they must be at least 1 and positive"
            )


@rounding_method("adaround", AdaRoundOptions)
def adaround_codes(problem: RoundingProblem, options: AdaRoundOptions) -> np.ndarray:
    """Codes ``[G, P, K]`` of a problem by AdaRound."""
    from tfptq.core.rounding.tensors import learn

    up = learn(_optimise, problem, float(options.learning_rate), REGULARISER, WARM_UP, options.steps)
    return np.clip(np.floor(problem.ratio) + up, *problem.code_range)


def _optimise(ratio, scale, gram, residual, per_unit, code_range, learning_rate, regulariser, warm_up, steps):
    """Adam over V ``[G, P, K]``. Returns 0 (down) or 1 (up) for each weight."""
    import tensorflow as tf

    from tfptq.core.rounding.tensors import minimise

    floor = tf.floor(ratio)

    def gradient(values, done, state):
        sigmoid = tf.sigmoid(values)
        stretched = sigmoid * (ZETA - GAMMA) + GAMMA
        up = tf.clip_by_value(stretched, 0.0, 1.0)
        codes = tf.clip_by_value(floor + up, code_range[0], code_range[1])
        error = scale * (codes - ratio)
        slope = (tf.matmul(error, gram) - residual) * 2.0 * scale * per_unit
        slope = tf.where(tf.equal(codes, floor + up), slope, 0.0)
        decay = (done - warm_up) / (1.0 - warm_up)
        beta = LAST_BETA + 0.5 * (FIRST_BETA - LAST_BETA) * (1.0 + tf.cos(math.pi * decay))
        push = -2.0 * beta * tf.abs(2.0 * up - 1.0) ** (beta - 1.0) * tf.sign(2.0 * up - 1.0)
        slope += tf.where(decay < 0.0, 0.0, regulariser) * push
        inside = tf.equal(up, stretched)
        return tf.where(inside, slope * (ZETA - GAMMA) * sigmoid * (1.0 - sigmoid), 0.0), state

    start = (ratio - floor - GAMMA) / (ZETA - GAMMA)
    values, _ = minimise(gradient, tf.math.log(start / (1.0 - start)), (), steps, learning_rate)
    return tf.cast(values >= 0.0, tf.float32)
