"""Calibration samples from files: ``.npy``, ``.npz``, or a folder of images.

When there are more samples than wanted, a random choice is taken, not the first ones: files are often sorted by class.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfptq.cli.command_line import UsageError
from tfptq.data.array_files import load_arrays

if TYPE_CHECKING:  # the flags need not wait for TensorFlow, and arrays need no Pillow
    from PIL import Image

    from tfptq.data.checks import InputSpec


@dataclass(frozen=True)
class Preprocessing:
    """``(pixels 0..255 - offset) / divisor``, for each channel; ``bgr`` turns red, green, blue round before that."""

    offset: tuple[float, ...] = (0.0,)
    divisor: tuple[float, ...] = (1.0,)
    bgr: bool = False


#: The modes of ``keras.applications`` have its names.
PREPROCESSING = {
    "raw": Preprocessing(),
    "unit": Preprocessing(divisor=(255.0,)),
    "tf": Preprocessing((127.5,), (127.5,)),
    "torch": Preprocessing((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "caffe": Preprocessing((103.939, 116.779, 123.68), bgr=True),
}
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
_IMAGE_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def load_calibration_data(
    path: str | Path, inputs: "tuple[InputSpec, ...]", samples: int, seed: int, preprocessing: str | None = None
) -> Any:
    """Find calibration samples for a model.

    Args:
        path: a ``.npy`` file with an array ``[samples, ...]``; a ``.npz`` file with one such array for each input of
            the model, under its name; or a folder that is searched for images.
        inputs: what the model asks for.
        samples: largest number of samples to use; 0 for all.
        seed: seed of the choice, where there are more.
        preprocessing: key of ``PREPROCESSING``, for images.

    Returns:
        A dataset that ``tfptq.quantize_keras_model`` takes.

    Raises:
        UsageError: images without preprocessing.
        ValueError: unknown kind of file, no images, or images for a model that takes none.
        OSError: no such file, or it cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        return _image_folder(path, inputs, samples, seed, _needed_preprocessing(preprocessing))
    if path.suffix not in (".npy", ".npz"):
        raise ValueError(f"calibration data {path} is neither a .npy or .npz file nor an existing folder of images")
    loaded = load_arrays(path, "calibration data")
    if isinstance(loaded, np.ndarray):
        if len(inputs) > 1:
            names = [spec.name for spec in inputs]
            raise ValueError(
                f"calibration data {path} is one array, and the model has the inputs {', '.join(names)}; write a .npz "
                f"file with an array for each: numpy.savez(path, {', '.join(f'{name}=...' for name in names)})"
            )
        return _chosen({"": loaded}, samples, seed)[""]
    arrays = _chosen(loaded, samples, seed)
    unnamed = set(arrays) == {f"arr_{index}" for index in range(len(arrays))}
    return [arrays[f"arr_{index}"] for index in range(len(arrays))] if unnamed else arrays


def load_labels(path: str | Path) -> np.ndarray | dict[str, np.ndarray]:
    """Labels of evaluation samples: an array, or of an archive one for each output by its name.

    Raises:
        ValueError: the file holds something else.
        OSError: no such file, or it cannot be read.
    """
    return load_arrays(path, "labels")


def image_paths(folder: Path) -> list[Path]:
    """All images in a folder and those in it, in order.

    Raises:
        ValueError: something that is no file has the name of an image; a pipe would be waited for.
    """
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir())
    for path in found:
        if not path.is_file():
            raise ValueError(f"cannot read the image {path}: it is no file")
    return found


def check_preprocessing(preprocessing: str | None, *paths: str | Path) -> None:
    """Refuse images without preprocessing, and preprocessing without images; no model is needed to know that.

    Raises:
        UsageError: a path is a folder, and the preprocessing is None; or it is given, and all paths are files.
    """
    if any(Path(path).is_dir() for path in paths):
        _needed_preprocessing(preprocessing)
    if preprocessing is not None and all(Path(path).is_file() for path in paths):
        raise UsageError(
            f"--preprocessing={preprocessing} is for folders of images; the arrays in {paths[0]} are taken as they "
            "are: leave the flag out, and let the arrays hold what the model takes"
        )


def _needed_preprocessing(preprocessing: str | None) -> str:
    if preprocessing is None:
        raise UsageError(
            f"images need --preprocessing, which says how pixels 0..255 become inputs: {', '.join(PREPROCESSING)}"
        )
    return preprocessing


def _choice(count: int, samples: int, seed: int) -> np.ndarray:
    """Sorted indices of the samples to use."""
    if samples in (0, count) or samples > count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, samples, replace=False))


def _chosen(arrays: dict[str, np.ndarray], samples: int, seed: int) -> dict[str, np.ndarray]:
    """The same choice of samples from each array; arrays of different lengths are left for ``tfptq`` to refuse."""
    lengths = {len(array) if array.ndim else 0 for array in arrays.values()}
    if len(lengths) != 1 or samples == 0 or samples >= max(lengths):
        return arrays
    indices = _choice(max(lengths), samples, seed)
    return {name: array[indices] for name, array in arrays.items()}


def _image_folder(
    folder: Path, inputs: "tuple[InputSpec, ...]", samples: int, seed: int, preprocessing: str
) -> Callable[[], Iterator[np.ndarray]]:
    """A function that yields the images of a folder, as the model takes them, one by one."""
    height, width, channels = _image_shape(inputs)
    wanted = PREPROCESSING[preprocessing]
    offset, divisor = np.array(wanted.offset, np.float32), np.array(wanted.divisor, np.float32)
    if len(offset) not in (1, channels):
        raise ValueError(f"--preprocessing={preprocessing} is for {len(offset)} channels; the model takes {channels}")
    paths = image_paths(folder)
    if not paths:
        raise ValueError(f"the folder {folder} holds no images ({', '.join(IMAGE_SUFFIXES)})")
    chosen = [paths[index] for index in _choice(len(paths), samples, seed)]
    read_image = _image_reader(height, width, _IMAGE_MODES[channels])

    def generate() -> Iterator[np.ndarray]:
        for path in chosen:
            pixels = read_image(path).reshape(1, height, width, channels)
            yield ((pixels[..., ::-1] if wanted.bgr else pixels) - offset) / divisor

    return generate


def _image_shape(inputs: "tuple[InputSpec, ...]") -> tuple[int, int, int]:
    if len(inputs) != 1:
        raise ValueError(
            f"a folder of images serves models with one input; this one has {len(inputs)}: use a .npz file"
        )
    (spec,) = inputs
    match spec.shape:
        case (int(height), int(width), int(channels)) if channels in _IMAGE_MODES:
            return height, width, channels
    raise ValueError(
        f"a folder of images serves inputs [batch, height, width, 1, 3 or 4] of fixed size; "
        f"the input {spec.name!r} is {spec}: use a .npy file"
    )


def _in_8_bits(image: "Image.Image") -> np.ndarray:
    """Grey values of 16 bits as those of 8; Pillow itself would clip them to 255."""
    return (np.asarray(image).astype(np.int64) // 257).clip(0, 255).astype(np.uint8)


def _image_reader(height: int, width: int, mode: str) -> Callable[[Path], np.ndarray]:
    """A function that reads an image file, crops it in the middle to the aspect of the input, and scales it."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ValueError("reading images needs Pillow; install it with: pip install pillow") from error

    def read(path: Path) -> np.ndarray:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)  # pictures of 90 million pixels
                with Image.open(path) as image:
                    upright = ImageOps.exif_transpose(image)
                    if upright.mode.startswith("I"):
                        upright = Image.fromarray(_in_8_bits(upright))
                    upright = upright.convert(mode)
        except Exception as error:  # Pillow raises all kinds on files that it does not understand
            raise ValueError(f"cannot read the image {path}: {str(error) or type(error).__name__}") from error
        return np.asarray(ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR), np.float32)

    return read
