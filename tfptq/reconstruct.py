"""Block-wise reconstruction: learn the rounding of several kernels together, on the true output of their block.

A *block* is what lies between two cuts of the network that a single activation crosses: a residual or an
inverted-residual block, say. Its kernels are first rounded one by one on statistics; then the offsets of Attention
Round of all its weights are learned together with Adam on minibatches, so that the output of the block, activation
functions included, comes close to the float network's. Of the codes on the way those are kept that are best on all
samples, the start included: codes change in bursts, and many a burst makes things worse for a while.

Blocks as units of reconstruction are due to BRECQ, arXiv 2102.05426; the rounding is Attention Round's, arXiv
2207.03088.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tfptq.core.affine import weight_code_range
from tfptq.core.attention_gradient import attention_codes_of
from tfptq.core.blocks import QuantizedWeight, WeightView
from tfptq.tflite.matching import WEIGHTED_OPERATORS
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.residual_blocks import ResidualBlock
from tfptq.tflite.segments import crossing
from tfptq.tflite.to_tensorflow import as_kernel, run_operator

#: Samples in a minibatch.
BATCH = 16
#: So many times the codes are judged on all samples, evenly over the steps. Each costs a pass over them; with
#: fewer, good codes between two bursts are missed.
TRIALS = 10


@dataclass(frozen=True, eq=False)
class LearnedKernel:
    """A kernel whose rounding is learned.

    Attributes:
        position: of its operator in the model of the block.
        view: way from the kernel in the file to the canonical view.
        ratio: float32 ``[O, I, T]``, float weights in units of their scales.
        weight: codes to start from, and scales.
        tau: width of the attention.
    """

    position: int
    view: WeightView
    ratio: np.ndarray
    weight: QuantizedWeight
    tau: float = 0.5


def reconstruct_block(
    model: TFLiteModel,
    block: ResidualBlock,
    kernels: Sequence[LearnedKernel],
    inputs: np.ndarray,
    targets: np.ndarray,
    *,
    steps: int = 500,
    learning_rate: float = 1e-2,
    seed: int = 0,
) -> list[QuantizedWeight]:
    """Learn the rounding of a block's kernels together.

    Args:
        model: model whose biases, and kernels that are not learned, are the quantized network's.
        block: block of the model.
        kernels: kernels to learn.
        inputs: float32 ``[samples, ...]``, what crosses the cut before the block in the quantized network.
        targets: float32 ``[samples, ...]``, what crosses the cut after it in the float network.
        steps: steps of Adam.
        learning_rate: of Adam, in units of the scales; decays to 0 along a cosine.
        seed: seed of the minibatches.

    Returns:
        The weights with the best codes; those of the start where nothing was better.

    Raises:
        ValueError: where a kernel should be, the block has no operator with one.
    """
    for kernel in kernels:
        _check_position(model, block, kernel.position)
    task = _BlockTask(model, block, kernels)
    offsets = [tf.Variable((kernel.weight.codes - kernel.ratio).astype(np.float32)) for kernel in kernels]
    best, least = [kernel.weight.codes for kernel in kernels], task.error(offsets, inputs, targets)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    optimizer = keras.optimizers.Adam(schedule)
    optimizer.build(offsets)
    scale = float(np.mean(np.square(targets))) or 1.0
    draw = np.random.default_rng(seed)

    @tf.function(autograph=False, reduce_retracing=True)
    def step(x, z):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(task.run(offsets, x) - z)) / scale
        optimizer.apply(tape.gradient(loss, offsets), offsets)

    for number in range(1, steps + 1):
        chosen = np.sort(draw.choice(len(inputs), min(BATCH, len(inputs)), replace=False))
        step(tf.constant(inputs[chosen]), tf.constant(targets[chosen]))
        if number % max(1, steps // TRIALS) == 0 or number == steps:
            error = task.error(offsets, inputs, targets)
            if error < least:
                least = error
                best = [
                    task.codes(kernel, offset).numpy().astype(np.int8)
                    for kernel, offset in zip(kernels, offsets, strict=True)
                ]
    return [dataclasses.replace(kernel.weight, codes=codes) for kernel, codes in zip(kernels, best, strict=True)]


def _check_position(model: TFLiteModel, block: ResidualBlock, position: int) -> None:
    """Refuse a kernel that is not in the block: its codes would be learned without any effect on the output."""
    inside = block.start <= position < block.stop
    if not inside or model.operator_name(model.operators[position]) not in WEIGHTED_OPERATORS:
        raise ValueError(f"no kernel of the block [{block.start}, {block.stop}) is at position {position}")


@dataclass(frozen=True, eq=False)
class _BlockTask:
    model: TFLiteModel
    block: ResidualBlock
    kernels: Sequence[LearnedKernel]

    def codes(self, kernel: LearnedKernel, offsets: tf.Tensor) -> tf.Tensor:
        low, high = weight_code_range(kernel.weight.bits)
        code_range = float(low), float(high)
        return attention_codes_of(tf.constant(kernel.ratio), tf.convert_to_tensor(offsets), code_range, kernel.tau)

    def run(self, offsets: Sequence[tf.Tensor], x: tf.Tensor) -> tf.Tensor:
        """Output of the block with the codes of the offsets."""
        (source,) = crossing(self.model, self.block.start)
        (target,) = crossing(self.model, self.block.stop)
        values = {source: x}
        learned = {kernel.position: (kernel, offset) for kernel, offset in zip(self.kernels, offsets, strict=True)}
        for at in range(self.block.start, self.block.stop):
            operator, local = self.model.operators[at], values
            if at in learned:
                kernel, offset = learned[at]
                view = self.codes(kernel, offset) * kernel.weight.scale_per_weight
                index = operator.inputs[WEIGHTED_OPERATORS[self.model.operator_name(operator)].kernel]
                local = {**values, index: as_kernel(view, kernel.view)}
            values[operator.outputs[0]] = run_operator(self.model, operator, local)
        return values[target]

    def error(self, offsets: Sequence[tf.Tensor], inputs: np.ndarray, targets: np.ndarray) -> float:
        """Squared error of the block's output over all samples."""
        total = 0.0
        for start in range(0, len(inputs), BATCH):
            found = self.run(offsets, tf.constant(inputs[start : start + BATCH]))
            total += float(tf.reduce_sum(tf.square(found - targets[start : start + BATCH])))
        return total
