"""Small recurrent networks with random weights, and the sequences that they take."""

import keras
import numpy as np
from keras import layers

STEPS, FEATURES = 12, 4
RNG = np.random.default_rng(0)
SEQUENCES = RNG.normal(size=(48, STEPS, FEATURES)).astype(np.float32)


def sequential(*stack, batch_size=None):
    """A network of some layers; weights as of a trained one, not too large for their inputs."""
    inputs = keras.Input((STEPS, FEATURES), batch_size=batch_size, name="x")
    x = inputs
    for layer in stack:
        x = layer(x)
    model, rng = keras.Model(inputs, x, name="recurrent"), np.random.default_rng(1)
    for weight in model.weights:
        size = 1.5 / np.sqrt(weight.shape[0]) if len(weight.shape) > 1 else 0.2
        weight.assign(size * rng.normal(size=weight.shape))
    return model


def lstm(units=16, **options):
    return layers.LSTM(units, **{"name": "memory", **options})


def head():
    return layers.Dense(3, name="head")


#: Name -> function that makes a network all of whose recurrent layers are LSTM operators in a file.
NETWORKS = {
    "last step": lambda: sequential(lstm(), head()),
    "all steps": lambda: sequential(layers.Dense(5, name="front"), lstm(return_sequences=True)),
    "stacked": lambda: sequential(lstm(name="first", return_sequences=True), lstm(12, name="second"), head()),
    "both ways": lambda: sequential(layers.Bidirectional(lstm(), name="both"), head()),
    "both ways, all steps": lambda: sequential(
        layers.Bidirectional(lstm(return_sequences=True), merge_mode="sum", name="both"), head()
    ),
    "backwards": lambda: sequential(lstm(return_sequences=True, go_backwards=True, use_bias=False), head()),
    "behind a convolution": lambda: sequential(
        layers.Conv1D(8, 3, activation="relu", name="conv"), lstm(dropout=0.2, recurrent_dropout=0.2), head()
    ),
}
