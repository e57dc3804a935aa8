"""The facade: a Keras model and some samples in, a quantized ``.tflite`` out.

``quantize_keras_model`` reads top to bottom as the steps of a job; each is a function of ``tfptq.pipeline``.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import keras

from tfptq import pipeline
from tfptq.config import QuantizationConfig, resolve_config
from tfptq.files import write_atomically
from tfptq.layers import quantize_annotate_model, quantize_apply
from tfptq.pipeline import Activations, Fitted, Job
from tfptq.prepare import prepare
from tfptq.progress import Progress
from tfptq.report import Report
from tfptq.report.build import Outcome, build_report
from tfptq.simulate import assign_grids_to_wrappers, assign_weights_to_wrappers, find_fusions
from tfptq.tflite.prefix import DEFAULT_MAX_MEMORY

#: Samples that the per-layer output SNR of the report is measured on.
REPORT_SAMPLES = 32


@dataclass(frozen=True, eq=False)
class QuantizationResult:
    """What ``quantize_keras_model`` returns.

    Attributes:
        tflite: bytes of the quantized ``.tflite`` file.
        keras_model: simulation of the quantized model in Keras; ``predict`` and ``fit`` work, ``.keras`` saves it. What
            training changes does not get into a file.
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
    simulation = quantize_apply(quantize_annotate_model(network.model, network.config))
    job = pipeline.convert(network, config, seed, steps)
    activations = pipeline.calibrate(job)
    fitted, refused = pipeline.fit(job, activations, checkpoint_dir, max_memory)
    fitted = pipeline.tune(job, activations, fitted)
    activations = pipeline.calibrate_again(job, activations, fitted)
    fitted = pipeline.with_room(job, activations, fitted)
    notes = assign_to_simulation(simulation, job, activations, fitted)
    kernels = pipeline.kernel_plans(job, fitted)
    tflite = pipeline.write(job, activations.plan, kernels)
    with steps.step("report"):
        if job.not_tuned is not None:
            notes.append(f"the network was not fine-tuned: {job.not_tuned}")
        outcome = Outcome(
            network.model,
            job.skeleton,
            activations.plan,
            job.weights,
            fitted,
            kernels,
            tflite,
            {name: values[:REPORT_SAMPLES] for name, values in job.batch.items()},
            {} if network.reordered is None else network.reordered.layers,
            refused,
            tuple(notes),
        )
        report = build_report(
            outcome,
            config,
            layer_config=network.config,
            seed=seed,
            num_samples=job.data.num_samples,
            float_differences=job.differences,
        )
    report = replace(report, seconds=dict(steps.seconds))  # that of the report itself among them
    return QuantizationResult(tflite, simulation, report, config)


def assign_to_simulation(simulation: keras.Model, job: Job, activations: Activations, fitted: Fitted) -> list[str]:
    """Give the Keras simulation the weights and grids of the file.

    Returns:
        Notes on what it leaves out.
    """
    fusions = find_fusions(job.network.model, simulation, job.skeleton, fitted, job.batch)
    notes = assign_weights_to_wrappers(simulation, fitted, fusions)
    grids = activations.plan, activations.simulated
    return notes + assign_grids_to_wrappers(simulation, job.skeleton, fitted, *grids, job.config, fusions)


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
