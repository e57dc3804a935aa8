"""Write the file of a Keras simulation: quantization-aware training ends here.

The wrappers hold all that fitting would find: weights, their scales, and the grids of what layers read and write. So
nothing is fitted. The codes of the file are the nearest ones of the weights as training left them, biases are those of
the layers, and calibration only measures the tensors that no wrapper has a grid for.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import keras
import numpy as np

from tfptq.base.progress import Progress
from tfptq.config import LAYER_FIELDS, PerChannel, QuantizationConfig, Rounding, exactly, override, resolve_config
from tfptq.core.blocks import QuantizedWeight, WeightView
from tfptq.data.calibration import calibration_data
from tfptq.fit.kernel import mirrored
from tfptq.fit.order import fit_kernels
from tfptq.float_file.kernel import KernelId
from tfptq.graph.read_graph import read_graph
from tfptq.graph.rebuild import build_model
from tfptq.layers import (
    DefaultQuantizeConfig,
    QuantizedVariable,
    QuantizeWrapper,
    is_weighted,
    strip,
    supports,
    wrappers,
)
from tfptq.layers.quantizers import ActivationQuantizer, WeightQuantizer
from tfptq.lowering.quantized_kernel import QuantizedKernel
from tfptq.pipeline.activations import plan_with_islands, with_headroom
from tfptq.pipeline.job import Activations, Job
from tfptq.pipeline.result import QuantizationResult, finish, warn_of_findings
from tfptq.pipeline.steps import STEPS, convert, quantized_kernels
from tfptq.prepare.load_model import load_model
from tfptq.prepare.network import FloatNetwork
from tfptq.simulation.assign import ranges_of_wrappers
from tfptq.simulation.fusions import Fusion, find_fusions

_STEPS = ("canonicalise", "convert", "calibrate", "emit", "report")
#: Fields that layers of a simulation have of their own; widths of activations are those of the file but for wider ones.
_OF_LAYERS = tuple(field for field in LAYER_FIELDS if field != "activation_bits")
#: Fields of a config for what is not done to weights that are taken as they are.
_NOT_DONE = {
    "weight_scale": "max_abs",
    "rounding": Rounding("nearest"),
    "bias_correction": False,
    "activation_aware": False,
    "statistics_samples": None,
    "equalize": False,
    "rotate": False,
    "reorder": False,
    "mixed_precision": None,
    "edge_bits": None,
    "skip": False,
    "overrides": (),
    "name": "custom",
}


def export_simulation(
    simulation: keras.Model | str | os.PathLike,
    dataset: Any,
    config: QuantizationConfig | str | None = None,
    *,
    progress: bool = True,
) -> QuantizationResult:
    """Write the ``.tflite`` file of a Keras simulation, trained or not.

    Args:
        simulation: ``QuantizationResult.keras_model`` or what ``quantize_apply`` returned, or the path of a ``.keras``
            file of one. It is not changed.
        dataset: typical samples, as for ``quantize_keras_model``.
        config: layouts of the file, types of its inputs and outputs, and how ranges are calibrated: a
            ``QuantizationConfig`` or the name of a preset; None for what the simulation was made with. Bits,
            granularity and scales of the weights are those of the simulation in any case.
        progress: show a progress bar on terminals and in notebooks.

    Returns:
        The file, the simulation, a report that compares with its weights, and the config.

    Raises:
        ValueError: the model holds no wrappers, or one that cannot be stored in a file; the layer is named.
        FileNotFoundError: no model at the path.

    Examples:
        >>> result = tfptq.quantize_keras_model(model, images[:256], "w4a8_channel")
        >>> result.keras_model.compile("adam", "sparse_categorical_crossentropy")
        >>> result.keras_model.fit(images, labels)
        >>> tfptq.export_simulation(result.keras_model, images[:256]).save("trained.tflite")
    """
    if config is not None:
        config = resolve_config(config)
    with Progress(progress, plan={step: STEPS[step] for step in _STEPS}) as steps:
        with steps.step("canonicalise"):
            simulation = load_model(simulation)
            stored = read_simulation(simulation, config)
            network = _network(stored, dataset)
        # The float file computes with the codes, so that what is measured is what they make of the samples.
        job = convert(network, stored.config, 0, steps)
        own = _stored_kernels(job, stored)
        fusions = find_fusions(network.model, stored.model, job.float_file, own, job.batch)
        activations = _calibrate(job, stored.model, own, fusions)
        kernels = _with_other_kernels(job, activations, own)
        activations, kernels = with_headroom(job, activations, kernels)
        notes = _notes(stored, own, kernels)
        compared = replace(job, weights={**job.weights, **stored.float_weights})
        result = finish(compared, activations, kernels, simulation, notes)
    warn_of_findings(result)
    return result


def _notes(
    stored: "StoredWeights", own: Mapping[KernelId, QuantizedKernel], written: Iterable[QuantizedKernel]
) -> list[str]:
    """Where the file is not what the simulation is."""
    turned = [
        f"{id.name!r} of layer {id.layer!r} has codes from {kernel.weight.codes.min()} on in the file, and from "
        f"{stored.codes[id].codes.min()} on in the simulation: the converter turned the sign of a "
        "channel, or kernels misread the least code"
        for id, kernel in own.items()
        if not np.array_equal(kernel.weight.codes, stored.codes[id].codes)
    ]
    enlarged = [
        f"{kernel.id.name!r} of layer {kernel.id.layer!r} has larger scales in the file than in the simulation: its "
        "int32 bias would overflow"
        for kernel in written
        if kernel.id in own and not np.array_equal(kernel.weight.scales.values(), own[kernel.id].weight.scales.values())
    ]
    measured = [
        f"activation functions inside of layer {wrapper.layer.name!r} have quantizers; the file has ranges of the "
        "samples in their place"
        for wrapper in wrappers(stored.model)
        if wrapper.quantized_activations
    ]
    return turned + enlarged + measured


@dataclass(frozen=True, eq=False)
class StoredWeights:
    """What the wrappers of a simulation hold.

    Attributes:
        model: the simulation without models inside of it.
        config: config of the model, with that of each layer as overrides.
        codes: (layer, weight) -> codes and scales.
        float_weights: (layer, weight) -> the weights that training changes, ``[O, I, T]``.
    """

    model: keras.Model
    config: QuantizationConfig
    codes: dict[KernelId, QuantizedWeight]
    float_weights: dict[KernelId, np.ndarray]


def read_simulation(simulation: keras.Model, config: QuantizationConfig | None = None) -> StoredWeights:
    """Read the wrappers of a simulation.

    Args:
        simulation: Keras model with ``QuantizeWrapper`` layers, its own or those of models inside of it.
        config: settings beside those of the weights; None for those that the simulation was made with.

    Raises:
        ValueError: there is no wrapper; a weight has no scales, or another quantizer than a ``WeightQuantizer``; an
            input or output has another one than an ``ActivationQuantizer``.
    """
    if not wrappers(simulation):
        raise ValueError(
            f"the model {simulation.name!r} has no QuantizeWrapper layers; pass QuantizationResult.keras_model or what "
            "tfptq.layers.quantize_apply returned. For a float model there is quantize_keras_model"
        )
    flat = build_model(read_graph(simulation))
    codes, float_weights = {}, {}
    configs: dict[str, QuantizationConfig] = {}
    for wrapper in wrappers(flat):
        for slot in wrapper.quantized_weights:
            key = KernelId(wrapper.layer.name, slot.name)
            quantizer, view = _quantizer_and_view(slot, key)
            try:
                codes[key] = slot.quantized_weight()
            except ValueError as error:
                raise ValueError(f"layer {wrapper.layer.name!r}: {error}") from error
            float_weights[key] = view.to_view(keras.ops.convert_to_numpy(slot.variable))
            configs.setdefault(wrapper.layer.name, _layer_config(wrapper, quantizer.config, config))
        for activation in (*wrapper.quantized_inputs, *wrapper.quantized_outputs):
            if not isinstance(activation.quantizer, ActivationQuantizer):
                raise ValueError(
                    f"{activation.name!r} of layer {wrapper.layer.name!r} has the quantizer "
                    f"{type(activation.quantizer).__name__}; a range for the file needs an ActivationQuantizer"
                )
    if not codes:
        raise ValueError(f"no wrapper of the model {simulation.name!r} quantizes a weight; there is nothing to export")
    return StoredWeights(flat, _model_config(flat, configs, config), codes, float_weights)


def _quantizer_and_view(weight: QuantizedVariable, id: KernelId) -> tuple[WeightQuantizer, WeightView]:
    if isinstance(weight.quantizer, WeightQuantizer) and weight.view is not None:
        return weight.quantizer, weight.view
    raise ValueError(
        f"the weight {id.name!r} of layer {id.layer!r} has the quantizer {type(weight.quantizer).__name__}"
        f"{'' if weight.view else ' and no view'}; codes for a file need a WeightQuantizer, and a layer that "
        "tfptq.layers.register knows"
    )


def _layer_config(
    wrapper: QuantizeWrapper, weights: QuantizationConfig, config: QuantizationConfig | None
) -> QuantizationConfig:
    """Config of a wrapped layer: that of its quantizer for the weights, else the one given or its own."""
    own = wrapper.quantize_config
    if config is not None:
        base = config.for_layer(wrapper.layer.name)
    else:
        base = own.layer_config if isinstance(own, DefaultQuantizeConfig) else QuantizationConfig()
    return base.replace(
        granularity=weights.granularity,
        scaler=weights.scaler,
        weight_bits=weights.weight_bits,
        multipliers=base.multipliers if weights.scaler == "integer" else None,
        **_NOT_DONE,
    )


def _model_config(
    simulation: keras.Model, layer_configs: dict[str, QuantizationConfig], config: QuantizationConfig | None
) -> QuantizationConfig:
    """One config from those of the layers; kernels of no layer, which no training saw, have 8 bits."""
    least = min(layer.activation_bits for layer in layer_configs.values())
    base = next(iter(layer_configs.values())).replace(
        granularity=PerChannel(), scaler="float", weight_bits=8, multipliers=None, activation_bits=least
    )
    if config is not None:
        whole = {field.name: getattr(config, field.name) for field in fields(config) if field.name not in _OF_LAYERS}
        base = base.replace(**{**whole, **_NOT_DONE})
    changes = {name: _differences(layer, base) for name, layer in layer_configs.items()}
    for name, own in layer_configs.items():
        if own.activation_bits > least:
            changes[name] = {**changes[name], "activation_bits": own.activation_bits}
    for layer in simulation.layers:
        if not isinstance(layer, QuantizeWrapper) and supports(layer) and is_weighted(layer):
            changes[layer.name] = {"skip": True}
    return base.replace(overrides=tuple(override(exactly(name), **item) for name, item in changes.items() if item))


def _differences(layer: QuantizationConfig, base: QuantizationConfig) -> dict[str, Any]:
    """Fields of a layer's config that are not those of the model."""
    return {field: getattr(layer, field) for field in _OF_LAYERS if getattr(layer, field) != getattr(base, field)}


def _network(stored: StoredWeights, dataset: Any) -> FloatNetwork:
    """The simulation without wrappers; its kernels are the dequantized codes."""
    model = strip(stored.model)
    data = calibration_data(model, dataset)
    if model.inputs[0].shape[0] is not None:
        data = data.in_full_batches(model.inputs[0].shape[0])
    return FloatNetwork(
        model=model, data=data, batch=next(iter(data)), config=stored.config, reordered=None, differences={}
    )


def _stored_kernels(job: Job, stored: StoredWeights) -> dict[KernelId, QuantizedKernel]:
    """The kernels of the wrappers, with their uses in the file. Their biases need no correction: training saw them."""
    found = {}
    for kernel in job.float_file.kernels:
        if kernel.id in stored.codes:
            weight = mirrored(stored.codes[kernel.id], kernel, job.plans[kernel.id])
            shift = np.zeros(len(weight.codes), np.float32)
            found[kernel.id] = QuantizedKernel.of(kernel, job.plans[kernel.id], weight, shift)
    return found


def _calibrate(
    job: Job, simulation: keras.Model, own: Mapping[KernelId, QuantizedKernel], fusions: dict[int, Fusion]
) -> Activations:
    """Measure the network, and plan its activations on the grids of the wrappers where they have some."""
    with job.steps.step("calibrate", total=job.known_samples) as advance:
        measurements = job.measure(job.float_file, job.data, job.config.calibration, advance)
        known = ranges_of_wrappers(simulation, job.float_file, own, fusions)
        plan, islands = plan_with_islands(job, measurements, known)
    return Activations(measurements, plan, plan.grids, known, islands)


def _with_other_kernels(
    job: Job, activations: Activations, own: Mapping[KernelId, QuantizedKernel]
) -> tuple[QuantizedKernel, ...]:
    """The kernels that are quantized in the file: those of the wrappers, and those that are no layer's, at 8 bits."""
    kernels = quantized_kernels(job, activations.plan)
    others = [(kernel, job.plans[kernel.id]) for kernel in kernels if kernel.id not in own]
    fitted = fit_kernels(others, activations.measurements, activations.plan.grids)
    found = {kernel.id: kernel for kernel in fitted}
    return tuple(
        found[kernel.id] if kernel.id in found else replace(own[kernel.id], uses=kernel.uses) for kernel in kernels
    )
