"""Rounding problems as tensors, for the methods that learn with TensorFlow, and Adam on them.

Problems have all shapes, and a network has dozens. A loop inside one traced function with open shapes costs one trace
for all of them, and no Python in between.

Source: Adam, arXiv 1412.6980, algorithm 1.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfptq.core.rounding.problem import RoundingProblem

#: The defaults of the paper.
FIRST_DECAY, SECOND_DECAY, EPSILON = 0.9, 0.999, 1e-8

#: Signatures: float32 ``[G, P, K]`` and the like, one float32, and one int32.
_ARRAY, _NUMBER, _COUNT = tf.TensorSpec([None, None, None], tf.float32), tf.TensorSpec([]), tf.TensorSpec([], tf.int32)
#: Signature of ``_problem_tensors``.
_PROBLEM = (_ARRAY, _ARRAY, _ARRAY, _ARRAY, _ARRAY, tf.TensorSpec([2], tf.float32))


def learn(optimise: Callable[..., tf.Tensor], problem: RoundingProblem, *settings: np.ndarray | float) -> np.ndarray:
    """Call a function of a problem's tensors, traced once.

    Args:
        optimise: takes, as float32, the weights in units of their scales ``[G, P, K]``, the scales ``[G, P, K]``, A
            ``[G, K, K]``, the residual ``[G, P, K]``, the reciprocal unit ``[G, P, 1]`` and the code range ``[2]``; and
            what it is given beyond.
        problem: the layer's quadratic.
        settings: arrays ``[G, P, K]``, numbers, and whole numbers, which become int32.
    """
    traced = _traced(optimise, tuple(map(_signature, settings)))
    tensors = (tf.constant(value, tf.float32 if isinstance(value, np.ndarray) else None) for value in settings)
    return traced(*_problem_tensors(problem), *tensors).numpy()


def _signature(value: np.ndarray | float) -> tf.TensorSpec:
    if isinstance(value, np.ndarray):
        return _ARRAY
    return _COUNT if isinstance(value, int) else _NUMBER


@functools.cache
def _traced(optimise: Callable[..., tf.Tensor], settings: tuple[tf.TensorSpec, ...]) -> Callable[..., tf.Tensor]:
    return tf.function(optimise, input_signature=[*_PROBLEM, *settings])


def _problem_tensors(problem: RoundingProblem) -> tuple[tf.Tensor, ...]:
    values = (
        problem.ratio,
        problem.scale,
        problem.gram,
        problem.residual,
        1.0 / problem.unit[:, :, None],
        problem.code_range,
    )
    return tuple(tf.constant(value, tf.float32) for value in values)


def minimise(
    gradient: Callable[[tf.Tensor, tf.Tensor, tuple], tuple[tf.Tensor, tuple]],
    start: tf.Tensor,
    state: tuple,
    steps: tf.Tensor,
    learning_rate: tf.Tensor,
) -> tuple[tf.Tensor, tuple]:
    """Run Adam with a cosine decay, inside a ``tf.function``.

    Args:
        gradient: maps parameters, the share of the steps done (0 to 1) and the state to the gradient and the new state.
        start: parameters, float32.
        state: tensors that the caller carries through the loop, such as the best iterate.
        steps: int32.
        learning_rate: at the start; decays to 0 along half a cosine.

    Returns:
        The last parameters and state.
    """

    def step(index, parameters, first, second, state):
        done = tf.cast(index, tf.float32) / tf.cast(steps, tf.float32)
        slope, state = gradient(parameters, done, state)
        first = FIRST_DECAY * first + (1.0 - FIRST_DECAY) * slope
        second = SECOND_DECAY * second + (1.0 - SECOND_DECAY) * tf.square(slope)
        count = tf.cast(index + 1, tf.float32)
        rate = 0.5 * learning_rate * (1.0 + tf.cos(math.pi * done))
        rate *= tf.sqrt(1.0 - SECOND_DECAY**count) / (1.0 - FIRST_DECAY**count)
        parameters -= rate * first / (tf.sqrt(second) + EPSILON)
        return index + 1, parameters, first, second, state

    zeros = tf.zeros_like(start)
    _, parameters, _, _, state = tf.while_loop(
        lambda index, *_: index < steps, step, (tf.constant(0), start, zeros, zeros, state)
    )
    return parameters, state
