"""The facade: a Keras model and some samples in, a quantized ``.tflite`` out.

``quantize_keras_model`` reads top to bottom as the steps of the pipeline; each step is a function of its own.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from tfptq.config import QuantizationConfig, resolve_config
from tfptq.data import calibration_data
from tfptq.files import write_atomically
from tfptq.fit import FittedWeight, fit_weights
from tfptq.graph import canonicalise, check_float_equal
from tfptq.layers import quantize_annotate_model, quantize_apply, wrappers
from tfptq.progress import Progress
from tfptq.report import Report
from tfptq.report.build import Outcome, build_report
from tfptq.simulate import assign_grids_to_wrappers, assign_weights_to_wrappers
from tfptq.tflite.calibrate import measure
from tfptq.tflite.describe import describe
from tfptq.tflite.emit import KernelPlan, emit, plan_integers
from tfptq.tflite.matching import WeightKey
from tfptq.tflite.metadata import attach
from tfptq.tflite.skeleton import Skeleton, build_skeleton, check_skeleton

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

    Returns:
        The file, the Keras simulation, the report and the config.

    Raises:
        ValueError: the model, the data or the config cannot be used; the message names the layer, the input or the
            field, and says what to do.
        TypeError: an argument of the wrong type.
        FileNotFoundError: no model at the path.
        RuntimeError: Keras does not run on TensorFlow.

    Example:
        >>> result = tfptq.quantize_keras_model(model, images[:256])
        >>> result.save("model.tflite")
        >>> print(result.report)
    """
    config = resolve_config(config)
    steps = Progress(progress)
    original = load_model(model)
    with steps.step("canonicalise"):
        canonical = canonicalise(original)
        data = calibration_data(canonical, dataset)
        batch = next(iter(data))
        differences = {"canonicalise": max(check_float_equal(original, canonical, batch).values())}
        simulation = quantize_apply(quantize_annotate_model(canonical, config))
        weights = kernel_views(simulation)
    with steps.step("convert"):
        skeleton = build_skeleton(canonical, weights)
        differences["convert"] = check_skeleton(skeleton, canonical, batch)
    with steps.step("calibrate", total=data.known_samples) as advance:
        measurements = measure(skeleton, data, config.calibration, advance)
        ranges = measurements.ranges(config.calibration, config.device_activation_bits)
        plan = plan_integers(skeleton.model, ranges, config.device_activation_bits, skipped_operators(skeleton, config))
    bindings = tuple(binding for binding in skeleton.bindings if binding.operator in set(plan.operators))
    with steps.step("fit", total=len(bindings)) as advance:
        fitted = fit_weights(
            skeleton, bindings, weights, measurements, plan.grids, lambda key: config.for_layer(key[0]), advance
        )
        assign_weights_to_wrappers(simulation, fitted)
        assign_grids_to_wrappers(simulation, skeleton, fitted, plan.grids, config)
    with steps.step("emit"):
        kernels = kernel_plans(skeleton, fitted)
        types = {"input_type": config.input_type, "output_type": config.output_type}
        emitted = emit(skeleton.data, plan, kernels, **types)
        attach(emitted.model.root, describe(emitted, kernels, config, seed))
        tflite = emitted.model.to_bytes()
    with steps.step("report"):
        samples = {name: values[:REPORT_SAMPLES] for name, values in batch.items()}
        outcome = Outcome(canonical, skeleton, plan, weights, fitted, tflite, samples)
        report = build_report(
            outcome,
            config,
            seed=seed,
            num_samples=measurements.samples,
            float_differences=differences,
            seconds=steps.seconds,
        )
    return QuantizationResult(tflite, simulation, report, config)


def load_model(model: keras.Model | str | os.PathLike) -> keras.Model:
    """The model, or the one in a file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a ``.keras`` or ``.h5`` file, or one that Keras cannot read.
    """
    if not isinstance(model, str | os.PathLike):
        return model
    path = Path(model)
    if path.suffix not in (".keras", ".h5"):
        raise ValueError(f"the model file {path} must end in .keras or .h5; save the model with model.save(path)")
    if not path.is_file():
        raise FileNotFoundError(f"there is no model file {path}")
    return keras.models.load_model(path, compile=False)


def kernel_views(simulation: keras.Model) -> dict[WeightKey, np.ndarray]:
    """(layer, weight) -> float canonical view ``[O, I, T]`` of every weight in a wrapper."""
    return {
        (wrapper.layer.name, slot.name): slot.view.to_view(keras.ops.convert_to_numpy(slot.variable))
        for wrapper in wrappers(simulation)
        for slot in wrapper.weight_slots
    }


def skipped_operators(skeleton: Skeleton, config: QuantizationConfig) -> dict[int, str]:
    """Operators that the config leaves in float, with the reason."""
    return {
        binding.operator: f"the config skips layer {binding.key[0]!r}"
        for binding in skeleton.bindings
        if binding.key is not None and config.for_layer(binding.key[0]).skip
    }


def kernel_plans(skeleton: Skeleton, fitted: dict[WeightKey | int, FittedWeight]) -> list[KernelPlan]:
    """What the emitter shall write, for every use of every fitted weight."""
    plans = []
    for item in fitted.values():
        for binding in item.bindings:
            bias, factors = skeleton.bias(binding), binding.row_factors
            shift = item.bias_shift if factors is None else item.bias_shift * factors
            if bias is None and shift.any():
                bias = np.zeros(len(shift), np.float32)
            plans.append(KernelPlan(binding, item.weight, None if bias is None else bias + shift))
    return plans
