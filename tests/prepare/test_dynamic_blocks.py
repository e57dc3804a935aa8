import keras
import pytest
from keras import layers

from tfptq.config import PerBlock, PerChannel, QuantizationConfig, override
from tfptq.prepare.dynamic_blocks import with_blocks_of_target
from tfptq.prepare.storage import groups_of

BLOCKS = QuantizationConfig(PerBlock(1, 64), weight_bits=4, activations="dynamic", edge_bits=None)


def granularities(config, *, inputs=128, outputs=8):
    model = keras.Sequential(
        [
            keras.Input((4, 4, inputs)),
            layers.Conv2D(8, 1, name="conv"),
            layers.Reshape((128,)),
            layers.Dense(inputs, name="wide"),
        ]
    )
    model.add(layers.Dense(outputs, name="dense"))
    found = with_blocks_of_target(config, groups_of(model))
    return [found.for_layer(name).granularity for name in ("conv", "dense")]


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        (128, 8, PerBlock(1, 64)),
        (64, 4, PerBlock(1, 64)),
        (96, 8, PerBlock(1, 32)),
        (32, 8, PerBlock(1, 64)),
        (48, 8, PerChannel()),
        (128, 3, PerChannel()),
    ],
)
def test_dense_layers_get_the_widest_blocks_that_kernels_take(inputs, outputs, expected):
    """A kernel of 32 inputs is narrower than the block of the config, and so one block."""
    assert granularities(BLOCKS, inputs=inputs, outputs=outputs) == [PerChannel(), expected]


@pytest.mark.parametrize(
    "config",
    [
        BLOCKS.replace(activations="static", scaler="integer"),
        BLOCKS.replace(layout="native"),
        BLOCKS.replace(overrides=(override("*", skip=True),)),
    ],
)
def test_other_layers_are_left_alone(config):
    assert granularities(config, inputs=48) == [PerBlock(1, 64)] * 2


def test_targets_without_blocks():
    assert granularities(BLOCKS.replace(target="any")) == [PerChannel()] * 2
