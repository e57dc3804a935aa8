"""Rounding problems as tensors, for the methods that learn with TensorFlow.

Problems have all shapes, and a network has dozens: with these signatures a function is traced once for all of them.
"""

import tensorflow as tf

from tfptq.core.rounding_problem import RoundingProblem

#: Signatures: float32 ``[G, P, K]`` and the like, one float32, and one int32.
ARRAY, NUMBER, COUNT = tf.TensorSpec([None, None, None], tf.float32), tf.TensorSpec([]), tf.TensorSpec([], tf.int32)
#: Signature of ``problem_tensors``.
PROBLEM = (ARRAY, ARRAY, ARRAY, ARRAY, ARRAY, tf.TensorSpec([2], tf.float32))


def problem_tensors(problem: RoundingProblem) -> tuple[tf.Tensor, ...]:
    """What learning reads of a problem, as float32.

    Returns:
        Weights in units of their scales ``[G, P, K]``; the scales ``[G, P, K]``; A ``[G, K, K]``; the residual
        ``[G, P, K]``; the reciprocal unit ``[G, P, 1]``; the code range ``[2]``.
    """
    values = (
        problem.ratio,
        problem.scale,
        problem.gram,
        problem.residual,
        1.0 / problem.unit[:, :, None],
        problem.code_range,
    )
    return tuple(tf.constant(value, tf.float32) for value in values)
