import json

import pytest

from tfptq.cli import inspect as program


def test_text_and_json(tflite_file, capfd):
    assert program.main(["tfptq-inspect", str(tflite_file)]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[2:4]] == [["input", "0", "image"], ["output", "0", "output_0"]]
    assert "w8a8_shift" in lines[-1]
    assert program.main(["tfptq-inspect", "--json", str(tflite_file)]) == 0
    values = json.loads(capfd.readouterr().out)
    assert values["inputs_and_outputs"][0]["shape"] == [None, 8, 8, 1]
    assert values["config"]["name"] == "w8a8_shift" and len(values["weights"]) == 2


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        ([], 2, "name one .tflite file; there are 0"),
        (["a", "b"], 2, "there are 2"),
        (["none.tflite"], 1, "no such file: none.tflite"),
    ],
)
def test_wrong_command_lines(capfd, arguments, code, message):
    assert program.main(["tfptq-inspect", *arguments]) == code
    assert message in capfd.readouterr().err


def test_a_file_that_is_no_model(tmp_path, capfd):
    (tmp_path / "a.tflite").write_bytes(b"no flatbuffer" * 10)
    assert program.main(["tfptq-inspect", str(tmp_path / "a.tflite")]) == 1
    out, err = capfd.readouterr()
    assert "a.tflite: " in err
    assert out == "" and err.startswith("tfptq-inspect: ") and err.count("\n") == 1
