"""What can be said of a TFLite operator: the fields of a row of ``tfptq.ops.table``."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np

from tfptq.core.affine import ActivationGrid
from tfptq.core.blocks import WeightView
from tfptq.core.channel_graph import Change


class Input(Enum):
    """What an input of an operator is."""

    DATA = auto()  #: activations, or a constant in their place
    SYMMETRIC = auto()  #: the same, on a grid with the zero point 0
    KERNEL = auto()  #: constant weights
    BIAS = auto()  #: may be missing
    PARAMETER = auto()  #: integers that say how: shapes, axes, paddings, indices
    STATE = auto()  #: a variable that the operator reads and changes in place
    MISSING = auto()  #: weights that kernels know and no integer rule does: must be left out


class OutputGrid(Enum):
    """How the grids of results and inputs hang together."""

    OWN = auto()  #: each has its own
    SAME = auto()  #: results have the grid of the one input
    JOINT = auto()  #: all have one; inputs that would lose accuracy on it are requantized for the operator


class KernelAxes(NamedTuple):
    """Axes of a kernel in the file that make up the axes of its canonical view ``[O, I, T]``."""

    outputs: tuple[int, ...]
    inputs: tuple[int, ...]
    taps: tuple[int, ...]


class WeightedInputs(NamedTuple):
    """Positions of a kernel among the inputs of its operator, and of what goes with it.

    Attributes:
        kernel: position of the kernel.
        bias: that of the bias that is added to the products; it may be beyond the end.
        input: that of the activation that the kernel meets.
    """

    kernel: int
    bias: int
    input: int


class Node(Protocol):
    """One operator of a file."""

    inputs: list[int]
    outputs: list[int]
    builtinOptions: Any  # noqa: N815 (name in the schema)


class ModelView(Protocol):
    """The file around it, as far as operators are asked about it; tensors are meant by index."""

    def operator_name(self, operator: Any) -> str:
        """Name of its kind."""

    def is_constant(self, index: int) -> bool:
        """Whether its values stand in the file."""

    def is_float(self, index: int) -> bool:
        """Whether it is float32."""

    def shape(self, index: int) -> tuple[int, ...]:
        """Sizes; 1 where open."""

    def constant(self, index: int) -> np.ndarray:
        """Values of a constant."""

    def is_state(self, index: int) -> bool:
        """Whether it lasts from call to call."""


#: What keeps an operator in float, worded to follow its name, or None.
Obstacle = Callable[[ModelView, Node], str | None]


@dataclass(frozen=True, eq=False)
class OperatorSpec:
    """Everything known of one TFLite operator.

    Attributes:
        name: as in the schema, ``CONV_2D``.
        inputs: what each input is.
        output_grid: None for an operator without an integer rule, which computes in float.
        int8: least version that reads and writes int8 activations.
        int16: the same for int16, or None when there is no 16x8 kernel.
        int4: least version whose kernel (of DEQUANTIZE: whose input) may be INT4, or None.
        int2: the same for INT2.
        dynamic: least version whose kernel may be INT8 with a scale per channel under float activations, which it
            quantizes at run time; None where no stock kernel does, or it is slower than float.
        options: option of the schema -> least version that heeds it.
        any_number: whether there may be any number of inputs, all as the one in ``inputs``.
        kernel: layout of the kernel.
        places: where its kernels stand, for an operator with several; several may share a bias, whose scale follows
            from the first of these.
        fixed_grids: activation bits -> grid of the result, where the specification fixes it.
        obstacle: what else keeps it in float.
        clamp: bounds of an activation function that only clips; None in it for no bound.
        fusible: whether it is an activation function that other operators may have fused.
        moves: whether the one result consists of values of the first input.
        picks: whether it picks rows of its first input, which may be a constant, by indices.
        views: whether it also keeps their number and order.
        arithmetic: whether integer kernels scale the inputs by ratios of grids.
        summing: whether variances are made of it.
        proportional: whether small results come from small inputs; said of those that do not tell it by other fields.
        exact_near_zero: positions of the inputs whose error counts relative to their values.
        chooses: whether the result consists of values of its data inputs, at the same places.
        compares: whether it compares two operands; kernels abort where a step of one is 1 or more.
        plain_results: positions of the results that are no activations: indices, truth values.
        follows: the narrowest change of channels, the last axis, that it passes on as it is; None if it passes on none.
            That of a kernel is of its output channels. Where an operator may change the last axis itself, its options
            decide (``tfptq.float_file.channel_steps``).
        reads_shape: whether it looks at the shape of a tensor only, and so reads whichever form of it there is.
        converts: whether it only changes the type of values.
        twin: the same in TensorFlow: ``tf.`` and its name where it takes the inputs and nothing else, or the name of
            a function in ``tfptq.ops.tensorflow``.
    """

    name: str
    inputs: tuple[Input, ...] = ()
    output_grid: OutputGrid | None = None
    int8: int | None = None
    int16: int | None = None
    int4: int | None = None
    int2: int | None = None
    dynamic: int | None = None
    options: Mapping[str, int] = field(default_factory=dict)
    any_number: bool = False
    kernel: KernelAxes | None = None
    places: tuple[WeightedInputs, ...] = ()
    fixed_grids: Mapping[int, ActivationGrid] = field(default_factory=dict)
    obstacle: Obstacle | None = None
    clamp: tuple[float | None, float | None] | None = None
    fusible: bool = False
    moves: bool = False
    picks: bool = False
    views: bool = False
    arithmetic: bool = False
    summing: bool = False
    proportional: bool = False
    exact_near_zero: tuple[int, ...] = ()
    chooses: bool = False
    compares: bool = False
    plain_results: tuple[int, ...] = ()
    follows: Change | None = None
    reads_shape: bool = False
    converts: bool = False
    twin: str | None = None

    @property
    def weights(self) -> WeightedInputs:
        """Where kernel, bias and activation stand; for operators with one kernel, and the first of others."""
        return self.kernels[0]

    @cached_property
    def kernels(self) -> tuple[WeightedInputs, ...]:
        """The same for each kernel; none for operators without."""
        if self.kernel is None:
            return ()
        return self.places or (WeightedInputs(*map(self.inputs.index, (Input.KERNEL, Input.BIAS, Input.DATA))),)

    def place_of(self, kernel: int) -> WeightedInputs:
        """What goes with the kernel at a position among the inputs."""
        return next(place for place in self.kernels if place.kernel == kernel)

    def owns_bias(self, place: WeightedInputs) -> bool:
        """Whether a kernel is the first that the bias beside it is for."""
        return place is next(other for other in self.kernels if other.bias == place.bias)

    @cached_property
    def states(self) -> tuple[int, ...]:
        """Positions of the inputs that the operator changes."""
        return tuple(at for at, kind in enumerate(self.inputs) if kind is Input.STATE)

    @property
    def symmetric_inputs(self) -> tuple[int, ...]:
        """Positions of the inputs that need the zero point 0."""
        return tuple(at for at, kind in enumerate(self.inputs) if kind is Input.SYMMETRIC)

    @property
    def keeps_small(self) -> bool:
        """Whether small results come from small inputs, so that what needs them exact needs the inputs so."""
        on_grids_of_inputs = self.output_grid in (OutputGrid.SAME, OutputGrid.JOINT)
        return self.proportional or self.moves or self.arithmetic or self.clamp is not None or on_grids_of_inputs

    @property
    def light(self) -> bool:
        """Whether it costs little in float: no kernel, no product of matrices."""
        return self.kernel is None and not self.symmetric_inputs and not self.reads_shape

    @property
    def is_activation(self) -> bool:
        """Whether it is a function of each element and nothing else."""
        return self.follows is not None and self.inputs == (Input.DATA,) and self.output_grid is not OutputGrid.SAME

    def data_inputs(self, operator: Node) -> list[int]:
        """Positions of the inputs that carry activations or constants in their place."""
        kinds: Sequence[Input] = self.inputs * len(operator.inputs) if self.any_number else self.inputs
        return [
            at
            for at, (kind, index) in enumerate(zip(kinds, operator.inputs, strict=False))
            if kind in (Input.DATA, Input.SYMMETRIC) and index >= 0
        ]

    def kernel_view(self, shape: tuple[int, ...]) -> WeightView:
        """Canonical view of a kernel of some shape in the file."""
        if self.kernel is None:
            raise ValueError(f"{self.name} has no kernel")
        return WeightView(shape, *self.kernel)

    def version(self, bits: int) -> int:
        """Least version for activations of 8 or 16 bits, or for INT4 or INT2 constants.

        Raises:
            ValueError: there is none.
        """
        version = self._versions().get(bits)
        if version is None:
            raise ValueError(f"{self.name} has no version for int{bits} in tfptq/ops/table.py")
        return version

    def reads(self, bits: int) -> bool:
        """Whether there is a kernel for such activations or constants."""
        return self._versions().get(bits) is not None

    def _versions(self) -> dict[int, int | None]:
        return {2: self.int2, 4: self.int4, 8: self.int8, 16: self.int16}

    def reason_to_stay_float(self, model: ModelView, operator: Node, bits: int) -> str | None:
        """Why an operator of this kind cannot run on integers, or None when it can or has nothing to do with floats.

        Args:
            model: float model.
            operator: one of its operators.
            bits: width of the activations, 8 or 16.
        """
        touched = (*operator.inputs, *operator.outputs)
        if self.reads_shape or not any(model.is_float(index) for index in touched):
            return None
        obstacle = self._first_obstacle(model, operator, bits)
        return None if obstacle is None else f"{self.name} {obstacle}"

    def _picks_rows(self, model: ModelView, operator: Node) -> bool:
        """Whether it picks rows of an embedding table by indices that are computed."""
        return self.picks and not model.is_constant(operator.inputs[self.inputs.index(Input.PARAMETER)])

    def _first_obstacle(self, model: ModelView, operator: Node, bits: int) -> str | None:
        if self.output_grid is None:
            return "has no integer rule"
        if bits == 16 and self.int16 is None:
            return "has no kernel for 16-bit activations"
        read = [operator.inputs[at] for at in self.data_inputs(operator)]
        results = [index for at, index in enumerate(operator.outputs) if at not in self.plain_results]
        if not all(model.is_float(index) for index in (*read, *results)):
            return "mixes float32 with other types"
        if all(model.is_constant(index) for index in read) and not self._picks_rows(model, operator):
            return "reads values of constants only"
        if any(kind is Input.MISSING and index >= 0 for kind, index in zip(self.inputs, operator.inputs, strict=False)):
            return "with weights that no integer rule knows"
        if not all(model.is_constant(operator.inputs[place.kernel]) for place in self.kernels):
            return "with a kernel that is computed"
        return None if self.obstacle is None else self.obstacle(model, operator)
