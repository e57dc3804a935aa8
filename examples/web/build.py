"""Train and quantize the networks of the page: ``python -m examples.web.build`` fills ``examples/web/models``.

Each is written with 8- and with 4-bit weights for target ``web``, and compressed with gzip: codes of 4 bits lie in INT8
there, which LiteRT.js computes fastest with, and compressed they are as small as packed ones. The page unpacks them.
"""

import gzip
import json
from pathlib import Path

from tfptq import QuantizationConfig, quantize_keras_model  # first: TensorFlow keeps quiet when tfptq loads it

# isort: split
import keras
import numpy as np
from PIL import Image

from examples import digits
from examples.web import shapes

FOLDER = Path(__file__).resolve().parent / "models"
PRESETS = {"8": "w8a8_channel", "4": "w4a8_channel"}
#: Pictures of shapes to train with and to test with, and those that the page offers.
TRAINED, TESTED, OFFERED = 6000, 1200, 6
layers = keras.layers


def shape_network(size: int = shapes.SIZE) -> keras.Model:
    """Of the MobileNet kind: a convolution, five separable ones, and a dense layer."""
    x = inputs = keras.Input((size, size, 3), name="picture")
    x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(x)
    for filters, strides in ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1)):
        x = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9)(x))
        x = layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(x)
        x = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9)(x))
        x = layers.Conv2D(filters, 1, use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(len(shapes.LABELS), activation="softmax")(x), name="shapes")


def train_shapes(model: keras.Model, pictures: np.ndarray, labels: np.ndarray, epochs: int = 8) -> None:
    """Fit the model in place."""
    schedule = keras.optimizers.schedules.CosineDecay(0.01, epochs * -(-len(pictures) // 64))
    model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy")
    model.fit(pictures, labels, batch_size=64, epochs=epochs, verbose=0)


def as_values(pictures: np.ndarray) -> np.ndarray:
    """What the network takes: float32, -1 to 1."""
    return pictures.astype(np.float32) / 127.5 - 1.0


def write_network(
    model: keras.Model, samples: np.ndarray, test: tuple[np.ndarray, np.ndarray], folder: Path
) -> dict[str, object]:
    """Quantize a classifier, write its files, and return what the page has to know of them."""
    x, labels = test
    right = model.predict(x, verbose=0).argmax(axis=1) == labels
    entry: dict[str, object] = {"accuracy": float(right.mean()), "files": {}}
    for bits, preset in PRESETS.items():
        config = QuantizationConfig.from_preset(preset).replace(target="web")
        result = quantize_keras_model(model, samples, config)
        packed = gzip.compress(result.tflite, 9, mtime=0)
        name = f"{model.name}_{bits}.tflite.gz"
        (folder / name).write_bytes(packed)
        entry["files"][bits] = {
            "path": f"models/{name}",
            "bytes": len(result.tflite),
            "download": len(packed),
            "accuracy": result.evaluate(x, labels, latency_seconds=0.0).score,
        }
    return entry


def write_samples(folder: Path) -> list[dict[str, str]]:
    """Pictures that the page offers, one of each class, larger than the network takes them."""
    pictures, labels = shapes.draw_pictures(OFFERED, seed=7, size=2 * shapes.SIZE)
    found = []
    for picture, label in zip(pictures, labels, strict=True):
        name = f"sample_{shapes.LABELS[label]}.png"
        Image.fromarray(picture).save(folder / name)
        found.append({"path": f"models/{name}", "label": shapes.LABELS[label]})
    return found


def main() -> None:
    """Train, quantize, write."""
    FOLDER.mkdir(exist_ok=True)
    keras.utils.set_random_seed(0)
    print("training a network on digits ...", flush=True)
    x, x_test, y, y_test = digits.load_data()
    network = digits.build_model()
    digits.train(network, x, y)
    entries = {"digits": write_network(network, x[:256], (x_test, y_test), FOLDER)}
    entries["digits"]["labels"] = [str(digit) for digit in range(10)]

    print("training a network on pictures of shapes ...", flush=True)
    pictures, labels = shapes.draw_pictures(TRAINED + TESTED, seed=0)
    values, network = as_values(pictures), shape_network()
    train_shapes(network, values[:TRAINED], labels[:TRAINED])
    entries["shapes"] = write_network(network, values[:256], (values[TRAINED:], labels[TRAINED:]), FOLDER)
    entries["shapes"] |= {"labels": shapes.LABELS, "size": shapes.SIZE, "samples": write_samples(FOLDER)}

    (FOLDER / "models.json").write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    for name, entry in entries.items():
        print(f"{name}: {100 * entry['accuracy']:.1f} % right in float", flush=True)
        for bits, file in entry["files"].items():
            sizes = f"{file['bytes']:,} bytes, {file['download']:,} to download"
            print(f"  {bits}-bit weights: {100 * file['accuracy']:.1f} %, {sizes}", flush=True)


if __name__ == "__main__":
    main()
