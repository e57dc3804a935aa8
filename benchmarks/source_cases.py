"""What ``benchmarks.sources`` tries: one network from all sources, and small models of KerasHub.

Weights are random, so that what is measured is what is taken and how it is computed, and not how accurate a trained
network stays. A case is a function of a folder to write in that returns a source and its samples.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

Case = Callable[[Path], tuple[Any, Any]]
SAMPLES, SIZE = 4, 96


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random((SAMPLES, *shape)).astype(np.float32)


def _tokens(length: int, vocabulary: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, vocabulary, (SAMPLES, length)).astype(np.int32)


def _images() -> np.ndarray:
    return _random(SIZE, SIZE, 3)


def small_network(kit: Any) -> Any:
    """A convolutional network of Keras 3 or of tf_keras."""
    layers = kit.layers
    return kit.Sequential(
        [
            kit.Input((SIZE, SIZE, 3), name="image"),
            layers.Conv2D(8, 3, strides=2, use_bias=False, name="stem"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.DepthwiseConv2D(3, name="deep"),
            layers.Conv2D(16, 1, activation="relu", name="point"),
            layers.GlobalAveragePooling2D(name="mean"),
            layers.Dense(5, name="logits"),
        ],
        name="net",
    )


class Subclassed(keras.Model):
    """The same network, whose graph Keras does not know."""

    def __init__(self) -> None:
        super().__init__(name="subclassed")
        self.net = small_network(keras)

    def call(self, inputs):
        """What the network computes."""
        return self.net(inputs)


def _of_keras(change: Callable[[keras.Model, Path], Any]) -> Case:
    def make(folder: Path) -> tuple[Any, Any]:
        keras.utils.set_random_seed(0)
        return change(small_network(keras), folder), _images()

    return make


def _saved(ending: str) -> Case:
    def save(model: keras.Model, folder: Path) -> Path:
        path = folder / f"net{ending}"
        model.save(path)
        return path

    return _of_keras(save)


def _exported(model: keras.Model, folder: Path) -> Path:
    model.export(folder / "net", verbose=False)
    return folder / "net"


def _float_tflite(model: keras.Model, folder: Path) -> Path:
    import tensorflow as tf

    path = folder / "net.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    return path


def _subclassed(folder: Path) -> tuple[Any, Any]:
    del folder
    keras.utils.set_random_seed(0)
    model = Subclassed()
    model(_images())
    return model, _images()


def _tf_keras(folder: Path) -> tuple[Any, Any]:
    del folder
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    return small_network(tf_keras), _images()


def _hub(build: Callable[[Any], Any], samples: Callable[[], Any]) -> Case:
    def make(folder: Path) -> tuple[Any, Any]:
        del folder
        import keras_hub

        keras.utils.set_random_seed(0)
        return build(keras_hub.models), samples()

    return make


def _text(names: tuple[str, ...], length: int = 16, vocabulary: int = 100) -> Callable[[], dict[str, np.ndarray]]:
    def samples() -> dict[str, np.ndarray]:
        values = {
            "token_ids": _tokens(length, vocabulary),
            "padding_mask": np.ones((SAMPLES, length), np.int32),
            "segment_ids": np.zeros((SAMPLES, length), np.int32),
        }
        return {name: values[name] for name in names}

    return samples


def _fixed(backbone: keras.Model, length: int) -> keras.Model:
    """A backbone on token ids of one length: TFLite files cannot compute most positions of an open one."""
    inputs = {name: keras.Input((length,), dtype="int32", name=name) for name in backbone.input}
    return keras.Model(inputs, backbone(inputs))


def _encoder_of_whisper(models: Any) -> Any:
    whole = models.WhisperBackbone(100, 2, 2, 32, 64, num_mels=20, max_encoder_sequence_length=40)
    return keras.Model(whole.input["encoder_features"], whole.output["encoder_sequence_output"])


def _segmenter(models: Any) -> Any:
    encoder = models.MiTBackbone(
        image_shape=(SIZE, SIZE, 3),
        num_layers=2,
        hidden_dims=[16, 32],
        layerwise_depths=[1, 1],
        layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[2, 1],
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
        max_drop_path_rate=0.0,
    )
    return models.SegFormerBackbone(image_encoder=encoder, projection_filters=16)


def _mobilenet_v3(models: Any) -> Any:
    return models.MobileNetBackbone(
        stackwise_expansion=[[16, 24], [32, 40]],
        stackwise_num_blocks=[2, 2],
        stackwise_num_filters=[[16, 16], [24, 24]],
        stackwise_kernel_size=[[3, 3], [5, 5]],
        stackwise_num_strides=[[2, 1], [2, 1]],
        stackwise_se_ratio=[[None, None], [0.25, 0.25]],
        stackwise_activation=[["relu", "relu"], ["hard_swish", "hard_swish"]],
        stackwise_padding=[[1, 1], [2, 2]],
        output_num_filters=48,
        depthwise_filters=8,
        depthwise_stride=2,
        depthwise_residual=False,
        last_layer_filter=64,
        squeeze_and_excite=0.5,
        image_shape=(SIZE, SIZE, 3),
    )


def _efficientnet(models: Any) -> Any:
    return models.EfficientNetBackbone(
        stackwise_kernel_sizes=[3, 5],
        stackwise_num_repeats=[1, 2],
        stackwise_input_filters=[16, 16],
        stackwise_output_filters=[16, 24],
        stackwise_expansion_ratios=[1, 4],
        stackwise_squeeze_and_excite_ratios=[0.25, 0.25],
        stackwise_strides=[1, 2],
        stackwise_block_types=["v1", "v1"],
        stackwise_force_input_filters=[0, 0],
        stackwise_nores_option=[False, False],
        stackwise_width_coefficients=[1.0, 1.0],
        stackwise_depth_coefficients=[1.0, 1.0],
        input_shape=(SIZE, SIZE, 3),
        num_features=64,
    )


#: Name -> case, in the order of the table.
CASES: dict[str, Case] = {
    "Keras, Sequential": _of_keras(lambda model, folder: model),
    "Keras, subclassed": _subclassed,
    "Keras, `.keras`": _saved(".keras"),
    "Keras, `.h5`": _saved(".h5"),
    "SavedModel": _of_keras(_exported),
    "float `.tflite`": _of_keras(_float_tflite),
    "tf_keras": _tf_keras,
    "KerasHub, BERT": _hub(
        lambda models: _fixed(models.BertBackbone(100, 2, 2, 32, 64, max_sequence_length=16), 16),
        _text(("token_ids", "padding_mask", "segment_ids")),
    ),
    "KerasHub, DistilBERT": _hub(
        lambda models: _fixed(models.DistilBertBackbone(100, 2, 2, 32, 64, max_sequence_length=16), 16),
        _text(("token_ids", "padding_mask")),
    ),
    "KerasHub, Gemma": _hub(
        lambda models: _fixed(models.GemmaBackbone(100, 2, 2, 1, 32, 64, 16), 16),
        _text(("token_ids", "padding_mask")),
    ),
    "KerasHub, GPT-2": _hub(
        lambda models: _fixed(models.GPT2Backbone(100, 2, 2, 32, 64, max_sequence_length=16), 16),
        _text(("token_ids", "padding_mask")),
    ),
    "KerasHub, Whisper encoder": _hub(_encoder_of_whisper, lambda: _random(40, 20)),
    "KerasHub, ViT": _hub(lambda models: models.ViTBackbone((SIZE, SIZE, 3), (16, 16), 2, 2, 32, 64), _images),
    "KerasHub, DeiT": _hub(lambda models: models.DeiTBackbone((SIZE, SIZE, 3), (16, 16), 2, 2, 32, 64), _images),
    "KerasHub, DINOv2": _hub(
        lambda models: models.DINOV2Backbone(
            16, 2, 32, 2, 64, image_shape=(SIZE, SIZE, 3), position_embedding_shape=(SIZE, SIZE, 3)
        ),
        lambda: {"images": _images()},
    ),
    "KerasHub, EfficientNet": _hub(_efficientnet, _images),
    "KerasHub, MobileNetV3": _hub(_mobilenet_v3, _images),
    "KerasHub, SegFormer": _hub(_segmenter, _images),
}
