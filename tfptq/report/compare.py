"""Compare the quantized file with the float one, on a few samples: its outputs, and those of its kernels."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from tfptq.core.decibels import decibels, powers, signal_to_noise
from tfptq.float_file.float_file import FloatFile
from tfptq.lowering.clipped_ranges import limits_of_readers
from tfptq.lowering.plan import IntegerPlan
from tfptq.tflite.interface import read_interface
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.model_reader import read_model
from tfptq.tflite.runtime import TensorRunner

#: Samples of one run, where the file takes any number.
SAMPLES_AT_ONCE = 1
#: Values that differ by less from sample to sample, relative to the largest one, are the same but for float roundings.
SAME = 1e-6
#: Real values of the float file, and of the quantized one.
Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class ComparedLayer:
    """The result of an operator with a kernel.

    Attributes:
        snr_db: signal to noise in the quantized file.
        varies: whether it differs from sample to sample in the float file.
        varies_in_file: the same in the quantized one.
        operator: position in the quantized file of the operator that writes it.
    """

    snr_db: float
    varies: bool
    varies_in_file: bool
    operator: int


@dataclass(frozen=True, eq=False)
class ComparedOutput:
    """An output of the model that holds real numbers.

    Attributes:
        tensor: its index in the float file.
        expected: real values of the float file, samples first.
        found: the same of the quantized file.
    """

    tensor: int
    expected: np.ndarray
    found: np.ndarray

    @property
    def snr_db(self) -> float:
        """Signal to noise of all values."""
        return signal_to_noise(self.expected, self.found)

    @property
    def varying_snr_db(self) -> float:
        """Signal to noise of what remains of both once the float mean over the samples is taken away."""
        mean = self.expected.mean(axis=0, dtype=np.float64)
        return signal_to_noise(self.expected - mean, self.found - mean)

    @property
    def varies(self) -> bool:
        """Whether it differs from sample to sample in the float file."""
        return varies(self.expected)

    @property
    def varies_in_file(self) -> bool:
        """The same in the quantized file."""
        return varies(self.found)

    @property
    def variation_db(self) -> float:
        """Power of what differs from sample to sample in the float file, beside that of all, in dB."""
        mean = self.expected.mean(axis=0, dtype=np.float64)
        return decibels(*(np.square(values).sum() for values in (self.expected - mean, self.expected)))


@dataclass(frozen=True)
class Comparison:
    """The quantized file beside the float one.

    Attributes:
        layers: tensor index in the float file -> the output of a kernel.
        outputs: name in the signature -> an output of the model.
    """

    layers: dict[int, ComparedLayer]
    outputs: dict[str, ComparedOutput]


def varies(values: np.ndarray, first: np.ndarray | None = None) -> bool:
    """Whether the rows of an array differ from each other, or from ``first``, by more than float roundings."""
    first = values[0] if first is None else first
    return bool(np.abs(values - first).max(initial=0.0) > SAME * np.abs(first).max(initial=0.0))


def compare_with_float(
    float_file: FloatFile, tflite: bytes, plan: IntegerPlan, samples: Mapping[str, np.ndarray]
) -> Comparison:
    """Compare the quantized file with the float one on samples, Keras input name -> array."""
    quantized = TFLiteModel(tflite)
    pairs = _kernel_outputs(float_file, quantized, plan)
    names = [row.name for row in read_interface(read_model(tflite)) if row.end == "output"]
    model_outputs = {
        name: (inner, outer)
        for name, inner, outer in zip(names, quantized.subgraph.outputs, float_file.model.subgraph.outputs, strict=True)
        if float_file.model.is_float(outer)
    }
    files = (
        _File(tflite, [*pairs, *(inner for inner, _ in model_outputs.values())], float_file),
        _File(float_file.data, [*pairs.values(), *(outer for _, outer in model_outputs.values())], float_file),
    )
    # What a clip cuts off behind a kernel is no noise of the kernel.
    limits = limits_of_readers(float_file.model, {index: grid.real_range for index, grid in plan.grids.items()})
    layers = {outer: _Running(limits.get(outer, (None, None))) for outer in pairs.values()}
    parts: dict[str, list[Pair]] = {name: [] for name in model_outputs}
    for part in _parts(samples, float_file.batch_size or SAMPLES_AT_ONCE):
        found, expected = (file.run(part) for file in files)
        for inner, outer in pairs.items():
            layers[outer].add(expected[outer], _real(quantized, inner, found[inner]))
        for name, (inner, outer) in model_outputs.items():
            parts[name].append((expected[outer], _real(quantized, inner, found[inner])))
    writers = {index: at for at, operator in enumerate(quantized.operators) for index in operator.outputs}
    return Comparison(
        {outer: layers[outer].result(writers[inner]) for inner, outer in pairs.items()},
        {
            name: ComparedOutput(outer, *(np.concatenate(runs) for runs in zip(*parts[name], strict=True)))
            for name, (_, outer) in model_outputs.items()
        },
    )


def _kernel_outputs(float_file: FloatFile, quantized: TFLiteModel, plan: IntegerPlan) -> dict[int, int]:
    """Tensor index in the quantized file -> that of the same result in the float file, for operators with kernels."""
    index_of = {quantized.name(index): index for index in range(len(quantized.tensors))}
    pairs, names_of = {}, float_file.model.short_names()
    for use in float_file.uses:
        name = names_of[float_file.model.name(use.output)]
        inner = index_of.get(f"{name}_int{plan.bits_of(use.operator)}", index_of.get(name))
        if inner is not None and (use.output in plan.grids or quantized.is_float(inner)):
            pairs[inner] = use.output
    return pairs


class _Running:
    """Compares two tensors while parts of both come in; ``limits`` are (least, largest) value that counts."""

    def __init__(self, limits: tuple[float | None, float | None]):
        self._limits, self._powers = limits, np.zeros(2)
        self._firsts: Pair | None = None
        self._varies = [False, False]

    def add(self, expected: np.ndarray, found: np.ndarray) -> None:
        """Take in some samples."""
        self._powers += powers(*(np.clip(values, *self._limits) for values in (expected, found)))
        self._firsts = self._firsts or (expected[0], found[0])
        for at, values in enumerate((expected, found)):
            self._varies[at] = self._varies[at] or varies(values, self._firsts[at])

    def result(self, operator: int) -> ComparedLayer:
        """What all samples tell."""
        in_float, in_file = self._varies
        return ComparedLayer(decibels(*self._powers), in_float, in_file, operator)


def _parts(samples: Mapping[str, np.ndarray], size: int) -> Iterator[dict[str, np.ndarray]]:
    """The samples, ``size`` at a time: the runtime keeps all tensors of a run."""
    for start in range(0, len(next(iter(samples.values()))), size):
        yield {name: values[start : start + size] for name, values in samples.items()}


def _real(model: TFLiteModel, index: int, values: np.ndarray) -> np.ndarray:
    """Real values of a tensor that may hold codes."""
    if values.dtype == np.float32:
        return values
    grid = model.tensors[index].quantization
    return (values.astype(np.float64) - int(grid.zeroPoint[0])) * float(grid.scale[0])


class _File:
    """Runs one of the files, and gives some of its tensors."""

    def __init__(self, tflite: bytes, tensors: Iterable[int], float_file: FloatFile):
        self._runner, self._float_file = TensorRunner(tflite, tensors), float_file
        inputs = map(float_file.model.name, float_file.model.subgraph.inputs)
        self._names = dict(zip(inputs, self._runner.input_names, strict=True))

    def run(self, samples: Mapping[str, np.ndarray]) -> dict[int, np.ndarray]:
        """Tensor index -> values, with at least one axis; ``samples`` are by Keras input name."""
        by_name = self._float_file.by_tensor_name(samples)
        values = self._runner.values({self._names[name]: array for name, array in by_name.items()})
        return {index: np.atleast_1d(array) for index, array in values.items()}
