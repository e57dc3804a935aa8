from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_config import plain_config

from tfptq import QuantizationConfig
from tfptq.core.granularity import GRANULARITIES, Granularity, PerBlock, PerChannel, PerTensor, granularity


def test_shapes_and_labels():
    assert PerTensor().block_shape(4, 3) == (4, 3) and PerTensor().label == "tensor"
    assert PerChannel().block_shape(4, 3) == (1, 3) and PerChannel().label == "channel"
    assert [PerBlock(8, 16).label, PerBlock(input_blocks=4).label] == ["8x16", "4 input blocks"]


def test_block_shapes_are_cut_to_the_layer():
    assert PerBlock(4, 3).block_shape(10, 10) == (4, 3)
    assert PerBlock(4, 3).block_shape(2, 1) == (2, 1)  # depthwise layers have one input channel


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 40))
def test_balanced_blocks_have_no_more_scales_than_channels(outputs, inputs, columns):
    m, n = PerBlock(input_blocks=columns).block_shape(outputs, inputs)
    assert 1 <= m <= outputs and 1 <= n <= inputs
    count = -(-outputs // m) * -(-inputs // n)
    assert count <= outputs
    assert -(-inputs // n) <= columns
    if m > 1:  # a row less in each block would cost more scales
        assert -(-outputs // (m - 1)) * -(-inputs // n) > outputs


def test_balanced_blocks_of_common_layers():
    balanced = PerBlock(input_blocks=4)
    assert balanced.block_shape(64, 64) == (4, 16)
    assert balanced.block_shape(32, 1) == PerChannel().block_shape(32, 1)  # depthwise
    assert balanced.block_shape(24, 144) == (4, 36)
    assert balanced.block_shape(2, 9) == (2, 5)
    assert PerBlock(input_blocks=1).block_shape(10, 7) == PerChannel().block_shape(10, 7)


@pytest.fixture
def registry(monkeypatch):
    """The registry, as it was after the test."""
    before = dict(GRANULARITIES)
    yield GRANULARITIES
    GRANULARITIES.clear()
    GRANULARITIES.update(before)


def test_a_new_granularity_is_one_class(registry):
    @granularity
    @dataclass(frozen=True)
    class PerColumn(Granularity):
        rows: int = 2
        has_blocks = True

        @property
        def label(self):
            return f"column of {self.rows}"

        def block_shape(self, outputs, inputs):
            return min(self.rows, outputs), 1

    config = plain_config(PerColumn(3), weight_bits=4, reorder=True)
    assert QuantizationConfig.from_json(config.to_json()) == config
    with pytest.raises(ValueError, match="scaler='integer' needs"):
        config.replace(scaler="integer")


def test_a_class_that_is_no_granularity_is_refused(registry):
    class Bare:
        pass

    @dataclass(frozen=True)
    class Half(Granularity):
        label = "half"

    @dataclass(frozen=True)
    class Odd(PerChannel):
        scale_kinds = ("double",)

    with pytest.raises(TypeError, match="Bare is no granularity; make it a frozen dataclass"):
        granularity(Bare)
    with pytest.raises(TypeError, match="Half is no granularity; define block_shape"):
        granularity(Half)
    with pytest.raises(TypeError, match=r"Odd.scale_kinds is \('double',\); give some of float, integer, shift"):
        granularity(Odd)
    with pytest.raises(ValueError, match="there is a granularity PerChannel already"):
        granularity(PerChannel)
