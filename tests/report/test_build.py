import numpy as np
import pytest

from tfptq.core.blocks import BlockScales
from tfptq.report.build import granularity_name


@pytest.mark.parametrize(
    ("kind", "base", "shape", "block_shape", "name"),
    [
        ("shift", 1, (4, 1), (1, 6), "tensor + shifts"),
        ("shift", 1, (1, 1), (4, 6), "tensor"),  # a block as large as the layer has nothing to shift against
        ("float", 1, (4, 1), (1, 6), "channel"),
        ("integer", 4, (4, 2), (1, 3), "block 1x3 integer"),
        ("shift", 2, (2, 3), (2, 2), "block 2x2 shift"),
    ],
)
def test_names_of_granularities(kind, base, shape, block_shape, name):
    assert granularity_name(BlockScales(kind, np.ones(base, np.float32), np.ones(shape, np.int8), block_shape)) == name
