"""Channels of float files: their groups are those of the Keras model, and every move keeps what a file computes."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from float_files import FloatModel, convolution, kernels_of
from graph_models import BLOCK_NAMES, batch_for, inverted_residual_network, random_network, residual_network
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tfptq.core.channel_graph import Change
from tfptq.core.channel_groups import find_groups
from tfptq.core.channel_headroom import activation_tensors, limiting_tensors
from tfptq.core.channel_moves import Permutations, Rotations, Scales
from tfptq.float_file.build import make_float_file
from tfptq.float_file.channel_steps import channel_graph
from tfptq.float_file.float_file import FloatFile
from tfptq.float_file.move_channels import move_channels
from tfptq.float_file.observe_channels import ChannelObserver
from tfptq.graph import canonicalise, channel_groups
from tfptq.pipeline.steps import kernel_views
from tfptq.tflite.runtime import TensorRunner

RNG = np.random.default_rng(0)
IMAGE = {"x": RNG.normal(size=(3, 6, 6, 3)).astype(np.float32)}
PERMUTATION, SCALE, ROTATION = Change


def outputs(float_file, batch):
    found = TensorRunner(float_file.data, float_file.outputs).values(float_file.by_tensor_name(batch))
    return [found[index] for index in float_file.outputs]


def random_move(groups, change, seed=0):
    """Something done to every group. Powers of two, within a step of float32; none for groups that a ReLU6 clips."""
    random = np.random.default_rng(seed)
    if change is PERMUTATION:
        return Permutations(groups, {each.index: random.permutation(each.size) for each in groups.groups})
    if change is SCALE:
        free = [each for each in groups.groups if not each.clipped]
        return Scales(groups, {each.index: 2.0 ** random.integers(-3, 4, each.size) for each in free})
    matrices = {each.index: np.linalg.qr(random.normal(size=(each.size,) * 2))[0] for each in groups.groups}
    return Rotations(groups, matrices)


def check_moves(float_file, change, batch=IMAGE, seed=0):
    """The groups of a file, after all have moved."""
    groups = find_groups(channel_graph(float_file, change))
    moved = move_channels(float_file, random_move(groups, change, seed))
    for before, after in zip(outputs(float_file, batch), outputs(moved, batch), strict=True):
        assert np.abs(before - after).max() <= 5e-6 * np.ptp(before)
    for before, after in zip(float_file.kernels, moved.kernels, strict=True):
        assert before.id == after.id and before.shape == after.shape
        for use in after.uses:
            np.testing.assert_array_equal(use.view.to_view(moved.model.constant(use.tensor)), after.values)
            assert moved.model.operators[use.operator].inputs[1] == use.tensor
    return groups


def sides(groups, names):
    """Groups by the layers that are kernels in the file."""

    def kept(found):
        return frozenset((side.layer, side.offsets) for side in found if side.layer in names)

    return {
        (each.size, kept(each.producers), kept(each.consumers), kept(each.per_channel), each.clipped)
        for each in groups.groups
    }


def check_same_groups(network, seed=0):
    canonical = canonicalise(network)
    float_file = make_float_file(canonical, kernel_views(canonical))
    names = {kernel.id.label for kernel in float_file.kernels}
    for change in Change:
        found = check_moves(float_file, change, batch_for(canonical), seed)
        assert sides(found, names) == sides(channel_groups(canonical, change), names)


@pytest.mark.parametrize("build", [residual_network, inverted_residual_network])
def test_groups_are_those_of_the_keras_model(build):
    check_same_groups(build())


@pytest.mark.parametrize("start", range(0, len(BLOCK_NAMES), 3))
def test_groups_of_all_blocks_are_those_of_the_keras_model(start):
    check_same_groups(random_network(BLOCK_NAMES[start : start + 3], 4, 1))


@settings(max_examples=2)
@given(st.lists(st.sampled_from(BLOCK_NAMES), min_size=2, max_size=3), st.integers(0, 10**6))
def test_groups_of_any_network_are_those_of_the_keras_model(blocks, seed):
    check_same_groups(random_network(blocks, 6, seed), seed)


def kernel(outputs, size, inputs):
    return RNG.normal(size=(outputs, size, size, inputs)).astype(np.float32)


def file_of(graph, *ends):
    model = graph.finish(*ends)
    return FloatFile(model.to_bytes(), model, kernels_of(model), {"x": model.subgraph.inputs[0]}, tuple(ends))


def between(build, channels=4, activation=schema.ActivationFunctionType.NONE):
    """Two convolutions with something between them."""
    graph = FloatModel()
    x = convolution(graph, graph.input("x", (1, 6, 6, 3)), kernel(4, 1, 3), RNG.normal(size=4), "a", activation)
    x = build(graph, x)
    return file_of(graph, convolution(graph, x, kernel(2, 1, channels), name="b"))


def alone(kind, options=None, shape=(1, 6, 6, 4)):
    return lambda graph, x: graph.add(kind, [x], shape, options=options)


def with_constant(kind, values, first=False):
    def build(graph, x):
        constant = graph.constant("c", np.asarray(values, np.float32))
        options = {"ADD": schema.AddOptionsT, "SUB": schema.SubOptionsT, "MUL": schema.MulOptionsT}.get(kind)
        inputs = [constant, x] if first else [x, constant]
        return graph.add(kind, inputs, (1, 6, 6, 4), options=None if options is None else options())

    return build


def with_integers(kind, values, shape, options=None):
    """An operator with one constant of integers."""
    return lambda graph, x: graph.add(
        kind, [x, graph.constant("how", np.asarray(values, np.int32))], shape, options=options
    )


def pool(kind):
    options = {"filterHeight": 2, "filterWidth": 2, "strideH": 2, "strideW": 2, "padding": schema.Padding.VALID}
    return alone(kind, schema.Pool2DOptionsT(**options), (1, 3, 3, 4))


def sliced(begin, size):
    def build(graph, x):
        parts = [graph.constant(name, np.asarray(each, np.int32)) for name, each in (("begin", begin), ("size", size))]
        return graph.add("SLICE", [x, *parts], (1, *size[1:]))

    return build


def doubled(graph, x):
    options = schema.ConcatenationOptionsT(axis=3, fusedActivationFunction=0)
    return graph.add("CONCATENATION", [x, graph.add("RELU", [x], (1, 6, 6, 4))], (1, 6, 6, 8), options=options)


VECTOR = [1.0, -2.0, 3.0, 0.5]
SPACE = schema.ReducerOptionsT(keepDims=True)
#: Operator -> the changes that it passes on.
PASSED = {
    "relu": (alone("RELU"), "PS"),
    "relu6": (alone("RELU6"), "PS"),
    "leaky": (alone("LEAKY_RELU", schema.LeakyReluOptionsT(alpha=0.1)), "PS"),
    "negative": (alone("NEG"), "PSR"),
    "absolute": (alone("ABS"), "PS"),
    "sigmoid": (alone("LOGISTIC"), "P"),
    "softmax": (alone("SOFTMAX", schema.SoftmaxOptionsT(beta=1.0)), "P"),
    "slopes": (with_constant("PRELU", np.asarray(VECTOR)[None, None]), "PS"),
    "plus a vector": (with_constant("ADD", VECTOR), "PSR"),
    "plus a number": (with_constant("ADD", 1.0), "P"),
    "plus zero": (with_constant("ADD", [0.0]), "PSR"),
    "a vector less": (with_constant("SUB", VECTOR, first=True), "PSR"),
    "times a vector": (with_constant("MUL", VECTOR), "PS"),
    "times a number": (with_constant("MUL", -2.0, first=True), "PSR"),
    "times a number at each place": (with_constant("MUL", RNG.normal(size=(6, 6, 1))), "PSR"),
    "plus numbers everywhere": (with_constant("ADD", RNG.normal(size=(6, 6, 4))), "PSR"),
    "over a vector": (with_constant("DIV", VECTOR), "PS"),
    "a vector over": (with_constant("DIV", VECTOR, first=True), "P"),
    "maximum with a vector": (with_constant("MAXIMUM", VECTOR), "PS"),
    "at most six": (with_constant("MINIMUM", 6.0), "P"),
    "largest of places": (pool("MAX_POOL_2D"), "PS"),
    "mean of places": (pool("AVERAGE_POOL_2D"), "PSR"),
    "mean of all places": (with_integers("MEAN", [1, 2], (1, 1, 1, 4), SPACE), "PSR"),
    "zeros around": (with_integers("PAD", [[0, 0], [1, 1], [1, 1], [0, 0]], (1, 8, 8, 4)), "PSR"),
    "rows for columns": (with_integers("TRANSPOSE", [0, 2, 1, 3], (1, 6, 6, 4)), "PSR"),
    "some places": (sliced([0, 1, 1, 0], [-1, 3, 3, 4]), "PSR"),
}
#: Operators that no change passes, and the channels behind them.
BARRIERS = {
    "zeros as channels": (with_integers("PAD", [[0, 0], [0, 0], [0, 0], [0, 1]], (1, 6, 6, 5)), 5),
    "some channels": (sliced([0, 0, 0, 1], [-1, 6, 6, 3]), 3),
    "mean of channels": (with_integers("MEAN", [3], (1, 6, 6, 1), SPACE), 1),
    "channels for rows": (with_integers("TRANSPOSE", [0, 3, 1, 2], (1, 4, 6, 6)), 6),
    "pairs of channels": (with_integers("RESHAPE", [-1, 6, 12, 2], (1, 6, 12, 2)), 2),
    "without a row": (alone("SIN"), 4),
    "sums of channels": (alone("LOCAL_RESPONSE_NORMALIZATION", schema.LocalResponseNormalizationOptionsT(radius=1)), 4),
}


@pytest.mark.parametrize("name", PASSED)
def test_what_operators_pass_on(name):
    build, passed = PASSED[name]
    float_file = between(build)
    found = "".join(change.name[0] for change in Change if check_moves(float_file, change).groups)
    assert found == passed


OF_ONE_SHAPE = [name for name in PASSED if not name.endswith(("places", "around", "columns")) or "each" in name]


@settings(max_examples=10, deadline=None)
@given(st.lists(st.sampled_from(OF_ONE_SHAPE), max_size=4), st.integers(0, 10**6))
def test_a_chain_passes_on_what_all_of_it_does(names, seed):
    def build(graph, x):
        for name in names:
            x = PASSED[name][0](graph, x)
        return x

    float_file = between(build)
    assume(all(np.isfinite(values).all() for values in outputs(float_file, IMAGE)))  # no vector over what relu cut to 0
    found = {change.name[0] for change in Change if check_moves(float_file, change, seed=seed).groups}
    assert found == set("PSR").intersection(*(PASSED[name][1] for name in names))


@pytest.mark.parametrize("name", BARRIERS)
def test_what_operators_keep(name):
    build, channels = BARRIERS[name]
    float_file = between(build, channels)
    assert not any(check_moves(float_file, change).groups for change in Change)


@pytest.mark.parametrize("function, passed", [("NONE", "PSR"), ("RELU", "PS"), ("RELU6", "PS"), ("TANH", "P")])
def test_fused_activation_functions(function, passed):
    float_file = between(lambda graph, x: x, activation=getattr(schema.ActivationFunctionType, function))
    found = {change: check_moves(float_file, change).groups for change in Change}
    assert "".join(change.name[0] for change, groups in found.items() if groups) == passed
    assert [each.clipped for each in found[SCALE]] == [function == "RELU6"] * ("S" in passed)


def test_a_concatenation_and_a_flat_input_hold_a_group_several_times():
    graph = FloatModel()
    x = convolution(graph, graph.input("x", (1, 6, 6, 3)), kernel(4, 5, 3), RNG.normal(size=4), "a")
    options = schema.ConcatenationOptionsT(axis=3, fusedActivationFunction=0)
    x = graph.add("CONCATENATION", [x, graph.add("RELU", [x], (1, 2, 2, 4))], (1, 2, 2, 8), options=options)
    x = graph.add("RESHAPE", [x, graph.constant("shape", np.int32([-1, 32]))], (1, 32))
    weights, offset = RNG.normal(size=(5, 32)).astype(np.float32), np.zeros(5, np.float32)
    constants = (graph.constant("k", weights), graph.constant("o", offset))
    x = graph.add("FULLY_CONNECTED", [x, *constants], (1, 5), options=schema.FullyConnectedOptionsT())
    for change in (PERMUTATION, SCALE):
        (group,) = check_moves(file_of(graph, x), change).groups
        (side,) = group.consumers
        assert side.offsets == tuple(range(0, 32, 4))


def test_slopes_that_are_computed_follow_an_order_alone():
    graph = FloatModel()
    x = graph.input("x", (1, 6, 6, 3))
    a, b = (convolution(graph, x, kernel(4, 1, 3), RNG.normal(size=4), name) for name in "ab")
    bent = graph.add("PRELU", [a, b], (1, 6, 6, 4))
    float_file = file_of(graph, convolution(graph, bent, kernel(2, 1, 4), name="end"))
    assert [len(check_moves(float_file, change).groups) for change in Change] == [1, 0, 0]


def residual_file():
    """``b(relu(a + p)) + p`` with a depthwise convolution in ``p``; the sum is read by ``c`` and ``d``."""
    graph = FloatModel()
    x = graph.input("x", (1, 6, 6, 3))
    p = convolution(graph, x, kernel(4, 1, 3), RNG.normal(size=4), "p")
    filters = graph.constant("filters", RNG.normal(size=(1, 1, 1, 4)).astype(np.float32))
    options = schema.DepthwiseConv2DOptionsT(depthMultiplier=1, strideH=1, strideW=1)
    p = graph.add(
        "DEPTHWISE_CONV_2D",
        [p, filters, graph.constant("offsets", RNG.normal(size=4).astype(np.float32))],
        (1, 6, 6, 4),
        options=options,
    )
    a = convolution(graph, x, kernel(4, 1, 3), RNG.normal(size=4), "a")
    y = graph.add("ADD", [a, p], (1, 6, 6, 4), options=schema.AddOptionsT())
    y = convolution(graph, graph.add("RELU", [y], (1, 6, 6, 4)), kernel(4, 1, 4), name="b")
    y = graph.add("ADD", [y, p], (1, 6, 6, 4), options=schema.AddOptionsT())
    return graph, y


def test_sums_make_one_group_and_depthwise_kernels_part_scales():
    graph, y = residual_file()
    float_file = file_of(graph, convolution(graph, y, kernel(2, 1, 4), name="c"))
    (group,) = check_moves(float_file, PERMUTATION).groups
    assert len(group.producers) == 3 and len(group.per_channel) == 1
    first, second = check_moves(float_file, SCALE).groups
    assert [len(each.producers) for each in (first, second)] == [1, 3]
    assert check_moves(float_file, ROTATION).groups == ()  # a ReLU and filters


def test_what_leaves_the_file_keeps_its_order():
    graph, y = residual_file()
    end = convolution(graph, y, kernel(2, 1, 4), name="c")
    (group,) = check_moves(file_of(graph, end, end), PERMUTATION).groups
    assert group.size == 4
    assert check_moves(file_of(graph, end, y), PERMUTATION).groups == ()


def test_a_kernel_that_two_convolutions_read_has_one_group():
    graph = FloatModel()
    shared, offset = graph.constant("k", kernel(3, 1, 3)), graph.constant("o", RNG.normal(size=3).astype(np.float32))
    options = schema.Conv2DOptionsT(padding=schema.Padding.VALID, strideW=1, strideH=1)
    first = convolution(graph, graph.input("x", (1, 6, 6, 3)), kernel(3, 1, 3), RNG.normal(size=3), "first")
    middle = graph.add("CONV_2D", [first, shared, offset], (1, 6, 6, 3), options=options)
    last = graph.add("CONV_2D", [middle, shared, offset], (1, 6, 6, 3), options=options)
    float_file = file_of(graph, convolution(graph, last, kernel(2, 1, 3), name="end"))
    assert len(float_file.kernels) == 3
    (group,) = check_moves(float_file, PERMUTATION).groups
    assert len(group.producers) == 2 and len(group.consumers) == 2


@pytest.mark.parametrize("shares", [False, True])
def test_a_kernel_that_something_else_reads_stays(shares):
    graph = FloatModel()
    first, offset = graph.constant("k", kernel(4, 1, 3)), graph.constant("o", np.zeros(4, np.float32))
    options = schema.Conv2DOptionsT(padding=schema.Padding.VALID, strideW=1, strideH=1)
    x = graph.add("CONV_2D", [graph.input("x", (1, 6, 6, 3)), first, offset], (1, 6, 6, 4), options=options)
    x = convolution(graph, x, kernel(3, 1, 4), name="b")
    of = first if shares else graph.constant("other", kernel(4, 1, 3))
    axes, options = graph.constant("axes", np.int32([0, 1, 2])), schema.ReducerOptionsT()
    mean = graph.add("MEAN", [of, axes], (3,), options=options)
    graph.model.tensors[mean].shapeSignature = None
    x = graph.add("ADD", [x, mean], (1, 6, 6, 3), options=schema.AddOptionsT())
    float_file = file_of(graph, convolution(graph, x, kernel(2, 1, 3), name="end"))
    assert [each.size for each in check_moves(float_file, PERMUTATION).groups] == ([] if shares else [4])


def test_a_bias_that_two_convolutions_read_is_written_twice():
    """The converter keeps equal constants once."""
    graph = FloatModel()
    offset = graph.constant("o", RNG.normal(size=4).astype(np.float32))
    options = schema.Conv2DOptionsT(padding=schema.Padding.VALID, strideW=1, strideH=1)
    x = graph.input("x", (1, 6, 6, 3))
    for name, inputs in (("a", 3), ("b", 4)):
        x = graph.add("CONV_2D", [x, graph.constant(name, kernel(4, 1, inputs)), offset], (1, 6, 6, 4), options=options)
    float_file = file_of(graph, convolution(graph, x, kernel(2, 1, 4), name="end"))
    assert len(check_moves(float_file, SCALE).groups) == 2


def test_observed_channels_are_those_of_all_batches():
    float_file = between(alone("RELU6"))
    graph = channel_graph(float_file, SCALE)
    groups = find_groups(graph)
    tensors = limiting_tensors(graph, groups)
    assert tensors == [float_file.model.operators[1].outputs[0]] == activation_tensors(graph, groups)
    parts = [{"x": IMAGE["x"][:1]}, {"x": IMAGE["x"][1:]}]
    (found,) = ChannelObserver(float_file, tensors).observe(parts).values()
    values = TensorRunner(float_file.data, tensors).values(IMAGE)[tensors[0]].reshape(-1, 4)
    np.testing.assert_array_equal([found.minimum, found.maximum], [values.min(axis=0), values.max(axis=0)])
    np.testing.assert_allclose(found.power, np.square(values).mean(axis=0), rtol=1e-6)
    assert ChannelObserver(float_file, []).observe(parts) == {}
