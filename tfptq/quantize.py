"""The facade: a Keras model and some samples in, a quantized ``.tflite`` out.

``quantize_keras_model`` reads top to bottom as the steps of the pipeline; each step is a function of its own.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np

from tfptq.checkpoint import Checkpoint, fingerprint
from tfptq.config import FineTuning, QuantizationConfig, resolve_config
from tfptq.core.affine import ActivationGrid
from tfptq.data import CalibrationData
from tfptq.files import write_atomically
from tfptq.fine_tune import fine_tune, learn_steps, obstacle
from tfptq.fit import fit_weights, uses, with_room_for_biases
from tfptq.fit_kernel import FittedWeight, FittingTask, needs_statistics
from tfptq.layers import quantize_annotate_model, quantize_apply, supports, weight_specs
from tfptq.prepare import prepare
from tfptq.progress import Progress
from tfptq.report import Report
from tfptq.report.build import Outcome, build_report
from tfptq.simulate import assign_grids_to_wrappers, assign_weights_to_wrappers, find_fusions, simulated_grids
from tfptq.skipping import skipped_operators
from tfptq.tflite.calibrate import Measurements, measure
from tfptq.tflite.describe import describe
from tfptq.tflite.emit import IntegerPlan, KernelPlan, emit, plan_integers
from tfptq.tflite.layouts.choose import FLOAT_LAYOUTS, plan_layouts, settle_layout
from tfptq.tflite.matching import WeightKey
from tfptq.tflite.metadata import attach
from tfptq.tflite.prefix import DEFAULT_MAX_MEMORY, QuantizedPrefix
from tfptq.tflite.skeleton import Skeleton, build_skeleton, check_skeleton
from tfptq.version import __version__

#: Samples that the per-layer output SNR of the report is measured on.
REPORT_SAMPLES = 32


@dataclass(frozen=True, eq=False)
class QuantizationResult:
    """What ``quantize_keras_model`` returns.

    Attributes:
        tflite: bytes of the quantized ``.tflite`` file.
        keras_model: simulation of the quantized model in Keras; ``predict`` and ``fit`` work, ``.keras`` saves it.
        report: what was done to each layer.
        config: config that was used.
    """

    tflite: bytes
    keras_model: keras.Model
    report: Report
    config: QuantizationConfig

    def save(self, path: str | os.PathLike) -> Path:
        """Write the ``.tflite`` file, all of it or nothing.

        Raises:
            OSError: the path cannot be written.
        """
        return write_atomically(path, self.tflite)


def quantize_keras_model(
    model: keras.Model | str | os.PathLike,
    dataset,
    config: QuantizationConfig | str | None = None,
    *,
    seed: int = 0,
    progress: bool = True,
    checkpoint_dir: str | os.PathLike | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
) -> QuantizationResult:
    """Quantize a trained Keras model into a ``.tflite`` file.

    Args:
        model: Keras 3 Sequential or Functional model, or the path of a ``.keras`` or ``.h5`` file.
        dataset: a few hundred typical samples, without labels or with labels that are ignored: an array, a list or
            dict of arrays, a ``tf.data.Dataset``, or a function that returns an iterator, as TFLite's
            ``representative_dataset``. See ``tfptq.calibration_data``.
        config: how to quantize: a ``QuantizationConfig``, the name of a preset, or None for ``"w8a8_shift"``.
        seed: seed of everything random. Same inputs, config and seed give the same bytes.
        progress: show progress bars when the standard error stream is a terminal.
        checkpoint_dir: folder that keeps each finished weight. A run that was killed goes on from there when it is
            started again with the same arguments, and ends with the same bytes.
        max_memory: bytes that stored activations may take while weights are fitted on statistics; a smaller number
            costs time.

    Returns:
        The file, the Keras simulation, the report and the config.

    Raises:
        ValueError: the model, the data or the config cannot be used; the message names the layer, the input or the
            field, and says what to do.
        TypeError: an argument of the wrong type.
        NotADirectoryError: ``checkpoint_dir`` is a file.
        FileNotFoundError: no model at the path.
        RuntimeError: Keras does not run on TensorFlow.

    Example:
        >>> result = tfptq.quantize_keras_model(model, images[:256])
        >>> result.save("model.tflite")
        >>> print(result.report)
    """
    config = resolve_config(config)
    check_arguments(seed, checkpoint_dir, max_memory)
    steps = Progress(progress)
    network = prepare(model, dataset, config, steps)
    canonical, data, batch, layer_config = network.model, network.data, network.batch, network.config
    simulation = quantize_apply(quantize_annotate_model(canonical, layer_config))
    weights = kernel_views(canonical)
    with steps.step("convert"):
        skeleton = build_skeleton(canonical, weights)
        if skeleton.batch_size not in (None, network.batch_size):
            data = data.in_full_batches(skeleton.batch_size)
            batch = next(iter(data))
        differences = {**network.differences, "convert": check_skeleton(skeleton, canonical, batch)}
    layouts = plan_layouts(skeleton.model, skeleton.bindings, lambda key: layer_config.for_layer(key[0]))
    in_float = {at: f"layout {name} computes in float" for at, name in layouts.items() if name in FLOAT_LAYOUTS}
    skipped = {**skipped_operators(skeleton, canonical, layer_config), **in_float}
    with steps.step("calibrate", total=data.known_samples) as advance:
        measurements = measure(skeleton, data, config.calibration, advance)
        plan = plan_activations(skeleton, measurements, config, skipped)
        grids = simulated_grids(skeleton, measurements, plan, config)
    not_tuned = None if config.fine_tuning is None else obstacle(skeleton)
    tunes = config.fine_tuning is not None and not_tuned is None
    fits_few_bits = config.activation_aware and config.activation_bits < 8
    if tunes and fits_few_bits:
        with steps.step("learn steps", total=config.fine_tuning.most_samples(data.num_samples)) as advance:
            grids = learn_steps(skeleton, grids, data, config.fine_tuning, advance)
    rounded = grids if config.activation_aware and config.activation_bits <= 8 else {}
    quantized = {*plan.operators, *in_float}
    bindings = tuple(binding for binding in skeleton.bindings if binding.operator in quantized)
    with steps.step("fit", total=len(uses(bindings))) as advance:
        task = FittingTask(
            skeleton, weights, measurements, plan.grids, lambda key: layer_config.for_layer(key[0]), seed
        )
        groups = uses(bindings)
        on_statistics = any(needs_statistics(task.config(key), task.view(key, groups[key]).shape) for key in groups)
        prefix = None
        if on_statistics:
            part = data.spread(config.statistics_samples)
            prefix = QuantizedPrefix(skeleton, part, part.num_samples, max_memory, rounded)
        checkpoint = open_checkpoint(checkpoint_dir, skeleton, config, seed, data)
        fitted = fit_weights(task, bindings, prefix, checkpoint, advance)
        if network.reordered is not None:
            fitted = with_permutations(fitted, network.reordered.output_orders)
    if tunes and fitted:
        prefix = None  # frees the activations that it stores
        with steps.step("fine-tune", total=config.fine_tuning.most_samples(data.num_samples)) as advance:
            fitted = fine_tuned(task, fitted, rounded, data, config.fine_tuning, advance)
    if any(item.weight.bits < 8 for item in fitted.values()):
        with steps.step("calibrate again", total=data.known_samples) as advance:
            # Coarse weights move the activations: the ranges in the file are those of the quantized weights.
            fitted_skeleton = skeleton.with_kernels(kernel_plans(skeleton, fitted, layouts))
            measurements = measure(fitted_skeleton, data, config.calibration, advance)
            plan = plan_activations(fitted_skeleton, measurements, config, skipped)
            if not fits_few_bits:  # weights were fitted to the grids as they are
                grids = simulated_grids(skeleton, measurements, plan, config)
    fitted = with_room_for_biases(task, fitted, plan.grids)
    fusions = find_fusions(canonical, simulation, skeleton, fitted, batch)
    notes = assign_weights_to_wrappers(simulation, fitted, fusions)
    notes += assign_grids_to_wrappers(simulation, skeleton, fitted, plan, grids, config, fusions)
    with steps.step("emit"):
        kernels = kernel_plans(skeleton, fitted, layouts)
        types = {"input_type": config.input_type, "output_type": config.output_type}
        emitted = emit(skeleton.data, plan, kernels, **types)
        attach(emitted.model.root, describe(emitted, kernels, config, seed))
        tflite = emitted.model.to_bytes()
    with steps.step("report"):
        samples = {name: values[:REPORT_SAMPLES] for name, values in batch.items()}
        moved = {} if network.reordered is None else network.reordered.layers
        if not_tuned is not None:
            notes.append(f"the network was not fine-tuned: {not_tuned}")
        outcome = Outcome(canonical, skeleton, plan, weights, fitted, kernels, tflite, samples, moved, tuple(notes))
        report = build_report(
            outcome,
            config,
            seed=seed,
            num_samples=data.num_samples,
            float_differences=differences,
            seconds=steps.seconds,
        )
    report = replace(report, seconds=dict(steps.seconds))  # that of the report itself among them
    return QuantizationResult(tflite, simulation, report, config)


def check_arguments(seed: int, checkpoint_dir: str | os.PathLike | None, max_memory: int) -> None:
    """Refuse what would only fail after minutes of work.

    Raises:
        ValueError: a number out of range.
        TypeError: an argument of the wrong type.
        NotADirectoryError: ``checkpoint_dir`` is a file.
    """
    for name, value, least, most in (("seed", seed, 0, 2**64 - 1), ("max_memory", max_memory, 0, 2**63 - 1)):
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} is {value!r}; it must be a whole number")
        if not least <= value <= most:
            raise ValueError(f"{name} is {value}; it must be between {least} and {most}")
    if checkpoint_dir is not None and Path(checkpoint_dir).exists() and not Path(checkpoint_dir).is_dir():
        raise NotADirectoryError(f"checkpoint_dir is {str(checkpoint_dir)!r}, which is a file; name a folder")


def kernel_views(model: keras.Model) -> dict[WeightKey, np.ndarray]:
    """(layer, weight) -> float canonical view ``[O, I, T]`` of every weight that can be quantized."""
    return {
        (layer.name, spec.name): spec.view.to_view(keras.ops.convert_to_numpy(spec.variable))
        for layer in model.layers
        if supports(layer)
        for spec in weight_specs(layer)
    }


def plan_activations(
    skeleton: Skeleton, measurements: Measurements, config: QuantizationConfig, skipped: dict[int, str]
) -> IntegerPlan:
    """Integer operators and activation grids from measurements."""
    bits = config.device_activation_bits
    ranges = measurements.ranges(config.calibration, bits)
    return plan_integers(skeleton.model, ranges, bits, skipped, measurements.clipped)


def open_checkpoint(
    folder: str | os.PathLike | None, skeleton: Skeleton, config: QuantizationConfig, seed: int, data: CalibrationData
) -> Checkpoint | None:
    """The checkpoint folder of this job, or None when there is no folder. Reads all samples once."""
    if folder is None:
        return None
    return Checkpoint(folder, fingerprint(skeleton.data, config.to_json(), str(seed), data.digest(), __version__))


def fine_tuned(
    task: FittingTask,
    fitted: dict[WeightKey | int, FittedWeight],
    grids: Mapping[int, ActivationGrid],
    data: Iterable[Mapping[str, np.ndarray]],
    options: FineTuning,
    advance: Callable[[int], None],
) -> dict[WeightKey | int, FittedWeight]:
    """Fine-tune scales and biases on activations that are rounded to grids; the file can hold the scales."""
    # The layout "native" stores float16 scales, which learned ones would not be.
    fixed = [key for key in fitted if task.config(key).layout == "native"]
    return fine_tune(task.skeleton, fitted, data, options, grids, fixed, advance)


def with_permutations(
    fitted: dict[WeightKey | int, FittedWeight], orders: Mapping[str, np.ndarray]
) -> dict[WeightKey | int, FittedWeight]:
    """Note with each weight the order in which reordering put its layer's output channels."""
    return {
        key: replace(item, weight=replace(item.weight, permutation=orders[key[0]]))
        if isinstance(key, tuple) and key[0] in orders
        else item
        for key, item in fitted.items()
    }


def kernel_plans(
    skeleton: Skeleton, fitted: dict[WeightKey | int, FittedWeight], layouts: Mapping[int, str]
) -> list[KernelPlan]:
    """What the emitter shall write, for every use of every fitted weight.

    Args:
        skeleton: float model.
        fitted: quantized weights.
        layouts: position of an operator -> planned layout; the kernels of others are nobody's and become int8.
    """
    plans = []
    for key, item in fitted.items():
        for binding in item.bindings:
            layer = key[0] if isinstance(key, tuple) else skeleton.model.name(key)
            layout = settle_layout(layer, layouts.get(binding.operator, "int8"), item.weight)
            plans.append(KernelPlan(binding, item.weight, item.bias_of(skeleton, binding), layout))
    return plans
