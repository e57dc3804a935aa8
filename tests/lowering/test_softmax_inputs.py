"""Masks that are added before a softmax: they must not take the codes away from the scores."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from float_files import FloatModel
from hypothesis import given, settings
from hypothesis import strategies as st
from stock_runtimes import RESOLVERS, run_decoded

from tfptq.config import Calibration
from tfptq.fit.measure import measure
from tfptq.float_file.float_file import FloatFile
from tfptq.lowering.emit import emit
from tfptq.lowering.plan import plan_integers
from tfptq.lowering.softmax_inputs import REACH, SoftmaxInputs

CALIBRATION = Calibration("min_max")
SAMPLES, QUERIES, KEYS = 8, 4, 6
SHAPE, MASK_SHAPE = (1, QUERIES, KEYS), (1, 1, KEYS)
SMALLEST = float(np.finfo(np.float32).min)
RNG = np.random.default_rng(0)
LENGTHS = RNG.integers(2, KEYS + 1, SAMPLES)
VALID = (np.arange(KEYS) < LENGTHS[:, None]).astype(np.float32)[:, None]
DATA = {"scores": RNG.normal(0.0, 3.0, (SAMPLES, QUERIES, KEYS)).astype(np.float32), "valid": VALID}
CAUSAL = (np.tril(np.ones((QUERIES, KEYS), np.float32)) - 1.0)[None]  # 0 and -1


class Graph(FloatModel):
    """A float model with the scores, the mask and a few operators at hand."""

    def __init__(self):
        super().__init__()
        self.scores, self.valid = self.input("scores", SHAPE), self.input("valid", MASK_SHAPE)

    def value(self, values):
        return self.constant(f"constant_{len(self.model.tensors)}", np.asarray(values, np.float32))

    def plus(self, a, b, shape=SHAPE, **options):
        return self.add("ADD", [a, b], shape, options=schema.AddOptionsT(**options))

    def minus(self, a, b, shape=SHAPE):
        return self.add("SUB", [a, b], shape, options=schema.SubOptionsT())

    def times(self, a, b, shape=SHAPE):
        return self.add("MUL", [a, b], shape, options=schema.MulOptionsT())

    def softmax(self, x, shape=SHAPE):
        return self.add("SOFTMAX", [x], shape, "probabilities", schema.SoftmaxOptionsT(beta=1.0))

    def invalid(self):
        return self.minus(self.value(1.0), self.valid, MASK_SHAPE)


def constant_mask(graph, size):
    return [graph.softmax(graph.plus(graph.scores, graph.value(-size * CAUSAL)))]


def computed_mask(graph, size):
    return [graph.softmax(graph.plus(graph.scores, graph.times(graph.invalid(), graph.value(size), MASK_SHAPE)))]


def subtracted_mask(graph, size):
    return [graph.softmax(graph.minus(graph.scores, graph.times(graph.invalid(), graph.value(-size), MASK_SHAPE)))]


def mask_less_one(graph, size):
    return [
        graph.softmax(
            graph.plus(
                graph.times(graph.minus(graph.valid, graph.value(1.0), MASK_SHAPE), graph.value(-size), MASK_SHAPE),
                graph.scores,
            )
        )
    ]


def two_masks(graph, size):
    masked = graph.plus(graph.scores, graph.times(graph.invalid(), graph.value(size), MASK_SHAPE))
    return [graph.softmax(graph.plus(masked, graph.value(-size * CAUSAL)))]


def scaled_and_moved(graph, size):
    masked = graph.plus(graph.scores, graph.times(graph.invalid(), graph.value(size), MASK_SHAPE))
    moved = graph.add("RESHAPE", [graph.times(masked, graph.value(0.5)), graph.constant("to", SHAPE_OF_ROWS)], SHAPE)
    return [graph.softmax(moved)]


def distances_and_mask(graph, size):
    """ALiBi: one constant with a slope that counts, and with a mask."""
    slope = -0.7 * np.abs(np.arange(QUERIES)[:, None] - np.arange(KEYS)).astype(np.float32)[None]
    return [graph.softmax(graph.plus(graph.scores, graph.value(slope - size * CAUSAL)))]


def difference_of_large_numbers(graph, size):
    """``valid * 1e9 - 1e9``: exact in float32, but no grid holds 1e9 and the scores."""
    large = graph.times(graph.valid, graph.value(-size), MASK_SHAPE)
    return [graph.softmax(graph.plus(graph.scores, graph.minus(large, graph.value(-size), MASK_SHAPE)))]


def read_by_others(graph, size):
    """The masked scores are an output as well, so that the mask cannot be cut off."""
    masked = graph.plus(graph.scores, graph.times(graph.invalid(), graph.value(size), MASK_SHAPE))
    return [graph.softmax(masked), masked]


SHAPE_OF_ROWS = np.asarray([-1, QUERIES, KEYS], np.int32)
ON_INTEGERS = (
    constant_mask,
    computed_mask,
    subtracted_mask,
    mask_less_one,
    two_masks,
    scaled_and_moved,
    distances_and_mask,
)


def float_file_of(build, size):
    graph = Graph()
    model = graph.finish(*build(graph, size))
    inputs = {model.name(index): index for index in model.subgraph.inputs}
    return FloatFile(model.to_bytes(), model, (), inputs, tuple(model.subgraph.outputs))


def quantized(float_file, bits=8, data=DATA, method="min_max", **types):
    calibration = Calibration(method)
    found = measure(
        float_file, [{name: part[at : at + 4] for name, part in data.items()} for at in (0, 4)], calibration
    )
    plan = plan_integers(float_file.model, found.ranges(calibration, bits), bits, None, found.clipped)
    return plan, emit(float_file.data, plan, [], **types).model.to_bytes()


def used(float_file, data):
    names = {float_file.model.name(index) for index in float_file.model.subgraph.inputs}
    return {name: values for name, values in data.items() if name in names}


def largest_error(float_file, tflite, resolver="AUTO", data=DATA):
    expected = run_decoded(float_file.data, used(float_file, data))["probabilities"]
    return np.abs(run_decoded(tflite, used(float_file, data), resolver)["probabilities"] - expected).max()


@pytest.mark.parametrize("size", [-1e4, -1e9, SMALLEST])
@pytest.mark.parametrize("build", ON_INTEGERS)
def test_large_masks_cost_no_more_than_small_ones(build, size):
    plans = {}
    for value in (-20.0, size):
        float_file = float_file_of(build, value)
        plan, tflite = quantized(float_file)
        plans[value] = plan
        for resolver in RESOLVERS:
            assert largest_error(float_file, tflite, resolver) < 0.08, (value, resolver)
    assert plans[size].float_operators == ()
    for index in float_file.model.activations():
        assert np.abs(plans[size].grids[index].real_range).max() < 3 * REACH


@pytest.mark.parametrize("build", ON_INTEGERS)
def test_16_bits(build):
    float_file = float_file_of(build, -1e9)
    plan, tflite = quantized(float_file, bits=16)
    assert plan.float_operators == ()
    assert largest_error(float_file, tflite, "BUILTIN") < 2e-3


@pytest.mark.parametrize("method", ["percentile", "mse"])
@pytest.mark.parametrize("build", [constant_mask, computed_mask])
def test_every_way_to_choose_ranges_sees_the_scores(build, method):
    float_file = float_file_of(build, -1e9)
    assert largest_error(float_file, quantized(float_file, method=method)[1]) < 0.15


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (difference_of_large_numbers, "SUB has operands so large that its result is lost in their rounding"),
        (read_by_others, "ADD adds a mask that is not for SOFTMAX alone"),
    ],
)
@pytest.mark.parametrize("resolver", RESOLVERS)
def test_what_no_grid_can_hold_stays_float_and_the_report_says_why(build, reason, resolver):
    float_file = float_file_of(build, -1e9)
    plan, tflite = quantized(float_file)
    assert any(reason in entry[2] for entry in plan.float_operators)
    assert largest_error(float_file, tflite, resolver) < 0.08


def test_rows_that_are_masked_as_a_whole_do_not_count():
    data = {**DATA, "valid": VALID.copy()}
    data["valid"][3] = 0.0
    float_file = float_file_of(computed_mask, -1e9)
    _, tflite = quantized(float_file, data=data)
    others = {name: np.delete(values, 3, axis=0) for name, values in data.items()}
    assert largest_error(float_file, tflite, data=others) < 0.08
    # In float32 the mask swallows the scores of such rows: all probabilities are the same, and nobody wants them.
    np.testing.assert_allclose(run_decoded(tflite, data)["probabilities"][3], 1.0 / KEYS, atol=0.15)


@pytest.mark.parametrize("resolver", RESOLVERS)
@pytest.mark.parametrize("size", [-1e4, -1e9, SMALLEST])
def test_masks_that_are_inputs_of_the_model(size, resolver):
    """A float input of -1e9 would overflow in QUANTIZE and come out at the wrong end."""

    def build(graph, size):
        return [graph.softmax(graph.plus(graph.scores, graph.valid))]

    data = {**DATA, "valid": (1.0 - VALID) * np.float32(size)}
    float_file = float_file_of(build, size)
    for types in ({}, {"input_type": "int8"}):
        assert largest_error(float_file, quantized(float_file, data=data, **types)[1], resolver, data) < 0.08


def test_infinite_constants():
    with np.errstate(invalid="ignore"):
        mask = np.where(CAUSAL < 0.0, -np.inf, 0.0)
    float_file = float_file_of(lambda graph, size: [graph.softmax(graph.plus(graph.scores, graph.value(mask)))], None)
    assert largest_error(float_file, quantized(float_file)[1]) < 0.08


def test_other_readers_and_fused_functions_keep_their_range():
    graph = Graph()
    masked = graph.plus(graph.scores, graph.value(-1e9 * -CAUSAL))
    clipped = graph.plus(masked, graph.value(1.0), fusedActivationFunction=schema.ActivationFunctionType.RELU)
    found = SoftmaxInputs(graph.finish(graph.softmax(clipped), graph.softmax(masked)))
    assert masked not in found.limits({index: DATA["scores"] for index in found.tensors})
    assert clipped in found.limits({index: DATA["scores"] for index in found.tensors})
    assert found.constants == {}


def probabilities(scores):
    shifted = np.exp(scores.astype(np.float64) - scores.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.sampled_from([3.0, 30.0, 1e4, 1e9]), st.booleans())
def test_values_beyond_the_limits_change_no_probability(seed, size, subtract):
    """All tensors are clipped at once, each at its own limits."""
    rng = np.random.default_rng(seed)
    graph = Graph()
    product = graph.times(graph.valid, graph.value(size if subtract else -size), MASK_SHAPE)
    total = graph.minus(graph.scores, product) if subtract else graph.plus(graph.scores, product)
    masked_bias = rng.random(SHAPE) * (np.arange(KEYS) > 0) > 0.8  # no row is masked as a whole
    total = graph.plus(total, bias := graph.value(rng.normal(size=SHAPE) - size * masked_bias))
    model = graph.finish(graph.softmax(total))
    scores, masked = rng.normal(0.0, 4.0, SHAPE).astype(np.float32), (rng.random(MASK_SHAPE) < 0.4).astype(np.float32)
    masked[..., 0], inputs = 0.0, SoftmaxInputs(model)
    factor = np.float32(size if subtract else -size)
    constants = {index: model.constant(index) for index in range(len(model.tensors)) if model.is_constant(index)}
    sign, (factor_index,) = (-1.0 if subtract else 1.0), [i for i in constants if i != bias]

    def clip(index, values):
        return np.clip(values, *limits.get(index, (-np.inf, np.inf)))

    first = scores + sign * (masked * factor)
    values = {graph.scores: scores, graph.valid: masked, product: masked * factor, total: first + constants[bias]}
    values = {**values, model.operators[1].outputs[0]: first, model.operators[-1].outputs[0]: np.zeros(SHAPE)}
    limits = inputs.limits(values)
    found = clip(product, masked * clip(factor_index, factor))
    found = clip(model.operators[1].outputs[0], clip(graph.scores, scores) + sign * found)
    found = clip(total, found + clip(bias, constants[bias]))
    np.testing.assert_allclose(probabilities(found), probabilities(values[total]), atol=1e-5)
