import re
import runpy
from pathlib import Path

import keras
import pytest
import tensorflow as tf

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
