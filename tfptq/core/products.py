"""Products of large matrices, on a GPU where TensorFlow sees one."""

import sys

import numpy as np


def accelerator() -> str | None:
    """TensorFlow's name of the first GPU; None without one, or while nobody has imported TensorFlow."""
    tensorflow = sys.modules.get("tensorflow")
    devices = [] if tensorflow is None else tensorflow.config.list_logical_devices("GPU")
    return devices[0].name if devices else None


def product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """``left @ right`` for float32 arrays ``[..., M, K]`` and ``[..., K, N]``."""
    device = accelerator()
    if device is None:
        return left @ right
    import tensorflow as tf

    with tf.device(device):
        return tf.matmul(left, right).numpy()
