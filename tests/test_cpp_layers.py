"""The C++ library that runs layers in integers, against ``tfptq.npu`` and LiteRT's reference kernels, bit for bit."""

import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from hand_made import VIEWS, FileBuilder, one_layer, random_weight
from residual_models import with_random_weights

import tfptq
from tfptq.npu import Executor, stock_codes
from tfptq.tflite.interface import read_interface
from tfptq.tflite.layouts import INLINE
from tfptq.tflite.model_reader import read_model

ROOT = Path(__file__).resolve().parent.parent
COMPILER = shutil.which("g++")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="g++ is not installed")
COLUMNS = ("products", "multiplies", "rescales", "multipliers", "kernel", "bias", "scales", "by_channel", "activations")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("cpp") / "run_layers"
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-O1"]
    subprocess.run([COMPILER, *flags, "-o", path, ROOT / "cpp" / "run_layers.cc"], check=True)
    return path


def run(program, *arguments):
    return subprocess.run([program, *map(str, arguments)], capture_output=True, timeout=60, text=True)


def random_codes(file, seed=0):
    (row,) = [row for row in read_interface(read_model(file)) if row.end == "input"]
    shape = tuple(size or 1 for size in row.shape)
    rng = np.random.default_rng(seed)
    return (
        rng.integers(-128, 128, shape).astype(np.int8) if row.dtype == "int8" else rng.normal(size=shape).astype("f4")
    )


def run_and_compare(program, file, folder, inputs=None, equal=True):
    """Let the program run a file on stock input codes, and compare with the executor; returns layers and its lines.

    ``equal``: whether the executor's codes are those of the reference kernels.
    """
    folder.mkdir()
    executor, codes = Executor(file), stock_codes(file, random_codes(file) if inputs is None else inputs)
    runs = []
    for index, layer in enumerate(executor.layers):
        runs.append(executor.run_layer(index, codes[layer.input]))
        output = runs[-1].output.reshape(codes[layer.output].shape)
        assert not equal or np.array_equal(output, codes[layer.output])
        codes[layer.output] = output
    for tensor, values in codes.items():
        np.save(folder / f"{tensor}.npy", values)
    (folder / "net.tflite").write_bytes(file)
    result = run(program, folder / "net.tflite", folder)
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    counted = [line for line in lines if line.endswith("codes differ")]
    assert counted == [f"  0 of {found.output.size} codes differ" for found in runs]
    assert result.returncode == 0
    return runs, [line for line in lines[1:] if line not in counted]


def costs(lines):
    """Layer or "total" -> costs by column."""
    rows = [line.split() for line in lines if line.split()[0].isdigit()]
    return {row[9]: dict(zip(COLUMNS, map(int, row), strict=False)) for row in rows}


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("w8a8_shift", {"target": "npu"}),
        ("w8a8_channel", {"target": "micro"}),
        ("w4a8_block", {"target": "npu"}),
        ("w4a8_fine_block", {"layout": "int8", "target": "npu"}),
        ("w4a8_channel", {"target": "cpu", "latency_budget": 100.0}),
    ],
)
def test_networks(program, digits, digits_convnet, tmp_path, preset, changes):
    config = tfptq.QuantizationConfig.from_preset(preset).replace(**changes)
    file = tfptq.quantize_keras_model(digits_convnet, digits.x_train[:64], config, progress=False).tflite
    (row, *_) = read_interface(read_model(file))
    inputs = digits.x_test[:1] if row.dtype == "float32" else random_codes(file)
    runs, lines = run_and_compare(program, file, tmp_path / "codes", inputs)
    found = costs(lines)
    assert [(cost["rescales"], cost["multipliers"]) for name, cost in found.items() if name != "total"] == [
        (run.rescales, run.multipliers) for run in runs
    ]
    assert found["total"]["products"] == sum(cost["products"] for name, cost in found.items() if name != "total")


def test_what_a_shift_scaler_saves(program, digits, digits_convnet, tmp_path):
    found = {}
    for preset in ("w8a8_shift", "w8a8_channel"):
        config = tfptq.QuantizationConfig.from_preset(preset).replace(target="npu")
        file = tfptq.quantize_keras_model(digits_convnet, digits.x_train[:64], config, progress=False).tflite
        (tmp_path / "net.tflite").write_bytes(file)
        found[preset] = costs(run(program, tmp_path / "net.tflite").stdout.splitlines()[1:])["stem"]
    shift, channel = found.values()
    assert (shift["multipliers"], shift["scales"]) == (1, 5 + 16 // 2)
    assert channel["multipliers"] > 8 and channel["scales"] == channel["by_channel"] == 5 * 16
    assert shift["products"] == channel["products"] == 8 * 8 * 16 * 9
    assert shift["rescales"] == channel["rescales"] == 8 * 8 * 16
    assert shift["kernel"] == 16 * 9 and shift["bias"] == 4 * 16 and shift["activations"] == 8 * 8 * (1 + 16)


def test_a_network_of_other_layers(program, tmp_path):
    inputs = keras.Input((9, 8, 4), name="image")
    x = keras.layers.Conv2D(8, 3, groups=2, strides=2, activation="relu")(inputs)
    x = keras.layers.DepthwiseConv2D((3, 2), depth_multiplier=2, padding="same", activation="relu6")(x)
    x = keras.layers.Conv2DTranspose(6, 3, strides=2, padding="same")(x)
    x = keras.layers.Conv2D(5, 3, dilation_rate=2, padding="same", activation="relu")(x)
    model = with_random_weights(keras.Model(inputs, keras.layers.Dense(4)(keras.layers.Flatten()(x))))
    samples = np.random.default_rng(0).normal(size=(32, 9, 8, 4)).astype(np.float32)
    config = tfptq.QuantizationConfig(tfptq.PerBlock(2, 3), "integer", 4, target="npu")
    file = tfptq.quantize_keras_model(model, samples, config, progress=False).tflite
    runs, lines = run_and_compare(program, file, tmp_path / "codes")
    assert {run.operator for run in runs} == {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED"}
    assert not any("left out" in line for line in lines)


def single_layers():
    """Files of one layer: all kinds of scales, windows and fused functions."""
    for kind, kernel in (("CONV_2D", (9, 3, 2, 5)), ("DEPTHWISE_CONV_2D", (1, 3, 2, 5))):
        for padding in (0, 1):
            yield one_layer(kind, kernel, (2, 11, 12, 5), padding=padding, strideH=2, strideW=3, grid=(0.02, 5))
            yield one_layer(kind, kernel, (1, 11, 12, 5), padding=padding, dilationHFactor=2, dilationWFactor=3)
        for function in (1, 2, 3):
            yield one_layer(kind, kernel, (1, 6, 7, 5), fusedActivationFunction=function)
    for padding, size in ((0, (12, 18)), (0, (11, 17)), (1, (13, 20)), (1, (14, 21))):
        options = {"output_shape": (1, *size, 5), "padding": padding, "strideH": 2, "strideW": 3, "grid": (0.02, 5)}
        yield one_layer("TRANSPOSE_CONV", (5, 3, 4, 4), (1, 6, 6, 4), **options)
    for grid in ((0.3, 0), (0.08, -128), (0.0007, 127)):
        yield one_layer("FULLY_CONNECTED", (30, 64), (40, 64), grid=grid)
        yield one_layer("FULLY_CONNECTED", (30, 64), (40, 64), grid=grid, bias=None)
    for scale in ("integer", "shift"):
        for block in ((2, 2), (4, 3), (9, 1)):
            for shared in (True, False):
                options = {"kind_of_scale": scale, "block": block, "bits": 4, "shared_base": shared, "grid": (0.01, -9)}
                yield one_layer("CONV_2D", (9, 3, 2, 7), (1, 8, 8, 7), **options)
                yield one_layer("FULLY_CONNECTED", (9, 7), (30, 7), **options)
    yield one_layer("CONV_2D", (6, 3, 3, 4), (1, 6, 6, 8), kind_of_scale="integer", block=(2, 3), bits=4)
    for bits in (2, 3, 5, 6):
        yield one_layer("CONV_2D", (6, 3, 3, 4), (1, 6, 6, 4), bits=bits, grid=(0.01, 3))


def test_single_layers(program, tmp_path):
    for number, file in enumerate(single_layers()):
        run_and_compare(program, file, tmp_path / str(number))
    assert number > 40


def test_float_blocks_are_those_of_the_executor(program, tmp_path):
    view = VIEWS["FULLY_CONNECTED"]((9, 20))
    weight = random_weight(np.random.default_rng(0), view, "float", block=(2, 6), bits=4)
    builder = FileBuilder((5, 20)).float_layer("FULLY_CONNECTED", weight, view, INLINE, (0.02, 4), (5, 9))
    _, lines = run_and_compare(program, builder.finish(), tmp_path / "codes", equal=False)
    (cost, _) = costs(lines).values()
    assert cost["multiplies"] == cost["rescales"] == 45 * 5
    assert cost["scales"] == 5 * (5 + 5 * 4) and cost["kernel"] == 9 * 20 // 2


def test_codes_that_differ_are_counted(program, tmp_path):
    file = one_layer("FULLY_CONNECTED", (30, 64), (4, 64))
    run_and_compare(program, file, tmp_path / "codes")
    path = tmp_path / "codes" / f"{Executor(file).layers[0].output}.npy"
    codes = np.load(path)
    codes.flat[7] ^= 1
    np.save(path, codes)
    result = run(program, tmp_path / "codes" / "net.tflite", tmp_path / "codes")
    assert result.returncode == 1 and "  1 of 120 codes differ" in result.stdout.splitlines()


def test_the_script_writes_the_codes(program, tmp_path):
    file = one_layer("CONV_2D", (6, 3, 3, 4), (1, 6, 6, 4))
    (tmp_path / "net.tflite").write_bytes(file)
    np.save(tmp_path / "samples.npy", np.random.default_rng(0).normal(size=(2, 6, 6, 4)))
    script = [sys.executable, ROOT / "cpp" / "layer_codes.py", "net.tflite", "samples.npy", "codes"]
    environment = {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run(script, cwd=tmp_path, check=True, capture_output=True, env=environment)
    result = run(program, tmp_path / "net.tflite", tmp_path / "codes")
    assert result.returncode == 0 and "  0 of 432 codes differ" in result.stdout


def test_layers_that_it_cannot_run_are_named(program, tmp_path):
    view = VIEWS["FULLY_CONNECTED"]((3, 6))
    builder = FileBuilder((4, 6)).layer("FULLY_CONNECTED", random_weight(np.random.default_rng(0), view), view)
    builder.graph.operators[0].builtinOptions.fusedActivationFunction = 4
    (tmp_path / "net.tflite").write_bytes(builder.finish())
    assert "layer_0 is left out: its fused activation function" in run(program, tmp_path / "net.tflite").stdout


def test_says_why_it_cannot(program, tmp_path):
    path = tmp_path / "net.tflite"
    path.write_bytes(FileBuilder((1, 4)).finish(None))
    assert "carries no block metadata" in run(program, path).stderr
    path.write_bytes(one_layer("FULLY_CONNECTED", (30, 64), (4, 64)))
    assert "0.npy cannot be opened" in run(program, path, tmp_path).stderr
    np.save(tmp_path / "0.npy", np.zeros((4, 64), np.float32))
    assert "no int8 array" in run(program, path, tmp_path).stderr
    np.save(tmp_path / "0.npy", np.zeros((4, 63), np.int8))
    assert "the input does not fit the layer" in run(program, path, tmp_path).stderr
    assert run(program).returncode == 2


def test_damaged_files_end_in_an_error(program, tmp_path):
    """Whatever is in the file, the program ends with a table or one line of reason, within its time."""
    good = one_layer("CONV_2D", (6, 3, 3, 4), (1, 6, 6, 4), kind_of_scale="integer", block=(2, 2), bits=4)
    rng, ends = np.random.default_rng(0), set()
    for _ in range(150):
        file = bytearray(good)
        for position in rng.integers(8, len(file), rng.integers(1, 4)):
            file[position] = rng.choice([0, 1, 127, 128, 255, file[position] ^ (1 << rng.integers(8))])
        (tmp_path / "net.tflite").write_bytes(file)
        result = run(program, tmp_path / "net.tflite")
        assert result.returncode in (0, 1) and result.stderr.count("\n") == result.returncode
        ends.add(result.returncode)
    assert ends == {0, 1}
