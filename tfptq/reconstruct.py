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
from tfptq.core.blocks import QuantizedWeight
from tfptq.tflite.matching import WEIGHTED_OPERATORS, WeightBinding
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.residual_blocks import Block
from tfptq.tflite.segments import crossing
from tfptq.tflite.to_tensorflow import as_kernel, run_operator

#: Samples in a minibatch.
BATCH = 16
#: So many times the codes are judged on all samples, evenly over the steps.
TRIALS = 10


@dataclass(frozen=True, eq=False)
class LearnedKernel:
    """A kernel whose rounding is learned.

    Attributes:
        place: where it stands.
        ratio: float32 ``[O, I, T]``, float weights in units of their scales.
        weight: codes to start from, and scales.
    """

    place: WeightBinding
    ratio: np.ndarray
    weight: QuantizedWeight


def reconstruct_block(
    model: TFLiteModel,
    block: Block,
    kernels: Sequence[LearnedKernel],
    inputs: np.ndarray,
    targets: np.ndarray,
    *,
    steps: int = 500,
    learning_rate: float = 1e-2,
    tau: float = 0.5,
    seed: int = 0,
) -> list[QuantizedWeight]:
    """Learn the rounding of a block's kernels together.

    Args:
        model: model whose biases, and kernels that are not learned, are the quantized network's.
        block: block of the model.
        kernels: kernels to learn.
        inputs: float32, what crosses the cut before the block in the quantized network.
        targets: float32, what crosses the cut after it in the float network.
        steps: steps of Adam.
        learning_rate: of Adam, in units of the scales; decays to 0 along a cosine.
        tau: width of the attention.
        seed: seed of the minibatches.

    Returns:
        The weights with the best codes; those of the start where nothing was better.
    """
    task = _BlockTask(model, block, kernels, tau)
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


@dataclass(frozen=True, eq=False)
class _BlockTask:
    model: TFLiteModel
    block: Block
    kernels: Sequence[LearnedKernel]
    tau: float

    def codes(self, kernel: LearnedKernel, offsets: tf.Tensor) -> tf.Tensor:
        low, high = weight_code_range(kernel.weight.bits)
        code_range = float(low), float(high)
        return attention_codes_of(tf.constant(kernel.ratio), tf.convert_to_tensor(offsets), code_range, self.tau)

    def run(self, offsets: Sequence[tf.Tensor], x: tf.Tensor) -> tf.Tensor:
        """Output of the block with the codes of the offsets."""
        operators = self.model.operators[self.block.start : self.block.stop]
        (source,) = crossing(self.model, self.block.start)
        (target,) = crossing(self.model, self.block.stop)
        values = {source: x}
        learned = {kernel.place.output: (kernel, offset) for kernel, offset in zip(self.kernels, offsets, strict=True)}
        by_operator = self._by_operator(learned)
        for operator in operators:
            local = values
            if id(operator) in by_operator:
                kernel, offset = by_operator[id(operator)]
                view = self.codes(kernel, offset) * kernel.weight.scale_per_weight
                at = WEIGHTED_OPERATORS[self.model.operator_name(operator)][0]
                local = {**values, operator.inputs[at]: as_kernel(view, kernel.place.view)}
            values[operator.outputs[0]] = run_operator(self.model, operator, local)
        return values[target]

    def _by_operator(self, learned) -> dict[int, tuple]:
        """Operator (by identity) -> its learned kernel; operators may have lost their activation function."""
        found = {}
        for at in range(self.block.start, self.block.stop):
            operator = self.model.operators[at]
            following = self.model.operators[at + 1].outputs if at + 1 < len(self.model.operators) else ()
            for output in (*operator.outputs, *following):
                if output in learned and self.model.operator_name(operator) in WEIGHTED_OPERATORS:
                    found[id(operator)] = learned[output]
                    break
        return found

    def error(self, offsets: Sequence[tf.Tensor], inputs: np.ndarray, targets: np.ndarray) -> float:
        """Squared error of the block's output over all samples."""
        total = 0.0
        for start in range(0, len(inputs), BATCH):
            found = self.run(offsets, tf.constant(inputs[start : start + BATCH]))
            total += float(tf.reduce_sum(tf.square(found - targets[start : start + BATCH])))
        return total
