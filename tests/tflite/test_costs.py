import json
import math
from importlib import resources

import numpy as np
import pytest

from tfptq.core.windows import Window
from tfptq.tflite.costs import CostTable, load_costs
from tfptq.tflite.layouts import (
    FULLY_CONNECTED_INT2,
    FULLY_CONNECTED_INT4,
    IM2COL_INT4,
    INT4,
    INT8,
    NATIVE,
    LayoutRequest,
)

TABLE = CostTable.from_json(
    {
        "operator": "CONV_2D",
        "taps": 1,
        "stride": 1,
        "inputs": [4, 16],
        "outputs": [8],
        "positions": [1, 100],
        "microseconds": [1.0, 100.0, 4.0, 400.0],
        "ratios": {"int4": [2.0, 2.0, 8.0, 8.0]},
    }
)


def request(operator, view_shape, sizes, **window):
    return LayoutRequest(
        operator, view_shape, (1, view_shape[1]), "float", 4, window=Window(**window), input_sizes=sizes
    )


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ((4, 8, 1), 1.0),
        ((16, 8, 100), 400.0),
        ((8, 8, 10), 20.0),
        ((8, 50, 1), 2.0),
        ((99, 8, 1e4), 400.0),
        ((1, 8, 1), 1),
    ],
)
def test_interpolation_in_logarithms(at, expected):
    assert TABLE.interpolate(TABLE.microseconds, at) == pytest.approx(expected)


def test_work_beyond_the_table():
    assert TABLE.beyond((1, 8, 1)) == 1.0
    assert TABLE.beyond((32, 16, 300)) == pytest.approx(12.0)


@pytest.mark.parametrize("target", ["cpu", "web"])
def test_measured_points_come_out_as_they_are(target):
    costs = load_costs(target)
    assert costs is load_costs(target)
    text = (resources.files("tfptq.tflite") / "cost_tables" / f"{target}.json").read_text()
    assert len(text) < 20_000
    entry = json.loads(text)["tables"]["pointwise"]
    shape = [len(entry[name]) for name in ("inputs", "outputs", "positions")]
    rng = np.random.default_rng(0)
    for place in (tuple(rng.integers(shape)) for _ in range(20)):
        inputs, outputs, positions = (
            entry[name][at] for name, at in zip(("inputs", "outputs", "positions"), place, strict=True)
        )
        size = math.isqrt(positions)
        found = request("CONV_2D", (outputs, inputs, 1), (-1, size, size, inputs))
        number = int(np.ravel_multi_index(place, shape))
        assert costs.microseconds(found) == pytest.approx(entry["microseconds"][number])
        assert costs.ratio(FULLY_CONNECTED_INT4, found) == pytest.approx(
            entry["ratios"]["fully_connected_int4"][number]
        )
        assert costs.ratio(INT8, found) == 1.0


def test_what_the_design_rests_on():
    costs = load_costs("cpu")
    pointwise = request("CONV_2D", (128, 128, 1), (1, 14, 14, 128))
    assert costs.ratio(FULLY_CONNECTED_INT4, pointwise) < 1.2
    assert costs.ratio(FULLY_CONNECTED_INT2, pointwise) < 3.0
    assert costs.ratio(INT4, pointwise) > 3.0
    narrow, wide = (request("CONV_2D", (n, n, 9), (1, 14, 14, n), kernel=(3, 3), padding="same") for n in (8, 256))
    assert costs.ratio(IM2COL_INT4, narrow) > costs.ratio(IM2COL_INT4, wide) > 1.0


def test_in_the_browser_few_bits_cost_many_times_int8():
    """Why target ``web`` leaves them in INT8."""
    web, cpu = load_costs("web"), load_costs("cpu")
    dense = request("FULLY_CONNECTED", (256, 256, 1), (1, 256))
    pointwise = request("CONV_2D", (128, 128, 1), (1, 14, 14, 128))
    conv = request("CONV_2D", (64, 64, 9), (1, 14, 14, 64), kernel=(3, 3), padding="same")
    for found, layout in ((dense, FULLY_CONNECTED_INT4), (pointwise, FULLY_CONNECTED_INT4), (conv, IM2COL_INT4)):
        assert web.ratio(layout, found) > 8.0 > cpu.ratio(layout, found)
    assert web.ratio(FULLY_CONNECTED_INT2, pointwise) > web.ratio(FULLY_CONNECTED_INT4, pointwise)


def test_operators_that_were_not_measured():
    costs = load_costs("cpu")
    conv = request("CONV_2D", (32, 32, 9), (-1, 14, 14, 32), kernel=(3, 3), padding="same")
    large = request("CONV_2D", (32, 32, 25), (-1, 14, 14, 32), kernel=(5, 5), padding="same")
    assert costs.microseconds(large) == pytest.approx(costs.microseconds(conv) * 25 / 9)
    assert costs.ratio(NATIVE, conv) == math.inf
    opened = request("CONV_2D", (32, 32, 9), (-1, -1, -1, 32), kernel=(3, 3), padding="same")
    assert costs.microseconds(opened) == costs.microseconds(conv)
    assert costs.microseconds(request("TRANSPOSE_CONV", (32, 32, 9), (1, 7, 7, 32), kernel=(3, 3), transposed=True)) > 0
    with pytest.raises(ValueError, match="no measured time of a BATCH_MATMUL"):
        costs.microseconds(request("BATCH_MATMUL", (4, 4, 1), (1, 4)))
