"""What ``tfptq convert`` refuses, in one line and with an exit code."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from convert_program import convert
from plain_config import plain_config

from tfptq.cli import convert as program


@pytest.mark.parametrize(
    "flags, message",
    [
        (("--preset=w9a9",), "value should be one of <w8a8_shift|"),
        (("--preset=w8a8_layer", "--config=c.json"), "give --preset or --config, not both"),
        (("--report=r.pdf",), "must end in .html, .json, .csv, .txt"),
        (("--set=layout",), "--set=layout is no name=value"),
        (("--set==int8",), "is no name=value"),
        (("--input_type=int16",), "input_type (with activation_bits=8) is 'int16'"),
        (("--set=colour=1",), "config field is 'colour'; it must be one of 'granularity'"),
        (("--set=colour.hue=1",), "config field is 'colour.hue'; it must be one of 'granularity'"),
        (("--set=layout.x=1",), "--set=layout.x: the field 'layout' has no parts"),
        (
            ("--set=rounding.colour=1",),
            "--set=rounding.colour=1: rounding has no field 'colour'; Rounding has method, ",
        ),
        (("--preset=w4a8_chanel",), "did you mean 'w4a8_channel'? (see"),
        (("--target=mirco",), "did you mean 'micro'? (see"),
        (
            ("--set=weight_bits=5.5",),
            "--set=weight_bits=5.5: weight_bits is 5.5; it must be one of 2, 3, 4, 5, 6, 8, 16 (see",
        ),
        (("--set=weight_bit=4", "--target=any"), "--set=weight_bit=4 --target=any: config field is 'weight_bit'"),
        (("--preprocessing=unit",), "--preprocessing=unit is for folders of images"),
        (("--set=layout=int9",), "layout is 'int9'; it must be one of 'size', 'speed', 'int8'"),
        (("--set=granularity=PerPixel",), "granularity.type is 'PerPixel'"),
        (("--set=weight_bits={4}",), "weight_bits is '{4}'; it must be one of 2, 3, 4"),
        (("--max_memory=-1",), "-1 is not a non-negative integer"),
        (("--seed=-3",), "-3 is not a non-negative integer"),
        (("--samples=-1",), "-1 is not a non-negative integer"),
        (("extra",), "name one model; there are --model="),
        (("--colour",), "Unknown command line flag 'colour'"),
    ],
)
def test_wrong_command_lines(files, tmp_path, capfd, flags, message):
    assert convert(files, tmp_path / "net.tflite", *flags) == 2
    out, err = capfd.readouterr()
    assert message in err and err.count("\n") == 1 and out == ""


def test_nothing_that_is_read_is_overwritten(files, tmp_path, capfd):
    for name in ("net.keras", "samples.npy"):
        shutil.copy(files / name, tmp_path)
    (tmp_path / "config.json").write_text(plain_config().to_json())
    (tmp_path / "link.tflite").symlink_to(tmp_path / "net.keras")
    (tmp_path / "folder").mkdir()
    config = f"--config={tmp_path / 'config.json'}"
    cases = [
        ("net.keras", "--output=.*would overwrite the file of --model="),
        ("link.tflite", "--output=.*would overwrite the file of --model="),
        ("folder/../samples.npy", "--output=.*would overwrite the file of --calibration_data="),
        ("config.json", "--output=.*would overwrite the file of --config="),
        ("new.json", "--report=.*would overwrite the file of --output="),
    ]
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.*")}
    for output, message in cases:
        flags = (config, f"--report={tmp_path / 'folder' / '..' / 'new.json'}")
        assert convert(tmp_path, tmp_path / output, *flags) == 2, output
        assert re.search(message, capfd.readouterr().err)
    assert convert(tmp_path, tmp_path / "net.tflite", config, f"--report={tmp_path / 'config.json'}") == 2
    assert "--report=" in capfd.readouterr().err
    assert before == {path.name: path.read_bytes() for path in tmp_path.glob("*.*")}


def test_images_without_preprocessing(files, tmp_path, capfd):
    assert convert(files, tmp_path / "net.tflite", data=tmp_path, model="none.keras") == 2
    assert "images need --preprocessing" in capfd.readouterr().err


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder of Linux in which no file can be made")
def test_a_folder_that_takes_no_files_is_refused_before_the_work(files, capfd):
    assert convert(files, "/proc/net.tflite", model="none.keras") == 1
    err = capfd.readouterr().err
    assert "cannot write /proc/net.tflite" in err and "none.keras" not in err


def test_missing_flags(capfd):
    assert program.main(["keras_to_tflite.py", "--model=net.keras"]) == 2
    assert "missing --calibration_data, --output" in capfd.readouterr().err


def test_errors_are_one_line(files, tmp_path, capfd):
    (tmp_path / "bad.json").write_text('{"weight_bits": 7}')
    (tmp_path / "misspelled.json").write_text('{"preset": "w4a8_chanel"}')
    (tmp_path / "bad.keras").write_text("no zip")
    np.save(tmp_path / "wide.npy", np.zeros((4, 9, 9, 1), np.float32))
    output = tmp_path / "net.tflite"
    cases = [
        ({"flags": (f"--checkpoint_dir={files / 'samples.npy'}",)}, "which is a file; name a folder"),
        ({"flags": (f"--config={tmp_path / 'bad.json'}",)}, "bad.json: weight_bits is 7"),
        ({"flags": (f"--config={tmp_path / 'misspelled.json'}",)}, "did you mean 'w4a8_channel'?"),
        ({"flags": (f"--config={files / 'samples.npy'}",)}, "samples.npy: 'utf-8' codec can't decode"),
        ({"flags": (f"--config={tmp_path / 'none.json'}",)}, f"no such file: {tmp_path / 'none.json'}"),
        ({"model": "none.keras"}, "none.keras"),
        ({"model": tmp_path / "bad.keras"}, "bad.keras"),
        ({"data": "none.npy"}, "none.npy: No such file or directory"),
        ({"data": "samples.csv"}, "neither a .npy or .npz file nor an existing folder"),
        ({"data": tmp_path / "wide.npy"}, "input 'image' is float32 of shape [batch, 9, 9, 1]"),
        ({"output": tmp_path / "no" / "net.tflite"}, "create it first"),
    ]
    for changes, message in cases:
        arguments = {"output": output, "flags": (), **changes}
        assert convert(files, arguments.pop("output"), *arguments.pop("flags"), **arguments) == 1
        out, err = capfd.readouterr()
        lines = [line for line in err.splitlines() if line.startswith("keras_to_tflite.py: ")]
        assert len(lines) == 1 and message in lines[0], err
        assert "Traceback" not in err and out == "" and not output.exists()


@pytest.mark.parametrize("error", [TypeError("no keras.Model"), RuntimeError("not on TensorFlow")])
def test_errors_of_the_facade_are_one_line(files, tmp_path, capfd, monkeypatch, error):
    def refuse(*arguments, **options):
        raise error

    monkeypatch.setattr("tfptq.quantization.quantize", refuse)
    assert convert(files, tmp_path / "net.tflite") == 1
    assert f"keras_to_tflite.py: {error} (--traceback shows where)\n" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("text", "flags", "code", "message"),
    [
        ("a\nb\n", (), 1, "2 labels do not fit the outputs [[None, 10]]"),
        ("a\n\n", (), 1, "names.txt: label ''"),
        ("a\n", ("--preprocessing=caffe",), 2, "--preprocessing=caffe reads BGR"),
    ],
)
def test_class_names_that_do_not_fit(files, tmp_path, capfd, text, flags, code, message):
    (tmp_path / "names.txt").write_text(text)
    if flags:
        (tmp_path / "photos").mkdir()
        flags = (*flags, f"--calibration_data={tmp_path / 'photos'}")
    flags = (f"--class_names={tmp_path / 'names.txt'}", *flags)
    assert convert(files, tmp_path / "net.tflite", *flags) == code
    assert message in capfd.readouterr().err
    assert not (tmp_path / "net.tflite").exists()
