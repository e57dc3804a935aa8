"""Files in TFLite Micro, and their C++ sources, compiled against a stand-in for its resolver."""

import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from micro_runtime import run_micro

import tfptq
from tfptq.config import TARGETS, PerChannel, QuantizationConfig
from tfptq.ops.micro import MICRO_METHODS
from tfptq.ops.table import OPERATORS
from tfptq.tflite.interface import read_interface
from tfptq.tflite.micro import MicroInterpreter
from tfptq.tflite.micro_source import (
    Golden,
    coded_inputs,
    micro_array,
    micro_golden,
    micro_header,
    micro_methods,
    random_inputs,
)
from tfptq.tflite.model_reader import read_model

COMPILER = shutil.which("g++")
#: What the header needs of TFLite Micro.
STAND_IN = """
#pragma once
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
#define TF_LITE_ENSURE_STATUS(status) if ((status) != kTfLiteOk) return kTfLiteError
namespace tflite {
template <unsigned int most> struct MicroMutableOpResolver {
  unsigned int added = 0;
  TfLiteStatus Add() { return added++ < most ? kTfLiteOk : kTfLiteError; }
  METHODS
};
}
"""
PROGRAM = """
#include <cstdio>
#include "net.h"
#include "net_golden.h"
int main() {
  net::Resolver resolver;
  if (net::AddOperators(resolver) != kTfLiteOk || resolver.added != net::kOperators) return 1;
  if (reinterpret_cast<unsigned long>(net::kModel) % 16) return 2;
  std::printf("%u %u %u %.9g %d\\n", net::kArenaBytes, net::kInputSizes[0], net::kOutputSizes[0],
              net::kInputScales[0], static_cast<int>(net::kInputZeroPoints[0]));
  for (auto& sample : net::kGoldenOutput0) for (int code : sample) std::printf("%d ", code);
  std::printf("\\n");
  for (unsigned int byte : net::kModel) std::printf("%02x", byte);
}
"""


def quantized(target, filters=4, **changes):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((5, 5, 2), name="image")
    x = keras.layers.Flatten()(keras.layers.Conv2D(filters, 3, activation="relu")(x))
    model = keras.Model(inputs, keras.layers.Dense(6)(x))
    samples = np.random.default_rng(0).normal(size=(24, 5, 5, 2)).astype(np.float32)
    config = QuantizationConfig(PerChannel(), target=target, edge_bits=None, **changes)
    return tfptq.quantize_keras_model(model, samples, config, progress=False).tflite


@pytest.fixture(scope="module")
def content():
    return quantized("micro")


def test_golden_values_are_those_of_tflite_micro(content):
    interpreter = MicroInterpreter(content)
    golden = interpreter.golden(random_inputs(content, 3))
    assert golden.inputs[0].shape == (3, 1, 5, 5, 2) and golden.inputs[0].dtype == np.int8
    assert golden.inputs[0].min() < -100 and golden.inputs[0].max() > 100
    (row, *_) = read_interface(read_model(content))
    real = (golden.inputs[0][:, 0].astype(np.float32) - row.zero_point) * row.scale
    np.testing.assert_array_equal(golden.outputs[0].reshape(3, -1), run_micro(content, real).reshape(3, -1))


#: Runs a file in an arena; in a process of its own, as TFLite Micro may crash in one that is too small.
IN_ARENA = """
import sys
from tflite_micro.python.tflite_micro import runtime
runtime.Interpreter.from_bytes(open(sys.argv[1], "rb").read(), arena_size=int(sys.argv[2])).invoke()
"""


@pytest.mark.parametrize("target", ["micro", "web"])
def test_the_arena_is_enough_and_hardly_more(target, tmp_path):
    path = tmp_path / "net.tflite"
    path.write_bytes(quantized(target))

    def runs(size):
        return subprocess.run([sys.executable, "-c", IN_ARENA, path, str(size)], capture_output=True).returncode == 0

    found = MicroInterpreter(path).arena_bytes()
    assert runs(found) and not runs(found - 192)


def test_what_tflite_micro_says_is_in_the_error():
    packed = quantized("cpu", weight_bits=4, latency_budget=1000.0)
    with pytest.raises(ValueError, match="TFLite Micro cannot run the file.*FULLY_CONNECTED .*failed to prepare"):
        MicroInterpreter(packed)


def test_without_the_package(content, monkeypatch):
    monkeypatch.setitem(sys.modules, "tflite_micro.python.tflite_micro", None)
    with pytest.raises(ModuleNotFoundError, match="pip install tflite-micro"):
        MicroInterpreter(content)


@pytest.mark.skipif(COMPILER is None, reason="g++ is not installed")
def test_sources_compile_and_hold_the_file(content, tmp_path):
    golden = MicroInterpreter(content).golden(random_inputs(content, 2))
    stand_in = tmp_path / "tensorflow" / "lite" / "micro" / "micro_mutable_op_resolver.h"
    stand_in.parent.mkdir(parents=True)
    methods = " ".join(f"TfLiteStatus {name}() {{ return Add(); }}" for name in micro_methods(content))
    stand_in.write_text(STAND_IN.replace("METHODS", methods))
    texts = {
        "net.h": micro_header(content, "net", 4321),
        "net.cc": micro_array(content, "net"),
        "net_golden.h": micro_golden(content, "net", golden),
        "main.cc": PROGRAM,
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        assert all(len(line) <= 120 for line in text.splitlines())
    command = [COMPILER, "-std=c++17", "-Wall", "-Wextra", "-Werror", "-I.", "-o", "main", "main.cc", "net.cc"]
    subprocess.run(command, cwd=tmp_path, check=True)
    first, outputs, array = subprocess.run(
        [tmp_path / "main"], capture_output=True, text=True, check=True
    ).stdout.split("\n")
    source, target = read_interface(read_model(content))
    arena, inputs, results, scale, zero_point = first.split()
    assert (arena, inputs, results) == ("4321", "50", str(int(np.prod(target.shape[1:]))))
    assert np.float32(scale) == np.float32(source.scale) and int(zero_point) == source.zero_point
    assert [int(code) for code in outputs.split()] == golden.outputs[0].reshape(-1).tolist()
    assert bytes.fromhex(array) == content


def test_values_of_float_ends():
    content = quantized("web")
    assert "kInputScales" not in micro_header(content, "net", 1)
    golden = Golden(random_inputs(content, 2), (np.float32([[0.5, 1.0, -3.0, 1e-8, 1e20, 0.1]] * 2),))
    text = micro_golden(content, "net", golden)
    assert "constexpr float kGoldenOutput0[kGoldenSamples][6]" in text
    assert "{0.5f, 1.0f, -3.0f, 9.99999994e-09f, 1.00000002e+20f, 0.100000001f}" in text


def test_operators_without_a_kernel_are_named():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.ops.gelu(keras.layers.Dense(4)(inputs), approximate=True))
    found = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    with pytest.raises(ValueError, match="no kernel for GELU: quantize with target='micro'"):
        micro_methods(found)


def test_files_of_lookup_tables():
    plain = quantized("npu", filters=32, weight_bits=3)
    compressed = tfptq.compress_for_micro(plain)
    assert micro_methods(compressed)[:2] == ["AddConv2D", "AddDecode"]
    inputs = random_inputs(plain, 3)
    outputs, expected = (MicroInterpreter(content).golden(inputs).outputs[0] for content in (compressed, plain))
    np.testing.assert_array_equal(outputs, expected)


def test_names_of_methods():
    assert MICRO_METHODS["DEPTHWISE_CONV_2D"] == "AddDepthwiseConv2D"
    assert MICRO_METHODS["BATCH_MATMUL"] == "AddBatchMatMul"
    assert MICRO_METHODS["UNIDIRECTIONAL_SEQUENCE_LSTM"] == "AddUnidirectionalSequenceLSTM"
    assert all(re.fullmatch(r"Add[A-Z]\w*", name) for name in MICRO_METHODS.values())
    assert len(set(MICRO_METHODS.values())) == len(MICRO_METHODS)


def test_target_micro_names_what_it_lacks():
    missing = set(TARGETS["micro"].missing)
    assert {"GELU", "TILE", "STABLEHLO_COMPOSITE"} <= missing and not missing & MICRO_METHODS.keys()
    assert missing | MICRO_METHODS.keys() >= OPERATORS.keys()


@pytest.mark.parametrize(("shape", "fits"), [((4, 5, 5, 2), True), ((4, 5, 5), False), ((50,), False)])
def test_samples_become_codes(content, shape, fits):
    samples = np.random.default_rng(0).normal(size=shape)
    if not fits:
        with pytest.raises(
            ValueError, match=r"samples of shape .* do not fit the inputs of the file: image \[1, 5, 5, 2\]"
        ):
            coded_inputs(content, samples)
        return
    (codes,) = coded_inputs(content, samples)
    (row, *_) = read_interface(read_model(content))
    assert codes.shape == (4, 1, 5, 5, 2) and codes.dtype == np.int8
    real = (codes[:, 0].astype(np.float32) - row.zero_point) * row.scale
    np.testing.assert_allclose(real, samples, atol=row.scale)
