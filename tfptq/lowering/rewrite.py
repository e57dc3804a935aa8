"""Rewrite a float model so that its operators run on integers.

Every activation tensor that an integer operator writes becomes an integer tensor in place, and keeps its name.
QUANTIZE and DEQUANTIZE operators appear only where an integer operator meets a float one, where an operator
wants its input on another grid, and at the model's inputs and outputs when those stay float or are uint8.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfptq.core.affine import ActivationGrid, activation_grid, symmetric_range
from tfptq.core.bias_correction import quantize_bias
from tfptq.lowering.comparisons import compared_constant
from tfptq.lowering.recurrent import place_states
from tfptq.ops.operator_spec import OutputGrid, WeightedInputs
from tfptq.ops.table import spec_of
from tfptq.tflite.model import TFLiteModel, quantization_parameters

_INTEGER_TYPE = {8: schema.TensorType.INT8, 16: schema.TensorType.INT16}
_BIAS_TYPE = {8: np.int32, 16: np.int64}


@dataclass(frozen=True, eq=False)
class KernelConstant:
    """What an integer operator gets for a float kernel.

    Attributes:
        tensor: index of the constant that replaces the kernel.
        scales: float32 ``[O]``: weight scale of each output channel, which the bias shares.
        bias: float32 ``[O]`` real bias, or None when the operator has none; what it adds to the bias of another kernel.
    """

    tensor: int
    scales: np.ndarray
    bias: np.ndarray | None


@dataclass
class Lowering:
    """State of one rewrite.

    Attributes:
        model: model to rewrite, in place.
        grids: grid of each activation tensor that integer operators touch.
        kernels: operator (by identity) -> position among its inputs -> integer kernel.
        bits: width of the activations of most operators, 8 or 16.
        wider: operator (by identity) -> another width.
        converted: (tensor index, width) -> grid of a tensor for operators of another width than its own.
        input_type: ``"float32"``, ``"int8"``, ``"uint8"`` or ``"int16"``.
        output_type: the same for the outputs.
        clipped: tensor index -> (least, largest) value that counts, for tensors with values far beyond their grids.
    """

    model: TFLiteModel
    grids: Mapping[int, ActivationGrid]
    kernels: Mapping[int, Mapping[int, KernelConstant]]
    bits: int = 8
    input_type: str = "float32"
    output_type: str = "float32"
    clipped: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    wider: Mapping[int, int] = field(default_factory=dict)
    converted: Mapping[tuple[int, int], ActivationGrid] = field(default_factory=dict)
    _operators: list = field(default_factory=list)
    _integer: set[int] = field(default_factory=set)
    _float: dict[int, int] = field(default_factory=dict)
    _biases: dict[tuple[int, bytes, bytes], int] = field(default_factory=dict)
    _quantized: dict[tuple[int, ActivationGrid], int] = field(default_factory=dict)

    def run(self, integer_operators: list) -> None:
        """Rewrite the model.

        Args:
            integer_operators: the operators, by identity, that shall run on integers.
        """
        integer = {id(operator) for operator in integer_operators}
        self._enter()
        for operator in self.model.operators:
            if id(operator) in integer:
                self._lower(operator)
            else:
                self._keep_float(operator)
        self._leave()
        self.model.operators[:] = self._operators

    # Inputs and outputs of the model.

    def _enter(self) -> None:
        for position, index in enumerate(self.model.subgraph.inputs):
            if not self.model.is_float(index):
                continue
            if self.input_type == "float32" or index not in self.grids:
                self._float[index] = index
            elif self.input_type == "uint8":
                self.model.subgraph.inputs[position] = self._unsigned_input(index)
            else:
                self._become_integer(index)

    def _unsigned_input(self, index: int) -> int:
        """The uint8 input takes the name; the tensor that operators read becomes int8 under another."""
        name, grid = self.model.name(index), self.grids[index]
        self.model.tensors[index].name = self.model.unique_name(f"{name}_int8")
        outer = self._add_tensor(index, name, schema.TensorType.UINT8, grid.scale, grid.zero_point + 128)
        self._rename_exactly(outer, name)
        self._become_integer(index)
        self._convert("QUANTIZE", outer, index)
        self._point_signatures(index, outer, inputs=True)
        return outer

    def _leave(self) -> None:
        converted: dict[int, int] = {}  # a tensor that the model returns twice stays one tensor
        for position, index in enumerate(self.model.subgraph.outputs):
            wanted = self.output_type if index in self.grids else "float32"
            if not self.model.is_float(index) and index not in self._integer:
                continue
            if index in converted:
                outer = converted[index]
            elif wanted == "float32" and index in self._float:
                outer = self._float[index]
            elif wanted in ("int8", "int16"):
                outer = self._as_integer(index, self._grid_at(index, self.bits))
            else:
                outer = converted[index] = self._converted_output(index, wanted)
            self.model.subgraph.outputs[position] = outer
            self._point_signatures(index, outer, inputs=False)

    def _converted_output(self, index: int, wanted: str) -> int:
        """An output of another type than the tensor inside; it takes over the tensor's name."""
        grid = self._grid_at(index, self.bits if wanted == "uint8" else self.grids[index].bits)
        source, name = self._as_integer(index, grid), self.model.name(index)
        self.model.tensors[index].name = self.model.unique_name(f"{name}_int{self.grids[index].bits}")
        if wanted == "uint8":
            outer = self._add_tensor(index, name, schema.TensorType.UINT8, grid.scale, grid.zero_point + 128)
            self._convert("QUANTIZE", source, outer)
        else:
            outer = self._add_tensor(index, name, schema.TensorType.FLOAT32)
            self._convert("DEQUANTIZE", source, outer)
            self._float[index] = outer
        self._rename_exactly(outer, name)
        return outer

    def _rename_exactly(self, index: int, name: str) -> None:
        """Give a new tensor a name that its former owner has just given up."""
        self.model.tensors[index].name = name

    def _point_signatures(self, old: int, new: int, inputs: bool) -> None:
        for signature in self.model.root.signatureDefs or []:
            if signature.subgraphIndex == 0:
                for entry in (signature.inputs if inputs else signature.outputs) or []:
                    if entry.tensorIndex == old:
                        entry.tensorIndex = new

    # Operators.

    def _keep_float(self, operator) -> None:
        if not self.model.spec(operator).reads_shape:
            operator.inputs = [self._as_float(index) for index in operator.inputs]
        self._operators.append(operator)
        for index in operator.outputs:
            if self.model.is_float(index):
                self._float[index] = index

    def _lower(self, operator) -> None:
        spec, bits = self.model.spec(operator), self.wider.get(id(operator), self.bits)
        result = self.grids[operator.outputs[0]] if spec.output_grid is not OutputGrid.OWN else None
        joint = result if spec.output_grid is OutputGrid.JOINT else None
        for at in spec.data_inputs(operator):
            index = operator.inputs[at]
            symmetric = at in spec.symmetric_inputs
            if self.model.is_constant(index):
                operator.inputs[at] = (
                    self._compared(operator, index, bits)
                    if spec.compares
                    else self._constant(index, joint, symmetric, bits)
                )
                continue
            wanted = joint
            if symmetric:
                wanted = self._symmetric(index, bits)
            elif joint is None and self.grids[index].bits != bits:
                wanted = result or self._grid_at(index, bits)
            operator.inputs[at] = self._as_integer(index, wanted)
        for place in spec.kernels:
            self._place_kernel(operator, place, bits)
        if spec.states:
            place_states(self.model, operator, self.grids, self._operators)
        self.model.raise_version(operator, spec.version(bits))
        self._operators.append(operator)
        for index in filter(self.model.is_float, operator.outputs):
            self._become_integer(index)

    def _place_kernel(self, operator, place: WeightedInputs, bits: int) -> None:
        kernel_at, bias_at, input_at = place
        spec, constants = self.model.spec(operator), self.kernels[id(operator)]
        constant = constants[kernel_at]
        operator.inputs[kernel_at] = constant.tensor
        if constant.bias is None or not spec.owns_bias(place):
            return
        parts = [constants[other.kernel].bias for other in spec.kernels if other.bias == bias_at]
        bias = np.sum([part for part in parts if part is not None], axis=0)
        scales = constant.scales.astype(np.float64) * self._scale(operator.inputs[input_at])
        try:
            codes = quantize_bias(bias, scales, _BIAS_TYPE[bits])
        except ValueError as error:
            raise ValueError(f"tensor {self.model.name(operator.outputs[0])!r}: {error}") from error
        scales = scales[: len(self.model.tensors[constant.tensor].quantization.scale)]  # one where the kernel has one
        operator.inputs += [-1] * (bias_at + 1 - len(operator.inputs))
        key = constant.tensor, codes.tobytes(), scales.tobytes()
        if key not in self._biases:
            self._biases[key] = self._bias(operator, bias_at, codes, scales)
        operator.inputs[bias_at] = self._biases[key]

    def _bias(self, operator, bias_at: int, codes: np.ndarray, scales: np.ndarray) -> int:
        """A new constant in the place of a bias, or of none."""
        quantization = quantization_parameters(scales.astype(np.float32), np.zeros(len(scales), np.int64))
        old = operator.inputs[bias_at]
        name = self.model.name(old) if old >= 0 else f"{self.model.name(operator.outputs[0]).split(';')[0]}/bias"
        if old >= 0 and len(self.model.consumers()[old]) == 1:
            name = self.model.release_name(old)
        return self.model.add_constant(name, codes, quantization)

    # Tensors.

    def _scale(self, index: int) -> float:
        return float(self.model.tensors[index].quantization.scale[0])

    def _add_tensor(self, like: int, name: str, tensor_type: int, scale=None, zero_point: int = 0) -> int:
        quantization = None if scale is None else quantization_parameters([scale], [zero_point])
        return self.model.add_activation_like(like, name, tensor_type, quantization)

    def _become_integer(self, index: int) -> None:
        grid, tensor = self.grids[index], self.model.tensors[index]
        tensor.type = _INTEGER_TYPE[grid.bits]
        tensor.quantization = quantization_parameters([grid.scale], [grid.zero_point])
        self._integer.add(index)

    def _as_integer(self, index: int, grid: ActivationGrid | None = None) -> int:
        """The integer form of an activation, on its own grid or on another: rounded once where it is float."""
        own, grid = self.grids[index], grid or self.grids[index]
        if grid == own and index in self._integer:
            return index
        key = (index, grid)
        if key not in self._quantized:
            source = index if index in self._integer else self._within(index, grid)
            name = f"{self.model.name(index)}_{'requantized' if grid != own else f'int{own.bits}'}"
            new = self._add_tensor(index, name, _INTEGER_TYPE[grid.bits], grid.scale, grid.zero_point)
            self._convert("QUANTIZE", source, new)
            self._quantized[key] = new
        return self._quantized[key]

    def _within(self, index: int, grid: ActivationGrid) -> int:
        """The float form of an activation, cut off at the ends of a grid where values lie far beyond.

        QUANTIZE of the built-in kernels computes ``value / scale`` as int32, and -1e9 overflows to the wrong end.
        """
        source, limits = self._float[index], self.clipped.get(index, (-math.inf, math.inf))
        for kind, limit, end in zip(("MAXIMUM", "MINIMUM"), limits, grid.real_range, strict=True):
            if math.isfinite(limit):
                name = f"{self.model.name(index)}_{kind.lower()}"
                new = self._add_tensor(index, name, schema.TensorType.FLOAT32)
                inputs = [source, self.model.add_constant(f"{name}/limit", np.asarray(end, np.float32))]
                options = schema.MaximumMinimumOptionsT()
                self._operators.append(self.model.new_operator(kind, inputs, [new], options=options))
                source = new
        return source

    def _as_float(self, index: int) -> int:
        """The float form of an activation; other tensors as they are."""
        if index not in self._integer and index not in self._float:
            return index
        if index not in self._float:
            name = f"{self.model.name(index)}_float"
            new = self._add_tensor(index, name, schema.TensorType.FLOAT32)
            self._convert("DEQUANTIZE", index, new)
            self._float[index] = new
        return self._float[index]

    def _grid_at(self, index: int, bits: int) -> ActivationGrid:
        """The grid of an activation for operators of a width."""
        own = self.grids[index]
        return own if own.bits == bits else self.converted[index, bits]

    def _symmetric(self, index: int, bits: int) -> ActivationGrid:
        """The grid of an activation, or one that covers it with the zero point 0."""
        grid = self._grid_at(index, bits)
        return activation_grid(*symmetric_range(*grid.real_range), bits) if grid.zero_point else grid

    def _constant(self, index: int, grid: ActivationGrid | None, symmetric: bool, bits: int) -> int:
        """An integer copy of a float constant that stands where an activation could."""
        values = self.model.constant(index)
        if grid is None and index in self.grids:
            grid = self.grids[index]  # on which values saturate that nothing can tell from its ends
        elif grid is None:
            low, high = float(values.min()), float(values.max())
            grid = activation_grid(*(symmetric_range(low, high) if symmetric else (low, high)), bits)
        return self._add_constant(index, grid, values)

    def _compared(self, operator, index: int, bits: int) -> int:
        """An integer copy of a constant on the grid of what it is compared with: equal grids are compared exactly."""
        grid = self._grid_at(next(other for other in operator.inputs if other != index), bits)
        return self._add_constant(index, grid, compared_constant(self.model, operator, index, grid))

    def _add_constant(self, like: int, grid: ActivationGrid, values: np.ndarray) -> int:
        quantization = quantization_parameters([grid.scale], [grid.zero_point])
        return self.model.add_constant(f"{self.model.name(like)}_int{grid.bits}", grid.quantize(values), quantization)

    def _convert(self, name: str, source: int, target: int) -> None:
        types = {self.model.tensors[index].type for index in (source, target)}
        version = spec_of(name).version(16 if _INTEGER_TYPE[16] in types else 8)
        self._operators.append(self.model.new_operator(name, [source], [target], version))
