import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfptq.report import FloatOperator, LayerReport, Report, SkippedLayer

LAYER = LayerReport("stem", "Conv2D", "tensor + shifts", 8, "int8", 16, 640, 224, 41.23, 38.5)
REPORT = Report(
    model_name="net",
    preset="w8a8_shift",
    samples=256,
    seed=3,
    file_bytes=2048,
    float_file_bytes=6144,
    layers=(LAYER, dataclasses.replace(LAYER, name="logits", type="Dense", weight_snr_db=math.inf, output_snr_db=None)),
    skipped=(SkippedLayer("odd", "MyLayer", "the class is not registered"),),
    float_operators=(FloatOperator("EXP", "net/exp", "no 8-bit rule"),),
    warnings=("the input range is empty",),
    float_differences={"fold": 2e-7},
    seconds={"calibrate": 1.25, "fit": 0.5},
)


def test_names_never_reach_the_terminal_as_they_are():
    name = "\x1b[2J\u202e\nlayer\x7f"
    report = dataclasses.replace(
        REPORT,
        model_name=name,
        layers=(dataclasses.replace(LAYER, name=name),),
        skipped=(SkippedLayer(name, name, name),),
        float_operators=(FloatOperator("EXP", name, name),),
        warnings=(name,),
        outputs={name: 3.0},
    )
    for text in (report.render(), report.to_html(), str(report)):
        assert text.replace("\n", "").isprintable() and text.count(r"\x1b[2J\u202e\nlayer\x7f") >= 7


def test_json_round_trip():
    assert Report.from_json(REPORT.to_json()) == REPORT


def test_json_is_strict_and_takes_numpy_numbers():
    odd = dataclasses.replace(LAYER, weight_snr_db=np.float32(np.inf), bits=np.int64(8))
    text = dataclasses.replace(REPORT, layers=(odd,)).to_json()

    def refuse(constant):
        raise AssertionError(f"{constant} is not strict JSON")

    assert json.loads(text, parse_constant=refuse)["layers"][0]["weight_snr_db"] == "inf"
    assert Report.from_json(text).layers[0].weight_snr_db == math.inf


@given(st.floats(allow_nan=False), st.none() | st.floats(allow_nan=False))
def test_json_keeps_any_ratio(weight, output):
    layer = dataclasses.replace(LAYER, weight_snr_db=weight, output_snr_db=output)
    report = dataclasses.replace(REPORT, layers=(layer,))
    assert Report.from_json(report.to_json()) == report


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "not valid JSON"),
        ("[]", "not a report"),
        ("{}", "not a report"),
        ('{"color": 1}', "unknown fields color"),
        (REPORT.to_json().replace('"samples": 256', '"samples": "many"'), "'many' is no int"),
    ],
)
def test_from_json_refuses(text, message):
    with pytest.raises(ValueError, match=message):
        Report.from_json(text)


def test_render_tells_everything():
    text = REPORT.render()
    assert str(REPORT) == text
    first = text.splitlines()[0]
    assert first == "net: 2 layers quantized with w8a8_shift, 256 calibration samples, seed 3"
    for part in ("2.0 KiB", "3.00x smaller", "2.0e-07", "calibrate 1.2", "41.2", "38.5", "exact", "tensor + shifts"):
        assert part in text
    for part in ("odd (MyLayer): the class is not registered", "EXP -> net/exp: no 8-bit rule", "input range is empty"):
        assert part in text


def test_render_aligns_columns_and_totals():
    lines = REPORT.render().splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("layer"))
    head, rule, stem, logits, total = lines[start : start + 5]
    bits = head.index("bits") + 3
    assert rule[bits] == "-" and stem[bits] == "8" and logits[bits] == "8"
    assert total.split() == ["total", "32", "1.2", "KiB", "448", "B"]


def test_render_leaves_out_what_is_empty():
    report = Report("net", "custom", 1, 0, 10, 10, layers=())
    assert report.render().splitlines() == [
        "net: 0 layers quantized with custom, 1 calibration sample, seed 0",
        "file 10 B, float 10 B (1.00x smaller)",
    ]


def test_a_file_that_grew_is_larger():
    report = Report("net", "custom", 1, 0, 2200, 1000, layers=())
    assert "(2.20x larger)" in report.render() and "smaller" not in report.render()
    assert "2.20x larger than 1000 B" in report.to_html() and "smaller" not in report.to_html()


def test_layers_on_integers_without_their_config_are_listed_apart():
    report = dataclasses.replace(REPORT, unfitted=(SkippedLayer("slope", "PReLU", "constants of integers"),))
    assert Report.from_json(report.to_json()) == report
    line = "slope (PReLU): constants of integers"
    assert f"on integers, but not fitted by their config:\n  {line}" in report.render()
    assert f"<h2>On integers, but not fitted by their config</h2>\n<ul><li>{line}" in report.to_html()


def test_render_shortens_long_names_in_the_middle():
    layer = dataclasses.replace(LAYER, name="first_" + "x" * 100 + "_last")
    text = dataclasses.replace(REPORT, layers=(layer,)).render()
    assert "first_xxx" in text and "xxx_last" in text
    assert max(map(len, text.splitlines())) < 170
