"""The layers of a report as data for other programs: CSV for spreadsheets, and nodes of Model Explorer.

Model Explorer (ai-edge-model-explorer) shows ``.tflite`` files as graphs. Its per-node data map the id of a graph to
values of its nodes, here by positions of operators, which are its ids of nodes.
"""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Mapping

from tfptq.report.values import LayerReport, ReportValues

#: What can colour the nodes -> whether more of it is better; None for neither.
MODEL_EXPLORER_VALUES: Mapping[str, bool | None] = {
    "output_snr_db": True,
    "weight_snr_db": True,
    "bits": None,
    "bytes_after": None,
}
#: Id that Model Explorer gives the graph of a file with one subgraph.
_GRAPH = "main"
_BAD, _MIDDLE, _GOOD, _PALE, _STRONG = "#d4574e", "#f2d267", "#6fb98f", "#e3edf7", "#3d7ab8"


def render_csv(report: ReportValues) -> str:
    """A head and a line for each layer; empty cells for what was not measured."""
    file = io.StringIO()
    names = [field.name for field in dataclasses.fields(LayerReport) if field.name != "operators"]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    for layer in report.layers:
        writer.writerow(["" if getattr(layer, name) is None else getattr(layer, name) for name in names])
    return file.getvalue()


def render_model_explorer(report: ReportValues, value: str) -> str:
    """JSON text of per-node data; raises a ValueError where no layer has the value."""
    found = {
        str(position): {"value": round(number, 2)}
        for layer in report.layers
        for position in layer.operators
        for number in [layer.measured_db if value == "output_snr_db" else getattr(layer, value)]
        if number is not None and math.isfinite(number)
    }
    if not found:
        raise ValueError(f"no layer of the report has a finite {value}, so that there is nothing to show")
    colours = (_PALE, _STRONG) if MODEL_EXPLORER_VALUES[value] is None else (_BAD, _MIDDLE, _GOOD)
    gradient = [{"stop": at / (len(colours) - 1), "bgColor": colour} for at, colour in enumerate(colours)]
    return json.dumps({_GRAPH: {"results": found, "gradient": gradient}}, indent=2) + "\n"
