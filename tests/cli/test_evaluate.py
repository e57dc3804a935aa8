import numpy as np
import pytest

from tfptq.cli import convert
from tfptq.cli import evaluate as program
from tfptq.evaluation.result import Evaluation


@pytest.fixture(scope="module")
def labelled(files, digits, tflite_file):
    """The folder of ``files`` with a quantized file, evaluation data and labels."""
    np.save(files / "test.npy", digits.x_test[:100])
    np.save(files / "test_labels.npy", digits.y_test[:100])
    np.savez(files / "labels_by_name.npz", output_0=digits.y_test[:100])
    return files


def evaluate(folder, *flags):
    names = [f"--data={folder / 'test.npy'}", "--latency_seconds=0"]
    return program.main(["tfptq-evaluate", str(folder / "net.tflite"), *names, *flags])


@pytest.mark.parametrize("labels", ["test_labels.npy", "labels_by_name.npz"])
def test_table_and_json(labelled, tmp_path, capfd, labels):
    output = tmp_path / "evaluation.json"
    flags = (f"--labels={labelled / labels}", f"--model={labelled / 'net.keras'}", f"--json={output}")
    assert evaluate(labelled, *flags) == 0
    found = Evaluation.from_json(output.read_text())
    assert found.samples == 100 and found.score > 0.9 and found.agreement > 0.95
    out, err = capfd.readouterr()
    assert out == f"{found}\n" and err == ""


def test_another_metric_and_no_labels(labelled, capfd):
    flags = (f"--labels={labelled / 'test_labels.npy'}", "--metric=sparse_categorical_crossentropy")
    assert evaluate(labelled, *flags) == 0
    assert "\nsparse_categorical_crossentropy " in capfd.readouterr().out
    assert evaluate(labelled) == 0
    assert [line.split()[0] for line in capfd.readouterr().out.splitlines()[2:]] == ["bytes"]


def test_the_converter_evaluates_what_it_wrote(labelled, tmp_path, capfd):
    read = [f"--model={labelled / 'net.keras'}", f"--calibration_data={labelled / 'samples.npy'}", "--samples=32"]
    data = [f"--evaluation_data={labelled / 'test.npy'}", f"--evaluation_labels={labelled / 'test_labels.npy'}"]
    assert convert.main(["convert", *read, *data, f"--output={tmp_path / 'net.tflite'}"]) == 0
    out = capfd.readouterr().out
    wrote, table = out.rsplit("\n\n", 1)
    assert wrote.endswith(f"wrote {tmp_path / 'net.tflite'}") and table.startswith("100 samples\n")
    assert "accuracy" in table and "agreement" in table
    assert convert.main(["convert", *read, *data[1:], f"--output={tmp_path / 'net.tflite'}"]) == 2
    assert "--evaluation_labels needs --evaluation_data" in capfd.readouterr().err


@pytest.mark.parametrize(
    "flags, code, message",
    [
        (("--metric=acuracy",), 1, "metric is 'acuracy'; it must be 'accuracy', 'none' or the name of a metric"),
        (("--data=/",), 2, "images need --preprocessing"),
        (("--json=net.tflite/out.json",), 1, "the folder"),
        (("--model=net.onnx",), 1, "must end in .keras, .h5 or .tflite"),
        (("--labels=none.npy",), 1, "none.npy"),
        (("--labels={folder}/samples.npy",), 1, "there are 300 labels of output 'output_0' for 100 samples"),
        (("--json={folder}/test.npy",), 2, "would overwrite the file of --data"),
        (("extra",), 2, "name one .tflite file; there are 2"),
    ],
)
def test_wrong_command_lines(labelled, capfd, flags, code, message):
    assert evaluate(labelled, *(flag.format(folder=labelled) for flag in flags)) == code
    out, err = capfd.readouterr()
    assert message in err and err.count("\n") == 1 and out == ""


def test_data_are_needed_and_damaged_files_named(labelled, tmp_path, capfd):
    assert program.main(["tfptq-evaluate", str(labelled / "net.tflite")]) == 2
    assert "missing --data" in capfd.readouterr().err
    (tmp_path / "cut.tflite").write_bytes((labelled / "net.tflite").read_bytes()[:100])
    assert program.main(["tfptq-evaluate", str(tmp_path / "cut.tflite"), f"--data={labelled / 'test.npy'}"]) == 1
    assert "cut.tflite: " in capfd.readouterr().err
