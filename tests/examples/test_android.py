"""The assets of the Android example, run by LiteRT's ``CompiledModel`` with buffers filled as the Kotlin code does."""

import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert.compiled_model import CompiledModel
from ai_edge_litert.hardware_accelerator import HardwareAccelerator
from PIL import Image

from examples.android import build
from tfptq.base.quiet import quiet

EXAMPLE = Path(__file__).parents[2] / "examples" / "android"
SOURCES = EXAMPLE / "app" / "src" / "main" / "java" / "org" / "example" / "digits"


def network(channels):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, channels), name="image")
    for filters in (8, 16):
        x = keras.layers.Conv2D(filters, 3, activation="relu")(x)
    head = keras.layers.Dense(10, activation="softmax")
    model = keras.Model(inputs, head(keras.layers.Flatten()(x)))
    head.kernel.assign(10 * head.kernel)  # one class stands out
    return model


@pytest.fixture(scope="module", params=[1, 3])
def assets(request, tmp_path_factory):
    """The model and the folder of its assets."""
    folder, rng = tmp_path_factory.mktemp("assets"), np.random.default_rng(0)
    model = network(request.param)
    samples = rng.uniform(size=(64, 8, 8, request.param)).astype(np.float32)
    pictures = rng.integers(0, 256, (6, 8, 8, request.param)).astype(np.uint8)
    build.write(model, samples, pictures, folder)
    return model, folder


def pixels(path):
    """As ``Bitmap.getPixels``: 0xAARRGGBB."""
    red, green, blue = np.moveaxis(np.asarray(Image.open(path).convert("RGB"), np.int64), -1, 0)
    return (0xFF << 24 | red << 16 | green << 8 | blue).reshape(-1)


def to_values(found, pixels):
    """``Preprocessing.toValues``."""
    parts = np.stack([pixels >> 16 & 0xFF, pixels >> 8 & 0xFF, pixels & 0xFF], axis=-1)
    levels = parts.sum(axis=-1, keepdims=True) // 3 if found["channels"] == 1 else parts
    return np.float32(found["factor"]) * levels.astype(np.float32).reshape(-1) + np.float32(found["offset"])


def scores(path, ends, values):
    with quiet():  # LiteRT tells of its accelerators, also when they go
        return classifier_scores(path, ends, values)


def classifier_scores(path, ends, values):
    """``Classifier.scores``."""
    model = CompiledModel.from_file(str(path), hardware_accel=HardwareAccelerator.CPU)
    inputs, outputs = model.create_input_buffers(0), model.create_output_buffers(0)
    if not ends["input"]:
        inputs[0].write(values)
    else:
        scale = np.float32(ends["input"]["scale"])
        codes = np.clip(np.rint(values / scale) + ends["input"]["zero_point"], -128, 127)
        inputs[0].write(codes.astype(np.int8))
    model.run_by_index(0, inputs, outputs)
    if not ends["output"]:
        return outputs[0].read(10, np.float32)
    codes = outputs[0].read(10, np.int8).astype(np.float32)
    return (codes - ends["output"]["zero_point"]) * np.float32(ends["output"]["scale"])


def test_answers_are_those_of_the_keras_model(assets):
    model, folder = assets
    found = json.loads((folder / "network.json").read_text(encoding="utf-8"))
    assert [bool(found["files"][name]["input"]) for name in build.FILES] == [False, True]
    for picture in found["pictures"]:
        values = to_values(found["preprocessing"], pixels(folder / picture))
        expected = model(values.reshape(1, *model.input_shape[1:])).numpy()[0]
        both = [scores(folder / name, found["files"][name], values) for name in build.FILES]
        np.testing.assert_array_equal(both[0], both[1])
        np.testing.assert_allclose(both[0], expected, atol=0.08)
        assert both[0][expected.argmax()] >= both[0].max() - 1 / 256  # ties happen


def test_the_kotlin_code_reads_what_is_written(assets):
    _, folder = assets
    found = json.loads((folder / "network.json").read_text(encoding="utf-8"))
    source = (SOURCES / "Network.kt").read_text(encoding="utf-8")
    read = set(re.findall(r'(?:get|opt)\w+\("(\w+)"', source))
    written = {*found, *found["preprocessing"], *found["files"]["int8_ends.tflite"]["input"]}
    assert read == written
    files = re.findall(r'"(\w+\.tflite)"', (SOURCES / "MainActivity.kt").read_text(encoding="utf-8"))
    assert files == list(build.FILES)


def test_all_of_the_project_is_there():
    gradle = (EXAMPLE / "app" / "build.gradle.kts").read_text(encoding="utf-8")
    assert {"litert", "litert-gpu"} == set(re.findall(r"edge\.litert:([\w-]+):2\.3\.0", gradle))
    assert 'include(":app")' in (EXAMPLE / "settings.gradle.kts").read_text(encoding="utf-8")
    manifest = (EXAMPLE / "app" / "src" / "main" / "AndroidManifest.xml").read_text(encoding="utf-8")
    assert 'android:name=".MainActivity"' in manifest
    readme = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    linked = {Path(path).name for path in re.findall(r"\((app/[^)]+\.kt)\)", readme)}
    assert linked == {path.name for path in SOURCES.glob("*.kt")} - {"MainActivity.kt"}
