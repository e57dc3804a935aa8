"""Fine-tuning: adjust scales and biases of the whole quantized network to the float one, without labels.

Fitting kernel by kernel makes each layer right for what it reads. What is left of the errors adds up along the
network, and no single layer sees that. So a few hundred steps of Adam lower the squared difference of the *outputs*
(before a final softmax or sigmoid, in units of their variance). Codes stay as they are; learned are

* a gain for each number that scales can be multiplied with and keep their form: one for each row of blocks, that is
  for each output channel under channel-wise scales, or one for a layer whose rows share a base (WES);
* a shift of each bias, in units of the standard deviation of the layer's outputs.

Both are few, so that they say less about the samples at hand than the codes do. The network is the skeleton itself,
run in TensorFlow. The number of steps has a limit, so that the time does not grow with the number of samples, and so
has the number of passes over them, so that few samples are not learned by heart.

In the same way ``learn_steps`` finds the steps of activation grids of few bits, before the weights are fitted to them.

Scales and steps that are learned by gradient are due to LSQ, arXiv 1902.08153; the float network as the teacher is
knowledge distillation, arXiv 1503.02531.
"""

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

import keras
import numpy as np
import tensorflow as tf

from tfptq.config import FineTuning
from tfptq.core.affine import ActivationGrid
from tfptq.fit_kernel import Fitted, FittedWeight
from tfptq.tflite.float_file import Skeleton
from tfptq.tflite.matching import WEIGHTED_OPERATORS, KernelKey, WeightBinding, replace_kernel
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.runtime import TensorRunner
from tfptq.tflite.segments import unfuse_activations
from tfptq.tflite.to_tensorflow import can_run, run_operator

#: Final operators whose input is compared in place of their output.
_LINKS = ("SOFTMAX", "LOGISTIC")
#: Minibatches on which the loss is compared before and after: 256 samples at the default size.
_JUDGED = 32
#: Bytes of float outputs that are kept from pass to pass; those beyond are computed again.
_KEPT_BYTES = 1 << 26
#: Gains stay above this, so that scales stay positive: a gain that fell to zero would take its channel out for good.
#: Far from where gains get: Adam moves one by about the learning rate a step, which is less than 0.13 in all at the
#: defaults.
_LEAST_GAIN = 0.1
#: The step of an activation grid moves so many times as fast as a weight's scale: its start is further from the best.
_STEP_RATE = 4.0

Lesson = tuple[dict[int, tf.Tensor], list[tf.Tensor]]


def tuning_obstacle(skeleton: Skeleton) -> str | None:
    """Why a network cannot be fine-tuned, or None."""
    for operator in _operators_before(skeleton.model, _targets(skeleton.model)):
        if not can_run(skeleton.model, operator):
            return f"gradients do not pass through its operator {skeleton.model.operator_name(operator)}"
    return None


def fine_tune(
    skeleton: Skeleton,
    fitted: Fitted,
    batches: Iterable[Mapping[str, np.ndarray]],
    options: FineTuning,
    grids: Mapping[int, ActivationGrid] | None = None,
    fixed_scales: Collection[KernelKey] = (),
    advance: Callable[[int], None] = lambda samples: None,
) -> Fitted:
    """Learn gains of scales and shifts of biases.

    Args:
        skeleton: float model, one that ``tuning_obstacle`` finds nothing against.
        fitted: quantized weights.
        batches: re-iterable stream of Keras input name -> array with a batch axis.
        options: steps, learning rate, size of a minibatch.
        grids: tensor index -> grid that the network rounds its values to; without one they stay float.
        fixed_scales: weights whose scales stay.
        advance: called with the number of samples of each step.

    Returns:
        The weights with other scales and biases; as they were if the loss over the first minibatches did not fall.
    """
    network = _Network(skeleton, fitted, grids or {})
    lessons = _Lessons(skeleton, batches, options.batch_size)
    network.measure_units(next(iter(lessons))[0])
    better = _learn(network, network.weight_variables(fixed_scales), lessons, options, advance)
    return network.fitted() if better else fitted


def learn_steps(
    skeleton: Skeleton,
    grids: Mapping[int, ActivationGrid],
    batches: Iterable[Mapping[str, np.ndarray]],
    options: FineTuning,
    advance: Callable[[int], None] = lambda samples: None,
) -> Mapping[int, ActivationGrid]:
    """Learn the steps of activation grids, with float weights.

    Args:
        skeleton: float model, one that ``tuning_obstacle`` finds nothing against.
        grids: tensor index -> grid to start from.
        batches: re-iterable stream of Keras input name -> array with a batch axis.
        options: steps, learning rate, size of a minibatch.
        advance: called with the number of samples of each step.

    Returns:
        The grids with other steps; as they were if the loss over the first minibatches did not fall.
    """
    network = _Network(skeleton, {}, grids)
    lessons = _Lessons(skeleton, batches, options.batch_size)
    better = _learn(network, network.step_variables, lessons, options, advance)
    return network.grids() if better else grids


def _learn(
    network: "_Network",
    variables: list[tf.Variable],
    lessons: "_Lessons",
    options: FineTuning,
    advance: Callable[[int], None],
) -> bool:
    """Lower the loss by Adam; tells whether it fell."""
    powers = [float(np.var(values)) or 1.0 for values in next(iter(lessons))[1]]

    @tf.function(autograph=False, reduce_retracing=True)
    def loss_of(inputs, targets):
        found = network.run(inputs)
        errors = [tf.reduce_mean(tf.square(y - z)) / power for y, z, power in zip(found, targets, powers, strict=True)]
        return tf.add_n(errors)

    steps = min(options.steps, options.passes * sum(1 for _ in lessons.groups()))
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(options.learning_rate, steps))
    optimizer.build(variables)

    @tf.function(autograph=False, reduce_retracing=True)
    def learn(inputs, targets):
        with tf.GradientTape() as tape:
            loss = loss_of(inputs, targets)
        gradients = tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        optimizer.apply(gradients, variables)

    start = [variable.numpy() for variable in variables]
    passes = itertools.chain.from_iterable(itertools.repeat(lessons, options.passes))
    for lesson in itertools.islice(passes, steps):
        learn(*lesson)
        advance(len(lesson[1][0]))
    end = [variable.numpy() for variable in variables]

    def loss_with(values: list[np.ndarray], lesson: Lesson) -> float:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return float(loss_of(*lesson))

    # Both on the same pass: a dataset may give other samples first in the next one.
    judged = itertools.islice(lessons, _JUDGED)
    losses = [(loss_with(start, lesson), loss_with(end, lesson)) for lesson in judged]
    return sum(after for _, after in losses) < sum(before for before, _ in losses)


class _Lessons:
    """The samples in minibatches, each with what the float network makes of them.

    Float outputs are kept by the samples that they belong to: a dataset may come in another order in each pass.
    """

    def __init__(self, skeleton: Skeleton, batches: Iterable[Mapping[str, np.ndarray]], size: int):
        self._batches = batches
        # A model that takes a fixed number of samples at once gets them as they come.
        self._size = None if skeleton.batch_size is not None else size
        self._skeleton = skeleton
        self._wanted = _targets(skeleton.model)
        self._runner = TensorRunner(skeleton.data, self._wanted)
        self._kept: dict[bytes, list[np.ndarray]] = {}
        self._kept_bytes = 0

    def __iter__(self) -> Iterator[Lesson]:
        """Input tensor index -> samples, and the float outputs, minibatch by minibatch."""
        for group in self.groups():
            targets = self._float_outputs(group)
            inputs = {self._skeleton.inputs[name]: tf.constant(values) for name, values in group.items()}
            yield inputs, [tf.constant(values) for values in targets]

    def groups(self) -> Iterator[Mapping[str, np.ndarray]]:
        """Batches cut into minibatches; what is left at the end of a batch is a smaller one."""
        for batch in self._batches:
            length = len(next(iter(batch.values())))
            size = self._size or length
            for start in range(0, length, size):
                yield {name: values[start : start + size] for name, values in batch.items()}

    def _float_outputs(self, group: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        key = _digest(group)
        if key in self._kept:
            return self._kept[key]
        found = self._runner.values(self._skeleton.by_tensor_name(group))
        outputs = [found[index] for index in self._wanted]
        size = sum(values.nbytes for values in outputs)
        if self._kept_bytes + size <= _KEPT_BYTES:
            self._kept[key] = outputs
            self._kept_bytes += size
        return outputs


def _digest(group: Mapping[str, np.ndarray]) -> bytes:
    """Tells minibatches apart by their samples."""
    digest = hashlib.blake2b()
    for name, values in sorted(group.items()):
        digest.update(f"{name} {values.shape} ".encode())
        digest.update(np.ascontiguousarray(values))
    return digest.digest()


class _Network:
    """The quantized network in TensorFlow, with what is learned."""

    def __init__(self, skeleton: Skeleton, fitted: Fitted, grids: Mapping[int, ActivationGrid]):
        self._fitted = fitted
        self._grids = grids
        self._model = TFLiteModel(skeleton.data)
        bindings = [(key, binding) for key, item in fitted.items() for binding in item.bindings]
        moved = unfuse_activations(self._model, [binding.operator for _, binding in bindings])
        self._learned: dict[int, tuple[KernelKey, WeightBinding]] = {}  # result of a kernel -> the kernel
        for key, binding in bindings:
            operator, item = self._model.operators[moved[binding.operator]], fitted[key]
            kernel = binding.view.from_view(item.kernel_of(binding))
            replace_kernel(self._model, operator, kernel, item.bias_of(skeleton, binding))
            self._learned[operator.outputs[0]] = key, binding
        self._gains = {key: tf.Variable(tf.ones(item.weight.scales.free_rows)) for key, item in fitted.items()}
        self._shifts = {key: tf.Variable(tf.zeros(len(item.weight.codes))) for key, item in fitted.items()}
        self._steps = {index: tf.Variable(0.0) for index in grids}
        self._units = dict.fromkeys(fitted, 1.0)
        self._targets = _targets(self._model)
        self._operators = _operators_before(self._model, self._targets)

    def weight_variables(self, fixed_scales: Collection[KernelKey]) -> list[tf.Variable]:
        """Gains of scales, but for those of some weights, and shifts of biases."""
        return [*(gain for key, gain in self._gains.items() if key not in fixed_scales), *self._shifts.values()]

    @property
    def step_variables(self) -> list[tf.Variable]:
        """Gains of the steps of activation grids."""
        return list(self._steps.values())

    def run(self, inputs: Mapping[int, tf.Tensor]) -> list[tf.Tensor]:
        """Outputs, for input tensor index -> samples."""
        values = self._values(inputs)
        return [values[index] for index in self._targets]

    def measure_units(self, inputs: Mapping[int, tf.Tensor]) -> None:
        """Take the unit of each layer's shifts from the deviation of its outputs on some samples."""
        values = self._values(inputs)
        for result, (key, _) in self._learned.items():
            if result in values:
                self._units[key] = float(tf.math.reduce_std(values[result])) or 1.0

    def fitted(self) -> Fitted:
        """The weights with what was learned."""
        return {key: self._tuned(key, item) for key, item in self._fitted.items()}

    def grids(self) -> dict[int, ActivationGrid]:
        """The activation grids with what was learned."""
        return {
            index: dataclasses.replace(grid, scale=float(np.float32(grid.scale) * self._step_gain(index).numpy()))
            for index, grid in self._grids.items()
        }

    def _tuned(self, key: KernelKey, item: FittedWeight) -> FittedWeight:
        gains = np.maximum(self._gains[key].numpy(), np.float32(_LEAST_GAIN))
        shift = item.bias_shift + self._shifts[key].numpy() * np.float32(self._units[key])
        weight = dataclasses.replace(item.weight, scales=item.weight.scales.scaled(gains))
        return dataclasses.replace(item, weight=weight, bias_shift=shift)

    def _values(self, inputs: Mapping[int, tf.Tensor]) -> dict[int, tf.Tensor]:
        values = {index: self._rounded(index, value) for index, value in inputs.items()}
        for operator in self._operators:
            result = operator.outputs[0]
            if result in self._learned:
                found = self._layer(operator, values, *self._learned[result])
            else:
                found = run_operator(self._model, operator, values)
            values[result] = self._rounded(result, found)
        return values

    def _rounded(self, index: int, value: tf.Tensor) -> tf.Tensor:
        """Nearest values on a grid; the gradient of the rounding alone is 1."""
        if index not in self._grids:
            return value
        grid = self._grids[index]
        low, high = grid.code_range
        ratio = value / (grid.scale * self._step_gain(index)) + grid.zero_point
        codes = tf.clip_by_value(ratio, low, high)
        codes += tf.stop_gradient(tf.round(codes) - codes)
        return (codes - grid.zero_point) * (grid.scale * self._step_gain(index))

    def _step_gain(self, index: int) -> tf.Tensor:
        return tf.exp(_STEP_RATE * self._steps[index])

    def _layer(self, operator, values: Mapping[int, tf.Tensor], key: KernelKey, binding: WeightBinding) -> tf.Tensor:
        """A kernel's result. Gains are applied to it instead of to the kernel, whose gradient is then not needed."""
        bias = operator.inputs[WEIGHTED_OPERATORS[self._model.operator_name(operator)].bias]
        scales = self._fitted[key].weight.scales
        outputs, height = len(self._fitted[key].weight.codes), scales.block_shape[0]
        rows = self._gains[key]
        if scales.free_rows != outputs:
            rows = tf.repeat(rows, outputs if scales.free_rows == 1 else height)[:outputs]
        shift = self._shifts[key] * self._units[key]
        if binding.row_factors is not None:
            shift *= binding.row_factors
        plain = run_operator(self._model, operator, {**values, bias: tf.zeros(outputs)})
        return plain * rows + (self._model.constant(bias).reshape(-1) + shift)


def _targets(model: TFLiteModel) -> list[int]:
    """Tensors whose difference is the loss: the outputs, or what a final softmax or sigmoid reads."""
    producers = {index: operator for operator in model.operators for index in operator.outputs}
    found = []
    for index in model.subgraph.outputs:
        operator = producers.get(index)
        linked = operator is not None and model.operator_name(operator) in _LINKS
        found.append(operator.inputs[0] if linked else index)
    return list(dict.fromkeys(found))


def _operators_before(model: TFLiteModel, targets: Iterable[int]) -> list:
    """The operators that some tensors depend on, in execution order."""
    needed, found = set(targets), []
    for operator in reversed(model.operators):
        if needed.intersection(operator.outputs):
            needed.update(operator.inputs)
            found.append(operator)
    return found[::-1]
