"""Adam with a cosine decay, as the inside of one TensorFlow loop.

Rounding problems have all shapes, and a network has dozens; a loop inside one traced function, with open shapes,
costs one trace for all of them and no Python in between.

Source: Adam, arXiv 1412.6980, algorithm 1.
"""

import math
from collections.abc import Callable

import tensorflow as tf

#: The defaults of the paper.
FIRST_DECAY, SECOND_DECAY, EPSILON = 0.9, 0.999, 1e-8


def minimise(
    gradient: Callable[[tf.Tensor, tf.Tensor, tuple], tuple[tf.Tensor, tuple]],
    start: tf.Tensor,
    state: tuple,
    steps: tf.Tensor,
    learning_rate: tf.Tensor,
) -> tuple[tf.Tensor, tuple]:
    """Run Adam; call it inside a ``tf.function``.

    Args:
        gradient: maps parameters, the share of the steps done (0 to 1) and the caller's state to the gradient
            and the new state.
        start: parameters, float32.
        state: tensors that the caller carries through the loop, such as the best iterate.
        steps: number of steps, int32.
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
