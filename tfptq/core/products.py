"""Products of large matrices, on a GPU where TensorFlow sees one; small ones on a single thread.

The threads of a BLAS wait for each other after each product, spinning. For the matrices of most layers that gains
nothing on few cores, and where other programs keep the cores busy, every product waits until all its threads have had
their turn: fitting a small network beside another job took several times as long. Sums over batches of data are spread
over threads of our own instead, which wait for nobody.
"""

import contextlib
import contextvars
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

#: Square matrices from this size on are worth several threads.
_LARGE = 2048
#: More threads than this would hold more batches in memory than they save time.
_MOST_THREADS = 4
_CONTROLLER = ThreadpoolController()

Sum = TypeVar("Sum")


def accelerator() -> str | None:
    """TensorFlow's name of the first GPU; None without one, or while nobody has imported TensorFlow."""
    tensorflow = sys.modules.get("tensorflow")
    devices = [] if tensorflow is None else tensorflow.config.list_logical_devices("GPU")
    return devices[0].name if devices else None


def product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """``left @ right`` for float32 arrays ``[..., M, K]`` and ``[..., K, N]``, in float32 on every device."""
    device = accelerator()
    if device is None:
        return left @ right
    import tensorflow as tf

    with tf.device(device), _without_tf32(tf.config.experimental):
        return tf.matmul(left, right).numpy()


@contextlib.contextmanager
def _without_tf32(settings) -> Iterator[None]:
    """GPUs would round factors to 10 bits, which is coarser than the noise that statistics allow for."""
    before = settings.tensor_float_32_execution_enabled()
    settings.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        settings.enable_tensor_float_32_execution(before)


def threads_for(size: int) -> contextlib.AbstractContextManager:
    """A context in which numpy works on matrices of ``size`` rows: with one thread when they are small."""
    return contextlib.nullcontext() if size >= _LARGE else _CONTROLLER.limit(limits=1, user_api="blas")


def sum_in_threads(jobs: Iterable[Callable[[], Sum]], size: int) -> Sum:
    """Add up what jobs return, in their order, so that the number of threads does not change the sum.

    Args:
        jobs: made one by one, while those before run; at most one for each thread waits.
        size: rows of the matrices that the jobs multiply; large ones have the threads of the BLAS.
    """
    threads = 1 if size >= _LARGE else min(os.cpu_count() or 1, _MOST_THREADS)
    total, running = None, deque()
    with ThreadPoolExecutor(threads) as pool:
        for job in jobs:
            running.append(pool.submit(contextvars.copy_context().run, job))  # numpy's error state is in the context
            if len(running) > threads:
                part = running.popleft().result()
                total = part if total is None else total + part
        for future in running:
            total = future.result() if total is None else total + future.result()
    return total
