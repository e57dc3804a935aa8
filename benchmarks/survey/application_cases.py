"""The networks of ``keras.applications`` at 96 x 96, without their classifiers, which would be most of them."""

from functools import partial

import keras
import numpy as np

from benchmarks.survey.case import Case, MakeCase, with_samples

SIZE, CALIBRATION, HELD_OUT = 96, 16, 8
#: Constructors, smallest first.
APPLICATIONS = (
    *("MobileNet", "MobileNetV2", "MobileNetV3Small", "MobileNetV3Large", "NASNetMobile"),
    *(f"EfficientNetB{number}" for number in range(4)),
    *(f"EfficientNetV2B{number}" for number in range(4)),
    *("DenseNet121", "DenseNet169", "DenseNet201", "Xception", "InceptionV3", "ResNet50", "ResNet50V2", "VGG16"),
    *("VGG19", "EfficientNetB4", "EfficientNetV2S", "ConvNeXtTiny", "ConvNeXtSmall", "ResNet101", "ResNet101V2"),
    *("EfficientNetB5", "InceptionResNetV2", "ResNet152", "ResNet152V2", "EfficientNetB6", "EfficientNetV2M"),
    *("EfficientNetB7", "NASNetLarge", "ConvNeXtBase", "EfficientNetV2L", "ConvNeXtLarge", "ConvNeXtXLarge"),
)


def application_cases() -> dict[str, MakeCase]:
    """``"applications.NAME"`` -> case."""
    return {f"applications.{name}": partial(_case, name) for name in APPLICATIONS}


def _case(name: str, draw: int) -> Case:
    keras.utils.set_random_seed(draw)
    constructor = getattr(keras.applications, name)
    model = constructor(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3), pooling="avg")
    return with_samples(model, draw, {model.inputs[0].name: _pictures(draw)}, CALIBRATION)


def _pictures(draw: int) -> np.ndarray:
    """Smooth pictures ``[N, 96, 96, 3]`` from 0 to 255: noise of several sizes."""
    rng, count = np.random.default_rng(draw), CALIBRATION + HELD_OUT
    pictures = np.zeros((count, SIZE, SIZE, 3))
    for cell in (2, 8, 24, 48):
        coarse = rng.normal(size=(count, SIZE // cell, SIZE // cell, 3))
        pictures += np.kron(coarse, np.ones((1, cell, cell, 1))) * rng.uniform(0.3, 1.0, (count, 1, 1, 1))
    low, high = (bound(pictures, axis=(1, 2, 3), keepdims=True) for bound in (np.min, np.max))
    return (255.0 * (pictures - low) / (high - low)).astype(np.float32)
