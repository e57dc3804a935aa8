"""Fill the app's assets: ``python -m examples.android.build`` trains and quantizes the network of ``make demo``.

``app/src/main/assets`` gets the network with float and with int8 ends, pictures, and ``network.json`` with labels,
preprocessing, scales and zero points.
"""

import json
from pathlib import Path

import tfptq  # first: TensorFlow keeps quiet when tfptq loads it

# isort: split
import keras
import numpy as np
from PIL import Image

from examples import digits
from tfptq.tflite.interface import read_interface
from tfptq.tflite.model_reader import read_model

FOLDER = Path(__file__).resolve().parent / "app" / "src" / "main" / "assets"
#: File -> type of its inputs and outputs.
FILES = {"float_ends.tflite": "float32", "int8_ends.tflite": "int8"}
LABELS = [str(digit) for digit in range(10)]


def write(model: keras.Model, samples: np.ndarray, pictures: np.ndarray, folder: Path) -> None:
    """Quantize a classifier of pictures and write the assets.

    Args:
        model: takes float32 ``[n, height, width, channels]``, pixels over 255.
        samples: calibration samples.
        pictures: uint8 ``[n, height, width, channels]`` that the app shows and classifies.
        folder: where to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, kind in FILES.items():
        config = tfptq.QuantizationConfig.from_preset("w8a8_shift").replace(
            batch_size=1, input_type=kind, output_type=kind
        )
        content = tfptq.quantize_keras_model(model, samples, config).tflite
        (folder / name).write_bytes(content)
        files[name] = {row.end: _grid(row) for row in read_interface(read_model(content))}
    names = []
    for number, picture in enumerate(pictures):
        names.append(f"picture_{number}.png")
        Image.fromarray(picture.squeeze()).save(folder / names[-1])
    height, width, channels = pictures.shape[1:]
    preprocessing = {"height": height, "width": width, "channels": channels, "factor": 1 / 255, "offset": 0.0}
    network = {"labels": LABELS, "pictures": names, "preprocessing": preprocessing, "files": files}
    (folder / "network.json").write_text(json.dumps(network, indent=1) + "\n", encoding="utf-8")


def _grid(row) -> dict[str, float]:
    return {} if row.scale is None else {"scale": row.scale, "zero_point": row.zero_point}


def main() -> None:
    """Train, quantize, write."""
    keras.utils.set_random_seed(0)
    x_train, x_test, y_train, y_test = digits.load_data()
    model = digits.build_model()
    digits.train(model, x_train, y_train)
    shown = [int(np.flatnonzero(y_test == label)[0]) for label in range(10)]
    write(model, x_train[:256], np.rint(255 * x_test[shown]).astype(np.uint8), FOLDER)
    print(f"wrote the network and {len(shown)} pictures, of the digits 0 to 9, to {FOLDER}")


if __name__ == "__main__":
    main()
