"""The config of kernels that are in the float file alone: those of no layer that tfptq knows in Keras.

They are kernels inside of custom layers, of ``keras.ops``, and all kernels of a file whose Keras graph is not known.
What is decided for layers before conversion (``tfptq.prepare``: edges, bits of the target, mixed precision) is decided
for them here, from the operators that they have.
"""

import itertools
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from tfptq.config import QuantizationConfig, pin, pin_edges
from tfptq.data.calibration import CalibrationData
from tfptq.float_file.float_file import FloatFile
from tfptq.float_file.kernel import Kernel, KernelUse
from tfptq.graph.edges import next_to
from tfptq.lowering.choose_layout import layout_request
from tfptq.prepare.bits import choose_bits_of_groups, rounding_error
from tfptq.prepare.dynamic_blocks import with_blocks_of_target
from tfptq.prepare.network import EDGE_SHARE
from tfptq.prepare.storage import WeightGroup, with_bits_of_target
from tfptq.tflite.runtime import TensorRunner

#: Samples that the sensitivity of kernels is measured on; each kernel and width costs a run.
SAMPLES = 32


def config_with_file_kernels(
    config: QuantizationConfig, wanted: QuantizationConfig, float_file: FloatFile, data: CalibrationData
) -> QuantizationConfig:
    """Pin what is at the edges, or in INT8 anyway, and choose bits, for the kernels of no Keras layer.

    Args:
        config: config of the layers.
        wanted: what the user gave, with its mixed precision.
        float_file: float file of the network.
        data: calibration data, which sensitivities are measured on.

    Raises:
        ValueError: a budget cannot be met.
    """
    # Those of LSTM operators have 8 bits in any case.
    own = [kernel for kernel in float_file.kernels if kernel.id.layer is None and kernel.uses[0].alone]
    if not own:
        return config
    names = {kernel.id.owner for kernel in own}
    scales = [kernel.id.owner for kernel in own if kernel.shape[1:] == (1, 1)]
    edges = [name for name in _small_edges(float_file, scales) if name in names]
    found = config.replace(mixed_precision=wanted.mixed_precision)
    found = pin(pin_edges(found, edges), scales, 8)
    groups = [_group(float_file, kernel) for kernel in own]
    found = with_bits_of_target(with_blocks_of_target(found, groups), groups)
    found, _ = choose_bits_of_groups(found, groups, lambda widths: _sensitivities(float_file, own, widths, data))
    return found


def _group(float_file: FloatFile, kernel: Kernel) -> WeightGroup:
    def requests(own: QuantizationConfig, bits: int):
        own = own.replace(weight_bits=bits)
        return [[layout_request(own, float_file.model, use) for use in kernel.uses]]

    return WeightGroup(kernel.id.owner, (kernel.values,), requests)


def _small_edges(float_file: FloatFile, scales: Collection[str]) -> list[str]:
    """Kernels next to the inputs or the outputs of the file that hold few of its weights; ``scales`` do not count."""
    model, owner_of = float_file.model, {use.operator: kernel for kernel in float_file.kernels for use in kernel.uses}
    steps = []
    for at, operator in enumerate(model.operators):
        kernel = owner_of.get(at)
        reads = [index for index in operator.inputs if index >= 0 and not model.is_constant(index)]
        steps.append((f"operator {at}" if kernel is None else kernel.id.owner, reads, list(operator.outputs)))
    names = {kernel.id.owner for kernel in float_file.kernels} - set(scales)
    backward = [(name, outputs, inputs) for name, inputs, outputs in reversed(steps)]
    found = next_to(model.subgraph.inputs, steps, names) | next_to(model.subgraph.outputs, backward, names)
    most = EDGE_SHARE * sum(kernel.values.size for kernel in float_file.kernels)
    return [it.id.owner for it in float_file.kernels if it.id.owner in found and it.values.size <= most]


def _sensitivities(
    float_file: FloatFile, kernels: Sequence[Kernel], widths: Iterable[int], data: CalibrationData
) -> dict[tuple[str, int], float]:
    """(name, width) -> share of the power of the outputs that the rounding of a kernel takes up.

    What is the same for all samples does not count: biases take it up.

    Raises:
        ValueError: no kernel moves a floating point output.
    """
    batches = _first(data.in_full_batches(float_file.batch_size) if float_file.batch_size else data)
    expected = _outputs(float_file, batches)
    found = {}
    for kernel in kernels:
        for width in widths:
            values = kernel.values + rounding_error(kernel.values, width)
            changed = float_file.with_values({use: (use.stored_values(values), _bias(use)) for use in kernel.uses})
            pairs = zip(expected, _outputs(changed, batches), strict=True)
            found[kernel.id.owner, width] = float(np.mean([_share(*pair) for pair in pairs])) if expected else 0.0
    if not any(found.values()):
        raise ValueError(
            "mixed_precision by='sensitivity': no kernel of the file moves a floating point output; "
            "take by='coding_length'"
        )
    return found


def _first(batches: CalibrationData) -> list[dict[str, np.ndarray]]:
    return list(itertools.islice(batches, -(-SAMPLES // batches.batch_size)))


def _bias(use: KernelUse) -> np.ndarray:
    return use.shifted_bias(np.zeros(use.view.view_shape[0], np.float32))


def _outputs(float_file: FloatFile, batches: Iterable[dict[str, np.ndarray]]) -> list[np.ndarray]:
    """The floating point outputs, samples behind each other."""
    wanted = [index for index in float_file.outputs if float_file.model.is_float(index)]
    runner = TensorRunner(float_file.data, wanted)
    parts = [runner.values(float_file.by_tensor_name(batch)) for batch in batches]
    return [np.concatenate([np.atleast_1d(part[index]) for part in parts]) for index in wanted]


def _share(expected: np.ndarray, found: np.ndarray) -> float:
    """Power of what differs from sample to sample, relative to that of the output; 0 for one that does not vary."""
    whole, moved = (np.square(_varying(values.astype(np.float64))).sum() for values in (expected, found - expected))
    return float(moved / whole) if whole else 0.0


def _varying(values: np.ndarray) -> np.ndarray:
    return values - values.mean(axis=0) if len(values) > 1 else values
