"""Rotations of channels: orthogonal, never worse than none, and found where the best one is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfptq.core.rotation import RotatedKernel, learn_rotation


def noise(kernels, rotation):
    """As the module's docstring has it, row by row."""
    readers = [np.einsum("cd,odt->otc", rotation, each.view.astype(float)) for each in kernels if each.axis == "input"]
    total, counts = 0.0, np.ones(len(rotation))
    if readers:
        counts = len(rotation) * np.mean([np.sum(rows**2, axis=(0, 1)) / np.sum(rows**2) for rows in readers], axis=0)
    for kernel in kernels:
        axes = "cd,dit->cit" if kernel.axis == "output" else "cd,odt->oct"
        view = np.einsum(axes, rotation, kernel.view.astype(np.float64))
        rows = [row.size * np.mean(row**8) ** 0.25 / np.sum(view**2) for row in view]
        total += kernel.importance * (counts @ rows if kernel.axis == "output" else np.sum(rows))
    return total


def random_kernels(seed, size, count):
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        axis, others, taps = ("input", "output")[number % 2], int(random.integers(1, 9)), int(random.integers(1, 4))
        shape = (size, others, taps) if axis == "output" else (others, size, taps)
        view = random.standard_t(4, size=shape).astype(np.float32)
        found.append(RotatedKernel(view, axis, float(random.uniform(0.1, 2.0))))
    return found


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), size=st.integers(2, 12), count=st.integers(1, 4))
def test_rotations_are_orthogonal_and_lower_the_noise(seed, size, count):
    kernels = random_kernels(seed, size, count)
    rotation = learn_rotation(kernels, size)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(size), atol=1e-9)
    assert noise(kernels, rotation) <= noise(kernels, np.eye(size)) + 1e-5


@pytest.mark.parametrize("axis", ["output", "input"])
def test_hidden_weights_of_one_magnitude_are_found(axis):
    random = np.random.default_rng(0)
    hidden, _ = np.linalg.qr(random.normal(size=(8, 8)))
    readers = (np.sign(random.normal(size=(96, 8))) @ hidden)[:, :, None]
    kernel = RotatedKernel(readers if axis == "input" else readers.transpose(1, 0, 2), axis)
    assert noise([kernel], np.eye(8)) > 1.8
    assert noise([kernel], learn_rotation([kernel], 8)) < 1.01


def test_noise_of_large_channels_is_not_spread_over_small_ones_that_count():
    random, sizes = np.random.default_rng(1), np.array([1.0, 1.0, 300.0, 300.0])
    producer = random.standard_t(4, size=(4, 40, 1)) * sizes[:, None, None]
    reader = random.standard_t(4, size=(40, 4, 1)) / sizes[:, None]
    kernels = [RotatedKernel(producer, "output"), RotatedKernel(reader, "input", 0.0)]
    rotation = learn_rotation(kernels, 4)
    mixed, _ = np.linalg.qr(random.normal(size=(4, 4)))
    assert noise(kernels, mixed) > 10.0 * noise(kernels, np.eye(4)) > 10.0 * noise(kernels, rotation)
    small, large = (np.abs(rotation[:, channels]).max(axis=1) for channels in (slice(2), slice(2, 4)))
    assert np.minimum(small, large).max() < 0.02  # each new channel is of one kind


def test_kernels_of_higher_importance_gain_more():
    views = [random_kernels(seed, 6, 1)[0].view for seed in (1, 2)]

    def noise_of_first(importance):
        first, second = RotatedKernel(views[0], "input", importance), RotatedKernel(views[1], "input")
        return noise([RotatedKernel(views[0], "input")], learn_rotation([first, second], 6))

    assert noise_of_first(100.0) < noise_of_first(0.01)


def test_nothing_to_gain_is_left_alone():
    signs = np.sign(np.random.default_rng(0).normal(size=(40, 4, 1)))
    for view in (signs, np.zeros((40, 4, 1))):
        np.testing.assert_array_equal(learn_rotation([RotatedKernel(view, "input")], 4), np.eye(4))


def test_sizes_of_the_weights_do_not_matter_and_the_search_repeats():
    kernels = random_kernels(3, 5, 2)
    large = [RotatedKernel(each.view * 1e12, each.axis, each.importance) for each in kernels]
    found = [learn_rotation(each, 5) for each in (kernels, kernels, large)]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_allclose(found[2], found[0], atol=1e-3)
