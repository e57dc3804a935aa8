import re
import runpy
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfptq

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(EXAMPLES / "microcontroller" / "to_c_array.py"))


@pytest.mark.parametrize("length", [0, 1, 16, 33])
def test_all_bytes_are_there(example, length):
    content = bytes(range(223, 223 + length)) if length < 33 else bytes(range(33))
    text = example["to_c_array"](content, "net")
    assert bytes(int(byte, 16) for byte in re.findall(r"0x(\w\w)", text)) == content
    assert "alignas(16) const unsigned char net[]" in text and f"net_size = {length};" in text


def test_operator_names(example):
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 3), keras.layers.Softmax()])
    names = example["operator_names"](tf.lite.TFLiteConverter.from_keras_model(model).convert())
    assert names == ["CONV_2D", "SOFTMAX"]


def test_custom_operators_have_their_own_names(example):
    model = keras.Sequential([keras.Input((4, 4, 8)), keras.layers.Conv2D(16, 3)])
    samples = np.random.default_rng(0).normal(size=(16, 4, 4, 8)).astype(np.float32)
    config = tfptq.QuantizationConfig(weight_bits=3, target="npu")
    file = tfptq.quantize_keras_model(model, samples, config, progress=False).tflite
    assert example["operator_names"](tfptq.compress_for_micro(file)) == ["CONV_2D", "TFLM_DECODE"]


def test_the_microcontroller_example_registers_the_operators_of_the_digits_network(example):
    network = runpy.run_path(str(EXAMPLES / "digits.py"))["build_model"]()
    last = network.layers[-1].kernel
    last.assign(30.0 * last)  # an untrained network gives all samples the same scores, whose range is but rounding
    samples = np.random.default_rng(0).uniform(size=(16, 8, 8, 1)).astype(np.float32)
    config = tfptq.QuantizationConfig.from_preset("w8a8_shift").replace(input_type="int8", output_type="int8")
    names = example["operator_names"](tfptq.quantize_keras_model(network, samples, config).tflite)
    program = (EXAMPLES / "microcontroller" / "classify.cc").read_text(encoding="utf-8")
    registered = re.findall(r"resolver\.Add(\w+)\(\)", program)
    assert sorted(name.lower() for name in registered) == sorted(name.replace("_", "").lower() for name in names)
    assert f"MicroMutableOpResolver<{len(names)}>" in program
