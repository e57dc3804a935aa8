"""The kernels of a float file, as ``prepare.decisions`` wants them: of the file itself, with the operators that it has.

They are all kernels of a file whose Keras graph is not known, and beside a Keras model those inside of custom layers
and of ``keras.ops``.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np

from tfptq.config import QuantizationConfig
from tfptq.data.calibration import CalibrationData
from tfptq.float_file.float_file import FloatFile
from tfptq.float_file.kernel import Kernel, KernelUse
from tfptq.float_file.layout_requests import layout_request
from tfptq.graph.edges import next_to
from tfptq.prepare.bits import Sensitivity, rounding_error
from tfptq.prepare.decisions import Weights, settled_config, small_edges
from tfptq.prepare.storage import WeightGroup
from tfptq.tflite.runtime import TensorRunner

#: Samples that the sensitivity of kernels is measured on; each kernel and width costs a run.
SAMPLES = 32


def own_kernels(float_file: FloatFile) -> list[Kernel]:
    """The kernels of no Keras layer that tfptq knows, but for those of LSTM operators, which have 8 bits anyway."""
    return [kernel for kernel in float_file.kernels if kernel.id.layer is None and kernel.uses[0].alone]


def weights_of_kernels(float_file: FloatFile) -> Weights:
    """The kernels of no Keras layer."""
    kernels = own_kernels(float_file)
    names = {kernel.id.owner for kernel in kernels}
    scales = tuple(kernel.id.owner for kernel in kernels if kernel.shape[1:] == (1, 1))
    edges = tuple(name for name in _edges(float_file, scales) if name in names)
    return Weights(tuple(_group(float_file, kernel) for kernel in kernels), edges, scales)


def config_with_own_kernels(
    config: QuantizationConfig, wanted: QuantizationConfig, float_file: FloatFile, data: CalibrationData
) -> QuantizationConfig:
    """Decide on the kernels that the file of a Keras model has beside those of its layers.

    Args:
        config: config of the layers.
        wanted: what the user gave, with its mixed precision.
        float_file: float file of the model.
        data: calibration data, which sensitivities are measured on.

    Raises:
        ValueError: a budget cannot be met.
    """
    if not own_kernels(float_file):
        return config
    config = config.replace(mixed_precision=wanted.mixed_precision)
    return settled_config(config, weights_of_kernels(float_file), sensitivity_of_kernels(float_file, data))


def _group(float_file: FloatFile, kernel: Kernel) -> WeightGroup:
    def requests(own: QuantizationConfig, bits: int):
        own = own.replace(weight_bits=bits)
        return [[layout_request(own, float_file.model, use) for use in kernel.uses]]

    return WeightGroup(kernel.id.owner, (kernel.values,), requests)


def _edges(float_file: FloatFile, scales: Collection[str]) -> tuple[str, ...]:
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
    sizes = Counter[str]()
    for kernel in float_file.kernels:
        sizes[kernel.id.owner] += kernel.values.size
    return small_edges([name for name in sizes if name in found], sizes)


def sensitivity_of_kernels(
    float_file: FloatFile, data: CalibrationData, advance: Callable[[int], None] = lambda kernels: None
) -> Sensitivity:
    """A function that measures what share of the power of the outputs the rounding of a kernel takes up.

    What is the same for all samples does not count: biases take it up. It raises a ValueError where no kernel moves a
    floating point output.
    """
    return lambda widths: _sensitivities(float_file, own_kernels(float_file), widths, data, advance)


def _sensitivities(
    float_file: FloatFile,
    kernels: Sequence[Kernel],
    widths: Iterable[int],
    data: CalibrationData,
    advance: Callable[[int], None],
) -> dict[tuple[str, int], float]:
    """(name, width) -> what the rounding of a kernel takes up."""
    batches = _first(data.in_full_batches(float_file.batch_size) if float_file.batch_size else data)
    expected = _outputs(float_file, batches)
    found = {}
    for kernel in kernels:
        for width in widths:
            values = kernel.values + rounding_error(kernel.values, width)
            changed = float_file.with_values({use: (use.stored_values(values), _bias(use)) for use in kernel.uses})
            pairs = zip(expected, _outputs(changed, batches), strict=True)
            found[kernel.id.owner, width] = float(np.mean([_share(*pair) for pair in pairs])) if expected else 0.0
        advance(1)
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
