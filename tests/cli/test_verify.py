import json

import pytest

from tfptq.cli import verify as program
from tfptq.tflite.inspect import inspect


def test_a_good_file(tflite_file, capfd):
    assert program.main(["tfptq-verify", str(tflite_file)]) == 0
    assert capfd.readouterr().out
    assert inspect(tflite_file)


def test_json(tflite_file, capfd):
    assert program.main(["tfptq-verify", "--json", str(tflite_file)]) == 0
    checks = json.loads(capfd.readouterr().out)["checks"]
    assert len(checks) >= 4 and all(check["tensor"] and check["statement"] for check in checks)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.95])
def test_a_cut_file(tflite_file, tmp_path, capfd, keep):
    content = tflite_file.read_bytes()
    (tmp_path / "cut.tflite").write_bytes(content[: int(keep * len(content))])
    assert program.main(["tfptq-verify", str(tmp_path / "cut.tflite")]) == 1
    out, err = capfd.readouterr()
    assert "cut.tflite: " in err
    assert out == "" and err.startswith("tfptq-verify: ") and err.count("\n") == 1
