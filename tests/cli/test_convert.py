import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from convert_program import convert
from plain_config import plain_config

import tfptq
from tfptq import quantization
from tfptq.cli import convert as program
from tfptq.config import PerBlock, PerChannel, QuantizationConfig, Rounding, override
from tfptq.float_file.convert import convert_float
from tfptq.report import Report
from tfptq.tflite.inspect import inspect

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "converters" / "keras_to_tflite.py"


def accuracy(path, digits):
    interpreter = Interpreter(model_path=str(path))
    runner = interpreter.get_signature_runner()
    (name,), (output,) = runner.get_input_details(), runner.get_output_details()
    scores = np.concatenate([runner(**{name: image[None]})[output] for image in digits.x_test])
    return np.mean(scores.argmax(axis=1) == digits.y_test)


@pytest.mark.parametrize("model", ["net.keras", "net.h5"])
def test_file_works_and_report_is_printed(files, digits, tmp_path, capfd, model):
    assert convert(files, tmp_path / "net.tflite", model=model) == 0
    out = capfd.readouterr().out
    assert out.startswith("digits_dense: 2 layers quantized with w8a8_shift, 64 calibration samples, seed 0\n")
    assert out.endswith(f"wrote {tmp_path / 'net.tflite'}\n")
    assert accuracy(tmp_path / "net.tflite", digits) > 0.95


def test_a_bad_result_is_told_at_the_head_and_in_the_last_line(files, digits, tmp_path, capfd):
    np.save(tmp_path / "large.npy", 255 * digits.x_train[:32])
    assert convert(files, tmp_path / "net.tflite", f"--calibration_data={tmp_path / 'large.npy'}") == 0
    out, errors = capfd.readouterr()
    assert out.splitlines()[2] == "! 1 warning" and "too large" in out
    assert out.endswith(f"wrote {tmp_path / 'net.tflite'}; 1 warning, see above\n")
    assert "QuantizationWarning" not in errors


def test_preset_types_and_json_report(files, tmp_path):
    output, report = tmp_path / "net.tflite", tmp_path / "report.json"
    flags = ("--preset=w8a8_channel", "--input_type=int8", "--output_type=uint8", f"--report={report}", "--seed=5")
    assert convert(files, output, *flags) == 0
    interpreter = Interpreter(model_path=str(output))
    assert interpreter.get_input_details()[0]["dtype"] == np.int8
    assert interpreter.get_output_details()[0]["dtype"] == np.uint8
    parsed = Report.from_json(report.read_text())
    assert parsed.preset == "w8a8_channel (changed: input_type, output_type)"
    assert parsed.seed == 5 and parsed.file_bytes == output.stat().st_size


def test_config_file_and_text_report(files, tmp_path):
    config = QuantizationConfig.from_preset("w8a8_channel").replace(overrides=(override("probabilities", skip=True),))
    (tmp_path / "config.json").write_text(config.to_json())
    report = tmp_path / "report.txt"
    assert convert(files, tmp_path / "net.tflite", f"--config={tmp_path / 'config.json'}", f"--report={report}") == 0
    assert ": 1 layer quantized" in report.read_text() and "left in float:\n  probabilities" in report.read_text()


@pytest.fixture(scope="module")
def simulation(files, digits, digits_dense):
    """``simulation.keras`` among the files: 4-bit weights, and every output shifted."""
    config = plain_config(PerChannel(), weight_bits=4, edge_bits=None, output_type="int8", target="any")
    result = tfptq.quantize(digits_dense, digits.x_train[:64], config, progress=False)
    result.keras_model.save(files / "simulation.keras")
    return result


def test_a_simulation_is_written_as_it_is(files, simulation, tmp_path, capfd):
    output = tmp_path / "net.tflite"
    assert convert(files, output, "--set=layout=int8", "--input_type=uint8", model="simulation.keras") == 0
    assert {(row.bits, row.layout) for row in inspect(output).weights} == {(4, "int8")}
    interpreter = Interpreter(model_path=str(output))
    assert interpreter.get_input_details()[0]["dtype"] == np.uint8
    assert interpreter.get_output_details()[0]["dtype"] == np.int8
    assert convert(files, output, "--preset=w8a8_channel", model="simulation.keras") == 0
    assert Interpreter(model_path=str(output)).get_output_details()[0]["dtype"] == np.float32
    capfd.readouterr()
    assert convert(files, output, f"--checkpoint_dir={tmp_path}", model="simulation.keras") == 2
    assert "--checkpoint_dir is for fitting weights" in capfd.readouterr().err


def config_of(path):
    return QuantizationConfig.from_json(json.dumps(inspect(path).config))


def test_set_changes_fields_of_a_preset(files, tmp_path):
    changes = {
        "layout": ("int8", "int8"),
        "multipliers": ("2,3,4,6", (2, 3, 4, 6)),
        "rounding": ("nearest", Rounding("nearest")),
        "weight_scale": ("mse", "mse"),
        "granularity": ('{"type": "PerBlock", "input_blocks": 2}', PerBlock(input_blocks=2)),
        "overrides": ('[{"pattern": "hidden", "changes": {"skip": true}}]', (override("hidden", skip=True),)),
    }
    flags = [f"--set={name}={text}" for name, (text, _) in changes.items()]
    output = tmp_path / "net.tflite"
    assert convert(files, output, "--preset=w4a8_block", "--set=layout=speed", *flags) == 0
    wanted = {name: value for name, (_, value) in changes.items()}
    assert config_of(output) == QuantizationConfig.from_preset("w4a8_block").replace(**wanted)
    # The flags of one call do not stay for the next.
    assert convert(files, output) == 0
    assert config_of(output) == QuantizationConfig.from_preset("w8a8_shift")


def test_set_changes_fields_of_a_config_file_and_fields_that_go_together(files, tmp_path):
    (tmp_path / "config.json").write_text(QuantizationConfig.from_preset("w8a8_shift").to_json())
    flags = (f"--config={tmp_path / 'config.json'}", "--set=granularity=PerChannel", "--set=scaler=float")
    assert convert(files, tmp_path / "net.tflite", *flags) == 0
    found = config_of(tmp_path / "net.tflite")
    assert found.granularity == PerChannel() and found.scaler == "float" and found.weight_scale == "mse"


def test_16_bit_inputs_and_outputs(files, tmp_path):
    output = tmp_path / "net.tflite"
    assert convert(files, output, "--set=activation_bits=16", "--input_type=int16", "--output_type=int16") == 0
    interpreter = Interpreter(model_path=str(output))
    assert interpreter.get_input_details()[0]["dtype"] == np.int16
    assert interpreter.get_output_details()[0]["dtype"] == np.int16


def test_checkpoint_dir_and_max_memory(files, tmp_path, capfd):
    flags = (f"--checkpoint_dir={tmp_path / 'work'}", "--max_memory=1000000")
    first, second = tmp_path / "first.tflite", tmp_path / "second.tflite"
    assert convert(files, first, *flags) == 0
    assert sorted(path.name for path in (tmp_path / "work").glob("*.bin")) == ["weight_0000.bin", "weight_0001.bin"]
    assert convert(files, second, *flags) == 0
    assert first.read_bytes() == second.read_bytes()
    capfd.readouterr()
    assert convert(files, second, *flags, "--seed=1") == 1
    assert "holds a run with another model, config, seed or dataset" in capfd.readouterr().err


def test_max_memory_reaches_the_library(files, tmp_path, monkeypatch):
    seen = {}
    genuine = quantization.quantize
    monkeypatch.setattr(quantization, "quantize", lambda *a, **k: seen.update(k) or genuine(*a, **k))
    assert convert(files, tmp_path / "net.tflite", "--max_memory=12345678") == 0
    assert seen["max_memory"] == 12345678
    seen.clear()
    assert convert(files, tmp_path / "net.tflite") == 0
    assert "max_memory" not in seen and seen["checkpoint_dir"] is None


def test_any_kind_of_source_by_its_path(files, digits, digits_dense, tmp_path, capfd):
    digits_dense.export(tmp_path / "saved", verbose=False)
    (tmp_path / "float.tflite").write_bytes(convert_float(digits_dense))
    for source in ("saved", "float.tflite"):
        output = tmp_path / f"{source}.quantized.tflite"
        data = f"--calibration_data={files / 'samples.npy'}"
        assert program.main(["tfptq convert", str(tmp_path / source), data, f"--output={output}"]) == 0
        assert accuracy(output, digits) > 0.95
        assert "no Keras graph is known" in capfd.readouterr().out
    arguments = [str(tmp_path / "float.tflite"), data, f"--output={output}", "--signature=other"]
    assert program.main(["tfptq convert", *arguments]) == 1
    assert "has no signature 'other'" in capfd.readouterr().err


def test_html_report(files, tmp_path):
    report = tmp_path / "report.html"
    assert convert(files, tmp_path / "net.tflite", f"--report={report}") == 0
    text = report.read_text()
    assert text.startswith("<!DOCTYPE html>") and "probabilities" in text


def test_image_folder(files, tmp_path, digits, capfd):
    from PIL import Image

    for index, image in enumerate(digits.x_train[:20]):
        pixels = np.rint(image[..., 0] * 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    output = tmp_path / "net.tflite"
    assert convert(Path("/"), output, "--preprocessing=unit", model=files / "net.keras", data=tmp_path) == 0
    assert "20 calibration samples" in capfd.readouterr().out
    assert accuracy(output, digits) > 0.95


def test_set_changes_a_part_of_a_field_and_leaves_the_others(files, tmp_path):
    flags = ("--preset=w4a8_mixed", "--set=rounding.steps=20", "--set=mixed_precision.bits=3,4")
    assert convert(files, tmp_path / "net.tflite", *flags, "--set=calibration.method=percentile") == 0
    config = config_of(tmp_path / "net.tflite")
    assert (config.rounding.method, config.rounding.steps) == ("attention", 20)
    assert (config.mixed_precision.bits, config.mixed_precision.ratio) == ((3, 4), 0.54)
    assert config.calibration.method == "percentile"


def test_set_drops_what_loses_its_effect_and_refuses_what_is_named(files, tmp_path, capfd):
    flags = ("--preset=w4a8_channel", "--set=weight_bits=8", "--set=rounding=nearest")
    assert convert(files, tmp_path / "net.tflite", *flags) == 0
    assert config_of(tmp_path / "net.tflite").rotate is False
    assert convert(files, tmp_path / "other.tflite", *flags, "--set=rotate=true") == 2
    assert "rotate=True has no effect: weights of 8 bits are not rotated" in capfd.readouterr().err


def test_the_model_is_a_flag_or_an_argument(files, tmp_path, capfd):
    output, data = f"--output={tmp_path / 'net.tflite'}", f"--calibration_data={files / 'samples.npy'}"
    assert program.main(["tfptq convert", str(files / "net.keras"), data, output, "--samples=16"]) == 0
    assert (tmp_path / "net.tflite").exists() and capfd.readouterr().err == ""
    assert program.main(["tfptq convert", "a.keras", "b.keras", data, output]) == 2
    assert "name one model; there are a.keras, b.keras" in capfd.readouterr().err
    assert program.main(["tfptq convert", data, output]) == 2  # the argument of the first call is gone
    assert "missing --model" in capfd.readouterr().err


def test_float_activations_need_no_samples(files, digits, tmp_path, capfd):
    output = tmp_path / "net.tflite"
    flags = [f"--model={files / 'net.keras'}", f"--output={output}"]
    assert program.main(["keras_to_tflite.py", *flags, "--preset=w8_dynamic"]) == 0
    assert "made without samples" in capfd.readouterr().out
    assert accuracy(output, digits) > 0.95
    for static in ("--preset=w8a8_channel", "--set=weight_bits=4"):
        assert program.main(["keras_to_tflite.py", *flags, static]) == 2
        assert "missing --calibration_data: dataset=None goes with float activations" in capfd.readouterr().err


CUSTOM = """
import keras

@keras.saving.register_keras_serializable("mine")
class Twice(keras.layers.Layer):
    def call(self, x):
        return 2.0 * x
"""
SAVE = """
import keras
import my_layers

inputs = keras.Input((8, 8, 1), name="image")
keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(my_layers.Twice()(inputs)))).save("custom.keras")
"""


def test_custom_layers(files, tmp_path):
    """In processes of their own, as a class stays registered."""
    (tmp_path / "my_layers.py").write_text(CUSTOM)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    options = {"capture_output": True, "text": True, "cwd": tmp_path, "env": environment}
    subprocess.run([sys.executable, "-c", SAVE], check=True, **options)
    arguments = ["--model=custom.keras", f"--calibration_data={files / 'samples.npy'}", "--output=custom.tflite"]
    command = [sys.executable, SCRIPT, *arguments]
    refused = subprocess.run(command, **options)
    assert refused.returncode == 1 and "custom class or function 'Twice'" in refused.stderr
    assert "Traceback" not in refused.stderr
    wrong = subprocess.run([*command, "--custom_objects=no_layers"], **options)
    assert wrong.returncode == 2 and "--custom_objects=no_layers cannot be imported" in wrong.stderr
    done = subprocess.run([*command, "--custom_objects=my_layers"], **options)
    assert done.returncode == 0 and (tmp_path / "custom.tflite").exists(), done.stderr


def test_class_names_go_into_the_file(files, tmp_path, capfd):
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"digit {number}" for number in range(10)) + "\n")
    assert convert(files, tmp_path / "net.tflite", f"--class_names={names}") == 0
    with zipfile.ZipFile(tmp_path / "net.tflite") as archive:
        assert archive.read("labels.txt").decode() == names.read_text()
    assert inspect(tmp_path / "net.tflite").weights
