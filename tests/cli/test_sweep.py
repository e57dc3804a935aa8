import csv
import json
import math

import keras
import numpy as np
import pytest
from plain_config import plain_config

from tfptq.cli import sweep as program
from tfptq.cli import sweep_plot
from tfptq.cli.sweep_cells import Cell, Records, grid, mean_snr_db, parse_granularity
from tfptq.config import PerBlock, PerChannel, PerTensor

GRID = ("--granularities=tensor,8x16", "--noplot")


@pytest.fixture(scope="module")
def labelled(files, digits):
    """The folder of ``files`` with evaluation data and labels."""
    np.save(files / "evaluation.npy", digits.x_test[:100])
    np.save(files / "labels.npy", digits.y_test[:100])
    return files


def sweep(files, output, *flags):
    return program.main(
        [
            "sweep_granularity.py",
            f"--model={files / 'net.keras'}",
            f"--calibration_data={files / 'samples.npy'}",
            f"--evaluation_data={files / 'evaluation.npy'}",
            f"--evaluation_labels={files / 'labels.npy'}",
            f"--output={output}",
            "--samples=16",
            "--edge_bits=0",
            *flags,
        ]
    )


def test_interrupted_study_goes_on_and_ends_the_same(labelled, tmp_path, capsys, monkeypatch):
    import tfptq.quantization

    real, calls = tfptq.quantization.quantize_keras_model, []

    def counting(model, samples, config, **options):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(config)
        return real(model, samples, config, **options)

    monkeypatch.setattr(tfptq.quantization, "quantize_keras_model", counting)
    assert sweep(labelled, tmp_path / "a", *GRID) == 130
    assert len(json.loads((tmp_path / "a" / "cells.json").read_text())["cells"]) == 2
    first = list(calls)
    calls.clear()
    monkeypatch.setattr(tfptq.quantization, "quantize_keras_model", lambda *a, **k: calls.append(a[2]) or real(*a, **k))
    capsys.readouterr()
    assert sweep(labelled, tmp_path / "a", *GRID) == 0
    assert "3 cells, 2 of them finished before" in capsys.readouterr().out
    assert len(calls) == 1 and not {*map(str, first)} & {*map(str, calls)}
    assert sweep(labelled, tmp_path / "a", *GRID) == 0
    assert len(calls) == 1  # nothing is left to do

    assert sweep(labelled, tmp_path / "b", *GRID) == 0
    rows = [list(csv.DictReader((tmp_path / name / "cells.csv").open())) for name in "ab"]
    for row in (*rows[0], *rows[1]):
        del row["seconds"]
    assert rows[0] == rows[1] and len(rows[0]) == 3


def test_records_and_plot(labelled, tmp_path):
    assert sweep(labelled, tmp_path / "new" / "study", "--granularities=tensor,channel", "--bits=4,8") == 0
    records = json.loads((tmp_path / "new" / "study" / "cells.json").read_text())["cells"]
    assert list(records) == ["W4 tensor", "W8 tensor", "W4 channel", "W8 channel"]
    for name, record in records.items():
        assert record["scales"] == (42 if "channel" in name else 2)  # 32 hidden and 10 classes
    assert records["W8 channel"]["snr_db"] > records["W4 channel"]["snr_db"] + 3
    assert records["W8 channel"]["accuracy"] > 0.9 and records["W8 channel"]["agreement"] > 0.95
    assert (tmp_path / "new" / "study" / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_without_labels_or_evaluation_data(files, tmp_path):
    flags = [f"--model={files / 'net.keras'}", f"--calibration_data={files / 'samples.npy'}", "--noplot"]
    flags += [f"--output={tmp_path}", "--samples=16", "--granularities=channel"]
    assert program.main(["sweep_granularity.py", *flags]) == 0
    (record,) = json.loads((tmp_path / "cells.json").read_text())["cells"].values()
    assert record["accuracy"] is None and record["agreement"] > 0.9 and record["snr_db"] > 10
    assert not (tmp_path / "plot.png").exists()


def test_files_that_take_one_sample_at_a_time(tmp_path):
    """The converter gives recurrent models a fixed batch."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 3))
    keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GRU(4)(inputs))).save(tmp_path / "net.keras")
    np.save(tmp_path / "samples.npy", np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32))
    flags = [f"--model={tmp_path / 'net.keras'}", f"--calibration_data={tmp_path / 'samples.npy'}", "--noplot"]
    flags += [f"--output={tmp_path}", "--granularities=channel", "--bits=8"]
    assert program.main(["sweep_granularity.py", *flags]) == 0
    (record,) = json.loads((tmp_path / "cells.json").read_text())["cells"].values()
    assert record["snr_db"] > 20


def test_matplotlib_is_asked_for_before_the_work(labelled, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sweep_plot.importlib.util, "find_spec", lambda name: None)
    assert sweep(labelled, tmp_path / "study") == 1
    assert "pip install matplotlib, or give --noplot" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


def test_another_study_in_the_folder_is_refused(labelled, tmp_path, capsys):
    assert sweep(labelled, tmp_path, "--granularities=tensor", "--noplot") == 0
    assert sweep(labelled, tmp_path, "--granularities=tensor", "--noplot", "--seed=1") == 1
    assert "holds a study with another seed" in capsys.readouterr().err
    (tmp_path / "cells.json").write_text("[]")
    assert sweep(labelled, tmp_path, "--noplot") == 1
    assert "is no study of granularities" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, code, message",
    [
        (("--bits=4,7",), 2, "--bits has '7'"),
        (("--scalers=int",), 2, "--scalers has 'int'"),
        (("--granularities=8by8",), 2, "'8by8' is no granularity"),
        (("--granularities=8x8", "--scalers="), 2, "the grid is empty: there are no scalers"),
        (("--granularities=0x8",), 2, "PerBlock.output_channels is 0"),
        (("extra",), 2, "name one model; there are --model="),
        (("--seed=-3",), 2, "-3 is not a non-negative integer"),
        (("--calibration_data=/", "--model=none.keras"), 2, "images need --preprocessing"),
        (("--evaluation_data=/", "--model=none.keras"), 2, "images need --preprocessing"),
        (("--granularities=",), 2, "there are no granularities"),
        (("--bits=",), 2, "there are no bits"),
        (("--edge_bits=7",), 2, "--edge_bits=7 must be 0 or one of 2, 3"),
        (("--preprocessing=unit",), 2, "--preprocessing=unit is for folders of images"),
        ((f"--output={__file__}",), 2, "is a file; name a folder"),
        ((f"--evaluation_labels={__file__}",), 1, f"cannot read labels {__file__}"),
        (("--model=none.keras",), 1, "none.keras"),
    ],
)
def test_wrong_command_lines(labelled, tmp_path, capsys, flags, code, message):
    assert sweep(labelled, tmp_path / "study", "--noplot", *flags) == code
    assert message in capsys.readouterr().err


def test_labels_must_fit(labelled, tmp_path, capsys):
    np.save(tmp_path / "few.npy", np.arange(3))
    assert sweep(labelled, tmp_path / "study", "--noplot", f"--evaluation_labels={tmp_path / 'few.npy'}") == 1
    assert "there are 3 labels of output 'output_0' for 100 samples" in capsys.readouterr().err
    np.save(tmp_path / "ones.npy", np.load(labelled / "labels.npy") + 1)
    assert sweep(labelled, tmp_path / "study", "--noplot", f"--evaluation_labels={tmp_path / 'ones.npy'}") == 1
    assert "the labels are from 1 to 10; the output has the classes 0 to 9" in capsys.readouterr().err


def test_grid_has_no_repetitions():
    cells = grid(["channel", "8x8"], [4, 8], ["float", "integer"], [False, True])
    assert [cell.name for cell in cells] == [
        "W4 channel",
        "W8 channel",
        *("W4 8x8 float", "W4 8x8 float reordered", "W4 8x8 integer", "W4 8x8 integer reordered"),
        *("W8 8x8 float", "W8 8x8 float reordered", "W8 8x8 integer", "W8 8x8 integer reordered"),
    ]


def test_granularities_are_read():
    read = {"tensor": PerTensor(), "channel": PerChannel(), "8x16": PerBlock(8, 16), "4ib": PerBlock(input_blocks=4)}
    assert {text: parse_granularity(text) for text in read} == read
    config = Cell(PerBlock(8, 16), 3, "shift", True).config(plain_config(weight_scale="mse"))
    assert (config.granularity, config.weight_bits, config.scaler, config.reorder, config.weight_scale) == (
        *(PerBlock(8, 16), 3, "shift", True, "mse"),
    )


def test_records_survive(tmp_path):
    record = {"granularity": "tensor", "bits": 4, "scaler": "float", "reorder": False, "scales": 1, "bytes": 9}
    ratios = {"weight_snr_db": 20.5, "layer_output_snr_db": None, "snr_db": 21.0, "agreement": 1.0, "accuracy": None}
    cells = {"W4 tensor": {**record, **ratios, "seconds": 0.5}}
    Records(tmp_path / "cells.json", {"seed": 0}).add("W4 tensor", cells["W4 tensor"])
    assert Records(tmp_path / "cells.json", {"seed": 0}).cells == cells


def test_a_folder_of_images_is_another_one_when_an_image_changes(tmp_path):
    folder = tmp_path / "class"
    folder.mkdir()
    stamps = []
    for name, content in [("a.png", b"one"), ("b.png", b"two"), ("b.png", b"longer")]:
        (folder / name).write_bytes(content)
        stamps.append(program._stamp(tmp_path))
    assert len({digest for _, digest in stamps}) == 3
    (folder / "notes.txt").write_text("no image")
    assert program._stamp(tmp_path) == stamps[-1]


def test_mean_signal_to_noise_counts_exact_layers():
    assert mean_snr_db([20.0, 20.0]) == pytest.approx(20.0)
    assert mean_snr_db([20.0, float("inf")]) == pytest.approx(20.0 + 10 * math.log10(2))
    assert mean_snr_db([10.0, 60.0]) == pytest.approx(13.01, abs=0.01)
    assert mean_snr_db([float("inf")]) is None and mean_snr_db([]) is None
