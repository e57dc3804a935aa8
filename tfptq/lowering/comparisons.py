"""Comparisons of activations with each other and with constants, on integers."""

from collections.abc import Mapping

import numpy as np

from tfptq.core.affine import ActivationGrid
from tfptq.ops.operator_spec import Node
from tfptq.tflite.model import TFLiteModel

#: LiteRT compares multiples of 1/256, whatever the grids are: it takes smaller steps for one, and aborts at steps of 1.
SMALLEST_STEP, LARGEST_STEP = 1 / 256, 1.0
#: A constant this near to a value of a grid, in steps, is that value.
_ON_GRID = 1e-3
#: Comparisons that are true above their constant, or up to it; those that are true from it on, or below it.
_ABOVE, _FROM = ("GREATER", "LESS_EQUAL"), ("GREATER_EQUAL", "LESS")


def can_compare(model: TFLiteModel, operator: Node, grids: Mapping[int, ActivationGrid]) -> bool:
    """Whether the integer kernel tells all codes apart, and constants lie on the grid that they are compared on."""
    constants = [index for index in operator.inputs if model.is_constant(index)]
    read = [grids[index] for index in operator.inputs if index not in constants]
    (low, high) = read[0].real_range
    inside = all(low <= model.constant(index).min() and model.constant(index).max() <= high for index in constants)
    return inside and all(SMALLEST_STEP <= grid.scale < LARGEST_STEP for grid in read)


def compared_constant(model: TFLiteModel, operator: Node, index: int, grid: ActivationGrid) -> np.ndarray:
    """A constant moved to a value of the grid that it is compared on.

    ``x > 0.5`` on the grid 0, 0.2, 0.4, 0.6 becomes ``x > 0.4``, so that 0.6, which stands for 0.5 to 0.7, is above.
    """
    values, name = model.constant(index), model.operator_name(operator)
    steps = values.astype(np.float64) / grid.scale
    nearest = np.rint(steps)
    if name in (*_ABOVE, *_FROM):
        down = (name in _ABOVE) == (operator.inputs[1] == index)
        nearest = np.where(np.abs(steps - nearest) < _ON_GRID, nearest, np.floor(steps) if down else np.ceil(steps))
    return nearest * grid.scale
