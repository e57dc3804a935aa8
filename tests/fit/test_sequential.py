"""Statistics of the quantized prefix, and the segments they are measured on."""

import keras
import numpy as np
import pytest
from keras import layers

from tfptq.config import PerChannel, QuantizationConfig
from tfptq.core.affine import activation_grid
from tfptq.core.blocks import QuantizedWeight, float_scales
from tfptq.fit.activation_rounding import simulate_activations
from tfptq.fit.sequential import SequentialCalibration
from tfptq.float_file.build import make_float_file
from tfptq.float_file.convert import convert_float
from tfptq.lowering.choose_layout import LayoutPlan
from tfptq.lowering.quantized_kernel import KernelPlan, QuantizedKernel
from tfptq.pipeline.steps import kernel_views
from tfptq.tflite.layouts import INT8
from tfptq.tflite.model import TFLiteModel
from tfptq.tflite.runtime import TensorRunner
from tfptq.tflite.segments import crossing, extract_segment, unfuse_activations


@pytest.fixture(scope="module")
def float_file():
    """A small residual network with a depthwise, a strided and a dense kernel."""
    keras.utils.set_random_seed(0)

    inputs = keras.Input((8, 8, 3), name="image")
    stem = layers.Conv2D(6, 3, padding="same", activation="relu6", name="stem", bias_initializer="normal")(inputs)
    branch = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise")(stem)
    branch = layers.Conv2D(6, 1, name="project")(branch)
    joined = layers.Add()([stem, branch])
    down = layers.Conv2D(5, 3, strides=2, padding="same", activation="relu", name="down")(joined)
    outputs = layers.Dense(4, name="logits")(layers.GlobalAveragePooling2D()(down))
    model = keras.Model(inputs, outputs)
    return make_float_file(model, kernel_views(model))


@pytest.fixture(scope="module")
def batches():
    images = np.random.default_rng(1).normal(size=(12, 8, 8, 3)).astype(np.float32)
    return [{"image": images[start : start + 4]} for start in range(0, 12, 4)]


def _run(data, tensors, named):
    return TensorRunner(data, tensors).values(named)


def _named(float_file, batch):
    """A batch by the names of the tensors."""
    return {float_file.model.name(float_file.inputs[name]): values for name, values in batch.items()}


def test_constants_without_values_stay_in_a_segment():
    inputs = keras.Input((4, 4, 3), name="image")
    x = keras.ops.logsumexp(keras.ops.stack([inputs, -inputs], axis=-1), axis=-1)
    model = TFLiteModel(convert_float(keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))))
    model = TFLiteModel(model.to_bytes())  # now without a buffer for them
    written = {index for operator in model.operators for index in operator.outputs}
    read = {index for operator in model.operators for index in operator.inputs if index >= 0}
    assert any(0 in model.shape(index) for index in read - written)  # the shape of a number
    part = extract_segment(model, 0, len(model.operators) - 1, model.operators[-1].inputs[:1])
    assert [part.name(index) for index in part.subgraph.inputs] == [model.name(model.subgraph.inputs[0])]


def test_all_kernels_are_found(float_file):
    found = [kernel.id.layer for kernel in float_file.kernels]
    assert found == ["stem", "depthwise", "project", "down", "logits"]
    assert all(len(kernel.uses) == 1 for kernel in float_file.kernels)


def test_unfusing_keeps_the_function(float_file, batches):
    model = TFLiteModel(float_file.data)
    fused = len(model.operators)
    moved = unfuse_activations(model, range(fused))
    assert len(model.operators) > fused
    assert all(
        model.operator_name(model.operators[new]) == float_file.model.operator_name(float_file.model.operators[old])
        for old, new in moved.items()
    )
    named = {float_file.model.name(float_file.inputs["image"]): batches[0]["image"]}
    (expected,) = _run(float_file.data, float_file.outputs, named).values()
    (found,) = _run(model.to_bytes(), model.subgraph.outputs, named).values()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_segments_in_a_row_are_the_model(float_file, batches):
    model, name = float_file.model, float_file.model.name
    values = {float_file.inputs["image"]: batches[0]["image"]}
    expected = _run(float_file.data, float_file.outputs, {name(index): array for index, array in values.items()})
    for cut in range(len(model.operators)):
        stop = cut + 1
        needed = crossing(model, stop)
        written = [index for index in model.operators[cut].outputs if index in needed]
        part = extract_segment(model, cut, stop, written)
        runner = TensorRunner(part, range(0))
        named = {read: array for read, array in ((name(i), a) for i, a in values.items()) if read in runner.input_names}
        outputs = part.subgraph.outputs
        results = _run(part, outputs, named)
        values.update(zip(written, (results[index] for index in outputs), strict=True))
        values = {index: array for index, array in values.items() if index in needed}
    np.testing.assert_allclose(values[float_file.outputs[0]], expected[float_file.outputs[0]], rtol=1e-6, atol=1e-6)


def test_float_weights_explain_the_outputs_exactly(float_file, batches):
    prefix = SequentialCalibration(float_file, batches, 12, 1 << 20)
    for kernel in float_file.kernels:
        statistics = prefix.statistics(kernel).centred()
        assert statistics.output_snr(kernel.values) > 50.0
        np.testing.assert_allclose(statistics.best_bias(kernel.values), kernel.uses[0].kernel_bias, atol=2e-4)


@pytest.mark.parametrize("max_memory", [0, 20_000, 1 << 30])
def test_memory_does_not_change_the_statistics(float_file, batches, max_memory):
    reference = _coarse_walk(float_file, batches, 1 << 30)
    found = _coarse_walk(float_file, batches, max_memory)
    assert found.keys() == reference.keys()
    for name, one in reference.items():
        np.testing.assert_allclose(one.gram, found[name].gram, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(one.cross, found[name].cross, rtol=1e-4, atol=1e-4)


class _Shuffled:
    """The samples in another order in each pass, as a shuffled ``tf.data.Dataset`` gives them."""

    def __init__(self, batches):
        self._images = np.concatenate([batch["image"] for batch in batches])
        self._random = np.random.default_rng(0)

    def __iter__(self):
        images = self._random.permutation(self._images)
        return iter([{"image": images[start : start + 4]} for start in range(0, 12, 4)])


@pytest.mark.parametrize("max_memory", [0, 20_000, 1 << 30])
def test_inputs_and_outputs_are_of_the_same_samples(float_file, batches, max_memory):
    prefix = SequentialCalibration(float_file, _Shuffled(batches), 12, max_memory)
    for kernel in float_file.kernels:
        assert prefix.statistics(kernel).centred().output_snr(kernel.values) > 50.0


def test_later_kernels_see_the_error_of_earlier_ones(float_file, batches):
    clean = SequentialCalibration(float_file, batches, 12, 1 << 20)
    for kernel in float_file.kernels:
        last = clean.statistics(kernel).centred()
    coarse = _coarse_walk(float_file, batches, 1 << 20)["logits"].centred()
    assert coarse.output_snr(kernel.values) < last.output_snr(kernel.values) - 10.0


def test_a_result_of_one_position_added_to_a_feature_map_keeps_its_own_target():
    inputs = keras.Input((None, None, 3), name="image")
    features = layers.Conv2D(4, 3, name="features")(inputs)
    context = layers.Conv2D(4, 1, name="context")(layers.GlobalAveragePooling2D(keepdims=True)(features))
    model = keras.Model(inputs, layers.Conv2D(2, 1, name="last")(layers.Add()([features, context])))
    float_file = make_float_file(model, kernel_views(model))
    images = [{"image": np.random.default_rng(1).normal(size=(4, 6, 6, 3)).astype(np.float32)}]
    prefix = SequentialCalibration(float_file, images, 4, 1 << 20)
    for kernel in float_file.kernels:
        assert prefix.statistics(kernel).centred().output_snr(kernel.values) > 50.0


def test_a_kernel_whose_result_is_read_twice_keeps_its_own_target():
    keras.utils.set_random_seed(0)

    inputs = keras.Input((6, 6, 3), name="image")
    stem = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(inputs)
    branch = layers.Conv2D(4, 1, name="project")(stem)
    outputs = layers.Concatenate()([layers.Add()([stem, branch]), layers.ReLU()(branch)])
    model = keras.Model(inputs, outputs)
    float_file = make_float_file(model, kernel_views(model))
    images = [{"image": np.random.default_rng(1).normal(size=(4, 6, 6, 3)).astype(np.float32)}]
    plain, coarse = (SequentialCalibration(float_file, images, 4, 1 << 20) for _ in range(2))
    stem, project = float_file.kernels
    coarse.replace(_halved(stem))
    np.testing.assert_allclose(coarse.statistics(project).sum_z, plain.statistics(project).sum_z, rtol=1e-5)


@pytest.fixture(scope="module")
def grids(float_file, batches):
    """4-bit grids for all activations, the input among them."""
    values = _run(float_file.data, float_file.model.activations(), _named(float_file, batches[0]))
    return {index: activation_grid(float(each.min()), float(each.max()), 4) for index, each in values.items()}


@pytest.mark.parametrize("max_memory", [0, 1 << 30])
@pytest.mark.parametrize("rounded", [False, True])
def test_a_kernel_before_a_sum_is_asked_for_what_the_shortcut_lacks(float_file, batches, grids, rounded, max_memory):
    # With fine grids, so that what the test finds is not their rounding.
    fine = {index: activation_grid(*grid.real_range, 16) for index, grid in grids.items()}
    prefix = SequentialCalibration(float_file, batches, 12, max_memory, fine if rounded else None)
    stem, depthwise, project = float_file.kernels[:3]
    prefix.replace(_halved(stem))
    found = prefix.statistics(project).centred()
    (joined,) = (op.outputs[0] for op in float_file.model.operators if float_file.model.operator_name(op) == "ADD")
    named = [_named(float_file, batch) for batch in batches]
    wanted = np.concatenate([_run(float_file.data, [joined], batch)[joined] for batch in named])
    halved, shortcut = prefix._quantized.to_bytes(), depthwise.uses[0].input
    there = np.concatenate([_run(halved, [shortcut], batch)[shortcut] for batch in named])
    assert np.abs(wanted - there).mean() > 0.1
    np.testing.assert_allclose(found.mean_z[0], (wanted - there).mean(axis=(0, 1, 2)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bits", [4, 5, 8])
def test_rounded_activations_lie_on_their_grids(float_file, batches, bits):
    tensor = float_file.kernel("depthwise").uses[0].input  # what the stem writes
    values = _run(float_file.data, [tensor], _named(float_file, batches[0]))[tensor]
    grid = activation_grid(float(values.min()), 0.7 * float(values.max()), bits)
    model = TFLiteModel(float_file.data)
    simulate_activations(model, {tensor: grid})
    found = _run(model.to_bytes(), [tensor], _named(float_file, batches[0]))[tensor]
    np.testing.assert_allclose(found, grid.dequantize(grid.quantize(values)), rtol=1e-5, atol=grid.scale * 1e-3)


def test_a_copy_that_stays_float_has_the_same_places(float_file, batches, grids):
    first, second = TFLiteModel(float_file.data), TFLiteModel(float_file.data)
    moved = simulate_activations(first, grids)
    assert moved == simulate_activations(second, grids, in_effect=False)
    assert len(first.operators) == len(second.operators) > len(float_file.model.operators)
    (output,) = float_file.outputs
    expected = _run(float_file.data, [output], _named(float_file, batches[0]))[output]
    np.testing.assert_array_equal(_run(second.to_bytes(), [output], _named(float_file, batches[0]))[output], expected)
    assert not np.allclose(
        _run(first.to_bytes(), [output], _named(float_file, batches[0]))[output], expected, atol=1e-3
    )


@pytest.mark.parametrize("max_memory", [0, 1 << 30])
def test_the_prefix_sees_rounded_activations(float_file, batches, grids, max_memory):
    prefix = SequentialCalibration(float_file, batches, 12, max_memory, grids)
    plain = SequentialCalibration(float_file, batches, 12, max_memory)
    for kernel in float_file.kernels:
        rounded, exact = (each.statistics(kernel) for each in (prefix, plain))
        if kernel.id.layer != "project":  # that one makes good what rounding did to the shortcut
            np.testing.assert_allclose(rounded.sum_z, exact.sum_z, rtol=1e-5, atol=1e-3)  # targets stay those of float
        assert rounded.centred().output_snr(kernel.values) < 35.0


def _quantized(kernel, codes, step):
    """A kernel with codes ``[O, I, T]`` of one scale for all, and its bias as it was."""
    weight = QuantizedWeight(codes, float_scales(np.full((1, 1), step), kernel.shape[:2]), 8)
    shift = np.zeros(len(codes), np.float32)
    return QuantizedKernel.of(kernel, KernelPlan(QuantizationConfig(PerChannel()), LayoutPlan((INT8,))), weight, shift)


def _halved(kernel):
    """A kernel with half its values, to 7 bits."""
    step = np.abs(kernel.values).max() / 126
    return _quantized(kernel, np.rint(0.5 * kernel.values / step).astype(np.int8), step)


def _coarse_walk(float_file, batches, max_memory):
    """Layer -> statistics of its kernel, summed over all uses, while each kernel is rounded to few levels."""
    prefix, walked = SequentialCalibration(float_file, batches, 12, max_memory), {}
    for kernel in float_file.kernels:
        walked[kernel.id.layer] = prefix.statistics(kernel, [1.0] * len(kernel.uses))
        step = np.abs(kernel.values).max() / 3
        prefix.replace(_quantized(kernel, np.rint(kernel.values / step).astype(np.int8), step))
    return walked


def test_sizes_that_the_model_leaves_open_are_counted():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, 3), name="x")
    model = keras.Model(inputs, layers.Conv2D(2, 1)(layers.Conv2D(4, 3, padding="same")(inputs)))
    float_file = make_float_file(model, kernel_views(model))
    images = np.zeros((6, 10, 20, 3), np.float32)
    prefix = SequentialCalibration(float_file, [{"x": images}], 6, 1 << 20)
    assert prefix._stored_bytes(0) == 2 * images.nbytes
    second = float_file.kernels[1]
    assert prefix.obstacle(second, 300) is None  # 1,200 positions of 4 inputs
    assert prefix.obstacle(second, 301) == "the samples have 1200 positions for its 4 inputs"


def test_statistics_that_would_be_too_large(monkeypatch):
    inputs = keras.Input((64,), name="x")
    model = keras.Model(inputs, layers.Dense(2)(inputs))
    float_file = make_float_file(model, kernel_views(model))
    prefix = SequentialCalibration(float_file, [{"x": np.zeros((8, 64), np.float32)}], 8, 1 << 20)
    (kernel,) = float_file.kernels
    assert prefix.obstacle(kernel, 0) is None
    monkeypatch.setattr("tfptq.fit.sequential.LARGEST_STATISTICS", 100_000)
    assert "64 inputs would take" in prefix.obstacle(kernel, 0)


def test_a_kernel_may_read_the_shortcut_that_it_is_added_to():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 4), name="x")
    stem = layers.Conv2D(4, 1, activation="relu")(inputs)
    model = keras.Model(inputs, layers.Add()([stem, layers.Conv2D(4, 3, padding="same")(stem)]))
    float_file = make_float_file(model, kernel_views(model))
    images = np.random.default_rng(0).normal(size=(4, 6, 6, 4)).astype(np.float32)
    prefix = SequentialCalibration(float_file, [{"x": images}], 4, 1 << 20)
    branch = float_file.kernels[1]
    assert prefix.statistics(branch).centred().output_snr(branch.values) > 50


def _two_towers():
    """A model whose first two kernels are used in both of its towers, and the last one in a residual sum, too."""
    keras.utils.set_random_seed(0)
    inputs = [keras.Input((6, 6, 3), name=name) for name in ("left", "right")]
    shared = [layers.Conv2D(4, 3, padding="same", activation="relu", name=name) for name in ("first", "second")]
    first, second = [shared[1](shared[0](each)) for each in inputs]
    last = layers.Conv2D(4, 1, name="last")
    return keras.Model(inputs, layers.Add()([first, last(layers.Add()([last(first), second]))]))


def test_statistics_of_several_uses_are_those_of_what_the_uses_read():
    model = _two_towers()
    float_file = make_float_file(model, kernel_views(model))
    rng = np.random.default_rng(2)
    images = {name: rng.normal(size=(12, 6, 6, 3)).astype(np.float32) for name in ("left", "right")}
    batches = [{name: values[start : start + 4] for name, values in images.items()} for start in range(0, 12, 4)]
    found, again = (_coarse_walk(float_file, batches, max_memory) for max_memory in (1 << 30, 0))
    for name in ("first", "second", "last"):
        assert found[name].count == 2 * 12 * 36
        np.testing.assert_allclose(found[name].gram, again[name].gram, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(found[name].cross, again[name].cross, rtol=1e-4, atol=1e-3)
    pixels = np.concatenate(list(images.values())).reshape(-1, 3)
    middle = found["first"].gram[0].reshape(3, 9, 3, 9)[:, 4, :, 4]  # the tap without padding
    np.testing.assert_allclose(middle, pixels.T @ pixels, rtol=1e-4, atol=1e-2)
    # Both towers of the second kernel read what the replaced first one writes.
    first = model.get_layer("first")
    kernel = np.asarray(first.kernel)
    step = np.abs(kernel).max() / 3
    first.kernel.assign(np.rint(kernel / step) * step)
    read = np.concatenate([np.asarray(first(values)) for values in images.values()]).reshape(-1, 4)
    middle = found["second"].gram[0].reshape(4, 9, 4, 9)[:, 4, :, 4]
    np.testing.assert_allclose(middle, read.T @ read, rtol=1e-3, atol=1e-2)


def test_uses_with_factors_and_biases_of_their_own_agree():
    """The converter fuses constants behind one use into its kernel and its bias."""
    inputs = keras.Input((6, 6, 3), name="x")
    conv = layers.Conv2D(3, 1, bias_initializer="normal", name="conv")
    factors, shift = np.asarray([2.0, -0.5, 1.0], np.float32), np.asarray([5.0, -3.0, 2.0], np.float32)
    model = keras.Model(inputs, [conv(inputs), conv(layers.ReLU()(inputs)) * factors + shift])
    float_file = make_float_file(model, kernel_views(model))
    (kernel,) = float_file.kernels
    assert [use.row_factors is None for use in kernel.uses].count(False) == 1
    images = np.random.default_rng(0).normal(size=(8, 6, 6, 3)).astype(np.float32)
    prefix = SequentialCalibration(float_file, [{"x": images}], 8, 1 << 20)
    statistics = prefix.statistics(kernel).centred()
    weight, first = kernel_views(model)["conv", "kernel"], kernel.uses[0]
    factors = 1.0 if first.row_factors is None else first.row_factors
    assert statistics.output_snr(weight) > 50
    np.testing.assert_allclose(statistics.best_bias(weight), first.bias / factors, atol=1e-4)


def test_segments_leave_out_what_their_outputs_do_not_need():
    model = _two_towers()
    walked = make_float_file(model, kernel_views(model)).model
    (right,) = (index for index in walked.subgraph.inputs if "right" in walked.name(index))
    (reader,) = (operator for operator in walked.operators if right in operator.inputs)
    part = extract_segment(walked, 0, len(walked.operators), reader.outputs)
    assert len(part.operators) == 1
    assert [part.name(index) for index in part.subgraph.inputs] == [walked.name(right)]
