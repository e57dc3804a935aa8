import numpy as np
import pytest


@pytest.fixture(scope="session")
def files(digits, digits_dense, tmp_path_factory):
    """Folder with a model, ``net.keras`` and ``net.h5``, and calibration samples, ``samples.npy``."""
    folder = tmp_path_factory.mktemp("cli")
    digits_dense.save(folder / "net.keras")
    digits_dense.save(folder / "net.h5")
    np.save(folder / "samples.npy", digits.x_train[:300])
    return folder


@pytest.fixture(scope="session")
def tflite_file(files):
    """A quantized file made by the command-line program itself."""
    from tfptq.cli import convert as program

    path = files / "net.tflite"
    flags = [f"--model={files / 'net.keras'}", f"--calibration_data={files / 'samples.npy'}", f"--output={path}"]
    assert program.main(["tfptq-keras-to-tflite", *flags]) == 0
    return path
