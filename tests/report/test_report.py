import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfptq.report import Finding, FloatOperator, LayerReport, Report, SkippedLayer

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
    findings=(Finding("samples", "calibration saw only 3 samples", "Give a few hundred typical ones"),),
    notes=("the target has no kernel for EXP",),
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
        findings=(Finding("samples", name, name),),
        notes=(name,),
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
    assert text.splitlines()[:5] == [
        "net: 2 layers quantized with w8a8_shift, 256 calibration samples, seed 3",
        "",
        "! 1 warning",
        "  calibration saw only 3 samples",
        "    Give a few hundred typical ones",
    ]
    for part in ("2.0 KiB", "3.00x smaller", "2.0e-07", "calibrate 1.2", "41.2", "38.5", "exact", "tensor + shifts"):
        assert part in text
    for part in (
        "odd (MyLayer): the class is not registered",
        "EXP -> net/exp: no 8-bit rule",
        "has no kernel for EXP",
    ):
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
    page = report.to_html()
    assert "2.20x larger than 1000 B" in page and "smaller" not in page


def test_layers_on_integers_without_their_config_are_listed_apart():
    report = dataclasses.replace(REPORT, unfitted=(SkippedLayer("slope", "PReLU", "constants of integers"),))
    assert Report.from_json(report.to_json()) == report
    line = "slope (PReLU): constants of integers"
    assert f"on integers, but not fitted by their config:\n  {line}" in report.render()
    page = report.to_html()
    assert page.index("On integers, but not fitted by their config</h3>") < page.index(f"<li>{line}</li>")


def test_render_shortens_long_names_in_the_middle():
    layer = dataclasses.replace(LAYER, name="first_" + "x" * 100 + "_last")
    text = dataclasses.replace(REPORT, layers=(layer,)).render()
    assert "first_xxx" in text and "xxx_last" in text
    assert max(map(len, text.splitlines())) < 170


def test_what_is_constant_has_no_ratio():
    layer = dataclasses.replace(LAYER, constant=True, output_snr_db=math.inf)
    report = dataclasses.replace(
        REPORT, layers=(layer,), outputs={"y": math.inf, "z": 30.0}, constant_outputs=("y",), findings=()
    )
    text = report.render()
    assert "y constant, z 30.0" in text and "exact" not in text
    assert repr(report) == (
        "<Report of 'net': 1 layer quantized with w8a8_shift, 2,048 bytes, 3.00x smaller than float, outputs 30.0 dB, "
        "constant outputs>"
    )


def test_repr_counts_warnings():
    assert repr(REPORT).endswith("3.00x smaller than float, 1 warning>") and "\n" not in repr(REPORT)
    assert REPORT.warnings == ("calibration saw only 3 samples. Give a few hundred typical ones",)


def test_save_writes_the_form_of_the_suffix(tmp_path):
    for suffix, start in (
        (".html", "<!DOCTYPE html>"),
        (".json", "{"),
        (".csv", "name,type,"),
        (".txt", "net: 2 layers"),
    ):
        path = REPORT.save(tmp_path / f"report{suffix}")
        text = path.read_text(encoding="utf-8")
        assert text.startswith(start) and text.endswith("\n") and not text.endswith("\n\n")
    assert Report.from_json((tmp_path / "report.json").read_text(encoding="utf-8")) == REPORT


@pytest.mark.parametrize("name", ["report", "report.pdf", "report.html.gz"])
def test_save_refuses_other_suffixes(tmp_path, name):
    with pytest.raises(ValueError, match=r"must end in \.html, \.json, \.csv, \.txt"):
        REPORT.save(tmp_path / name)
    assert not list(tmp_path.iterdir())
