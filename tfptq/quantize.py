"""The facade: a Keras model and some samples in, a quantized ``.tflite`` out.

``quantize_keras_model`` reads top to bottom as the steps of a job; each is a function of ``tfptq.pipeline``.
"""

import os
from pathlib import Path

import keras

from tfptq import pipeline
from tfptq.config import QuantizationConfig, resolve_config
from tfptq.fit_kernel import Fitted
from tfptq.layers import quantize_annotate_model, quantize_model, supports
from tfptq.pipeline import Activations, Job
from tfptq.prepare import FloatNetwork, prepare
from tfptq.progress import Progress
from tfptq.result import QuantizationResult, finish
from tfptq.simulate import assign_grids_to_wrappers, assign_weights_to_wrappers, find_fusions
from tfptq.tflite.prefix import DEFAULT_MAX_MEMORY


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
        seed: seed of everything random. The same arguments give the same bytes.
        progress: show progress bars when the standard error stream is a terminal.
        checkpoint_dir: folder that keeps each finished weight. A run that was killed goes on from there when it is
            started again with the same arguments, and ends with the same bytes.
        max_memory: bytes that stored activations may take while weights are fitted on statistics; a smaller number
            costs time and, with ``Rounding(reconstruction="block")``, lets blocks be learned on fewer samples.

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
    simulation = simulate(network)
    job = pipeline.convert(network, config, seed, steps)
    activations = pipeline.calibrate(job)
    fitted, refused = pipeline.fit(job, activations, checkpoint_dir, max_memory)
    fitted = pipeline.tune(job, activations, fitted)
    activations = pipeline.calibrate_again(job, activations, fitted)
    activations, fitted = pipeline.with_room(job, activations, fitted)
    notes = [*network.notes, *assign_to_simulation(simulation, job, activations, fitted)]
    if job.not_tuned is not None:
        notes.append(f"the network was not fine-tuned: {job.not_tuned}")
    return finish(job, activations, fitted, simulation, refused, notes)


def simulate(network: FloatNetwork) -> keras.Model:
    """The Keras simulation, without the codes and grids of the file; a float copy if tfptq knows none of the layers."""
    known = any(map(supports, network.model.layers))
    return (quantize_model if known else quantize_annotate_model)(network.model, network.config)


def assign_to_simulation(simulation: keras.Model, job: Job, activations: Activations, fitted: Fitted) -> list[str]:
    """Give the Keras simulation the weights and grids of the file.

    Returns:
        Notes on what it leaves out.
    """
    if not job.weights:
        return ["keras_model computes in float: the kernels of the file are in layers that tfptq does not know"]
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
