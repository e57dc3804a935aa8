"""The steps between a float network and its quantized file, in the order in which ``quantize_keras_model`` takes them.

Each is a function of the job and of what the steps before have found, and shows its own progress.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import keras
import numpy as np

from tfptq.checkpoint import Checkpoint, fingerprint
from tfptq.config import QuantizationConfig
from tfptq.core.affine import ActivationGrid, activation_grid
from tfptq.data import CalibrationData
from tfptq.data_errors import DataError
from tfptq.fine_tune import fine_tune, learn_steps, tuning_obstacle
from tfptq.fit import (
    asks_for_statistics,
    bindings_by_key,
    fit_weights,
    ranges_for_kernels,
    with_room_for_biases,
    without_statistics,
)
from tfptq.fit_kernel import Fitted, FittingTask
from tfptq.graph import few_samples
from tfptq.layers import supports, weight_specs
from tfptq.prepare import FloatNetwork
from tfptq.progress import Progress
from tfptq.simulate import simulated_grids
from tfptq.skipping import skipped_operators
from tfptq.tflite.activations import Range
from tfptq.tflite.calibrate import Measurements, measure
from tfptq.tflite.describe import describe
from tfptq.tflite.emit import IntegerPlan, emit, plan_integers
from tfptq.tflite.float_file import Skeleton
from tfptq.tflite.kernel_plan import KernelPlan
from tfptq.tflite.layouts.choose import FLOAT_LAYOUTS, plan_layouts, settle_layout
from tfptq.tflite.matching import KernelKey, WeightBinding, WeightKey, is_keras_weight, layer_name
from tfptq.tflite.metadata import attach
from tfptq.tflite.prefix import QuantizedPrefix
from tfptq.tflite.proportions import inputs_to_scale_in_float
from tfptq.tflite.skeleton import build_skeleton, check_skeleton
from tfptq.version import __version__

#: Ranges that had to be widened make their readers' inputs coarser, so that others may have to be: layer after layer.
MOST_WIDENINGS = 100


@dataclass(frozen=True, eq=False)
class Job:
    """What all steps read.

    Attributes:
        config: config of the model.
        seed: seed of everything random.
        steps: the job's progress.
        network: float network, with the config of its layers.
        skeleton: float ``.tflite`` of the network.
        data: calibration data, in full batches if the file wants a fixed number of samples.
        batch: its first batch.
        weights: float weights as canonical views ``[O, I, T]``.
        layouts: position of an operator with a kernel -> layout that its kernel shall have.
        in_float: position of an operator that computes in float because the config wants it -> the reason.
        differences: step -> largest relative difference of an output that it made.
        not_tuned: why the network cannot be fine-tuned although the config asks for it, or None.
    """

    config: QuantizationConfig
    seed: int
    steps: Progress
    network: FloatNetwork
    skeleton: Skeleton
    data: CalibrationData
    batch: dict[str, np.ndarray]
    weights: dict[WeightKey, np.ndarray]
    layouts: dict[int, str]
    in_float: dict[int, str]
    differences: dict[str, float]
    not_tuned: str | None

    def config_of(self, key: WeightKey) -> QuantizationConfig:
        """Config of the layer of a weight."""
        return self.network.config.for_layer(key[0])

    @property
    def tunes(self) -> bool:
        """Whether the network is fine-tuned."""
        return self.config.fine_tuning is not None and self.not_tuned is None

    @property
    def fits_narrow_activations(self) -> bool:
        """Whether weights are fitted to activations of less than 8 bits, which only the simulation has."""
        return self.config.activation_aware and self.config.activation_bits < 8


@dataclass(frozen=True, eq=False)
class Activations:
    """What is known of the activations.

    Attributes:
        measurements: what calibration measured.
        plan: operators on integers, and the grids of the file.
        simulated: tensor index -> grid in the Keras simulation.
        known: tensor index -> range that the plan has in place of the measured one.
    """

    measurements: Measurements
    plan: IntegerPlan
    simulated: Mapping[int, ActivationGrid]
    known: Mapping[int, Range] = field(default_factory=dict)

    def rounded(self, config: QuantizationConfig) -> Mapping[int, ActivationGrid]:
        """Grids that weights are fitted on: none, unless the config wants them fitted to rounded activations."""
        return self.simulated if config.activation_aware and config.activation_bits <= 8 else {}


def convert(network: FloatNetwork, config: QuantizationConfig, seed: int, steps: Progress) -> Job:
    """Convert the network to a float file, and decide what of it stays float and how kernels are stored.

    Raises:
        ValueError: the converter refuses the network, or changes what it computes; there is no kernel to quantize; a
            layer that shall be skipped cannot be told from others, or cannot have the layout that it shall have.
    """
    weights, data, batch = kernel_views(network.model), network.data, network.batch
    with steps.step("convert"):
        # 8-bit weights are as good with the converter's multiples of their inputs, which save an operator.
        narrow = [key for key in weights if network.config.for_layer(key[0]).weight_bits < 8]
        skeleton = build_skeleton(network.model, weights, narrow)
        _check_kernels(network.model, weights, skeleton)
        if skeleton.batch_size not in (None, network.batch_size):
            data = data.in_full_batches(skeleton.batch_size)
            batch = next(iter(data))
        few = few_samples(batch, skeleton.batch_size)
        differences = {**network.differences, "convert": check_skeleton(skeleton, network.model, few)}
    layouts = plan_layouts(skeleton.model, skeleton.bindings, lambda key: network.config.for_layer(key[0]))
    by_layout = {at: f"layout {name} computes in float" for at, name in layouts.items() if name in FLOAT_LAYOUTS}
    in_float = {**skipped_operators(skeleton, network.model, network.config), **by_layout}
    not_tuned = None if config.fine_tuning is None else tuning_obstacle(skeleton)
    return Job(
        config=config,
        seed=seed,
        steps=steps,
        network=network,
        skeleton=skeleton,
        data=data,
        batch=batch,
        weights=weights,
        layouts=layouts,
        in_float=in_float,
        differences=differences,
        not_tuned=not_tuned,
    )


def kernel_views(model: keras.Model) -> dict[WeightKey, np.ndarray]:
    """(layer, weight) -> float canonical view ``[O, I, T]`` of every weight that can be quantized."""
    return {
        (layer.name, spec.name): spec.values()
        for layer in model.layers
        if supports(layer)
        for spec in weight_specs(layer)
    }


def _check_kernels(model: keras.Model, weights: Mapping[WeightKey, np.ndarray], skeleton: Skeleton) -> None:
    """Refuse a network without a kernel: neither in a layer that tfptq knows, nor made by the converter of others."""
    if weights or skeleton.bindings:
        return
    kinds = ", ".join(f"{layer.name} ({type(layer).__name__})" for layer in model.layers if layer.weights)
    raise ValueError(
        f"the model {model.name!r} has no layer that tfptq can quantize, only {kinds}, of which the converter makes "
        "no convolution or dense operator; teach it one with tfptq.layers.register"
    )


def calibrate(job: Job) -> Activations:
    """Measure the float network, and choose the grids of its activations."""
    with job.steps.step("calibrate", total=job.data.known_samples) as advance:
        measurements = measure(job.skeleton, job.data, job.config.calibration, advance)
        plan = plan_activations(job, measurements)
        activations = Activations(measurements, plan, simulated_grids(job.skeleton, measurements, plan, job.config))
    if not (job.tunes and job.fits_narrow_activations):
        return activations
    options = job.config.fine_tuning
    with job.steps.step("learn steps", total=options.most_samples(job.data.num_samples)) as advance:
        grids = learn_steps(job.skeleton, activations.simulated, job.data, options, advance)
    return replace(activations, simulated=grids)


def plan_activations(job: Job, measurements: Measurements, known: Mapping[int, Range] | None = None) -> IntegerPlan:
    """Decide which operators run on integers, and on which grids.

    Args:
        job: the job.
        measurements: what calibration measured.
        known: tensor index -> range, in place of the measured one.
    """
    bits = job.config.device_activation_bits
    ranges = {**measurements.ranges(job.config.calibration, bits), **(known or {})}
    in_float = job.in_float
    if job.config.input_type == "float32":
        in_float = {**inputs_to_scale_in_float(job.skeleton.model, ranges), **in_float}
    return plan_integers(job.skeleton.model, ranges, bits, in_float, measurements.clipped)


def fit(
    job: Job, activations: Activations, checkpoint_dir: str | os.PathLike | None, max_memory: int
) -> tuple[Fitted, dict[KernelKey, str]]:
    """Quantize the weights.

    Returns:
        The quantized weights, and why some were fitted without the statistics that their configs ask for.
    """
    bindings = quantized_bindings(job, activations.plan)
    with job.steps.step("fit", total=len(bindings_by_key(bindings))) as advance:
        task, prefix, fitted_without_statistics = fitting_task(job, activations), None, {}
        if any(asks_for_statistics(task, key, own) for key, own in bindings_by_key(bindings).items()):
            part = job.data.spread(job.config.statistics_samples)
            grids = activations.rounded(job.config)
            prefix = QuantizedPrefix(job.skeleton, part, part.num_samples, max_memory, grids)
            fitted_without_statistics = without_statistics(task, bindings, prefix)
        fitted = fit_weights(task, bindings, prefix, _checkpoint(job, checkpoint_dir, max_memory), advance)
    if job.network.reordered is not None:
        fitted = _with_permutations(fitted, job.network.reordered.output_orders)
    return fitted, fitted_without_statistics


def fitting_task(job: Job, activations: Activations) -> FittingTask:
    """What the weights are fitted for."""
    return FittingTask(
        skeleton=job.skeleton,
        weights=job.weights,
        measurements=activations.measurements,
        grids=activations.plan.grids,
        config_of=job.config_of,
        seed=job.seed,
    )


def quantized_bindings(job: Job, plan: IntegerPlan) -> tuple[WeightBinding, ...]:
    """The kernels of operators on integers, and of those whose layout computes in float."""
    stored = {at for at, layout in job.layouts.items() if layout in FLOAT_LAYOUTS}
    quantized = stored.union(plan.operators)
    return tuple(binding for binding in job.skeleton.bindings if binding.operator in quantized)


def _checkpoint(job: Job, folder: str | os.PathLike | None, max_memory: int) -> Checkpoint | None:
    """The checkpoint folder of the job, or None when there is no folder. Reads all samples twice.

    Raises:
        DataError: the samples differ from pass to pass, so that no later run could tell its job.
    """
    if folder is None:
        return None
    digest = job.data.digest()
    if digest != job.data.digest():
        raise DataError(
            "checkpoint_dir needs the same samples in the same order each time, and the calibration dataset is another "
            "one in each pass; shuffle a tf.data.Dataset with a seed and reshuffle_each_iteration=False, leave random "
            "changes of samples out, or pass arrays"
        )
    parts = [job.skeleton.data, job.config.to_json(), str(job.seed), digest, __version__]
    if any(job.config_of(key).rounding.reconstruction == "block" for key in job.weights):
        parts.append(str(max_memory))  # so many bytes of samples are blocks learned on
    return Checkpoint(folder, fingerprint(*parts))


def _with_permutations(fitted: Fitted, orders: Mapping[str, np.ndarray]) -> Fitted:
    """Note with each weight the order in which reordering put its layer's output channels."""
    return {
        key: replace(item, weight=replace(item.weight, permutation=orders[key[0]]))
        if is_keras_weight(key) and key[0] in orders
        else item
        for key, item in fitted.items()
    }


def tune(job: Job, activations: Activations, fitted: Fitted) -> Fitted:
    """Fine-tune scales and biases of the whole network, if the config asks for it."""
    if not (job.tunes and fitted):
        return fitted
    options, task = job.config.fine_tuning, fitting_task(job, activations)
    # The layout "native" stores float16 scales, which learned ones would not be.
    fixed = [key for key in fitted if task.config(key).layout == "native"]
    with job.steps.step("fine-tune", total=options.most_samples(job.data.num_samples)) as advance:
        return fine_tune(job.skeleton, fitted, job.data, options, activations.rounded(job.config), fixed, advance)


def calibrate_again(job: Job, activations: Activations, fitted: Fitted) -> Activations:
    """Measure the network with its quantized weights: coarse ones move the activations."""
    if all(item.weight.bits >= 8 for item in fitted.values()):
        return activations
    with job.steps.step("calibrate again", total=job.data.known_samples) as advance:
        skeleton = job.skeleton.with_kernels(kernel_plans(job, fitted))
        measurements = measure(skeleton, job.data, job.config.calibration, advance)
        plan, simulated = plan_activations(job, measurements), activations.simulated
        if not job.fits_narrow_activations:  # else weights were fitted to the grids as they are
            simulated = simulated_grids(job.skeleton, measurements, plan, job.config)
    return Activations(measurements, plan, simulated)


def with_room(job: Job, activations: Activations, fitted: Fitted) -> tuple[Activations, Fitted]:
    """Enlarge scales under which the int32 bias of some kernel would overflow, and ranges that runtimes refuse.

    Raises:
        ValueError: the range of a result widens that of its own kernel's input, and so on.
    """
    wider: dict[int, Range] = {}
    for _ in range(MOST_WIDENINGS):
        fitted = with_room_for_biases(fitting_task(job, activations), fitted, activations.plan.grids)
        wider = ranges_for_kernels(job.skeleton.model, activations.plan, fitted)
        known = {**activations.known, **wider}
        plan = plan_activations(job, activations.measurements, known) if wider else activations.plan
        if plan.grids == activations.plan.grids:
            return activations, fitted
        activations = Activations(activations.measurements, plan, _simulated_with(activations, plan), known)
    model = job.skeleton.model
    named = {
        layer_name(model, key)
        for key, item in fitted.items()
        for binding in item.bindings
        if model.operators[binding.operator].outputs[0] in wider
    }
    raise ValueError(
        f"weights are too large for 8-bit activations in {', '.join(map(repr, sorted(named)))}: one step of the input "
        "is more than the whole result; leave the layer in float with skip=True by an override"
    )


def _simulated_with(activations: Activations, plan: IntegerPlan) -> dict[int, ActivationGrid]:
    """The grids of the simulation, where those of the file change: of its own bits, which may be fewer."""
    before, after = activations.plan.grids, plan.grids
    changed = {index for index in after if after[index] != before.get(index)}
    return {
        index: activation_grid(*after[index].real_range, grid.bits) if index in changed else grid
        for index, grid in activations.simulated.items()
    }


def kernel_plans(job: Job, fitted: Fitted) -> list[KernelPlan]:
    """What the emitter shall write, for every use of every fitted weight."""
    plans = []
    for key, item in fitted.items():
        for binding in item.bindings:
            layer = layer_name(job.skeleton.model, key)
            # A kernel without a planned layout is the weight of no layer.
            layout = settle_layout(layer, job.layouts.get(binding.operator, "int8"), item.weight)
            plans.append(KernelPlan(binding, item.weight, item.bias_of(job.skeleton, binding), layout))
    return plans


def write(job: Job, plan: IntegerPlan, kernels: list[KernelPlan]) -> bytes:
    """The quantized file, with its metadata."""
    with job.steps.step("emit"):
        types = {"input_type": job.config.input_type, "output_type": job.config.output_type}
        emitted = emit(job.skeleton.data, plan, kernels, **types)
        attach(emitted.model.root, describe(emitted, kernels, job.config, job.seed))
        return emitted.model.to_bytes()
