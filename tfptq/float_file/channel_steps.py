"""The operators of a float file as the search for channel groups sees them: channels are the last axis of tensors.

What an operator does with channels stands in its row of ``tfptq.ops.table``; here is what its options, its constants
and the sizes of its tensors say beside that. A kernel goes by the label of its id, and other constants with a number
for each channel by ``parameters_of`` their operator.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tfptq.core.channel_graph import Change, ChannelGraph, Role, Step, repeats_of_channels
from tfptq.float_file.float_file import FloatFile
from tfptq.float_file.kernel import Kernel
from tfptq.ops.operator_spec import Input, OperatorSpec
from tfptq.ops.table import FUSED_FUNCTIONS
from tfptq.tflite.model import TFLiteModel

_WITH_KERNELS = {
    "CONV_2D": Role.PRODUCER,
    "TRANSPOSE_CONV": Role.PRODUCER,
    "FULLY_CONNECTED": Role.PRODUCER,
    "DEPTHWISE_CONV_2D": Role.DEPTHWISE,
}
#: A constant second factor and slopes leave a scale of the first one alone.
_PRODUCTS, _SUMS = ("MUL", "DIV", "PRELU"), ("ADD", "SUB", "MAXIMUM", "MINIMUM")


def channel_graph(float_file: FloatFile, change: Change) -> ChannelGraph:
    """The steps of a float file for a change; its tensors are indexes of those of the file."""
    reader = _Reader(float_file.model, movable_kernels(float_file), change)
    steps = [reader.step(at) for at, operator in enumerate(float_file.model.operators) if operator.outputs]
    outputs = frozenset(float_file.outputs)
    tensors = {tensor for step in steps for tensor in (*step.inputs, *step.outputs)} | outputs
    return ChannelGraph(change, tuple(steps), outputs, {tensor: reader.channels(tensor) for tensor in tensors})


def movable_kernels(float_file: FloatFile) -> dict[int, Kernel]:
    """Position of an operator -> its kernel, if that may change: nothing else reads it, or reads it in another way."""
    model, readers, found = float_file.model, float_file.model.consumers(), {}
    for kernel in float_file.kernels:
        own = {use.operator for use in kernel.uses}
        alone = all(own.issuperset(readers[use.tensor]) for use in kernel.uses)
        known = all(model.operator_name(model.operators[at]) in _WITH_KERNELS for at in own)
        alike = len({use.view for use in kernel.uses}) == 1 and all(use.row_factors is None for use in kernel.uses)
        if alone and known and alike and not {use.tensor for use in kernel.uses} & set(float_file.outputs):
            found.update(dict.fromkeys(own, kernel))
    return found


def parameters_of(operator: int) -> str:
    """What the constants of the operator at a position go by, if they are no kernel."""
    return f"constants of operator {operator}"


def parameter_inputs(model: TFLiteModel, operator) -> list[int]:
    """Positions of the inputs of an operator that are constants with a number for each channel."""
    positions = model.spec(operator).data_inputs(operator)
    return [at for at in positions if _is_per_channel(model, operator, operator.inputs[at])]


def _is_per_channel(model: TFLiteModel, operator, index: int) -> bool:
    sizes = model.sizes(operator.outputs[0])[-1:]
    return model.is_constant(index) and [*model.shape(index)[-1:]] == sizes != [1]


@dataclass(frozen=True)
class _Reader:
    """Reads the steps of a file for a change; some operators have kernels that may change."""

    model: TFLiteModel
    kernels: Mapping[int, Kernel]
    change: Change

    def channels(self, tensor: int) -> int | None:
        """Number of channels of a tensor, if it has any and tells."""
        sizes = self.model.sizes(tensor)
        return sizes[-1] if len(sizes) > 1 and sizes[-1] > 0 else None

    def step(self, at: int) -> Step:
        """What the change meets in the operator at a position."""
        model, operator = self.model, self.model.operators[at]
        spec, fused = model.spec(operator), self._fused(operator)
        read = tuple(index for index in operator.inputs if index >= 0 and not model.is_constant(index))
        barrier = Step(f"operator {at}", Role.BARRIER, () if spec.reads_shape else read, tuple(operator.outputs))
        if len(operator.outputs) != 1 or not model.is_float(operator.outputs[0]):
            return barrier
        follows = fused is None or self._follows(fused)
        level = next((row.clamp[1] for row in (fused, spec) if row is not None and row.clamp is not None), None)
        if spec.kernel is not None:
            return self._kernel_step(at, spec, follows, level) or barrier
        data = tuple(operator.inputs[position] for position in spec.data_inputs(operator))
        role, repeats = self._role(operator, spec, data) if follows else Role.BARRIER, 1
        if role is Role.REPEAT:
            found = repeats_of_channels(self._sizes(data[0]), self._sizes(operator.outputs[0]))
            role, repeats = (Role.BARRIER, 1) if found is None else (role, found)
        if role is Role.BARRIER:
            return barrier
        inputs = tuple(index for index in data if not model.is_constant(index))
        name, outputs = parameters_of(at), tuple(operator.outputs)
        return Step(name, role, inputs, outputs, repeats=repeats, clip_level=level, is_activation=spec.is_activation)

    def _kernel_step(self, at: int, spec: OperatorSpec, follows: bool, level: float | None) -> Step | None:
        """The step of an operator with a kernel, or None where that cannot change or its channels are in groups."""
        kernel = self.kernels.get(at)
        if kernel is None:
            return None
        (use,) = (use for use in kernel.uses if use.operator == at)
        outputs, inputs, _ = kernel.shape
        role, channels = _WITH_KERNELS[spec.name], self.channels(use.input)
        if role is Role.DEPTHWISE and (channels != outputs or not follows or self.change is Change.ROTATION):
            return None
        if role is Role.PRODUCER and channels != inputs:
            return None
        return Step(kernel.id.label, role, (use.input,), (use.output,), outputs, is_free=follows, clip_level=level)

    def _role(self, operator, spec: OperatorSpec, data: tuple[int, ...]) -> Role:
        """The role of an operator without a kernel, whose activation function follows."""
        constants = [index for index in data if self.model.is_constant(index)]
        if spec.inputs == (Input.DATA, Input.DATA) and len(constants) == 1:
            return self._role_with_constant(operator, spec, constants[0], is_first=data[0] == constants[0])
        if not self._follows(spec) or (constants and spec.name != "PADV2"):
            return Role.BARRIER
        if spec.name == "CONCATENATION":
            last = len(self.model.sizes(operator.outputs[0])) - 1
            return Role.CONCATENATE if operator.builtinOptions.axis in (-1, last) else Role.MERGE
        if len(data) > 1 and spec.name != "PADV2":
            same = len({self.channels(index) for index in data}) == 1 and spec.name != "PRELU"  # its slopes stay
            return Role.MERGE if same or self.change is Change.PERMUTATION else Role.BARRIER
        if spec.views:
            return Role.REPEAT
        return Role.ELEMENTWISE if self._keeps_channels(operator, spec.name) else Role.BARRIER

    def _role_with_constant(self, operator, spec: OperatorSpec, constant: int, is_first: bool) -> Role:
        """The role of an operator on an activation and a constant."""
        name, per_channel = spec.name, _is_per_channel(self.model, operator, constant)
        if self.channels(operator.inputs[is_first]) != self.channels(operator.outputs[0]):
            return Role.BARRIER
        if self.change is Change.PERMUTATION:
            return (Role.PER_CHANNEL if per_channel else Role.ELEMENTWISE) if self._follows(spec) else Role.BARRIER
        if name in _PRODUCTS and not (name == "DIV" and is_first):
            linear = name != "PRELU" and not per_channel
            return Role.ELEMENTWISE if self.change is Change.SCALE or linear else Role.BARRIER
        if name in _SUMS and self._follows(spec):
            if per_channel:
                return Role.PER_CHANNEL
            return Role.BARRIER if self.model.constant(constant).any() else Role.ELEMENTWISE
        return Role.BARRIER

    def _keeps_channels(self, operator, name: str) -> bool:
        """Whether an operator on one activation leaves the last axis whole and in order."""
        model, rank = self.model, len(self.model.sizes(operator.inputs[0]))
        if self.channels(operator.inputs[0]) != model.sizes(operator.outputs[0])[-1]:
            return False
        parameters = operator.inputs[1:]
        if not all(map(model.is_constant, parameters)) and not name.startswith("RESIZE"):
            return False
        values = [model.constant(index) for index in parameters if model.is_constant(index)]
        match name:
            case "MEAN" | "SUM" | "REDUCE_MAX" | "REDUCE_MIN":
                return not {0, rank - 1} & {int(axis) % rank for axis in values[0].reshape(-1)}
            case "PAD" | "PADV2" | "MIRROR_PAD":
                zeros = len(values) == 1 or self.change is Change.PERMUTATION or not values[1].any()
                return zeros and not values[0][-1].any()
            case "TRANSPOSE":
                return values[0][-1] == rank - 1
            case "SLICE":
                return values[0][-1] == 0
            case "STRIDED_SLICE":
                options = operator.builtinOptions
                return (
                    not (options.ellipsisMask or options.newAxisMask or options.shrinkAxisMask) and values[2][-1] == 1
                )
            case "REVERSE_V2":
                return rank - 1 not in {int(axis) % rank for axis in values[0].reshape(-1)}
            case "SPACE_TO_BATCH_ND" | "BATCH_TO_SPACE_ND":
                return values[0].size < rank - 1
        return True

    def _follows(self, spec: OperatorSpec) -> bool:
        return spec.follows is not None and self.change <= spec.follows

    def _fused(self, operator) -> OperatorSpec | None:
        """The activation function fused into an operator."""
        code = getattr(operator.builtinOptions, "fusedActivationFunction", 0)
        return FUSED_FUNCTIONS.get(code, _UNKNOWN) if code else None

    def _sizes(self, tensor: int) -> list[int | None]:
        return [None if size < 0 else size for size in self.model.sizes(tensor)]


_UNKNOWN = OperatorSpec("an activation function without a row")
