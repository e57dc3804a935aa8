"""Products that may run on a GPU: the same numbers from both ways. The other device of the test is the CPU."""

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import tensorflow as tf

from tfptq.core import products
from tfptq.core.statistics import convolution_statistics, dense_statistics
from tfptq.core.windows import Window


def test_a_gpu_that_tensorflow_sees_is_found(monkeypatch):
    assert products.accelerator() == next((gpu.name for gpu in tf.config.list_logical_devices("GPU")), None)
    monkeypatch.setattr(
        tf.config, "list_logical_devices", lambda kind: [tf.config.LogicalDevice("/device:GPU:0", kind)]
    )
    assert products.accelerator() == "/device:GPU:0"


def test_without_tensorflow_numpy_computes(monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorflow")
    assert products.accelerator() is None


@pytest.mark.parametrize("groups", [1, 2])
def test_statistics_of_both_ways_agree(monkeypatch, groups):
    random = np.random.default_rng(0)
    x, z = random.normal(size=(3, 6, 6, 4)).astype("f"), random.normal(size=(3, 6, 6, 6)).astype("f")
    window = Window((3, 3), padding="same", groups=groups)
    rows = x.reshape(-1, 4), z.reshape(-1, 6)
    expected = convolution_statistics(x, z, window), dense_statistics(*rows)
    monkeypatch.setattr(products, "accelerator", lambda: "/CPU:0")
    found = convolution_statistics(x, z, window), dense_statistics(*rows)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(one.gram, other.gram, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(one.cross, other.cross, rtol=1e-5, atol=1e-4)


def test_a_gpu_multiplies_in_full_float32_from_its_first_use_on(monkeypatch):
    """Its fast mode is switched off once, by whichever thread comes first, and nobody switches it on again."""
    settings, calls, seen = tf.config.experimental, [], []
    switch, matmul = settings.enable_tensor_float_32_execution, tf.matmul
    monkeypatch.setattr(products, "accelerator", lambda: "/CPU:0")
    monkeypatch.setattr(products, "_in_full_float32", False)
    monkeypatch.setattr(settings, "enable_tensor_float_32_execution", lambda on: (calls.append(on), switch(on)))
    monkeypatch.setattr(
        tf, "matmul", lambda a, b: (seen.append(settings.tensor_float_32_execution_enabled()), matmul(a, b))[1]
    )
    before = settings.tensor_float_32_execution_enabled()
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: products.product(np.eye(2, dtype="f"), np.eye(2, dtype="f")), range(8)))
        assert calls == [False] and seen == [False] * 8 and not settings.tensor_float_32_execution_enabled()
    finally:
        switch(before)


def test_sums_do_not_depend_on_the_number_of_threads(monkeypatch):
    values = np.random.default_rng(0).normal(size=(40, 3)) * 10.0 ** np.arange(-20, 20)[:, None]
    sums = []
    for threads in (1, 3):
        monkeypatch.setattr(products, "usable_cpus", lambda threads=threads: threads)
        sums.append(products.sum_in_threads((partial(np.copy, value) for value in values), 1))
    np.testing.assert_array_equal(*sums)
    np.testing.assert_array_equal(sums[0], sum(values[1:], values[0]))
