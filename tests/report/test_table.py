"""The report on terminals of any width, and where there is none."""

import dataclasses
import io
import re

import pytest
from rich.console import Console

from tfptq.report import Finding, LayerReport, Report
from tfptq.report.table import print_report

LAYER = LayerReport(
    "block_13_expand", "DepthwiseConv2D", "block 1x16 integer", 8, "fully_connected_int4", 16, 640, 224, 41.2
)
REPORT = Report(
    *("net", "w4a8_block", 256, 3, 2048, 6144),
    layers=(
        dataclasses.replace(LAYER, output_snr_db=5.25),
        dataclasses.replace(LAYER, name="x" * 60, output_snr_db=15.0),
    ),
    findings=(Finding("noisy-layers", "a layer is noisy " * 6, "try something else " * 6),),
    notes=("a note that is longer than the lines of any terminal has " * 3,),
)


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_lines_fit_the_width(width):
    lines = REPORT.render(width).splitlines()
    assert max(map(len, lines)) <= width
    head = next(line for line in lines if line.startswith("layer"))
    assert head.split()[0] == "layer" and head.endswith("output dB") and "bits" in head
    assert ("wider terminals show" in REPORT.render(width)) == (width < 200)


def test_columns_that_matter_less_go_first():
    heads = [
        next(line for line in REPORT.render(width).splitlines() if line.startswith("layer")) for width in (90, 110)
    ]
    assert "quantized" in heads[0] and "rounding" not in heads[0] and "granularity" not in heads[0]
    assert len(heads[1].split()) > len(heads[0].split())


def test_text_that_goes_elsewhere_has_all_columns_and_no_colours(capsys):
    text = str(REPORT)
    assert "rounding" in text and "\x1b" not in text and text.isascii()
    assert len(text.splitlines()) == 5 + 2 + 5 + 3 + 1
    print_report(REPORT)
    assert capsys.readouterr().out == text + "\n"


def test_a_terminal_has_colours():
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system="standard")
    console.print(REPORT)
    text = console.file.getvalue()
    assert re.search(r"\x1b\[31m *5\.2", text) and re.search(r"\x1b\[33m *15\.0", text)
    assert "\x1b[1;31m! 1 warning" in text
