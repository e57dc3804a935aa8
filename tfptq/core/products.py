"""Products of large matrices, on a GPU where TensorFlow sees one; small ones on a single thread.

The threads of a BLAS wait for each other after each product, spinning. For the matrices of most layers that gains
nothing on few cores, and where other programs keep the cores busy, every product waits until all its threads have had
their turn: fitting a small network beside another job took several times as long. Sums over batches of data are spread
over threads of our own instead, which wait for nobody.
"""

import contextlib
import contextvars
import functools
import operator
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

from tfptq.base.cpus import usable_cpus

#: Square matrices from this size on are worth several threads.
_LARGE = 2048
#: More threads than this would hold more batches in memory than they save time.
_MOST_THREADS = 4
_CONTROLLER = ThreadpoolController()
#: Whether the GPU was used before, and the lock of this variable.
_in_full_float32, _FIRST_USE = False, threading.Lock()

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

    _multiply_in_full_float32()
    with tf.device(device):
        return tf.matmul(left, right).numpy()


def _multiply_in_full_float32() -> None:
    """Switch TensorFloat-32 off for the process, once: it rounds factors to 10 bits, which statistics do not bear.

    Not for each product: threads that multiply at the same time would switch it on for each other.
    """
    global _in_full_float32
    with _FIRST_USE:
        if not _in_full_float32:
            import tensorflow as tf

            tf.config.experimental.enable_tensor_float_32_execution(False)
            _in_full_float32 = True


def threads_for(size: int) -> contextlib.AbstractContextManager:
    """A context in which numpy works on matrices of ``size`` rows: with one thread when they are small."""
    return contextlib.nullcontext() if size >= _LARGE else _CONTROLLER.limit(limits=1, user_api="blas")


def sum_in_threads(jobs: Iterable[Callable[[], Sum]], size: int) -> Sum:
    """Add up what jobs return, in their order, so that the number of threads does not change the sum.

    Args:
        jobs: at least one; made one by one, while those before run, so that at most one for each thread waits.
        size: rows of the matrices that the jobs multiply; large ones have the threads of the BLAS.
    """
    return functools.reduce(operator.add, _results(jobs, 1 if size >= _LARGE else min(usable_cpus(), _MOST_THREADS)))


def _results(jobs: Iterable[Callable[[], Sum]], threads: int) -> Iterator[Sum]:
    running: deque[Future[Sum]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for job in jobs:
            running.append(pool.submit(contextvars.copy_context().run, job))  # numpy's error state is in the context
            if len(running) > threads:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
