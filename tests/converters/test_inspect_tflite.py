import json

import pytest

from converters import inspect_tflite


def test_text_and_json(tflite_file, capfd):
    assert inspect_tflite.main(["tfptq-inspect", str(tflite_file)]) == 0
    assert "w8a8_shift" in capfd.readouterr().out
    assert inspect_tflite.main(["tfptq-inspect", "--json", str(tflite_file)]) == 0
    assert json.loads(capfd.readouterr().out)


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        ([], 2, "name one .tflite file; there are 0"),
        (["a", "b"], 2, "there are 2"),
        (["none.tflite"], 1, "no such file: none.tflite"),
    ],
)
def test_wrong_command_lines(capfd, arguments, code, message):
    assert inspect_tflite.main(["tfptq-inspect", *arguments]) == code
    assert message in capfd.readouterr().err


def test_a_file_that_is_no_model(tmp_path, capfd):
    (tmp_path / "a.tflite").write_bytes(b"no flatbuffer" * 10)
    assert inspect_tflite.main(["tfptq-inspect", str(tmp_path / "a.tflite")]) == 1
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("tfptq-inspect: ") and err.count("\n") == 1
