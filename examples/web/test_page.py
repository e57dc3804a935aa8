"""The page in headless Chromium: ``make test-web``. Its scores are those of LiteRT in Python.

``python -m examples.web.build`` has filled ``models``.
"""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from benchmarks.web.browser import open_page

HERE = Path(__file__).resolve().parent
MODELS = json.loads((HERE / "models" / "models.json").read_text(encoding="utf-8"))
#: Corners of lines on the drawing area, 0 to 1.
STROKES = {
    "1": [[(0.4, 0.3), (0.55, 0.15), (0.55, 0.5), (0.55, 0.88)]],
    "7": [[(0.25, 0.15), (0.5, 0.15), (0.75, 0.15), (0.6, 0.5), (0.48, 0.88)]],
    "0": [[(0.5 + 0.24 * np.sin(turn), 0.5 - 0.36 * np.cos(turn)) for turn in np.linspace(0, 2 * np.pi, 24)]],
    "4": [[(0.55, 0.12), (0.4, 0.35), (0.25, 0.58), (0.5, 0.58), (0.8, 0.58)], [(0.6, 0.4), (0.6, 0.65), (0.6, 0.9)]],
}


@pytest.fixture(scope="module")
def page():
    with open_page("examples/web/index.html") as opened:
        opened.resize(1200, 900)
        opened.evaluate("ready.then(() => null)")
        yield opened


def choose_bits(page, bits):
    page.evaluate(f"document.querySelector('#bits input[value=\"{bits}\"]').click()")


def draw(page, strokes):
    page.evaluate("document.getElementById('clear').click()")
    left, top, side = page.evaluate(
        "(({left, top, width}) => [left, top, width])(document.getElementById('canvas').getBoundingClientRect())"
    )
    for stroke in strokes:
        page.drag([(left + side * x, top + side * y) for x, y in stroke])


def settled(page, panel, bits):
    """(values, scores, label in front) once the page shows what the chosen network says of the last values."""
    expression = f"""ready.then(async (panels) => {{
        const panel = panels.{panel};
        await panel.show(panel.values);
        return [Array.from(panel.values), panel.scores, panel.section.querySelector('.best span').textContent];
    }})"""
    values, scores, best = page.evaluate(expression)
    assert page.evaluate("document.querySelector('#bits input:checked').value") == bits
    return np.array(values, np.float32), np.array(scores, np.float32), best


def in_python(panel, bits, values):
    """Scores of the same file in LiteRT."""
    path = HERE / MODELS[panel]["files"][bits]["path"]
    interpreter = Interpreter(model_content=gzip.decompress(path.read_bytes()))
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.set_tensor(source["index"], values.reshape(source["shape"]))
    interpreter.invoke()
    return interpreter.get_tensor(target["index"])[0]


@pytest.mark.parametrize("bits", ["8", "4"])
@pytest.mark.parametrize("digit", STROKES)
def test_drawn_digits(page, digit, bits):
    choose_bits(page, bits)
    draw(page, STROKES[digit])
    values, scores, best = settled(page, "digits", bits)
    assert values.size == 64 and values.min() == 0.0 and 0.8 < values.max() <= 1.0
    np.testing.assert_array_equal(scores, in_python("digits", bits, values))
    assert best == digit


@pytest.mark.parametrize("bits", ["8", "4"])
@pytest.mark.parametrize("at", range(len(MODELS["shapes"]["samples"])))
def test_pictures(page, at, bits):
    choose_bits(page, bits)
    page.evaluate(f"document.querySelectorAll('#samples button')[{at}].click()")
    page.evaluate("new Promise((done) => setTimeout(done, 300))")
    values, scores, best = settled(page, "shapes", bits)
    np.testing.assert_array_equal(scores, in_python("shapes", bits, values))
    assert best == MODELS["shapes"]["samples"][at]["label"]


def test_what_is_loaded_is_told(page):
    choose_bits(page, "4")
    settled(page, "digits", "4")
    text = page.evaluate("document.querySelector('#digits .facts').textContent")
    file = MODELS["digits"]["files"]["4"]
    words = f"{file['download'] / 1000:.0f} kB to download, {file['bytes'] / 1000:.0f} kB unpacked"
    assert words in text.replace("\xa0", " ")
    assert file["download"] < 0.8 * MODELS["digits"]["files"]["8"]["download"]


def test_it_fits_a_phone(page):
    page.resize(390, 844, mobile=True)
    try:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        sides = page.evaluate("document.getElementById('canvas').getBoundingClientRect().toJSON()")
        assert sides["left"] >= 0 and sides["right"] <= 390 and sides["width"] > 200
    finally:
        page.resize(1200, 900)


def test_a_missing_network_is_told(page):
    page.evaluate("ready.then((panels) => { panels.digits.entry.files['9'] = {path: 'models/none.tflite.gz'}; })")
    page.evaluate("document.querySelector('#bits input:checked').value = '9'")
    try:
        with pytest.raises(RuntimeError, match="none.tflite.gz is not there.*make demo-web"):
            page.evaluate("ready.then((panels) => panels.digits.show(null))")
    finally:
        page.evaluate("document.querySelector('#bits input:checked').value = '4'")
