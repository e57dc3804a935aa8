"""The sources of the microcontroller example; ``make firmware`` builds and runs them."""

import re
from pathlib import Path

import keras
import numpy as np

import tfptq
from tfptq.tflite.micro_source import Golden, micro_golden, micro_header, random_inputs

EXAMPLE = Path(__file__).parents[2] / "examples" / "microcontroller"


def test_the_sources_use_what_tfptq_to_c_writes():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    x = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    content = tfptq.quantize_keras_model(model, x, tfptq.QuantizationConfig(target="micro"), progress=False).tflite
    golden = Golden(random_inputs(content, 1), (np.zeros((1, 1, 2), np.int8),))
    written = micro_header(content, "model", 1000) + micro_golden(content, "model", golden)
    for name in ("classify.cc", "golden_test.cc"):
        used = set(re.findall(r"model::(\w+)", (EXAMPLE / name).read_text(encoding="utf-8"))) - {"kModel"}
        assert used and used <= set(re.findall(r"\w+", written))


def test_the_makefile_builds_all_sources():
    makefile = (EXAMPLE / "Makefile").read_text(encoding="utf-8")
    objects = re.search(r"addprefix \$\(MODEL\)/,(.*)\)", makefile)[1].split()
    assert {Path(name).stem for name in objects} == {path.stem for path in EXAMPLE.rglob("*.c*")} | {"model"}
