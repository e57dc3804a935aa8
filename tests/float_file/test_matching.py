import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from float_files import FloatModel, convolution

from tfptq.float_file.matching import bind_weights, layers_in_names
from tfptq.ops.table import OPERATORS

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(5, 3, 2, 4)).astype(np.float32)  # [O, kh, kw, I]
VIEW = OPERATORS["CONV_2D"].kernel_view(KERNEL.shape).to_view(KERNEL)  # [O, I, T]


def bound(kernel, weights):
    graph = FloatModel()
    x = graph.input("x", (1, 8, 8, kernel.shape[3]))
    (binding,) = bind_weights(graph.finish(convolution(graph, x, kernel)), weights)
    return binding


def test_equal_views_are_found():
    binding = bound(KERNEL, {("other", "kernel"): VIEW + 1, ("conv", "kernel"): VIEW})
    assert binding.key == ("conv", "kernel")
    assert binding.row_factors is None
    assert binding.bias >= 0
    np.testing.assert_array_equal(binding.view.to_view(KERNEL), VIEW)


def test_the_first_of_equal_weights_wins():
    assert bound(KERNEL, {("a", "kernel"): VIEW, ("b", "kernel"): VIEW.copy()}).key == ("a", "kernel")


def test_other_orders_of_axes_are_found():
    """A kernel whose taps the file holds as input channels."""
    weight = np.ascontiguousarray(VIEW.reshape(5, 4, 3, 2).transpose(0, 2, 1, 3)).reshape(5, 3, 8)
    binding = bound(KERNEL, {("conv", "kernel"): weight})
    assert binding.key == ("conv", "kernel")
    np.testing.assert_array_equal(binding.view.to_view(KERNEL), weight)
    np.testing.assert_array_equal(binding.view.from_view(weight), KERNEL)


@pytest.mark.parametrize("factors", [np.full(5, 3.0), np.array([1.0, -2.0, 0.5, 100.0, 1e-3])])
def test_factors_for_each_output_channel_are_found(factors):
    factors = factors.astype(np.float32)
    binding = bound(KERNEL * factors[:, None, None, None], {("conv", "kernel"): VIEW})
    assert binding.key == ("conv", "kernel")
    np.testing.assert_allclose(binding.row_factors, factors, rtol=1e-5)


def test_a_changed_weight_is_nobodys():
    changed = KERNEL.copy()
    changed[0, 0, 0, 0] *= 1.01
    assert bound(changed, {("conv", "kernel"): VIEW}).key is None


def test_a_channel_of_zeros_takes_no_factor():
    """Its factor could be anything, so the kernel is matched only if it is equal."""
    dead = VIEW.copy()
    dead[2] = 0.0
    kernel = KERNEL.copy()
    kernel[2] = 0.0
    assert bound(kernel, {("conv", "kernel"): dead}).key == ("conv", "kernel")
    assert bound(2 * kernel, {("conv", "kernel"): dead}).key is None


def test_kernels_that_are_computed_have_no_binding():
    graph = FloatModel()
    x, kernel = graph.input("x", (1, 4)), graph.input("kernel", (3, 4))
    y = graph.add("FULLY_CONNECTED", [x, kernel], (1, 3), options=schema.FullyConnectedOptionsT())
    assert bind_weights(graph.finish(y), {}) == []


def test_of_several_multiples_the_name_decides():
    """Kernels with one weight in each row are multiples of each other."""
    rows = KERNEL[:, :1, :1, :1]
    graph = FloatModel()
    x = graph.input("x", (1, 8, 8, 1))
    file = graph.finish(convolution(graph, x, 2 * rows, name="net/b_1/convolution"))
    weights = {(name, "kernel"): factor * rows.reshape(5, 1, 1) for name, factor in {"a": 1.0, "b": 3.0}.items()}
    (binding,) = bind_weights(file, weights)
    assert binding.key == ("b", "kernel")
    np.testing.assert_allclose(binding.row_factors, 2 / 3, rtol=1e-6)


@pytest.mark.parametrize("numbered", [True, False])
def test_layers_that_tensors_are_named_after(numbered):
    suffix = "_1" if numbered else ""
    names = [f"net/conv{suffix}/Relu;net/conv{suffix}/add", f"net/conv_1{suffix}/add", f"net/head{suffix}/x", "out:0"]
    found = layers_in_names(names, ["conv", "conv_1", "head", "add", "x", "other"])
    assert found == [{"conv"}, {"conv_1"}, {"head"}, set()]


@pytest.mark.parametrize(
    ("operator", "shape", "view"),
    [
        ("CONV_2D", (5, 3, 2, 4), (5, 4, 6)),
        ("TRANSPOSE_CONV", (5, 3, 2, 4), (5, 4, 6)),
        ("DEPTHWISE_CONV_2D", (1, 3, 2, 4), (4, 1, 6)),
        ("FULLY_CONNECTED", (5, 4), (5, 4, 1)),
    ],
)
def test_views_of_all_operators(operator, shape, view):
    assert OPERATORS[operator].kernel_view(shape).view_shape == view
