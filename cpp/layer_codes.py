"""Write the codes between the layers of a file: ``python cpp/layer_codes.py net.tflite samples.npy codes``.

The folder gets an int8 array ``<tensor>.npy`` for the input and the output of each layer, as LiteRT's reference kernels
compute them. ``run_layers`` compares its own with them.
"""

import argparse
from pathlib import Path

import numpy as np

from tfptq.npu import stock_codes
from tfptq.tflite.interface import read_interface
from tfptq.tflite.model_reader import read_model


def coded(path: Path, samples: np.ndarray) -> np.ndarray:
    """Real samples as the only input of a file takes them: codes where that is int8."""
    inputs = [row for row in read_interface(read_model(path.read_bytes())) if row.end == "input"]
    if len(inputs) != 1:
        raise ValueError(f"{path} has {len(inputs)} inputs; call tfptq.npu.stock_codes with an array for each")
    if inputs[0].scale is None or samples.dtype == np.int8:
        return samples
    codes = np.rint(samples / inputs[0].scale) + (inputs[0].zero_point or 0)
    return np.clip(codes, -128, 127).astype(np.int8)


def main() -> None:
    """Run the file, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("samples", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    found = stock_codes(arguments.file, coded(arguments.file, np.load(arguments.samples)))
    for tensor, codes in found.items():
        np.save(arguments.folder / f"{tensor}.npy", codes)
    print(f"wrote the codes of {len(found)} tensors to {arguments.folder}")


if __name__ == "__main__":
    main()
