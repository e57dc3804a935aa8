import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfptq.core.channel_levelling import GridReader, expected_noise, least_noise, levelling_factors


def reader(rng, channels, outputs=5, rounding=1e-3, depthwise=False):
    magnitudes = rng.gamma(1.0, 1.0, (outputs, channels))
    energy, power = np.square(magnitudes).sum(axis=0), rng.gamma(1.0, 1.0, channels)
    others = np.zeros(0) if depthwise else rng.gamma(1.0, 0.3, outputs)
    signal = float(energy @ power)
    return GridReader(energy, None if depthwise else magnitudes, others, power, 0.5, rounding, signal)


def noise(readers, factors):
    """The expected noise as the module states it, with the true maximum."""
    total = 0.0
    for item in readers:
        total += item.rounding * np.sum(item.energy / factors**2) / item.signal
        if item.magnitudes is not None:
            rows = np.maximum((item.magnitudes / factors).max(axis=1), item.others)
            power = np.sum(factors**2 * item.power) + item.other_power
            total += np.sum(rows**2) * power / (12.0 * 127.0**2) / item.signal
    return total


@given(
    seed=st.integers(0, 999),
    channels=st.integers(1, 12),
    kinds=st.lists(st.booleans(), min_size=1, max_size=3),
    rounding=st.sampled_from([0.0, 1e-8, 1e-3, 1.0]),
)
def test_factors_stay_within_limits_and_never_hurt(seed, channels, kinds, rounding):
    rng = np.random.default_rng(seed)
    readers = [reader(rng, channels, rounding=rounding, depthwise=kind) for kind in kinds]
    highest = 1.0 + rng.gamma(1.0, 3.0, channels) * rng.integers(0, 2, channels)
    factors, ones = levelling_factors(readers, highest), np.ones(channels)
    assert factors.shape == (channels,) and (factors >= 1.0).all() and (factors <= highest).all()
    assert expected_noise(readers, factors) <= expected_noise(readers, ones) + 1e-30
    for some in (factors, ones, highest, 1.0 + rng.random(channels) * (highest - 1.0)):
        assert least_noise(readers, highest) <= expected_noise(readers, some) * (1.0 + 1e-9) + 1e-30
    # The norm that stands for the maximum of a row is at most 30 % above it.
    assert noise(readers, factors) <= 1.7 * noise(readers, ones) + 1e-30


def test_depthwise_layers_take_all_the_room():
    rng = np.random.default_rng(0)
    highest = np.array([1.0, 3.0, 8.0])
    item = reader(rng, 3, depthwise=True)
    factors = levelling_factors([item], highest)
    np.testing.assert_allclose(factors, highest)
    np.testing.assert_allclose(expected_noise([item], factors), noise([item], factors))
    assert expected_noise([item], np.ones(3)) > 10**0.1 * expected_noise([item], factors)  # 1 dB


def test_small_channels_grow_until_weights_would_pay():
    """Two channels of one size in the weights' products, 1 and 1/100 in the activations."""
    sizes = np.array([1.0, 0.01])
    magnitudes = np.ones((4, 1)) / sizes
    item = GridReader(
        energy=4.0 / sizes**2,
        magnitudes=magnitudes,
        others=np.zeros(4),
        power=0.1 * sizes**2,
        other_power=0.0,
        rounding=(1.0 / 255.0) ** 2 / 12.0,
        signal=0.8,
    )
    factors = levelling_factors([item], np.array([1.0, 1000.0]))
    assert 30.0 < factors[1] < 300.0
    assert expected_noise([item], np.ones(2)) > 100.0 * expected_noise([item], factors)  # 20 dB
    assert noise([item], factors) < 0.01 * noise([item], np.ones(2))


@pytest.mark.parametrize("readers", [[], [GridReader(np.zeros(2), None, np.zeros(0), np.zeros(2), 0.0, 1.0, 0.0)]])
def test_nothing_reads_the_channels(readers):
    np.testing.assert_array_equal(levelling_factors(readers, np.full(2, 4.0)), 1.0)
    assert expected_noise(readers, np.ones(2)) == least_noise(readers, np.ones(2)) == 0.0
