"""The zoo: real trained networks with the data to calibrate and to judge them.

The zoo is a folder beside the repository (environment variable ``TFPTQ_ZOO``, ``../shared/zoo`` without it); its
README states sources and licences. Decoded pictures are cached as ``.npy`` (``TFPTQ_CACHE``, a folder in the system's
temporary place without it).

Preprocessing of a uint8 array x: ``raw`` x; ``unit`` x / 255; ``tf`` x / 127.5 - 1; ``torch`` (x / 255 - mean) / std
with the means and deviations of ImageNet. ``windows`` cuts a spectrogram [frames, 128] into all runs of 5 frames,
[frames - 4, 640], as MLPerf Tiny's anomaly detection does.
"""

import csv
import os
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import keras
import numpy as np
from PIL import Image

WINDOW_FRAMES = 5
UNLABELLED = -1


@dataclass(frozen=True)
class Entry:
    """Where a network and its data lie in the zoo, and what the float network reaches there.

    Attributes:
        model: the ``.keras`` file.
        preprocessing: ``raw``, ``unit``, ``tf``, ``torch`` or ``windows``.
        calibration: ``.npz`` with ``x``, or a folder of pictures with a ``<folder>_labels.csv``.
        evaluation: the same, with labels.
        float_accuracy: what the zoo's README states.
        metric: ``"top1"``, or ``"auc"`` of the mean squared reconstruction error.
        first_class: outputs before this index are no classes (a background class).
    """

    model: str
    preprocessing: str
    calibration: str
    evaluation: str
    float_accuracy: float
    metric: str = "top1"
    first_class: int = 0


_CIFAR = {"calibration": "cifar10_data/train2048.npz", "evaluation": "cifar10_data/test.npz"}
_IMAGENET = {"calibration": "imagenet_data/calib", "evaluation": "imagenet_data/eval", "first_class": 1}

ENTRIES = {
    "ic01": Entry("mlperf_ic01/pretrainedResnet.keras", "raw", float_accuracy=0.881, **_CIFAR),
    "vww01": Entry(
        "mlperf_vww01/vww_96.keras", "unit", "mlperf_vww01/calib128.npz", "mlperf_vww01/eval1000.npz", 0.853
    ),
    "kws01": Entry(
        "mlperf_kws01/kws_ref_model.keras", "raw", "mlperf_kws01/calib120.npz", "mlperf_kws01/eval880.npz", 0.924
    ),
    "ad01": Entry(
        "mlperf_ad01/ad01.keras",
        "windows",
        "mlperf_ad01/calib40_normal.npz",
        "mlperf_ad01/eval248.npz",
        0.880,
        metric="auc",
    ),
    "resnet20": Entry("cifar10_resnet/resnet20_cifar10_conv.keras", "torch", float_accuracy=0.910, **_CIFAR),
    "resnet20_pad": Entry("cifar10_resnet/resnet20_cifar10_pad.keras", "torch", float_accuracy=0.910, **_CIFAR),
    "resnet56": Entry("cifar10_resnet/resnet56_cifar10_conv.keras", "torch", float_accuracy=0.924, **_CIFAR),
    "mobilenetv2": Entry("imagenet_mobilenetv2/mobilenetv2_1.0_224_tf.keras", "tf", float_accuracy=0.812, **_IMAGENET),
    "mobilenetv2_bn": Entry(
        "imagenet_mobilenetv2/mobilenetv2_1.0_224_tf_bn.keras", "tf", float_accuracy=0.812, **_IMAGENET
    ),
}


def zoo_folder() -> Path:
    """The zoo's folder."""
    return Path(os.environ.get("TFPTQ_ZOO", Path(__file__).resolve().parents[2] / "shared" / "zoo"))


def cache_folder() -> Path:
    """Folder for what can be made again: decoded pictures, float outputs, quantized files."""
    folder = Path(os.environ.get("TFPTQ_CACHE", Path(tempfile.gettempdir()) / "tfptq-benchmarks"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True)
class ZooModel:
    """A network with its data; each part is read when it is first asked for.

    Attributes:
        name: key of ``ENTRIES``.
        entry: where it lies.
        calibration_samples: at most this many (clips, of which all windows are used, for ``"auc"``); a fixed
            random choice of what there is.
        evaluation_samples: at most this many samples (clips for ``"auc"``), from the front; None for all.
        draw: number of the random choice of calibration samples.
    """

    name: str
    entry: Entry
    calibration_samples: int = 256
    evaluation_samples: int | None = None
    draw: int = 0

    @property
    def metric(self) -> str:
        """``"top1"`` or ``"auc"``."""
        return self.entry.metric

    @cached_property
    def keras_model(self) -> keras.Model:
        """The float network."""
        return keras.saving.load_model(zoo_folder() / self.entry.model, compile=False)

    @cached_property
    def calibration(self) -> np.ndarray:
        """Unlabelled samples, float32 [N, ...]."""
        x, _ = _read(self.entry.calibration)
        return preprocess(x[_choice(len(x), self.calibration_samples, self.draw)], self.entry.preprocessing)

    @cached_property
    def evaluation(self) -> tuple[np.ndarray, np.ndarray]:
        """Samples float32 [N, ...] and labels int [N]; for ``"auc"`` the windows of all clips and labels [clips]."""
        x, y = _read(self.entry.evaluation)
        return preprocess(x[: self.evaluation_samples], self.entry.preprocessing), y[: self.evaluation_samples]

    def accuracy(self, outputs: np.ndarray) -> float:
        """Top-1 or area under the curve of the outputs [N, classes or features] for the evaluation samples."""
        _, y = self.evaluation
        if self.metric == "auc":
            return area_under_curve(self.clip_scores(outputs), y)
        return float(np.mean(self.decisions(outputs) == y))

    def clip_scores(self, outputs: np.ndarray) -> np.ndarray:
        """Mean squared reconstruction error of each clip, [clips], from the outputs [clips * windows, 640]."""
        x, y = self.evaluation
        return np.mean((outputs - x) ** 2, axis=-1).reshape(len(y), -1).mean(axis=1)

    def decisions(self, outputs: np.ndarray) -> np.ndarray:
        """Class of each sample, int [N]."""
        return outputs[:, self.entry.first_class :].argmax(axis=-1)


def load(name: str, calibration_samples: int = 256, evaluation_samples: int | None = None, draw: int = 0) -> ZooModel:
    """Look a network up.

    Raises:
        KeyError: no such network; lists those there are.
    """
    if name not in ENTRIES:
        raise KeyError(f"no zoo model {name!r}; there are {', '.join(ENTRIES)}")
    return ZooModel(name, ENTRIES[name], calibration_samples, evaluation_samples, draw)


def preprocess(x: np.ndarray, kind: str) -> np.ndarray:
    """Turn stored samples into what the network takes, float32 (see the module's docstring for the kinds)."""
    x = x.astype(np.float32)
    if kind == "raw":
        return x
    if kind == "unit":
        return x / 255
    if kind == "tf":
        return x / np.float32(127.5) - 1
    if kind == "torch":
        return (x / 255 - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    if kind == "windows":
        count = x.shape[1] - WINDOW_FRAMES + 1
        runs = np.concatenate([x[:, i : i + count] for i in range(WINDOW_FRAMES)], axis=-1)  # [clips, 196, 640]
        return runs.reshape(-1, runs.shape[-1])
    raise ValueError(f"preprocessing is {kind!r}; it must be raw, unit, tf, torch or windows")


def area_under_curve(scores: np.ndarray, labels: np.ndarray) -> float:
    """Share of (anomalous, normal) pairs that the scores [N] put in the right order; ties count half."""
    difference = scores[labels == 1][:, None] - scores[labels == 0][None, :]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def _choice(available: int, wanted: int, draw: int) -> np.ndarray:
    return np.sort(np.random.default_rng(draw).permutation(available)[:wanted])


def _read(place: str) -> tuple[np.ndarray, np.ndarray]:
    path = zoo_folder() / place
    if path.suffix == ".npz":
        with np.load(path) as data:
            return data["x"], data["y"] if "y" in data else np.zeros(len(data["x"]), int)
    with open(path.parent / f"{path.name}_labels.csv", newline="", encoding="utf-8") as file:
        labels = {row["file"]: int(row["label"]) for row in csv.DictReader(file)}
    names = sorted(item.name for item in path.iterdir())
    return _pictures(path, names), np.array([labels.get(name, UNLABELLED) for name in names])


def _pictures(folder: Path, names: list[str]) -> np.ndarray:
    """Decoded pictures, uint8 [N, H, W, 3], mapped from the cache."""
    cached = cache_folder() / f"{folder.parent.name}_{folder.name}_{len(names)}.npy"
    if not cached.exists():
        pictures = np.stack([np.asarray(Image.open(folder / name).convert("RGB")) for name in names])
        partial = cached.with_suffix(f".{os.getpid()}.partial.npy")
        np.save(partial, pictures)
        partial.replace(cached)
    return np.load(cached, mmap_mode="r")
