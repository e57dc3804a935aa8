import sys

import keras
import numpy as np
import pytest

import tfptq
from tfptq.cli import to_c as program
from tfptq.config import PerChannel, QuantizationConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder with ``2 nets.tflite`` for target micro and ``samples.npy``."""
    folder = tmp_path_factory.mktemp("to_c")
    inputs = keras.Input((6, 6, 1), name="image")
    x = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, activation="relu")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x))
    samples = np.random.default_rng(0).uniform(size=(24, 6, 6, 1)).astype(np.float32)
    config = QuantizationConfig(PerChannel(), target="micro")
    tfptq.quantize_keras_model(model, samples, config, progress=False).save(folder / "2 nets.tflite")
    np.save(folder / "samples.npy", samples)
    return folder


def run(*arguments):
    return program.main(["tfptq-to-c", *map(str, arguments)])


def test_sources(folder, tmp_path, capfd):
    assert run(folder / "2 nets.tflite", f"--output_dir={tmp_path / 'new'}") == 0
    out, err = capfd.readouterr()
    assert err == "" and "resolver.AddConv2D(); resolver.AddFullyConnected(); resolver.AddReshape();" in out
    texts = {path.name: path.read_text() for path in (tmp_path / "new").iterdir()}
    assert set(texts) == {"_2_nets.cc", "_2_nets.h", "_2_nets_golden.h"}
    assert all("namespace _2_nets {" in text for text in texts.values())
    assert "constexpr unsigned int kArenaBytes = " in texts["_2_nets.h"]
    assert "kGoldenSamples = 4;" in texts["_2_nets_golden.h"]


def test_golden_samples(folder, tmp_path, capfd):
    flags = ["--name=net", f"--samples={folder / 'samples.npy'}", "--golden=2", f"--output_dir={tmp_path}"]
    assert run(folder / "2 nets.tflite", *flags) == 0
    text = (tmp_path / "net_golden.h").read_text()
    assert "kGoldenSamples = 2;" in text and "kGoldenInput0[kGoldenSamples][36]" in text


def test_without_running(folder, tmp_path, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "tflite_micro.python.tflite_micro", None)
    assert run(folder / "2 nets.tflite", "--name=net", f"--output_dir={tmp_path}") == 1
    assert "pip install tflite-micro; --norun does without it" in capfd.readouterr().err
    assert run(folder / "2 nets.tflite", "--name=net", "--norun", f"--output_dir={tmp_path}") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"net.cc", "net.h"}
    assert "kArenaBytes" not in (tmp_path / "net.h").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "name one .tflite file; there are 0"),
        (["none.tflite"], 1, "no such file: none.tflite"),
        (["2 nets.tflite", "--golden=0"], 2, "--golden=0 must be at least 1; --norun writes none"),
        (["2 nets.tflite", "--norun", "--samples=samples.npy"], 2, "--samples needs --run"),
        (["2 nets.tflite", "--samples=wrong.npy"], 1, "2 nets.tflite: samples of shape [2, 5] do not fit"),
        (["samples.npy"], 1, "samples.npy: "),
    ],
)
def test_wrong_command_lines(folder, tmp_path, capfd, monkeypatch, arguments, code, message):
    monkeypatch.chdir(folder)
    np.save("wrong.npy", np.zeros((2, 5)))
    assert run(*arguments, f"--output_dir={tmp_path}") == code
    err = capfd.readouterr().err
    assert message in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())
