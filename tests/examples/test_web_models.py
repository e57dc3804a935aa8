"""What ``examples/web/build.py`` makes for the page; the page itself is tested by ``make test-web``."""

import gzip
import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import tfptq
from examples.web import build, shapes

WEB = Path(__file__).parents[2] / "examples" / "web"


def test_pictures_are_of_all_classes_and_the_same_for_a_seed():
    pictures, labels = shapes.draw_pictures(12, seed=3)
    assert pictures.shape == (12, shapes.SIZE, shapes.SIZE, 3) and pictures.dtype == np.uint8
    assert np.bincount(labels).tolist() == [2] * len(shapes.LABELS)
    again, _ = shapes.draw_pictures(12, seed=3)
    np.testing.assert_array_equal(again, pictures)
    assert (shapes.draw_pictures(12, seed=4)[0] != pictures).any()
    assert build.as_values(pictures).min() >= -1.0 and build.as_values(pictures).max() <= 1.0


def test_the_network_of_shapes_has_their_size_and_classes():
    model = build.shape_network()
    assert model.input_shape == (None, shapes.SIZE, shapes.SIZE, 3) and model.output_shape == (None, len(shapes.LABELS))
    assert model.count_params() < 60_000


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("models")
    inputs = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Conv2D(32, 3, activation="relu")(inputs)
    x = keras.layers.Conv2D(64, 3, activation="relu")(x)
    x = keras.layers.Conv2D(32, 1, activation="relu")(x)
    outputs = keras.layers.Dense(10, activation="softmax")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, outputs, name="digits")
    x = np.random.default_rng(0).uniform(size=(24, 8, 8, 1)).astype(np.float32)
    labels = model.predict(x, verbose=0).argmax(axis=1)
    return folder, build.write_network(model, x, (x, labels), folder)


def test_files_are_for_the_browser(written):
    folder, entry = written
    assert entry["accuracy"] == 1.0 and list(entry["files"]) == ["8", "4"]
    for bits, file in entry["files"].items():
        packed = (folder / Path(file["path"]).name).read_bytes()
        content = gzip.decompress(packed)
        assert (len(content), len(packed)) == (file["bytes"], file["download"])
        found = tfptq.inspect(content)
        assert found.config["target"] == "web"
        assert str(min(row.bits for row in found.weights)) == bits
    assert entry["files"]["4"]["bytes"] == entry["files"]["8"]["bytes"]
    assert entry["files"]["4"]["download"] < 0.75 * entry["files"]["8"]["download"]


def test_samples_are_pictures_of_each_class(tmp_path):
    found = build.write_samples(tmp_path)
    assert sorted(sample["label"] for sample in found) == sorted(shapes.LABELS)
    assert all(Image.open(tmp_path / Path(sample["path"]).name).size == (96, 96) for sample in found)


def test_the_page_loads_what_the_package_file_names():
    package = json.loads((WEB / "package.json").read_text(encoding="utf-8"))
    page = (WEB / "index.html").read_text(encoding="utf-8")
    assert set(re.findall(r'"(@litertjs/[\w-]+)": "./node_modules', page)) == set(package["dependencies"])
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in package["dependencies"].values())
