"""The float side of quantization: the canonical network, channels equalized, rotated and reordered, and the samples.

Everything here leaves the function of the network as it is; each step is checked for that on some samples.
"""

import os
import warnings
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfptq.base.progress import Progress
from tfptq.base.quiet import quiet
from tfptq.base.text import counted
from tfptq.config import QuantizationConfig, check_overrides, pin, pin_edges
from tfptq.data.calibration import CalibrationData, calibration_data, calibration_data_for, random_data
from tfptq.data.checks import input_specs
from tfptq.float_file.build import check_outputs
from tfptq.float_file.file_model import FileModel
from tfptq.float_file.file_rounding import file_tolerances
from tfptq.float_file.fixed_batch import with_batch_of_one
from tfptq.graph import (
    FloatEqualityError,
    canonicalise,
    check_float_equal,
    edge_layers,
    few_samples,
    fresh_states,
    input_normalizations_to_keep,
)
from tfptq.graph.legacy_h5 import OPERATIONS, load_legacy_h5
from tfptq.graph.rebuild import UnknownGraphError, unknown_class
from tfptq.layers import QuantizeAnnotate, is_weighted, looks_up, supports, weight_specs, wrappers
from tfptq.prepare.bits import choose_bits, distinct_ratios, sensitivity_of_layers
from tfptq.prepare.dynamic_blocks import with_blocks_of_target
from tfptq.prepare.equalize import equalize_channels
from tfptq.prepare.reorder import ReorderedModel, reorder_channels
from tfptq.prepare.rotate import rotate_linear_channels
from tfptq.prepare.sensitivity import SAMPLES as SENSITIVITY_SAMPLES
from tfptq.prepare.sources import file_source, keras_file_model
from tfptq.prepare.storage import groups_of, with_bits_of_target

#: Samples that tell the sizes of the channels of inputs.
SAMPLES_OF_INPUTS = 1024
#: A layer at an edge that holds more of the weights is treated as all others: there 8 bits cost more than they bring.
EDGE_SHARE = 0.1
#: Classes of Keras that may hold constants which become kernels.
_WITH_KERNELS = frozenset(
    (
        *("Lambda", "TFSMLayer", "MelSpectrogram", "STFTSpectrogram"),
        *("Conv", "DepthwiseConv", "ConvTranspose", "SeparableConv", "Matmul", "Dot", "Einsum", "Tensordot"),
    )
)


@dataclass(frozen=True, eq=False)
class FloatNetwork:
    """A float network that is ready to be converted and quantized.

    Attributes:
        model: canonical Keras model, or the float file where no Keras graph is known.
        data: the calibration data; in full batches if the model has a fixed batch size.
        batch: its first batch.
        config: the config with the layers at the edges pinned and, once they are, the bits of mixed precision chosen.
        differences: step -> largest relative difference of an output that it made.
        coarse_inputs: inputs whose channels differ too much in size for one grid of integers.
        reordered: what reordering did; None if it was not asked for.
        original: the model as it was given; None for the network of a simulation.
        notes: what to tell the user.
    """

    model: keras.Model | FileModel
    data: CalibrationData
    batch: dict[str, np.ndarray]
    config: QuantizationConfig
    differences: dict[str, float]
    coarse_inputs: tuple[str, ...] = ()
    reordered: ReorderedModel | None = None
    original: keras.Model | None = None
    notes: tuple[str, ...] = ()

    @property
    def batch_size(self) -> int | None:
        """Number of samples that the model takes at once; None for any."""
        return self.model.inputs[0].shape[0]

    def changed(self, step: str, model: keras.Model) -> "FloatNetwork":
        """The network after a step, or without it, and with a warning, where that is not float-equal on few samples.

        Steps are for better files only, and a file without one is better than none; but one that goes wrong is a fault.
        """
        few = few_samples(self.batch, self.batch_size)
        try:
            difference = max(check_float_equal(self.model, model, few).values())
        except FloatEqualityError as error:
            note = f"step {step!r} was left out, which leaves the file sound and less exact: {error}"
            warnings.warn(note, stacklevel=2)
            return replace(self, notes=(*self.notes, note))
        return replace(self, model=model, differences={**self.differences, step: difference})


def prepare(
    source: Any, dataset: Any, config: QuantizationConfig, seed: int, steps: Progress, signature: str | None = None
) -> FloatNetwork:
    """Fold BatchNorms, choose bits, equalize, rotate and reorder channels, as the config asks and the source allows.

    Args:
        source: what ``tfptq.quantize`` takes.
        dataset: what ``tfptq.calibration_data`` takes.
        config: how to quantize.
        seed: seed of everything random.
        steps: the job's progress.
        signature: signature of a file or SavedModel.

    Raises:
        ValueError: the model or the data cannot be used, an override fits no layer, or folding changed what the
            network computes.
        FileNotFoundError: no model at the path.
    """
    with steps.step("canonicalise"):
        network = _open(source, dataset, config, signature)
    if isinstance(network.model, FileModel):
        return network
    config = network.config
    if config.mixed_precision is not None:
        with steps.step("bits") as advance:
            config, _ = choose_bits(config, network.model, network.data.spread(SENSITIVITY_SAMPLES), seed, advance)
        network = replace(network, config=config)
    if config.equalize:
        with steps.step("equalize"):
            equalized = equalize_channels(network.model, config, network.data)
            if equalized is not network.model:
                network = network.changed("equalize", equalized)
    if config.rotate:
        with steps.step("rotate") as advance:
            rotated = rotate_linear_channels(network.model, config, seed, advance)
            if rotated is not network.model:
                network = network.changed("rotate", rotated)
    if config.reorder:
        with steps.step("reorder") as advance:
            reordered = reorder_channels(network.model, config, advance=advance)
            network = network.changed("reorder", reordered.model)
            if network.model is reordered.model:
                network = replace(network, reordered=reordered)
    return network


def _open(source: Any, dataset: Any, config: QuantizationConfig, signature: str | None) -> FloatNetwork:
    """The canonical network of a source, or its float file, with the data for it, before bits are chosen."""
    found = source if isinstance(source, FileModel) else file_source(source, dataset, signature)
    if found is not None:
        return _file_network(found, dataset, config)
    original = load_model(source)
    _refuse_simulations(original)
    try:
        return _canonical_network(original, dataset, config)
    except (UnknownGraphError, FloatEqualityError) as error:
        if not (isinstance(original, keras.Model) and original.built):
            raise
        if isinstance(error, FloatEqualityError) and not _has_custom_layers(original):
            raise
        reason = str(error) if isinstance(error, UnknownGraphError) else "its layers differ when they are made anew"
        try:
            return _file_network(keras_file_model(original, dataset, reason), dataset, config)
        except ValueError:
            if isinstance(error, FloatEqualityError):  # it is not that layers are made anew
                raise error from None
            raise


def _has_custom_layers(model: keras.Model) -> bool:
    """Whether a model holds layers that Keras does not have; their configs may say less than they need."""
    return any(not type(layer).__module__.startswith("keras.") for layer in model._flatten_layers(include_self=False))


def _file_network(model: FileModel, dataset: Any, config: QuantizationConfig) -> FloatNetwork:
    """A float file with the data for it, checked against what it was made of."""
    if config.takes_single(model.float_file.batch_size):
        model = with_batch_of_one(model)
    float_file = model.float_file
    if dataset is None:
        config.without_samples()  # or it is refused
    data = random_data(model.specs) if dataset is None else calibration_data_for(model.specs, dataset)
    if float_file.batch_size is not None:
        data = data.in_full_batches(float_file.batch_size)
    batch = next(iter(data))
    few = few_samples(batch, float_file.batch_size)
    difference = check_outputs(float_file, model.name, model.run(few), few, partial(file_tolerances, float_file, few))
    steps = [name for name in ("equalize", "rotate", "reorder") if getattr(config, name)]
    left = f"; the config's {', '.join(steps)} had nothing to work on" if steps else ""
    note = (
        f"taken as a float file: its channels were not prepared, and there is no Keras simulation{left}, because no "
        f"Keras graph is known: {model.reason}"
    )
    return FloatNetwork(model, data, batch, config, {"convert": difference}, notes=(note,))


def distinct_ratios_of(
    model: keras.Model, dataset: Any, config: QuantizationConfig, ratios: Iterable[float], seed: int
) -> tuple[float, ...]:
    """Of some ratios of mixed precision, the least one that leads to each choice of widths; see ``prepare``."""
    network = _canonical_network(model, dataset, config)
    batches = network.data.spread(SENSITIVITY_SAMPLES)
    sensitivity = sensitivity_of_layers(network.config, network.model, batches, seed)
    return distinct_ratios(network.config, groups_of(network.model), sensitivity, ratios)


def _canonical_network(original: keras.Model, dataset: Any, config: QuantizationConfig) -> FloatNetwork:
    """The network before bits are chosen."""
    canonical = canonicalise(original)
    config = pinned_config(config, canonical)
    if dataset is None:
        config.without_samples()  # or it is refused
    data = random_data(input_specs(canonical)) if dataset is None else calibration_data(canonical, dataset)
    fixed_batch = canonical.inputs[0].shape[0]
    if fixed_batch is not None:
        data = data.in_full_batches(fixed_batch)
    batch = next(iter(data))
    kept = input_normalizations_to_keep(original, data.spread(SAMPLES_OF_INPUTS))
    coarse: tuple[str, ...] = ()
    if config.interface_types[0] != "float32":
        coarse = tuple(dict.fromkeys(kept.values()))  # nothing can be normalized in front of a grid of integers
    elif kept:
        canonical = canonicalise(original, kept)
    few = few_samples(batch, fixed_batch)
    with fresh_states(original):
        difference = max(check_float_equal(original, canonical, few).values())
    return FloatNetwork(canonical, data, batch, config, {"canonicalise": difference}, coarse, original=original)


def _refuse_simulations(model: keras.Model) -> None:
    if isinstance(model, keras.Model) and wrappers(model):
        raise ValueError(
            f"the model {model.name!r} is a simulation of a quantized one; tfptq.export_simulation writes its file. "
            "To quantize it anew, take the wrappers off with tfptq.layers.strip"
        )
    _refuse_annotations(model)


def _refuse_annotations(model: keras.Model) -> None:
    """An annotation may hold any ``QuantizeConfig``, which the pipeline could not follow."""
    layers = model._flatten_layers() if isinstance(model, keras.Model) else ()
    marked = [layer.layer.name for layer in layers if isinstance(layer, QuantizeAnnotate)]
    if marked:
        raise ValueError(
            f"the model {model.name!r} has {counted(len(marked), 'annotated layer')}, the first {marked[0]!r}, and "
            "quantize_keras_model does not follow annotations. "
            "tfptq.export_simulation(tfptq.layers.quantize_apply(model), dataset) writes the file of what they say; or "
            "pass the model without quantize_annotate_layer, and say what differs by overrides of the config"
        )


def load_model(model: keras.Model | str | os.PathLike) -> keras.Model:
    """The model, or the one in a ``.keras`` or ``.h5`` file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another file, or one that Keras cannot read; a class that Keras does not know is named.
    """
    if not isinstance(model, str | os.PathLike):
        return model
    path = Path(model)
    if path.suffix not in (".keras", ".h5"):
        raise ValueError(f"the model file {path} must end in .keras or .h5; save the model with model.save(path)")
    if not path.is_file():
        raise FileNotFoundError(f"there is no model file {path}")
    with quiet():  # the first operator of a process looks for devices
        tf.config.list_logical_devices()
    try:
        return _read_model(path)
    except Exception as error:  # Keras raises all kinds on files that it does not understand
        unknown = unknown_class(error)
        if unknown in OPERATIONS:
            raise ValueError(
                f"the model file {path} holds operations on tensors as Keras 2 stored them ({unknown}), which Keras 3 "
                "cannot read; build the model anew by its code, with Keras 3, and fetch the weights with "
                "model.load_weights(path)"
            ) from error
        if unknown:
            raise ValueError(
                f"the model file {path} holds the custom class or function {unknown!r}, which Keras does not know; "
                f"load it with keras.saving.load_model(path, custom_objects={{{unknown!r}: ...}}) and pass the "
                "model, or register it with keras.saving.register_keras_serializable before"
            ) from error
        raise ValueError(
            f"the model file {path} cannot be read: {error}. Save the model again with model.save(path), or pass the "
            "keras.Model itself"
        ) from error


def _read_model(path: Path) -> keras.Model:
    try:
        return keras.models.load_model(path, compile=False)
    except (TypeError, ValueError):
        model = load_legacy_h5(path) if path.suffix == ".h5" else None
        if model is None:
            raise
        return model


def pinned_config(config: QuantizationConfig, model: keras.Model) -> QuantizationConfig:
    """The config with ``edge_bits`` applied to the layers at the edges of a canonical model.

    Its overrides are checked where no kernel can be but those of its layers.

    Depthwise convolutions of one tap have a weight for each channel (a BatchNormalization is made one): they keep 8
    bits, and the layers behind them are at the edges.
    """
    names = [layer.name for layer in model.layers if supports(layer)]  # in the order of computation
    scales = [name for name in names if _scales_channels(model.get_layer(name))]
    edges = edge_layers(model, [name for name in names if name not in scales])
    pinned = pin(pin_edges(config, _small(model, edges)), scales, 8)
    if _layers_have_all_kernels(model):  # else those of the file are needed
        tables = [layer.name for layer in model.layers if looks_up(layer)]
        check_overrides(pinned, [*names, *tables], [item for item in pinned.overrides if item.is_for_operators])
    return with_bits_of_target(with_blocks_of_target(pinned, groups_of(model)), groups_of(model))


def _layers_have_all_kernels(model: keras.Model) -> bool:
    """Whether a model holds nothing but layers of Keras that tfptq knows, and operations without kernels."""
    return not any(
        type(operation).__name__ in _WITH_KERNELS
        or not (type(operation).__module__.startswith("keras.") or supports(operation))
        or (isinstance(operation, keras.Layer) and is_weighted(operation) and not supports(operation))
        for operation in model.operations
    )


def _small(model: keras.Model, edges: Collection[str]) -> list[str]:
    """Those of the layers at the edges that hold few of the weights of a model."""
    weighted = [layer for layer in model.layers if supports(layer)]
    sizes = {layer.name: sum(spec.values().size for spec in weight_specs(layer)) for layer in weighted}
    return [name for name in edges if sizes[name] <= EDGE_SHARE * sum(sizes.values())]


def _scales_channels(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.DepthwiseConv2D) and set(layer.kernel_size) == {1}
