"""Float file + quantized kernels + activation grids -> quantized ``.tflite``.

``emit`` is the last step of the pipeline. It knows nothing about how weights and ranges were found.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from tfptq.float_file.kernel import KernelUse
from tfptq.float_file.lstm_operators import STATES, drop_starts
from tfptq.lowering.float16 import store_float16
from tfptq.lowering.plan import IntegerPlan
from tfptq.lowering.quantized_kernel import QuantizedKernel
from tfptq.lowering.rewrite import KernelConstant, Lowering
from tfptq.lowering.tables import QuantizedTable, shared_kernels, write_tables
from tfptq.tflite.layouts import Computes, KernelSite, WrittenKernel
from tfptq.tflite.model import TFLiteModel

#: What the converter notes of the float file: the least runtime, its options. Of the quantized file they are not true.
_CONVERTER_NOTES = ("min_runtime_version", "CONVERSION_METADATA")


@dataclass(frozen=True, eq=False)
class EmittedModel:
    """Result of ``emit``.

    Attributes:
        model: the quantized model, still editable (metadata is attached to it).
        kernels: use of a kernel in the float file -> what was written for it. Names are still good; indexes of tensors
            are not.
    """

    model: TFLiteModel
    kernels: dict[KernelUse, WrittenKernel]


def emit(
    float_file: bytes,
    plan: IntegerPlan,
    kernels: Iterable[QuantizedKernel],
    *,
    input_type: str = "float32",
    output_type: str = "float32",
    float16: Iterable[int] = (),
    tables: Iterable[QuantizedTable] = (),
    stateful: Iterable[int] = (),
) -> EmittedModel:
    """Write integers into a float model.

    Args:
        float_file: what the plan was made for.
        plan: which operators run on integers.
        kernels: the kernels of these operators, and of those whose layouts compute in float.
        input_type: type of the model's inputs: ``"float32"``, ``"int8"``, ``"uint8"`` or ``"int16"``.
        output_type: the same for the outputs.
        float16: constants to store as float16, as far as operators in float read them.
        tables: what operators in float look up in.
        stateful: positions of the LSTM operators whose states last from call to call.
    """
    model = TFLiteModel(float_file)
    model.shorten_names()
    writer = _KernelWriter(model)
    lasting = [model.operators[at].inputs[place] for at in stateful for place in STATES]
    lookups = {id(model.operators[at]): table for table in tables for at in table.lookups}
    kernels = tuple(kernels)
    uses = [(kernel, use) for kernel in kernels for use in kernel.uses]
    in_float: dict[int, list[tuple[QuantizedKernel, KernelUse]]] = {}
    for kernel, use in uses:
        if kernel.computes is not Computes.INTEGER:
            in_float.setdefault(id(model.operators[use.operator]), []).append((kernel, use))
    placed = {id(operator): [operator] for operator in model.operators}
    constants: dict[int, dict[int, KernelConstant]] = {}
    grids = dict(plan.grids)
    for kernel, use in uses:
        if kernel.computes is Computes.INTEGER:
            operator = model.operators[use.operator]
            written = writer.write(operator, kernel, use)
            placed[id(operator)] = written.operators
            grids.update((new, plan.grids[source]) for new, source in written.moved.items())
            bias = use.shifted_bias(kernel.bias_shift)
            constant = KernelConstant(written.tensor, _required(written.scales), bias)
            constants.setdefault(id(written.reader), {})[use.kernel_at] = constant
    operators = [new for at in plan.operators for new in placed[id(model.operators[at])]]
    wider = {id(new): width for at, width in plan.wider.items() for new in placed[id(model.operators[at])]}
    model.operators[:] = [new for operator in model.operators for new in placed[id(operator)]]
    lowering = Lowering(
        model=model,
        grids=grids,
        kernels=constants,
        bits=plan.bits,
        input_type=input_type,
        output_type=output_type,
        clipped=plan.clipped,
        wider=wider,
        converted=plan.converted,
    )
    lowering.run(operators)
    model.operators[:] = [new for operator in model.operators for new in writer.in_float(operator, in_float)]
    shared = {tensor: writer.written[use].tensor for tensor, use in shared_kernels(kernels).items()}
    write_tables(model, lookups, shared)
    drop_starts(model, lasting)
    store_float16(model, float16)
    model.remove_metadata(_CONVERTER_NOTES)
    model.remove_unused()
    return EmittedModel(model, writer.written)


def _required(scales: np.ndarray | None) -> np.ndarray:
    if scales is None:
        raise ValueError("a layout on integers wrote a kernel without scales")
    return scales


class _KernelWriter:
    """Writes kernels into a model, each as its layout says. What several operators read may be written once.

    Attributes:
        written: use of a kernel in the float file -> what was written for it.
    """

    def __init__(self, model: TFLiteModel):
        self.written: dict[KernelUse, WrittenKernel] = {}
        self._model = model
        self._float_names: dict[int, str] = {}
        self._first: dict[tuple[int, str], WrittenKernel] = {}

    def write(self, operator, kernel: QuantizedKernel, use: KernelUse) -> WrittenKernel:
        """Write a kernel for one operator."""
        name, weight = self._name(use.tensor), kernel.in_file(use)
        site = KernelSite(self._model, operator, use.kernel_at, name, weight, use.view, use.window)
        key = use.tensor, kernel.layout.name
        written = kernel.layout.write(site, self._first.get(key))
        self._first.setdefault(key, written)
        self.written[use] = written
        return written

    def in_float(self, operator, uses: Mapping[int, list[tuple[QuantizedKernel, KernelUse]]]) -> list:
        """What takes the place of an operator, if it (by identity) is among those that stay float."""
        operators = [operator]
        for kernel, use in uses.get(id(operator), []):
            at = operators.index(operator)
            operators[at : at + 1] = self._in_float(operator, kernel, use)
        return operators

    def _in_float(self, operator, kernel: QuantizedKernel, use: KernelUse) -> list:
        spec = self._model.spec(operator)
        place, bias = spec.place_of(use.kernel_at), use.shifted_bias(kernel.bias_shift)
        operator.inputs += [-1] * (place.bias + 1 - len(operator.inputs))
        if not spec.owns_bias(place):
            bias = bias + self._model.constant(operator.inputs[place.bias])
        name = f"{self._model.name(use.output)}/bias"
        operator.inputs[place.bias] = self._model.add_constant(name, bias)
        written = self.write(operator, kernel, use)
        least = self._model.spec(written.reader).dynamic
        if kernel.computes is Computes.DYNAMIC and least is not None:
            self._model.raise_version(written.reader, least)
        return written.operators

    def _name(self, tensor: int) -> str:
        """The name of the float kernel, which gives it up."""
        if tensor not in self._float_names:
            self._float_names[tensor] = self._model.release_name(tensor)
        return self._float_names[tensor]
