import base64
import dataclasses
import re
import struct
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfptq.report import (
    BlockPicture,
    Distribution,
    Finding,
    LayerPicture,
    LayerReport,
    Report,
    SkippedLayer,
    Trial,
)
from tfptq.report.heat_map import heat_map, png

LAYER = LayerReport("stem", "Conv2D", "block 4x4 integer", 4, "int8", 16, 640, 224, 41.23, 38.5, 0.02, 0.01)
PICTURE = BlockPicture("stem", ((0.5, 1.0, 0.25),), ((1.0, 0.5, 0.25),))
WEIGHTS = Distribution(-9.0, 9.0, (1, 4, 9, 4, 2, 1), -8.0, 7.0, 1.0)
OUTPUT = Distribution(0.0, 6.0, (90, 5, 1), 0.0, 4.0, 4 / 255)
REPORT = Report(
    *("net <1>", "w4a8_block", 256, 3, 2048, 6144),
    layers=(LAYER, dataclasses.replace(LAYER, name="logits", noise_before=None, noise_after=None)),
    skipped=(SkippedLayer("odd & even", "MyLayer", "the class is not registered"),),
    float_differences={"reorder": 2e-7},
    seconds={"reorder": 1.25},
    pictures=(PICTURE,),
    findings=(Finding("input-range", "samples <255> are too large", "divide them"),),
    notes=("6 of 10 kernels have 8 bits",),
    outputs={"logits": 31.5},
    columns={"logits": (20.0, 40.0)},
    distributions=(LayerPicture("stem", WEIGHTS, OUTPUT), LayerPicture("logits", None, OUTPUT)),
)


def decoded(file):
    """Pixels of a PNG as ``png`` writes it, and its checked chunks."""
    assert file[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(file):
        (length,), name = struct.unpack(">I", file[at : at + 4]), file[at + 4 : at + 8]
        chunks[name] = file[at + 8 : at + 8 + length]
        assert struct.unpack(">I", file[at + 8 + length : at + 12 + length])[0] == zlib.crc32(name + chunks[name])
        at += 12 + length
    columns, rows = struct.unpack(">II", chunks[b"IHDR"][:8])
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(rows, 1 + 3 * columns)
    assert not lines[:, 0].any() and list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    return lines[:, 1:].reshape(rows, columns, 3)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 99))
def test_png_keeps_the_pixels(rows, columns, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), np.uint8)
    np.testing.assert_array_equal(decoded(png(pixels)), pixels)


def test_heat_map_grows_lighter():
    colours = heat_map(np.linspace(0.0, 2.0, 50)[None], 0.0, 2.0).astype(int)
    lightness = colours @ [0.299, 0.587, 0.114]
    assert (np.diff(lightness[0]) > 0).all()
    np.testing.assert_array_equal(heat_map(np.array([[-1.0, 3.0]]), 0.0, 2.0)[0], colours[0][[0, -1]])


def test_heat_map_of_nothing_is_dark():
    assert (heat_map(np.zeros((2, 2)), 0.0, 0.0) == heat_map(np.zeros((1, 1)), 0.0, 1.0)).all()


class Checker(HTMLParser):
    """Every tag is closed in order; collects the text."""

    def __init__(self, page):
        super().__init__()
        self.open, self.text = [], ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag != "line":
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data + "\n"


def test_page_is_whole_and_tells_everything():
    page = REPORT.to_html()
    text = Checker(page).text
    for part in (
        *("net <1>", "odd & even", "block 4x4 integer", "3.00x smaller", "unchanged within 2.0e-07", "0.02"),
        *("samples <255> are too large", "divide them", "6 of 10 kernels", "31.5 dB", "grid -8 to 7, 16 points"),
    ):
        assert part in text
    assert text.index("samples <255>") < text.index("Along the depth")
    assert "+3.01" in text  # 10 log10(0.02 / 0.01)
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|@import|https?:", page)  # nothing from outside


def test_pictures_share_one_scale():
    urls = re.findall(r'src="data:image/png;base64,([^"]+)"', REPORT.to_html())
    before, after = (decoded(base64.b64decode(url)) for url in urls)
    np.testing.assert_array_equal(before[0][[1, 0, 2]], after[0])


def test_a_page_without_blocks_has_no_pictures():
    layers = tuple(dataclasses.replace(layer, noise_before=None, noise_after=None) for layer in REPORT.layers)
    page = dataclasses.replace(REPORT, layers=layers, pictures=(), skipped=()).to_html()
    assert "<img" not in page and "Reordered" not in page and "stays in float" not in page
    assert "Size against" not in page  # without trials
    Checker(dataclasses.replace(REPORT, layers=()).to_html())


def test_json_round_trip_with_pictures():
    assert Report.from_json(REPORT.to_json()) == REPORT


@pytest.mark.parametrize("before, after, gain", [(0.0, 0.0, "-"), (1.0, 2.0, "-3.01")])
def test_gains_of_any_sign(before, after, gain):
    layer = dataclasses.replace(LAYER, noise_before=before, noise_after=after)
    assert f">{gain}</td>" in dataclasses.replace(REPORT, layers=(layer,)).to_html()


def test_trials_are_a_plot_of_size_against_quality():
    trials = (Trial("w4", 100, 0.8), Trial("w8", 200, 0.9, chosen=True), Trial("w8 per layer", 210, 0.7))
    page = dataclasses.replace(REPORT, trials=trials, quality_name="accuracy").to_html()
    assert "Size against accuracy" in Checker(page).text
    dots = re.findall(r'class="(dot[^"]*)" style="left: ([\d.]+)%; top: ([\d.]+)%" title="([^:]+):', page)
    assert [(kind, label) for kind, *_, label in dots] == [
        ("dot best", "w4"),
        ("dot best chosen left", "w8"),
        ("dot left", "w8 per layer"),
    ]
    assert [float(x) for _, x, _, _ in dots] == sorted(float(x) for _, x, _, _ in dots)
    assert float(dots[1][2]) < float(dots[0][2]) < float(dots[2][2])  # better is higher up


def test_the_fragment_for_notebooks_stands_alone():
    fragment = REPORT._repr_html_()
    Checker(fragment)
    assert fragment.lstrip().startswith('<div class="tfptq">') and "<script" not in fragment and "<html" not in fragment
    assert "samples &lt;255&gt; are too large" in fragment


def test_constant_outputs_and_layers_are_marked():
    layer = dataclasses.replace(LAYER, constant=True)
    page = dataclasses.replace(REPORT, layers=(layer,), outputs={"y": 99.0}, constant_outputs=("y",)).to_html()
    assert '<span class="bad">constant</span>' in page and 'class="constant"' in page and "99.0" not in page
