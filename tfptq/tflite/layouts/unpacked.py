"""The way from codes to a float kernel in a file: DEQUANTIZE, MUL with the block scales, RESHAPE."""

from dataclasses import dataclass

from tfptq.tflite.checks import require
from tfptq.tflite.model_parts import MOST_AXES, Operator, Subgraph


@dataclass(frozen=True, eq=False)
class UnpackingChain:
    """The operators on the way; ``codes`` and ``factors`` are the tensors that they start from."""

    codes: int
    factors: int
    dequantize: Operator
    multiply: Operator
    reshape: Operator


def find_unpacking(graph: Subgraph, kernel: int) -> UnpackingChain | None:
    """The operators of the right kinds behind a kernel, from its end; None where there are others."""
    reshape = graph.producer(kernel)
    if reshape is None or reshape.kind != "RESHAPE" or reshape.input(0) < 0:
        return None
    multiply = graph.producer(reshape.inputs[0])
    if multiply is None or multiply.kind != "MUL" or len(multiply.inputs) != 2:
        return None
    for at in (0, 1):
        dequantize = graph.producer(multiply.inputs[at])
        if dequantize is not None and dequantize.kind == "DEQUANTIZE" and len(dequantize.inputs) == 1:
            return UnpackingChain(dequantize.inputs[0], multiply.inputs[1 - at], dequantize, multiply, reshape)
    return None


def check_unpacking(graph: Subgraph, chain: UnpackingChain, shape: tuple[int, ...], reader: int) -> None:
    """Check that the operators do what their kinds say, before the reader of the kernel runs.

    Args:
        graph: their subgraph.
        chain: what ``find_unpacking`` found.
        shape: of the kernel.
        reader: position of the operator that reads it.

    Raises:
        VerificationError: naming the tensor of codes.
    """
    codes, steps = graph.tensors[chain.codes], (chain.dequantize, chain.multiply, chain.reshape)
    for step, expected in zip(steps, (codes.shape, codes.shape, shape), strict=True):
        require(len(step.outputs) == 1, codes, f"the {step.kind} behind it has {len(step.outputs)} outputs")
        result = graph.tensors[step.outputs[0]]
        fits = result.type == "FLOAT32" and result.shape == expected and result.data is None
        require(fits, codes, f"the {step.kind} behind it writes {result.type} {result.shape}, expected {expected}")
    positions = [*(graph.writers[step.outputs[0]][0] for step in steps), reader]
    require(positions == sorted(positions), codes, "the operators behind it run in the wrong order")
    fused = getattr(chain.multiply.options, "fused_activation_function", 0)
    require(fused == 0, codes, "the MUL behind it has a fused activation function")
    require(_target(graph, chain.reshape) == shape, codes, f"the RESHAPE behind it does not make it {shape}")


def _target(graph: Subgraph, reshape: Operator) -> tuple[int, ...] | None:
    """The shape that a RESHAPE makes; None where it is not a constant."""
    if len(reshape.inputs) == 1:
        return None if reshape.options is None else tuple(reshape.options.new_shape.tolist())
    if len(reshape.inputs) > 2 or reshape.inputs[1] < 0:
        return None
    target = graph.tensors[reshape.inputs[1]]
    small = len(target.shape) == 1 and target.shape[0] <= MOST_AXES
    is_shape = small and target.type == "INT32" and target.data is not None and graph.is_fixed(reshape.inputs[1])
    return tuple(target.values().tolist()) if is_shape else None
