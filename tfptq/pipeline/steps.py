"""The steps that make the float file, its kernels and the quantized file.

Each is a function of the job and of what the steps before have found, and shows its own progress.
"""

import itertools
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial

import keras
import numpy as np

from tfptq.base.progress import Progress
from tfptq.config import QuantizationConfig, check_overrides, exactly, override
from tfptq.data.errors import DataError
from tfptq.fit.checkpoint import Checkpoint, fingerprint
from tfptq.fit.kernel import asks_for_statistics
from tfptq.fit.order import fit_kernels, plan_fit
from tfptq.fit.sequential import SequentialCalibration
from tfptq.float_file.build import check_float_file, make_float_file
from tfptq.float_file.file_model import FileModel
from tfptq.float_file.float_file import FloatFile
from tfptq.float_file.kernel import Kernel, KernelId
from tfptq.float_file.layer_operators import skipped_operators, widths_by_overrides
from tfptq.float_file.layout_requests import layout_requests
from tfptq.float_file.operator_names import OperatorNames
from tfptq.graph import few_samples
from tfptq.layers import is_recurrent, looks_up, supports, weight_specs
from tfptq.lowering.choose_layout import plan_layout, settle_layout
from tfptq.lowering.describe import describe
from tfptq.lowering.emit import emit
from tfptq.lowering.float16 import float16_constants
from tfptq.lowering.float_activations import operators_in_float
from tfptq.lowering.plan import Ends, IntegerPlan, kernels_to_keep_in_float
from tfptq.lowering.quantized_kernel import KernelPlan, QuantizedKernel
from tfptq.lowering.recurrent import config_of_recurrent
from tfptq.lowering.tables import QuantizedTable, find_tables, lookups_in_float
from tfptq.pipeline.job import Activations, Job
from tfptq.prepare.file_weights import config_with_own_kernels
from tfptq.prepare.network import FloatNetwork
from tfptq.tflite.layouts import Computes
from tfptq.tflite.metadata import attach
from tfptq.version import __version__

#: Step -> what the progress bar calls it, in the order of a job.
STEPS = {
    "canonicalise": "simplifying the network",
    "bits": "choosing bits",
    "equalize": "equalizing channels",
    "rotate": "rotating channels",
    "reorder": "reordering channels",
    "convert": "converting to float TFLite",
    "calibrate": "measuring activations",
    "fit": "fitting weights",
    "calibrate again": "measuring activations again",
    "emit": "writing the file",
    "report": "comparing with float",
}


def planned_steps(config: QuantizationConfig) -> dict[str, str]:
    """Those of ``STEPS`` that a config asks for."""
    widths = [config.weight_bits, *(dict(item.changes).get("weight_bits", 8) for item in config.overrides)]
    asked_for = {
        "bits": config.mixed_precision is not None,
        "equalize": config.equalize,
        "rotate": config.rotate,
        "reorder": config.reorder,
        "calibrate again": config.on_integers and (config.mixed_precision is not None or min(widths) < 8),
    }
    return {step: title for step, title in STEPS.items() if asked_for.get(step, True)}


def convert(network: FloatNetwork, config: QuantizationConfig, seed: int, steps: Progress) -> Job:
    """Convert the network to a float file, and decide what of it stays float and how kernels are stored.

    Raises:
        ValueError: the converter refuses the network, or changes what it computes; there is no kernel to quantize; a
            layer that shall be skipped cannot be told from others, or cannot have the layout that it shall have.
    """
    weights, data, batch = kernel_views(network.model), network.data, network.batch
    with steps.step("convert"):
        float_file, differences = _float_file(network, weights, config)
        if float_file.batch_size not in (None, network.batch_size):
            data = data.in_full_batches(float_file.batch_size)
    names = operator_names(network.model, float_file)
    check_patterns(config, network, float_file, names)
    if not isinstance(network.model, FileModel):
        network = replace(network, config=config_with_own_kernels(network.config, config, float_file, data))
    exact = _exact_kernels(float_file, network.config)
    network = replace(network, config=_with_float_kernels(network.config, float_file, exact))
    plans = plan_kernels(float_file, network.config)
    in_float = {**operators_in_float(float_file, plans, network.config), **exact}
    skipped = skipped_operators(float_file, network.model, network.config, names)
    all_skipped = bool(float_file.kernels) and all(use.operator in skipped for use in float_file.uses)
    if config.on_integers and all_skipped:
        raise ValueError("the config leaves nothing to quantize: its overrides and its tail keep all kernels in float")
    tables = find_tables(float_file, _embeddings(network.model), network.config, plans)
    return Job(
        config=config,
        seed=seed,
        steps=steps,
        network=network,
        float_file=float_file,
        data=data,
        batch=batch,
        weights=weights,
        plans=plans,
        tables=tables,
        in_float={**lookups_in_float(tables), **skipped, **in_float},
        differences=differences,
        widths=widths_by_overrides(network.config, names),
        stateful=stateful_layers(float_file, network.original),
    )


def _float_file(
    network: FloatNetwork, weights: dict[KernelId, np.ndarray], config: QuantizationConfig
) -> tuple[FloatFile, dict[str, float]]:
    """The float file of a network, and what each step changed in the outputs."""
    if isinstance(network.model, FileModel):
        return network.model.float_file, network.differences
    # 8-bit weights are as good with the converter's multiples of their inputs, which save an operator.
    narrow = [key for key in weights if network.config.for_layer(key.owner).weight_bits < 8]
    single = config.takes_single(network.batch_size)
    float_file = make_float_file(network.model, weights, narrow, single, partial(unroll_steps_of, network.config))
    few = few_samples(network.batch, network.batch_size)
    return float_file, {**network.differences, "convert": check_float_file(float_file, network.model, few)}


def unroll_steps_of(config: QuantizationConfig, layer: str) -> int:
    """Maximum length of sequences for which a recurrent layer is unrolled."""
    return config.for_layer(layer).unroll_steps


def float_ends(config: QuantizationConfig) -> Ends:
    """Which of the inputs and outputs of the file are float."""
    return Ends(*(kind == "float32" for kind in config.interface_types))


def _exact_kernels(float_file: FloatFile, config: QuantizationConfig) -> dict[int, str]:
    """Kernels that compute in float for what reads them: position of each of their operators -> reason."""
    found = kernels_to_keep_in_float(float_file.model, config.device_activation_bits, float_ends(config))
    kernels = [kernel for kernel in float_file.kernels if all(use.operator in found for use in kernel.uses)]
    free = [kernel for kernel in kernels if not config.overrides_field(kernel.id.owner, "activations")]
    static = config.activations == "static"
    return {use.operator: found[use.operator] for kernel in free if static for use in kernel.uses}


def _with_float_kernels(
    config: QuantizationConfig, float_file: FloatFile, positions: Collection[int]
) -> QuantizationConfig:
    """The config with float activations for the kernels of some operators, whose weights stay codes."""
    owners = {kernel.id.owner for kernel in float_file.kernels if kernel.uses[0].operator in positions}
    own = tuple(override(exactly(owner), activations="float") for owner in sorted(owners))
    return config.replace(overrides=(*config.overrides, *own)) if own else config


def _embeddings(model: keras.Model | FileModel) -> dict[str, np.ndarray]:
    """Layer -> the table that it picks rows of."""
    return {layer.name: keras.ops.convert_to_numpy(layer.embeddings) for layer in model.layers if looks_up(layer)}


def operator_names(model: keras.Model | FileModel, float_file: FloatFile) -> OperatorNames:
    """What operators and tensors of the float file of a network go by."""
    if isinstance(model, FileModel):
        return OperatorNames(float_file)
    outputs = [tensor._keras_history.operation.name for tensor in model.outputs]
    return OperatorNames(float_file, [layer.name for layer in model.layers], outputs)


def check_patterns(
    config: QuantizationConfig, network: FloatNetwork, float_file: FloatFile, names: OperatorNames
) -> None:
    """Refuse overrides that match no kernel, neither of a layer nor of the file alone, and no operator (ValueError)."""
    layers = [it.name for it in network.model.layers if supports(it) or looks_up(it) or is_recurrent(it)]
    own = [kernel.id.owner for kernel in float_file.kernels]
    matched = [item for item in config.overrides if item.is_for_operators and names.operators(item)]
    check_overrides(config, list(dict.fromkeys([*layers, *own])), matched)


def stateful_layers(float_file: FloatFile, original: keras.Model | None) -> dict[str, tuple[int, ...]]:
    """Name of each layer that keeps its state from call to call -> positions of its LSTM operators.

    Raises:
        ValueError: a layer that keeps a state is no LSTM operator in the file.
    """
    layers = [] if original is None else original._flatten_layers(include_self=False)
    found = {}
    for name in [layer.name for layer in layers if type(layer) is keras.layers.LSTM and layer.stateful]:
        uses = [use for kernel in float_file.kernels if kernel.id.layer == name for use in kernel.uses if not use.alone]
        if not uses:
            raise ValueError(
                f"layer {name!r} keeps its state from call to call, which a file can do for LSTM layers with "
                "activation='tanh', without masks, initial_state, return_state and unroll; build it with "
                "stateful=False, and let the model take and return the state instead"
            )
        found[name] = tuple(dict.fromkeys(use.operator for use in uses))
    return found


def plan_kernels(float_file: FloatFile, config: QuantizationConfig) -> dict[KernelId, KernelPlan]:
    """Config and layout of each kernel that the config does not skip.

    Raises:
        LayoutError: a layer cannot have the layout that its config names.
    """
    plans = {}
    for kernel in float_file.kernels:
        own = config.for_layer(kernel.id.owner)
        if not all(use.alone for use in kernel.uses):
            own = config_of_recurrent(own)
        if not own.keeps_weights:
            layouts = plan_layout(kernel.id.owner, own, layout_requests(own, float_file.model, kernel))
            plans[kernel.id] = KernelPlan(own, layouts)
    return plans


def kernel_views(model: keras.Model | FileModel) -> dict[KernelId, np.ndarray]:
    """Float canonical view ``[O, I, T]`` of every weight that can be quantized."""
    return {
        KernelId(layer.name, spec.name): spec.values()
        for layer in model.layers
        if supports(layer)
        for spec in weight_specs(layer)
    }


def fit(
    job: Job, activations: Activations, checkpoint_dir: str | os.PathLike | None, max_memory: int
) -> tuple[QuantizedKernel, ...]:
    """Quantize the kernels of operators on integers, and of those whose layout computes in float."""
    kernels = quantized_kernels(job, activations.plan)
    with job.steps.step("fit", total=len(kernels)) as advance:
        sequential = None
        if any(asks_for_statistics(job.plans[kernel.id].config, kernel.shape) for kernel in kernels):
            part = job.data.spread(job.config.statistics_samples)
            grids = activations.rounded(job.config)
            sequential = SequentialCalibration(job.float_file, part, part.num_samples, max_memory, grids)
        return fit_kernels(
            [(kernel, plan_fit(kernel, job.plans[kernel.id], sequential)) for kernel in kernels],
            activations.measurements,
            activations.plan.grids,
            sequential,
            _checkpoint(job, checkpoint_dir),
            advance=advance,
        )


def quantized_kernels(job: Job, plan: IntegerPlan) -> tuple[Kernel, ...]:
    """The kernels that get codes, with the uses that read these."""
    found = []
    for kernel in job.float_file.kernels:
        stored = kernel.id in job.plans and job.plans[kernel.id].layouts.computes is not Computes.INTEGER
        uses = kernel.uses if stored else tuple(use for use in kernel.uses if use.operator in plan.operators)
        if uses:
            found.append(replace(kernel, uses=uses))
    return tuple(sorted(found, key=lambda kernel: kernel.uses[0].operator))


def _checkpoint(job: Job, folder: str | os.PathLike | None) -> Checkpoint | None:
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
    parts = [job.float_file.data, job.config.to_json(), str(job.seed), digest, __version__]
    return Checkpoint(folder, fingerprint(*parts))


def with_layouts(kernels: Iterable[QuantizedKernel]) -> tuple[QuantizedKernel, ...]:
    """The kernels with the layouts that their codes allow."""
    return tuple(
        replace(kernel, layout=settle_layout(kernel.id.owner, kernel.plan.layouts, kernel.weight)) for kernel in kernels
    )


def write(
    job: Job, plan: IntegerPlan, kernels: Sequence[QuantizedKernel], tables: Sequence[QuantizedTable] = ()
) -> bytes:
    """The quantized file, with its metadata, unless the config does without."""
    with job.steps.step("emit"):
        input_type, output_type = job.config.interface_types
        halves = float16_constants(job.float_file, job.config, [kernel.id for kernel in kernels])
        ends = {"input_type": input_type, "output_type": output_type}
        lasting = itertools.chain(*job.stateful.values())
        emitted = emit(job.float_file.data, plan, kernels, **ends, float16=halves, tables=tables, stateful=lasting)
        if job.config.metadata == "full":
            attach(emitted.model.root, describe(emitted, kernels, job.config, job.seed))
        return emitted.model.to_bytes()
