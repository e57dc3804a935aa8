"""Statistics of the quantized prefix: what each kernel reads once all kernels before it are quantized.

``SequentialCalibration`` holds the float model twice. In one copy the kernels are replaced by dequantized codes as they
are fitted, in order; its activations can be rounded to coarse grids as well. ``statistics`` of a kernel pair the inputs
x̂ of that copy with the outputs z of the other. A kernel whose result is added to a shortcut is asked for more: for
what is missing to the float sum, so that it makes good what the kernels before have added to the shortcut.

The prefix is not run from the start for each kernel: the activations that cross a cut are stored once for all
samples, and the next kernels start from there. Each copy has a cut of its own, which follows the walk, so that no
operator runs twice: the float one is behind the kernel, whose result is wanted, and the quantized one before it, as the
kernel is about to change. A cut is only made where its activations fit into the memory allowed, so early layers with
large feature maps, whose prefix is short, are run again instead.

A kernel that is used several times has the sum of the statistics of its uses. Kernels between its first use and its
last are still float then, and no cut is made behind the first of them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfptq.core.affine import ActivationGrid
from tfptq.core.products import sum_in_threads, threads_for
from tfptq.core.statistics import LayerStatistics, convolution_statistics, dense_statistics, position_step
from tfptq.fit.activation_rounding import simulate_activations
from tfptq.fit.recurrent import GateKernel
from tfptq.float_file.float_file import FloatFile
from tfptq.float_file.kernel import Kernel, KernelUse
from tfptq.float_file.matching import replace_kernel
from tfptq.lowering.quantized_kernel import QuantizedKernel
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.runtime import TensorRunner
from tfptq.tflite.segments import crossing, extract_segment, unfuse_activations

#: Bytes that the statistics of one kernel may take.
LARGEST_STATISTICS = 1 << 31
#: Gram matrices of one kernel that are there at the same time: two that are added, their sum, and one to work with.
_GRAMS_AT_ONCE = 4
#: Bytes that stored activations may take, unless the caller says otherwise.
DEFAULT_MAX_MEMORY = 1 << 28

Batch = Mapping[int, np.ndarray]


class SequentialCalibration:
    """Walks through a float file in execution order.

    Args:
        batches: re-iterable stream of Keras input name -> array with a batch axis.
        samples: number of samples in a pass.
        max_memory: bytes that stored activations may take.
        grids: tensor index -> grid that the quantized copy rounds its values to; without one they stay float.
    """

    def __init__(
        self,
        float_file: FloatFile,
        batches: Iterable[Mapping[str, np.ndarray]],
        samples: int,
        max_memory: int,
        grids: Mapping[int, ActivationGrid] | None = None,
    ):
        self._float_file = float_file
        self._samples = samples
        self._max_memory = max_memory
        self._float, self._quantized = TFLiteModel(float_file.data), TFLiteModel(float_file.data)
        positions = [use.operator for use in float_file.uses]
        self._grids = grids or {}
        unfused = unfuse_activations(self._float, positions)
        unfuse_activations(self._quantized, positions)
        moved = simulate_activations(self._float, self._grids, in_effect=False)
        simulate_activations(self._quantized, self._grids)
        self._moved = {old: moved[new] for old, new in unfused.items()}
        self._own = frozenset(moved.values())  # positions of operators that are not there for the rounding alone
        self._cuts = 0, 0  # of the float and of the quantized copy; statistics are the same wherever they are
        self._stored: list[tuple[Batch, Batch]] | None = None
        self._batches = batches
        self._values = _values_of_a_sample(self._float, next(self._inputs())[0], float_file.batch_size or 1)

    def obstacle(self, kernel: Kernel, fewest_positions: int) -> str | None:
        """Why the statistics of a kernel cannot be had or have fewer positions for each input than wanted, or None."""
        outputs, inputs, taps = kernel.shape
        length = inputs * taps
        grams = _GRAMS_AT_ONCE + (len(kernel.uses) > 1)  # the sum over the uses before
        needed = grams * 8 * kernel.uses[0].window.groups * length**2
        if needed > LARGEST_STATISTICS:
            return f"statistics of its {length} inputs would take {needed / 2**30:.1f} GiB"
        results = [self._float.operators[self._position(use)].outputs[0] for use in kernel.uses]
        positions = [self._values[result] // outputs for result in results]  # of an LSTM: steps of time
        kept = sum(-(-each * self._samples // position_step(each, self._samples, length)) for each in positions)
        if kept < fewest_positions * length:
            return f"the samples have {kept} positions for its {length} inputs"
        return None

    def statistics(self, kernel: Kernel, weights: Sequence[float] | np.ndarray | None = None) -> LayerStatistics:
        """Statistics of a kernel, summed over all its uses. Kernels must be asked for in the order of their first use.

        Outputs count as the kernel itself would give them, with the bias of the first use in place of each use's own,
        so that all uses compute the same. ``weights`` is how much a position of each use counts; one each by default.
        """
        # Kernels between the uses are replaced later: what is stored behind them would not be true any more.
        first = self._position(kernel.uses[0])
        _, inputs, taps = kernel.shape
        # What is not finite is refused as a whole, by ``LayerStatistics.centred``.
        with threads_for(inputs * taps), np.errstate(over="ignore", invalid="ignore"):
            # The operator of several kernels is run for each of them.
            self._move_cuts(first + 1 if kernel.uses[0].alone else first, first)
            return self._statistics_of_uses(kernel, weights)

    def _statistics_of_uses(self, kernel: Kernel, weights: Sequence[float] | np.ndarray | None) -> LayerStatistics:
        total = self._statistics(kernel.uses[0])
        if weights is not None:
            total = total.weighted(weights[0])
        for number, use in enumerate(kernel.uses[1:], 1):
            part = self._statistics(use)
            moved_bias = kernel.uses[0].kernel_bias - use.kernel_bias
            if moved_bias.any():
                part = part.moved(np.zeros_like(part.sum_x), moved_bias.reshape(part.sum_z.shape))
            total += part if weights is None else part.weighted(weights[number])
        return total

    def replace(self, kernel: QuantizedKernel) -> None:
        """Put a dequantized kernel and its biases into the quantized copy."""
        for use in kernel.uses:
            values, bias = kernel.float_values(use)
            operator = self._quantized.operators[self._position(use)]
            replace_kernel(self._quantized, operator, use, use.view.from_view(values), bias)

    def _position(self, use: KernelUse) -> int:
        """Position of the operator of a use in the two copies, which have operators of their own."""
        return self._moved[use.operator]

    def _statistics(self, use: KernelUse) -> LayerStatistics:
        at = self._position(use)
        if not use.alone:
            return self._statistics_over_time(use)
        before = self._float.operators[at].outputs[0]
        shortcut = self._shortcut(at)
        also = [] if shortcut is None else [shortcut]
        float_runner = _PrefixSegment(self._float, self._cuts[0], at + 1, [before, *also])
        quantized_runner = _PrefixSegment(self._quantized, self._cuts[1], at, [use.input, *also])

        def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for float_batch, quantized_batch in self._inputs():
                wanted, there = float_runner.run(float_batch), quantized_runner.run(quantized_batch)
                z = wanted[before]
                if shortcut is not None:
                    z = z + (wanted[shortcut] - there[shortcut])
                yield there[use.input], use.kernel_outputs(z)

        _, inputs, taps = use.view.view_shape
        return sum_in_threads(self._batch_statistics(use, batches()), inputs * taps)

    def _statistics_over_time(self, use: KernelUse) -> LayerStatistics:
        """Statistics of a kernel of an LSTM, over all steps."""
        at = self._position(use)
        ends = [self._float.operators[at].inputs[0], self._float.operators[at].outputs[0]]
        float_runner = _PrefixSegment(self._float, self._cuts[0], at + 1, ends)
        quantized_runner = _PrefixSegment(self._quantized, self._cuts[1], at + 1, ends)
        kernel = GateKernel.of(use, self._float, self._quantized, at)

        def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for float_batch, quantized_batch in self._inputs():
                wanted, there = float_runner.run(float_batch), quantized_runner.run(quantized_batch)
                yield kernel.pair(*(values[index] for values in (wanted, there) for index in ends))

        _, inputs, taps = use.view.view_shape
        return sum_in_threads(self._batch_statistics(use, batches()), inputs * taps)

    def _shortcut(self, at: int) -> int | None:
        """The tensor that an operator's result is added to, if nothing else reads the result and it is there before."""
        result, reader = self._result_and_reader(self._float.operators[at].outputs[0])
        if reader is None or self._float.operator_name(reader) != "ADD":
            return None
        others = [index for index in reader.inputs if index != result]
        computed = {index for operator in self._float.operators[:at] for index in operator.outputs}
        if len(others) != 1 or others[0] not in computed or self._float.shape(others[0]) != self._float.shape(result):
            return None
        # Sizes that the model leaves open look alike; a result of one position may be added to a whole feature map.
        return others[0] if self._values[others[0]] == self._values[result] else None

    def _result_and_reader(self, result: int) -> tuple[int, schema.OperatorT | None]:
        """A result, behind its rounding if there is one, and its only reader; None if it is also read elsewhere."""
        readers = [number for number, operator in enumerate(self._float.operators) if result in operator.inputs]
        if len(readers) != 1 or result in self._float.subgraph.outputs:
            return result, None
        reader = self._float.operators[readers[0]]
        return (result, reader) if readers[0] in self._own else self._result_and_reader(reader.outputs[0])

    def _batch_statistics(
        self, use: KernelUse, batches: Iterable[tuple[np.ndarray, np.ndarray]]
    ) -> Iterator[Callable[[], LayerStatistics]]:
        """For each batch of inputs and outputs, what computes its statistics."""
        _, inputs, taps = use.view.view_shape
        first = 0
        for x, z in batches:
            positions = int(np.prod(z.shape[1:-1], dtype=np.int64))
            step = position_step(positions, self._samples, inputs * taps)
            if x.ndim == 4 and z.ndim == 4:
                yield partial(convolution_statistics, x, z, use.window, step, first)
            else:
                yield partial(dense_statistics, x.reshape(len(z) * positions, inputs), z, step, first)
            first += positions * len(z)

    def _inputs(self) -> Iterator[tuple[Batch, Batch]]:
        """What crosses the cuts, batch by batch, in the float and in the quantized copy."""
        if self._stored is not None:
            yield from self._stored
            return
        for batch in self._batches:
            named = {self._float_file.inputs[name]: values for name, values in batch.items()}
            yield named, {index: self._rounded(index, values) for index, values in named.items()}

    def _rounded(self, index: int, values: np.ndarray) -> np.ndarray:
        grid = self._grids.get(index)
        return values if grid is None else grid.dequantize(grid.quantize(values))

    def _move_cuts(self, float_stop: int, quantized_stop: int) -> None:
        """Store what crosses the latest cuts up to these stops that the memory allows, of both copies in one pass."""
        float_start, quantized_start = self._cuts
        float_cut = self._latest_storable(float_start, float_stop)
        quantized_cut = self._latest_storable(quantized_start, quantized_stop)
        if float_cut is None or quantized_cut is None or (float_cut, quantized_cut) == self._cuts:
            return
        float_runner = _PrefixSegment(self._float, float_start, float_cut, crossing(self._float, float_cut))
        crossed = crossing(self._quantized, quantized_cut)
        quantized_runner = _PrefixSegment(self._quantized, quantized_start, quantized_cut, crossed)
        stored: list[tuple[Batch, Batch]] = []
        for number, (float_batch, quantized_batch) in enumerate(self._inputs()):
            stored.append((float_runner.run(float_batch), quantized_runner.run(quantized_batch)))
            if self._stored is not None:
                self._stored[number] = {}, {}  # nobody reads it any more: the memory is that of one cut, not of two
        self._stored, self._cuts = stored, (float_cut, quantized_cut)

    def _latest_storable(self, cut: int, stop: int) -> int | None:
        """The latest cut from ``cut`` to ``stop`` where both copies would fit into the memory, or None."""
        return next((at for at in range(stop, cut - 1, -1) if self._stored_bytes(at) <= self._max_memory), None)

    def _stored_bytes(self, cut: int) -> int:
        """Bytes of both copies of what crosses a cut, for all samples."""
        return 2 * 4 * sum(self._values.get(index, 0) for index in crossing(self._float, cut)) * self._samples


def _values_of_a_sample(model: TFLiteModel, batch: Batch, samples: int) -> dict[int, int]:
    """How many numbers each activation has for one sample. They are counted: the model may leave sizes open.

    ``batch`` holds the inputs by tensor index; at least as many ``samples`` of it are run as the model takes at once.
    """
    found: dict[int, int] = {}
    part = {model.name(index): values[:samples] for index, values in batch.items()}
    TensorRunner(model, model.activations()).run(
        part, lambda index, values: found.__setitem__(index, values.size // samples)
    )
    return found


class _PrefixSegment:
    """Runs a part of a model; tensors keep their indexes in the whole model."""

    def __init__(self, model: TFLiteModel, start: int, stop: int, outputs: list[int]):
        inside = {index for operator in model.operators[start:stop] for index in operator.outputs}
        self._outputs = list(dict.fromkeys(outputs))
        self._written = [index for index in self._outputs if index in inside]
        self._name = model.name
        if self._written:
            part = extract_segment(model, start, stop, self._written)
            self._runner = TensorRunner(part, part.subgraph.outputs)

    def run(self, batch: Batch) -> dict[int, np.ndarray]:
        """Values of the outputs; those that the segment does not write are taken from ``batch``."""
        results = {index: batch[index] for index in self._outputs if index not in self._written}
        if self._written:
            found: list[np.ndarray] = []
            by_name = {self._name(index): values for index, values in batch.items()}
            wanted = {name: by_name[name] for name in self._runner.input_names}
            self._runner.run(wanted, lambda index, values: found.append(values.copy()))
            results.update(zip(self._written, found, strict=True))
        return results
