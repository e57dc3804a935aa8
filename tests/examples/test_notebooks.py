"""The notebooks run from top to bottom, with little data: the cell that is tagged ``parameters`` is replaced."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "examples" / "notebooks"
SMALL = {
    "four_bits": "epochs, most_trials = 4, 2",
    "mobilenet": "epochs, training_samples = 0, 64",
    "training": "epochs, tuning_epochs = 2, 1",
}


def read(name):
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def test_all_notebooks_are_run():
    assert sorted(SMALL) == sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("name", SMALL)
def test_runs(name, tmp_path, monkeypatch):
    notebook = read(name)
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    names = [line.split(" = ")[0] for line in parameters.source.split("\n")]
    assert SMALL[name].startswith(", ".join(names) + " = ")
    parameters.source = SMALL[name]
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert list(tmp_path.glob("*.tflite"))


@pytest.mark.parametrize("name", SMALL)
def test_outputs_in_the_repository_are_small_and_without_noise(name):
    outputs = [output for cell in read(name).cells for output in cell.get("outputs", [])]
    assert outputs and all(output.output_type != "error" and output.get("name") != "stderr" for output in outputs)
    assert (NOTEBOOKS / f"{name}.ipynb").stat().st_size < 200_000
