"""Run the weighted layers of an emitted file in integers, as an NPU would, from nothing but the file.

The executor is the proof that the block metadata suffices: it takes codes, scales and shifts from the file, sums int8
products block by block in int32, and rescales with fixed-point multipliers. For the layouts on integers its
codes equal those of LiteRT's reference kernels bit for bit, which ``compare_with_stock`` shows.
"""

import os
from dataclasses import dataclass

import numpy as np

from tfptq.npu.convolution import convolution_sums, dense_sums, depthwise_sums, transposed_sums
from tfptq.npu.layer import Layer, find_layers
from tfptq.npu.requantization import Requantization, plan_requantization
from tfptq.npu.stock import run_reference_kernels
from tfptq.tflite.checks import VerificationError
from tfptq.tflite.metadata import load_bytes, metadata_of
from tfptq.tflite.model_reader import read_model


@dataclass(frozen=True, eq=False)
class LayerRun:
    """One run of one layer.

    Attributes:
        rescales: multiplications and shifts beyond multiply-accumulates: one per output value, and one more per block
            where a row has several.
        multipliers: number of fixed-point multipliers that the NPU holds for the layer.
        output: int8 codes ``[N, OH, OW, O]``, or ``[P, O]`` for FULLY_CONNECTED.
    """

    name: str
    operator: str
    rescales: int
    multipliers: int
    output: np.ndarray


@dataclass(frozen=True, eq=False)
class LayerComparison:
    """Output codes of the executor against those of the stock reference kernel on the same input codes."""

    run: LayerRun
    mismatches: int
    largest_difference: int

    @property
    def equal(self) -> bool:
        """Whether all output codes are equal."""
        return self.mismatches == 0


class Executor:
    """Integer executor of the weighted layers of a ``.tflite`` file, given as bytes or path.

    ``layers`` are in order of execution; ``skipped`` is layer name -> reason, for described weights that it cannot run.
    A file without block metadata, or with such as does not fit it, is refused (``FormatError``).

    >>> Executor(result.tflite).run_layer(0, codes).output
    """

    def __init__(self, file: bytes | str | os.PathLike):
        model = read_model(load_bytes(file))
        metadata = metadata_of(model)
        if metadata is None:
            raise VerificationError("the file carries no TFPTQ_BLOCKS metadata; the executor has nothing to go by")
        self.layers, self.skipped = find_layers(model, metadata)

    def run_layer(self, index: int, input_codes: np.ndarray) -> LayerRun:
        """Run a layer on int8 ``[N, H, W, C]``, or for FULLY_CONNECTED any shape with a multiple of ``T * I`` entries.

        Raises:
            OverflowError: an accumulator leaves int32.
            ValueError: the input does not fit the layer.
        """
        layer = self.layers[index]
        plan = _plan(layer)  # here, since thousands of layers may share one kernel
        x = _checked_input(layer, input_codes)
        accumulators = _bias_codes(layer, plan)
        step = layer.blocks.block_shape[1]
        for column in range(plan.columns):
            channels = slice(column * step, (column + 1) * step)
            accumulators = accumulators + plan.combine(_partial_sums(layer, x, channels), column)
        output = plan.to_codes(accumulators, layer.output_grid[1], layer.code_range)
        rescales = output.size * plan.rescales_per_output
        return LayerRun(layer.name, layer.operator, rescales, plan.multipliers, output)


def compare_with_stock(file: bytes | str | os.PathLike, inputs) -> list[LayerComparison]:
    """Run every layer on the input codes that the stock reference kernels give it, and compare the outputs.

    ``inputs`` are an array, arrays in the order of the file's inputs, or a dict by the names in its signature.

    Raises:
        ValueError: ``inputs`` do not fit the file, or the stock runtime has no reference kernel for an operator.
    """
    file = load_bytes(file)
    executor = Executor(file)
    codes = _stock_codes(executor, file, inputs)
    comparisons = []
    for index, layer in enumerate(executor.layers):
        run = executor.run_layer(index, codes[layer.input])
        stock = codes[layer.output].astype(np.int32)
        difference = np.abs(run.output.reshape(stock.shape) - stock)
        comparisons.append(LayerComparison(run, int((difference > 0).sum()), int(difference.max(initial=0))))
    return comparisons


def stock_codes(file: bytes | str | os.PathLike, inputs) -> dict[int, np.ndarray]:
    """Tensor -> int8 codes of the inputs and outputs of all layers, as the stock reference kernels compute them.

    Arguments and errors are those of ``compare_with_stock``.
    """
    file = load_bytes(file)
    return _stock_codes(Executor(file), file, inputs)


def _stock_codes(executor: Executor, file: bytes, inputs) -> dict[int, np.ndarray]:
    interpreter = run_reference_kernels(file, inputs)
    tensors = {tensor for layer in executor.layers for tensor in (layer.input, layer.output)}
    return {tensor: interpreter.get_tensor(tensor) for tensor in sorted(tensors)}


def _plan(layer: Layer) -> Requantization:
    fan_in = layer.codes[0].size
    single_rounding = layer.operator == "FULLY_CONNECTED"
    return plan_requantization(layer.blocks, layer.input_grid[0], layer.output_grid[0], fan_in, single_rounding)


def _bias_codes(layer: Layer, plan: Requantization) -> np.ndarray:
    """Bias in the unit of the accumulator; that of a float operator is rounded to it."""
    if layer.bias is None:
        return np.zeros(layer.blocks.outputs, np.int64)
    if layer.bias.dtype == np.int32:
        return layer.bias.astype(np.int64)
    return np.rint(layer.bias / (plan.unit * layer.input_grid[0])).astype(np.int64)


def _checked_input(layer: Layer, codes: np.ndarray) -> np.ndarray:
    """Input codes less their zero point, as int32."""
    if codes.dtype != np.int8:
        raise ValueError(f"{layer.name}: the input codes are {codes.dtype}; pass int8")
    x = codes.astype(np.int32) - layer.input_grid[1]
    if layer.operator == "FULLY_CONNECTED":
        _, inputs, taps = layer.codes.shape
        if x.size % (taps * inputs):
            raise ValueError(f"{layer.name}: {x.size} input codes are no multiple of {taps * inputs} channels")
        return x.reshape(-1, taps, inputs)
    inputs, outputs = layer.blocks.inputs, layer.blocks.outputs
    channels = x.shape[-1]
    if layer.operator == "DEPTHWISE_CONV_2D":
        fits = channels and outputs % channels == 0
    elif layer.operator == "CONV_2D":
        fits = channels and channels % inputs == 0 and outputs % (channels // inputs) == 0
    else:
        fits = channels == inputs and _fits_output(layer, x.shape)
    if x.ndim != 4 or not fits:
        raise ValueError(f"{layer.name}: input codes of shape {codes.shape} do not fit a kernel {layer.blocks.shape}")
    return x


def _fits_output(layer: Layer, shape: tuple[int, ...]) -> bool:
    """Whether a TRANSPOSE_CONV makes an output of its size of an input of some shape."""
    if layer.geometry is None or layer.output_size is None or len(shape) != 4:
        return False
    return all(layer.geometry.output_size(size, axis) == shape[1 + axis] for axis, size in enumerate(layer.output_size))


def _partial_sums(layer: Layer, x: np.ndarray, channels: slice) -> np.ndarray:
    if layer.geometry is None:
        return dense_sums(x, layer.codes, channels)
    if layer.operator == "DEPTHWISE_CONV_2D":
        return depthwise_sums(x, layer.codes, layer.geometry)
    if layer.output_size is not None:
        return transposed_sums(x, layer.codes, layer.geometry, channels, layer.output_size)
    return convolution_sums(x, layer.codes, layer.geometry, channels)
