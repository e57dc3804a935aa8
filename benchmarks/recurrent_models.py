"""Small recurrent networks on the rows of digits, which ship with scikit-learn, trained with fixed seeds."""

from collections.abc import Callable

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

from benchmarks.sequence_models import CALIBRATION, EVALUATION, Trained, shuffled, trained

#: A digit is a sequence of so many rows of as many pixels.
ROWS = 8


def lstm() -> Trained:
    """One LSTM of 96 units."""
    return _on_digits("lstm", lambda x: layers.LSTM(96, name="memory")(x))


def stacked_lstm() -> Trained:
    """A convolution over time, an LSTM of 64 units that reads both ways, and one of 48."""

    def body(x):
        x = layers.Conv1D(32, 3, padding="same", activation="relu", name="features")(x)
        x = layers.Bidirectional(layers.LSTM(64, return_sequences=True), name="both")(x)
        return layers.LSTM(48, name="memory")(x)

    return _on_digits("stacked_lstm", body)


def gru() -> Trained:
    """One GRU of 160 units, to be unrolled."""
    return _on_digits("gru", lambda x: layers.GRU(160, name="memory")(x))


MODELS: dict[str, Callable[[], Trained]] = {"lstm": lstm, "stacked_lstm": stacked_lstm, "gru": gru}


def _on_digits(name: str, body: Callable) -> Trained:
    keras.utils.set_random_seed(0)
    x, labels = load_digits(return_X_y=True)
    x, labels = shuffled((x.reshape(-1, ROWS, ROWS) / 16.0).astype(np.float32), labels)
    inputs = keras.Input((ROWS, ROWS), name="rows")
    model = keras.Model(inputs, layers.Dense(10, name="logits")(body(inputs)), name=name)
    held_out = CALIBRATION + EVALUATION
    return trained(model, x[held_out:], labels[held_out:], x[:held_out], labels[:held_out], epochs=30)
