"""Layers as CSV, and as data for the nodes of Model Explorer."""

import csv
import dataclasses
import json
import math

import pytest

import tfptq
from tfptq.report import LayerReport, Report
from tfptq.tflite.model import TFLiteModel

LAYER = LayerReport("stem", "Conv2D", "channel", 8, "int8", 16, 640, 224, 41.25, 38.5, operators=(2, 5))
REPORT = Report(
    *("net", "w8a8_channel", 256, 3, 2048, 6144),
    layers=(LAYER, dataclasses.replace(LAYER, name="a, b", output_snr_db=None, weight_snr_db=math.inf, operators=())),
)


def test_csv_has_a_row_for_each_layer(tmp_path):
    with open(REPORT.save(tmp_path / "layers.csv"), newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["stem", "a, b"]
    assert [row["output_snr_db"] for row in rows] == ["38.5", ""]
    assert [row["weight_snr_db"] for row in rows] == ["41.25", "inf"]
    assert rows[0]["bytes_after"] == "224" and rows[0]["constant"] == "False"


@pytest.mark.parametrize(("value", "found"), [("output_snr_db", 38.5), ("weight_snr_db", 41.25), ("bytes_after", 224)])
def test_values_of_nodes(tmp_path, value, found):
    data = json.loads(REPORT.save_model_explorer(tmp_path / "nodes.json", value).read_text(encoding="utf-8"))
    assert data["main"]["results"] == {"2": {"value": found}, "5": {"value": found}}
    stops = data["main"]["gradient"]
    assert [stops[0]["stop"], stops[-1]["stop"]] == [0.0, 1.0]
    assert all(set(stop) == {"stop", "bgColor"} for stop in stops)


def test_values_that_there_are_not(tmp_path):
    with pytest.raises(ValueError, match="value is 'output_db'; it must be one of .* did you mean 'output_snr_db'"):
        REPORT.save_model_explorer(tmp_path / "nodes.json", "output_db")
    with pytest.raises(ValueError, match="no layer of the report has a finite output_snr_db"):
        dataclasses.replace(REPORT, layers=()).save_model_explorer(tmp_path / "nodes.json")


def test_nodes_are_the_operators_of_the_layers_in_the_file(digits, digits_convnet, tmp_path):
    result = tfptq.quantize_keras_model(digits_convnet, digits.x_train[:32], "w8a8_channel", progress=False)
    file = TFLiteModel(result.tflite)
    kinds = {
        layer.name: [file.operator_name(file.operators[at]) for at in layer.operators] for layer in result.report.layers
    }
    assert kinds["stem"] == ["CONV_2D"] and kinds["logits"] == ["FULLY_CONNECTED"]
    assert len(kinds) == 8 and {len(each) for each in kinds.values()} == {1}
    path = result.report.save_model_explorer(tmp_path / "nodes.json")
    nodes = json.loads(path.read_text(encoding="utf-8"))["main"]["results"]
    assert {int(node) for node in nodes} == {at for layer in result.report.layers for at in layer.operators}
