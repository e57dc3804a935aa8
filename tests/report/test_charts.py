import dataclasses
import math

import pytest

from tfptq.report import Distribution, LayerReport, Trial
from tfptq.report.charts import bytes_chart, histogram_chart, ratios_chart, trial_points

LAYER = LayerReport("stem", "Conv2D", "channel", 8, "int8", 16, 640, 160, 45.0, 30.0)


def layers_with(*ratios, **fields):
    return [dataclasses.replace(LAYER, output_snr_db=ratio, **fields) for ratio in ratios]


def test_bars_are_as_high_as_their_ratios():
    chart = ratios_chart(layers_with(30.0, 15.0, 3.0, None, math.inf, -5.0))
    bars = [bar for bar in chart.bars if bar.kind != "mark"]
    assert [bar.height for bar in bars] == [50.0, 25.0, 5.0, 0.0, 100.0, 1.0]
    assert [bar.kind for bar in bars] == ["good", "poor", "bad", "unknown", "good", "bad"]
    assert all(bar.y + bar.height == 100.0 for bar in bars)
    assert [bar.y for bar in chart.bars if bar.kind == "mark"] == [25.0] * 6  # weights of 45 dB
    assert "stem: output 30.0 dB, weights 45.0 dB, 8 bits" in bars[0].title


def test_constant_layers_have_no_ratio():
    bar, _ = ratios_chart(layers_with(math.inf, constant=True)).bars
    assert (bar.kind, bar.height) == ("constant", 100.0) and "output constant" in bar.title


def test_few_layers_are_all_named():
    assert ratios_chart(layers_with(*range(10))).labels == ("stem",) * 10
    assert ratios_chart(layers_with(*range(11))).labels == ("stem", "stem")


def test_bytes_are_relative_to_the_largest_layer():
    chart = bytes_chart([LAYER, dataclasses.replace(LAYER, bytes_before=320, bytes_after=320)])
    assert [(bar.kind, bar.height) for bar in chart.bars] == [
        ("float", 100.0),
        ("bytes", 25.0),
        ("float", 50.0),
        ("bytes", 50.0),
    ]
    assert chart.lines[0].label == "640 B"


def test_a_histogram_marks_what_lies_beyond_its_grid():
    drawn = histogram_chart(Distribution(-4.0, 4.0, (1, 0, 4, 16, 4, 4, 0, 1), -2.0, 1.0, 1.0))
    assert [(bar.x, bar.height, bar.kind) for bar in drawn.chart.bars] == [
        (0, 25.0, "cut"),
        (2, 50.0, "count"),
        (3, 100.0, "count"),
        (4, 50.0, "count"),
        (5, 50.0, "count"),
        (7, 25.0, "cut"),
    ]
    assert drawn.grid == (1.5, 5.5) and drawn.points == (2.0, 3.0, 4.0, 5.0)
    assert drawn.note == "grid -2 to 1, 4 points, 6.67% beyond it"


def test_fine_grids_are_not_drawn_point_by_point():
    drawn = histogram_chart(Distribution(0.0, 6.0, (5, 1), 0.0, 6.0, 6 / 255))
    assert drawn.points == () and drawn.note == "grid 0 to 6, 256 points"


def test_histograms_of_one_value():
    drawn = histogram_chart(Distribution(0.0, 0.0, (5, 0), 0.0, 1.0, 0.25))
    assert [bar.height for bar in drawn.chart.bars] == [100.0]


@pytest.mark.parametrize(
    ("trials", "best"),
    [
        ([("a", 10, 0.5), ("b", 20, 0.7), ("c", 30, 0.6)], "ab"),
        ([("a", 10, 0.5), ("b", 10, 0.6)], "b"),
        ([("a", 10, 0.5), ("b", 10, 0.5)], "ab"),
    ],
)
def test_the_best_trials_are_beaten_by_none_in_both(trials, best):
    points = trial_points([Trial(*trial) for trial in trials])
    assert "".join(point.trial.label for point in points if point.best) == best
    assert all(5.0 <= value <= 95.0 for point in points for value in (point.x, point.y))
