"""The main job on real data: train a small network on handwritten digits, quantize it, evaluate the file.

    python examples/digits.py --output out/digits.tflite

The data are the 1,797 scanned digits (8 by 8 pixels) that come with scikit-learn; nothing is downloaded. The network
is of the MobileNet kind, small enough to train in seconds.
"""

import argparse
from pathlib import Path

from tfptq import QuantizationConfig, quantize_keras_model  # first: TensorFlow keeps quiet when tfptq loads it

# isort: split
import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

layers = keras.layers


def load_data():
    """Images float32 ``[n, 8, 8, 1]`` in 0..1 and labels: ``x_train, x_test, y_train, y_test``."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16.0).astype(np.float32).reshape(-1, 8, 8, 1)
    return train_test_split(images, labels, test_size=0.3, random_state=0, stratify=labels)


def build_model() -> keras.Model:
    """A convolution, three separable ones, the first with a residual sum, and a dense layer."""

    def separable(x, filters: int):
        x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
        x = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9)(x))
        x = layers.Conv2D(filters, 1, use_bias=False)(x)
        return layers.BatchNormalization(momentum=0.9)(x)

    inputs = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(64, 3, strides=2, padding="same", use_bias=False)(inputs)
    x = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.Add()([x, separable(x, 64)])
    x = layers.ReLU(6.0)(separable(x, 128))
    x = layers.ReLU(6.0)(separable(x, 256))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x), name="digits")


def train(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> None:
    """Fit the model in place."""
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(images, labels, batch_size=64, epochs=15, verbose=0)


def main() -> None:
    """Train, quantize, evaluate, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("out/digits.tflite"), help="the .tflite file to write")
    parser.add_argument("--preset", default="w8a8_shift", help="how to quantize; the package's default unless given")
    parser.add_argument("--target", default="cpu", help="what the file is for")
    arguments = parser.parse_args()

    keras.utils.set_random_seed(0)
    x_train, x_test, y_train, y_test = load_data()
    model = build_model()
    print(f"training a network of {model.count_params():,} weights on {len(x_train):,} digits ...", flush=True)
    train(model, x_train, y_train)

    print("quantizing it ...\n", flush=True)
    config = QuantizationConfig.from_preset(arguments.preset).replace(target=arguments.target)
    result = quantize_keras_model(model, x_train[:256], config)

    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    result.save(arguments.output)

    print(result.report.render())
    print(f"\non digits that neither training nor quantization has seen:\n{result.evaluate(x_test, y_test, model)}")
    print(f"\nwrote {arguments.output} ({len(result.tflite):,} bytes)")


if __name__ == "__main__":
    main()
