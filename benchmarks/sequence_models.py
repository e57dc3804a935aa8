"""Small transformers, trained on data that ships with scikit-learn: handwritten digits, and the texts of data sets.

Both are trained in about a minute with fixed seeds. Files are judged on samples that training did not see, by the
distance of their logits from those of the float network.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

WIDTH, HEADS = 64, 4
#: Of the random encoders, whose samples are so many tokens.
WIDE, TOKENS = 128, 64
#: Words of a sample, and of the vocabulary; word 0 stands for all others.
WORDS, VOCABULARY = 32, 512
CALIBRATION, EVALUATION = 256, 256


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network with samples to calibrate and to judge it; labels where there are any."""

    model: keras.Model
    calibration: np.ndarray
    evaluation: np.ndarray
    labels: np.ndarray | None

    @property
    def accuracy(self) -> float:
        """Share of the samples of evaluation that the float network tells right."""
        return float(np.mean(self.model.predict(self.evaluation, verbose=0).argmax(axis=1) == self.labels))


def vit() -> Trained:
    """A vision transformer of three blocks on 8x8 digits, in patches of 2x2."""
    keras.utils.set_random_seed(0)
    x, labels = load_digits(return_X_y=True)
    x, labels = shuffled((x.reshape(-1, 8, 8, 1) / 16.0).astype(np.float32), labels)
    inputs = keras.Input((8, 8, 1), name="image")
    tokens = layers.Reshape((16, WIDTH))(layers.Conv2D(WIDTH, 2, strides=2, name="patches")(inputs))
    model = keras.Model(inputs, _head(_blocks(_with_positions(tokens, 16), 3), 10), name="vit")
    held_out = CALIBRATION + EVALUATION
    return trained(model, x[held_out:], labels[held_out:], x[:held_out], labels[:held_out], epochs=20)


def text() -> Trained:
    """A text encoder of two blocks: which data set a run of words describes."""
    keras.utils.set_random_seed(0)
    texts = _texts()
    counts = Counter(word for words in texts for word in words)
    number = {word: at for at, (word, _) in enumerate(counts.most_common(VOCABULARY - 1), 1)}
    coded = [np.array([number.get(word, 0) for word in words], np.int32) for words in texts]
    rng = np.random.default_rng(0)
    parts = [_windows(rng, coded, share, count) for share, count in (((0.0, 0.75), 8192), ((0.75, 1.0), 512))]
    (x, labels), (unseen, unseen_labels) = parts
    inputs = keras.Input((WORDS,), dtype="int32", name="words")
    tokens = layers.Embedding(VOCABULARY, WIDTH, name="embedding")(inputs)
    model = keras.Model(inputs, _head(_blocks(_with_positions(tokens, WORDS), 2), len(texts)), name="text")
    return trained(model, x, labels, unseen, unseen_labels, epochs=4)


def random_encoder(after: bool, spread: float) -> Trained:
    """Six blocks with random weights, on random tokens.

    Args:
        after: normalize the sums, as the first transformers did, and not what dense layers read.
        spread: of the logarithms of the gains of normalizations; trained ones have large channels.
    """
    keras.utils.set_random_seed(0)
    inputs = keras.Input((TOKENS, WIDE), name="tokens")
    model = keras.Model(inputs, _blocks(inputs, 6, WIDE, after))
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.LayerNormalization):
            layer.gamma.assign(np.exp(rng.normal(0, spread, layer.gamma.shape)))
    x = rng.normal(0, 1, (192, TOKENS, WIDE)).astype(np.float32)
    return Trained(model, x[:128], x[128:], None)


MODELS: dict[str, Callable[[], Trained]] = {"vit": vit, "text": text}


class Positions(layers.Layer):
    """Adds a trained vector to each position."""

    def __init__(self, length: int, **options):
        super().__init__(**options)
        self.length = length

    def build(self, input_shape):
        """The table."""
        self.table = self.add_weight(shape=(self.length, input_shape[-1]), initializer="uniform", name="table")

    def call(self, x):
        """``x + table``."""
        return x + self.table

    def get_config(self):
        """For copies."""
        return {**super().get_config(), "length": self.length}


def _with_positions(tokens, length: int):
    return Positions(length, name="positions")(tokens)


def _blocks(x, count: int, width: int = WIDTH, after: bool = False):
    """Blocks of attention and two dense layers; normalized is what they read, or ``after`` them the sums."""
    for number in range(count):
        y = x if after else layers.LayerNormalization(name=f"norm_{number}")(x)
        x = layers.Add()([x, layers.MultiHeadAttention(HEADS, width // HEADS, name=f"attention_{number}")(y, y)])
        y = layers.LayerNormalization(name=f"inner_norm_{number}")(x)
        x = y if after else x
        y = layers.Dense(2 * width, activation="gelu", name=f"up_{number}")(y)
        x = layers.Add()([x, layers.Dense(width, name=f"down_{number}")(y)])
        x = layers.LayerNormalization(name=f"outer_norm_{number}")(x) if after else x
    return x if after else layers.LayerNormalization(name="last_norm")(x)


def _head(x, classes: int):
    return layers.Dense(classes, name="logits")(layers.GlobalAveragePooling1D()(x))


def trained(model, x, labels, unseen, unseen_labels, epochs: int) -> Trained:
    """Train a network that gives logits; the unseen samples are for calibration and evaluation."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss)
    model.fit(x, labels, batch_size=64, epochs=epochs, verbose=0)
    part = slice(CALIBRATION, CALIBRATION + EVALUATION)
    return Trained(model, x[:CALIBRATION], unseen[part], unseen_labels[part])


def shuffled(x: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Samples in an order of no meaning."""
    order = np.random.default_rng(0).permutation(len(x))
    return x[order], labels[order]


def _texts() -> list[list[str]]:
    """Words of each description of a data set, those of many words only."""
    folder = resources.files("sklearn.datasets.descr")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".rst")), key=lambda file: file.name)
    words = [re.findall(r"[a-z]+|[0-9]+", file.read_text(encoding="utf-8").lower()) for file in files]
    return [each for each in words if len(each) >= 4 * WORDS]


def _windows(rng: np.random.Generator, texts: list[np.ndarray], share: tuple[float, float], count: int):
    """Runs of words out of a part of each text, with the number of the text; a tenth of the words is left out."""
    labels = rng.integers(0, len(texts), count)
    rows = []
    for label in labels:
        first, last = (int(part * len(texts[label])) for part in share)
        start = rng.integers(first, max(last - WORDS, first) + 1)
        row = np.zeros(WORDS, np.int32)
        found = texts[label][start : start + WORDS]
        row[: len(found)] = found
        rows.append(np.where(rng.random(WORDS) < 0.1, 0, row))
    return np.stack(rows).astype(np.int32), labels
