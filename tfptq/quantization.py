"""The public functions: a model and samples in, a quantized ``.tflite`` file out.

``quantize`` and ``quantize_job`` read top to bottom as the steps of a job.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import keras

from tfptq.base.arguments import whole_number
from tfptq.base.files import check_folder
from tfptq.base.progress import Progress
from tfptq.config import QuantizationConfig, exactly, override, resolve_config
from tfptq.fit.sequential import DEFAULT_MAX_MEMORY
from tfptq.float_file.file_model import FileModel
from tfptq.graph.read_graph import read_graph
from tfptq.graph.rebuild import build_model
from tfptq.layers import is_weighted, quantize_model, supports
from tfptq.lowering.quantized_kernel import QuantizedKernel
from tfptq.pipeline.activations import calibrate, calibrate_again, with_headroom
from tfptq.pipeline.job import Activations, Job
from tfptq.pipeline.recurrent import notes_on_recurrent
from tfptq.pipeline.result import QuantizationResult, finish, warn_of_findings
from tfptq.pipeline.steps import convert, fit, planned_steps
from tfptq.prepare.network import prepare
from tfptq.simulation.assign import assign_grids_to_wrappers, assign_weights_to_wrappers
from tfptq.simulation.fusions import find_fusions
from tfptq.tflite.app_metadata import AppMetadata, check_app_metadata, with_app_metadata


def quantize(
    source: Any,
    dataset: Any = None,
    config: QuantizationConfig | str | None = None,
    *,
    signature: str | None = None,
    seed: int = 0,
    progress: bool = True,
    checkpoint_dir: str | os.PathLike | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
    app_metadata: AppMetadata | None = None,
) -> QuantizationResult:
    """Quantize a trained model into a ``.tflite`` file.

    Args:
        source: a Keras 3 model of any kind, or the path of a ``.keras`` or ``.h5`` file; a tf_keras model; the folder
            of a SavedModel; a float ``.tflite`` file, as a path or bytes. Models without a known Keras graph
            (subclassed models, tf_keras, SavedModels) are converted to a float file first.
        dataset: a few hundred typical samples; labels are not needed, and ignored. An array, a list or dict of arrays,
            a ``tf.data.Dataset``, or a function that returns an iterator, as TFLite's ``representative_dataset``
            (see ``tfptq.calibration_data``). None is possible with float activations: scales are then computed from
            the weights alone, and weights are rounded to nearest.
        config: a ``QuantizationConfig``, the name of a preset, or None for the preset ``"w8a8_shift"``.
        signature: key of the signature of a SavedModel or ``.tflite`` file; the first by default.
        seed: random seed. The same arguments give the same bytes.
        progress: show a progress bar on terminals and in notebooks.
        checkpoint_dir: folder for finished weights. An interrupted run continues from there when it is repeated with
            the same arguments, and gives the same bytes.
        max_memory: maximum number of bytes for stored activations while weights are fitted; less memory costs time.
        app_metadata: labels and normalization that apps read from the file (``tfptq.AppMetadata``).

    Returns:
        The file, the Keras simulation (None without a known Keras graph), the report and the config.

    Raises:
        ValueError: the model, the data or the config is not supported; the message names the layer, input or field, and
            says what to do.
        TypeError: an argument has the wrong type.
        NotADirectoryError: ``checkpoint_dir`` is a file.
        OSError: ``checkpoint_dir`` is not writable.
        FileNotFoundError: there is no model at the path.
        RuntimeError: the backend of Keras is not TensorFlow.

    Examples:
        >>> result = tfptq.quantize("net_float.tflite", images[:256])
        >>> result.save("net.tflite")
        >>> print(result.report)
    """
    config = resolve_config(config)
    seed = whole_number("seed", seed, 2**64 - 1)
    max_memory = whole_number("max_memory", max_memory, 2**63 - 1)
    check_folder(checkpoint_dir)
    if dataset is None:
        config = config.without_samples()
    with Progress(progress, plan=planned_steps(config)) as steps:
        network = prepare(source, dataset, config, seed, steps, signature)
        job = convert(network, config, seed, steps)
        result = quantize_job(job, checkpoint_dir, max_memory, app_metadata)
    warn_of_findings(result)
    return result


def quantize_keras_model(
    model: keras.Model | str | os.PathLike,
    dataset: Any = None,
    config: QuantizationConfig | str | None = None,
    *,
    seed: int = 0,
    progress: bool = True,
    checkpoint_dir: str | os.PathLike | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
    app_metadata: AppMetadata | None = None,
) -> QuantizationResult:
    """``quantize`` for Keras models; see there for the arguments and errors.

    Examples:
        >>> result = tfptq.quantize_keras_model(model, images[:256])
        >>> result.save("model.tflite")
        >>> print(result.report)
    """
    return quantize(
        model,
        dataset,
        config,
        seed=seed,
        progress=progress,
        checkpoint_dir=checkpoint_dir,
        max_memory=max_memory,
        app_metadata=app_metadata,
    )


def quantize_job(
    job: Job,
    checkpoint_dir: str | os.PathLike | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
    app_metadata: AppMetadata | None = None,
) -> QuantizationResult:
    """All steps after the conversion to a float file; for the arguments see ``quantize``."""
    if app_metadata is not None:
        check_app_metadata(app_metadata, job.float_file.input_sizes, job.float_file.output_sizes)
    simulation = simulate(job)
    activations = calibrate(job)
    kernels = fit(job, activations, checkpoint_dir, max_memory)
    activations = calibrate_again(job, activations, kernels)
    activations, kernels = with_headroom(job, activations, kernels)
    notes = [*job.network.notes, *assign_to_simulation(simulation, job, activations, kernels)]
    notes += notes_on_recurrent(job, kernels)
    result = finish(job, activations, kernels, simulation, notes)
    if app_metadata is None:
        return result
    return dataclasses.replace(result, tflite=with_app_metadata(result.tflite, app_metadata))


def simulate(job: Job) -> keras.Model | None:
    """The Keras simulation, not yet with the codes and grids of the file; a float copy if no layer is quantized.

    None without a known Keras graph.
    """
    model, config = job.network.model, job.network.config
    if isinstance(model, FileModel):
        return None
    names = [layer.name for layer in model.layers if supports(layer)]
    # Other overrides are for kernels and operators that the file alone has.
    own = [item for item in config.overrides if any(map(item.matches, names))]
    skipped = [override(exactly(name), skip=True) for name in job.layers_in_float if name in names]
    config = config.replace(overrides=[*own, *skipped], tail=())
    if all(config.for_layer(name).keeps_weights for name in names):
        return build_model(read_graph(model))
    return quantize_model(model, config)


def assign_to_simulation(
    simulation: keras.Model | None, job: Job, activations: Activations, kernels: Sequence[QuantizedKernel]
) -> list[str]:
    """Give the Keras simulation the weights and grids of the file.

    Args:
        simulation: what ``simulate`` returned; its variables are assigned, if there is one.
        job: the job.
        activations: grids of the file and of the simulation.
        kernels: fitted kernels.

    Returns:
        Notes on what it leaves out.
    """
    if simulation is None:
        return []
    if not job.weights:
        if not job.float_file.kernels:
            return [_without_kernels(job.network.model)]
        return ["keras_model computes in float: the kernels of the file are in layers that tfptq does not know"]
    by_id = {kernel.id: kernel for kernel in kernels}
    fusions = find_fusions(job.network.model, simulation, job.float_file, by_id, job.batch)
    notes = assign_weights_to_wrappers(simulation, by_id, fusions)
    grids = activations.plan, activations.simulated
    return notes + assign_grids_to_wrappers(simulation, job.float_file, by_id, *grids, job.config, fusions)


def _without_kernels(model: keras.Model) -> str:
    """Note on a model without a kernel: neither in a layer that tfptq knows, nor made by the converter of others."""
    others = ", ".join(f"{layer.name} ({type(layer).__name__})" for layer in model.layers if is_weighted(layer))
    teach = f"; teach tfptq the weights of {others} with tfptq.layers.register to have them quantized" if others else ""
    return f"keras_model computes in float: the model has no kernel (convolution, dense, ...) to quantize{teach}"
