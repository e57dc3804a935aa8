import json

import keras
import numpy as np
import pytest

from tfptq.cli import search as program
from tfptq.float_file.convert import convert_float


@pytest.fixture(scope="module")
def labelled(files, digits):
    np.save(files / "held_out.npy", digits.x_test[:150])
    np.save(files / "held_out_labels.npy", digits.y_test[:150])
    return files


def search(folder, output, *flags):
    names = {"model": "net.keras", "calibration_data": "samples.npy", "evaluation_data": "held_out.npy"}
    read = [f"--{name}={folder / path}" for name, path in names.items()]
    labels = f"--evaluation_labels={folder / 'held_out_labels.npy'}"
    return program.main(["tfptq-search", *read, labels, f"--output={output}", "--samples=32", *flags])


def test_file_table_json_and_picture(labelled, tmp_path, capfd):
    flags = ("--max_drop=0.05", "--most_trials=2", f"--json={tmp_path / 'trials.json'}", f"--plot={tmp_path / 'a.png'}")
    assert search(labelled, tmp_path / "net.tflite", *flags) == 0
    out = capfd.readouterr().out
    assert out.startswith("fewest bytes within a drop of 0.05") and out.endswith(f"wrote {tmp_path / 'net.tflite'}\n")
    trials = json.loads((tmp_path / "trials.json").read_text())["trials"]
    assert [trial["name"] for trial in trials] == ["w8a8_shift", "w8a8_channel"]
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "net.tflite").stat().st_size in {trial["evaluation"]["bytes"] for trial in trials}


def test_a_float_file(labelled, tmp_path, capfd):
    model = tmp_path / "float.tflite"
    model.write_bytes(convert_float(keras.saving.load_model(labelled / "net.keras")))
    flags = (f"--model={model}", "--max_drop=0.1", "--most_trials=1")
    assert search(labelled, tmp_path / "net.tflite", *flags) == 0
    assert f"wrote {tmp_path / 'net.tflite'}" in capfd.readouterr().out


def test_a_drop_that_nothing_keeps(labelled, tmp_path, capfd):
    assert search(labelled, tmp_path / "net.tflite", "--max_drop=0", "--most_trials=1") == 1
    out, err = capfd.readouterr()
    assert "warning: no file is within a drop of 0" in out and (tmp_path / "net.tflite").exists()
    assert err == "tfptq-search: no file is within a drop of 0; see the warnings\n"


@pytest.mark.parametrize(
    "flags, code, message",
    [
        (("extra",), 2, "unexpected argument 'extra'"),
        (("--objective=size",), 2, "value should be one of <bytes|latency>"),
        (("--max_drop=-1",), 2, "-1"),
        (("--plot=a.gif",), 1, "must end in .pdf, .png, .svg"),
        (("--evaluation_data=/",), 2, "images need --preprocessing"),
        (("--json={folder}/samples.npy",), 2, "would overwrite the file of --calibration_data"),
        (("--objective=latency", "--target=npu"), 1, "tells nothing of target 'npu'"),
        (("--metric=acuracy",), 1, "metric is 'acuracy'"),
    ],
)
def test_wrong_command_lines(labelled, tmp_path, capfd, flags, code, message):
    flags = [flag.format(folder=labelled) for flag in flags]
    assert search(labelled, tmp_path / "net.tflite", *flags) == code
    out, err = capfd.readouterr()
    assert message in err and err.count("\n") == 1 and out == ""
