"""The float side of quantization: the canonical network, channels equalized, rotated and reordered, and the samples.

The network is a Keras model, or a float file where no Keras graph is known; the steps are the same. Everything here
leaves the function of the network as it is; each step is checked for that on some samples.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import keras
import numpy as np

from tfptq.base.progress import Progress
from tfptq.base.warn import warn_caller
from tfptq.config import QuantizationConfig, check_overrides
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
    few_samples,
    fresh_states,
    input_normalizations_to_keep,
)
from tfptq.graph.read_graph import UnknownGraphError
from tfptq.layers import is_weighted, looks_up, supports
from tfptq.prepare.bits import Sensitivity, choose_bits, distinct_ratios, sensitivity_of_layers
from tfptq.prepare.channel_networks import Model
from tfptq.prepare.decisions import Weights, pinned_config
from tfptq.prepare.equalize import equalize_channels
from tfptq.prepare.file_weights import sensitivity_of_kernels, weights_of_kernels
from tfptq.prepare.layer_weights import weights_of_layers
from tfptq.prepare.load_model import load_model, refuse_simulations
from tfptq.prepare.reorder import ReorderedModel, reorder_channels
from tfptq.prepare.rotate import rotate_linear_channels
from tfptq.prepare.sensitivity import SAMPLES as SENSITIVITY_SAMPLES
from tfptq.prepare.sources import file_source, keras_file_model

#: Samples that tell the sizes of the channels of inputs.
SAMPLES_OF_INPUTS = 1024
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

    model: Model
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

    @property
    def weights(self) -> Weights:
        """What bits are decided for: the weights of its layers, or the kernels of its file."""
        if isinstance(self.model, FileModel):
            return weights_of_kernels(self.model.float_file)
        return weights_of_layers(self.model)

    def sensitivity(self, seed: int = 0, advance: Callable[[int], None] = lambda done: None) -> Sensitivity:
        """A function that measures what rounding them costs."""
        if isinstance(self.model, FileModel):
            return sensitivity_of_kernels(self.model.float_file, self.data, advance)
        return sensitivity_of_layers(self.config, self.model, self.data.spread(SENSITIVITY_SAMPLES), seed, advance)

    def changed(self, step: str, model: Model) -> "FloatNetwork":
        """The network after a step, or without it, and with a warning, where that is not float-equal on few samples.

        Steps are for better files only, and a file without one is better than none; but one that goes wrong is a fault.
        """
        if model is self.model:
            return self
        try:
            difference = _difference(self.model, model, few_samples(self.batch, self.batch_size))
        except FloatEqualityError as error:
            note = f"step {step!r} was left out, which leaves the file sound and less exact: {error}"
            warn_caller(note)
            return replace(self, notes=(*self.notes, note))
        return replace(self, model=model, differences={**self.differences, step: difference})


def _difference(before: Model, after: Model, few: dict[str, np.ndarray]) -> float:
    """How far a network moved on some samples.

    Raises:
        FloatEqualityError: too far.
    """
    if isinstance(before, FileModel):
        limits = partial(file_tolerances, before.float_file, few)
        return check_outputs(after.float_file, before.name, before.outputs(few), few, limits)
    return max(check_float_equal(before, after, few).values())


def prepare(
    source: Any, dataset: Any, config: QuantizationConfig, seed: int, steps: Progress, signature: str | None = None
) -> FloatNetwork:
    """Fold BatchNorms, choose bits, equalize, rotate and reorder channels, as the config asks.

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
    if network.config.mixed_precision is not None:
        with steps.step("bits") as advance:
            sensitivity = network.sensitivity(seed, advance)
            chosen, _ = choose_bits(network.config, network.weights.groups, sensitivity)
        network = replace(network, config=chosen)
    config = network.config
    if config.equalize:
        with steps.step("equalize"):
            network = network.changed("equalize", equalize_channels(network.model, config, network.data))
    if config.rotate:
        with steps.step("rotate") as advance:
            network = network.changed("rotate", rotate_linear_channels(network.model, config, seed, advance))
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
    refuse_simulations(original)
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


def open_model(source: Any, dataset: Any, signature: str | None = None) -> Model:
    """The Keras model of a source, or its float file where no Keras graph is known.

    Args:
        source: what ``tfptq.quantize`` takes.
        dataset: samples, which tell the inputs of models that do not.
        signature: as for ``tfptq.quantize``.

    Raises:
        ValueError: the source cannot be used.
        FileNotFoundError: no model at the path.
    """
    found = source if isinstance(source, FileModel) else file_source(source, dataset, signature)
    if found is not None:
        return found
    original = load_model(source)
    refuse_simulations(original)
    try:
        canonicalise(original)
    except UnknownGraphError as error:
        if not (isinstance(original, keras.Model) and original.built):
            raise
        return keras_file_model(original, dataset, str(error))
    return original


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
    note = f"taken as a float file, and there is no Keras simulation, because no Keras graph is known: {model.reason}"
    config = pinned_config(config, weights_of_kernels(float_file))
    return FloatNetwork(model, data, batch, config, {"convert": difference}, notes=(note,))


def distinct_ratios_of(
    source: Any, dataset: Any, config: QuantizationConfig, ratios: Iterable[float], seed: int
) -> tuple[float, ...]:
    """Of some ratios of mixed precision, the least one that leads to each choice of widths; see ``prepare``."""
    network = _open(source, dataset, config, None)
    return distinct_ratios(network.config, network.weights.groups, network.sensitivity(seed), ratios)


def _canonical_network(original: keras.Model, dataset: Any, config: QuantizationConfig) -> FloatNetwork:
    """The network before bits are chosen."""
    canonical = canonicalise(original)
    config = pinned_config(config, weights_of_layers(canonical))
    _check_overrides(config, canonical)
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


def _check_overrides(config: QuantizationConfig, model: keras.Model) -> None:
    """Refuse overrides that fit no layer, where no kernel can be but those of layers (a ValueError)."""
    if _layers_have_all_kernels(model):  # else those of the file are needed
        layers = [layer.name for layer in model.layers if supports(layer)]
        tables = [layer.name for layer in model.layers if looks_up(layer)]
        check_overrides(config, [*layers, *tables], [item for item in config.overrides if item.is_for_operators])


def _layers_have_all_kernels(model: keras.Model) -> bool:
    """Whether a model holds nothing but layers of Keras that tfptq knows, and operations without kernels."""
    return not any(
        type(operation).__name__ in _WITH_KERNELS
        or not (type(operation).__module__.startswith("keras.") or supports(operation))
        or (isinstance(operation, keras.Layer) and is_weighted(operation) and not supports(operation))
        for operation in model.operations
    )
