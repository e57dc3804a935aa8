import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from float_files import FloatModel, convolution, kernels_of

from tfptq.core.windows import Window
from tfptq.float_file.kernel import KernelId
from tfptq.float_file.matching import WeightFinder, find_kernels, layers_in_names
from tfptq.ops.table import OPERATORS

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(5, 3, 2, 4)).astype(np.float32)  # [O, kh, kw, I]
VIEW = OPERATORS["CONV_2D"].kernel_view(KERNEL.shape).to_view(KERNEL)  # [O, I, T]
CONV, NOBODYS = KernelId("conv", "kernel"), KernelId(None, "conv")


def found(constant, weights):
    """(the kernel of a convolution, its use)."""
    graph = FloatModel()
    x = graph.input("x", (1, 8, 8, constant.shape[3]))
    (kernel,) = kernels_of(graph.finish(convolution(graph, x, constant)), weights)
    (use,) = kernel.uses
    return kernel, use


def test_equal_views_are_found():
    kernel, use = found(KERNEL, {KernelId("other", "kernel"): VIEW + 1, CONV: VIEW})
    assert kernel.id == CONV
    assert kernel.shape == VIEW.shape == (5, 4, 6)
    assert use.row_factors is None
    np.testing.assert_array_equal(use.bias, np.zeros(5, np.float32))
    np.testing.assert_array_equal(kernel.values, VIEW)
    np.testing.assert_array_equal(use.view.to_view(KERNEL), VIEW)
    assert use.window == Window((3, 2), (1, 1), (1, 1), "valid")


def test_the_first_of_equal_weights_wins():
    kernel, _ = found(KERNEL, {KernelId("a", "kernel"): VIEW, KernelId("b", "kernel"): VIEW.copy()})
    assert kernel.id == ("a", "kernel")


def test_kernels_have_the_values_that_they_shall_have():
    """They are found by the values of the finder, which may be perturbed ones."""
    graph = FloatModel()
    x = graph.input("x", (1, 8, 8, 4))
    model = graph.finish(convolution(graph, x, KERNEL))
    (kernel,) = find_kernels(model, WeightFinder({CONV: VIEW}), {CONV: VIEW.astype(np.float64) + 1})
    assert kernel.values.dtype == np.float32
    np.testing.assert_array_equal(kernel.values, VIEW + 1)


def test_other_orders_of_axes_are_found():
    """A kernel whose taps the file holds as input channels."""
    weight = np.ascontiguousarray(VIEW.reshape(5, 4, 3, 2).transpose(0, 2, 1, 3)).reshape(5, 3, 8)
    kernel, use = found(KERNEL, {CONV: weight})
    assert kernel.id == CONV
    np.testing.assert_array_equal(kernel.values, weight)
    np.testing.assert_array_equal(use.view.to_view(KERNEL), weight)
    np.testing.assert_array_equal(use.view.from_view(weight), KERNEL)


@pytest.mark.parametrize("factors", [np.full(5, 3.0), np.array([1.0, -2.0, 0.5, 100.0, 1e-3])])
def test_factors_for_each_output_channel_are_found(factors):
    factors = factors.astype(np.float32)
    kernel, use = found(KERNEL * factors[:, None, None, None], {CONV: VIEW})
    assert kernel.id == CONV
    np.testing.assert_allclose(use.row_factors, factors, rtol=1e-5)
    np.testing.assert_array_equal(kernel.values, VIEW)
    np.testing.assert_allclose(use.view.from_view(use.stored_values(VIEW)), KERNEL * factors[:, None, None, None], 1e-5)


def test_a_changed_weight_is_nobodys():
    changed = KERNEL.copy()
    changed[0, 0, 0, 0] *= 1.01
    kernel, use = found(changed, {CONV: VIEW})
    assert kernel.id == NOBODYS
    np.testing.assert_array_equal(use.view.from_view(kernel.values), changed)


def test_a_channel_of_zeros_takes_no_factor():
    """Its factor could be anything, so the kernel is matched only if it is equal."""
    dead = VIEW.copy()
    dead[2] = 0.0
    kernel = KERNEL.copy()
    kernel[2] = 0.0
    assert found(kernel, {CONV: dead})[0].id == CONV
    assert found(2 * kernel, {CONV: dead})[0].id == NOBODYS


def test_uses_of_a_kernel_are_together_in_the_order_of_their_first():
    graph = FloatModel()
    x = graph.input("x", (1, 8, 8, 4))
    first, other = (graph.constant(name, KERNEL + add) for name, add in (("first", 0.0), ("other", 1.0)))
    bias = graph.constant("bias", np.zeros(5, np.float32))
    options = schema.Conv2DOptionsT(padding=schema.Padding.VALID, strideW=1, strideH=1)
    outputs = [
        graph.add("CONV_2D", [x, constant, bias], (1, 6, 7, 5), options=options) for constant in (first, other, first)
    ]
    kernels = kernels_of(graph.finish(*outputs), {CONV: VIEW + 1.0})
    assert [kernel.id for kernel in kernels] == [KernelId(None, "first"), CONV]
    assert [[use.operator for use in kernel.uses] for kernel in kernels] == [[0, 2], [1]]
    assert [[use.output for use in kernel.uses] for kernel in kernels] == [[outputs[0], outputs[2]], [outputs[1]]]
    assert {use.tensor for use in kernels[0].uses} == {first}


def test_constants_that_are_computed_are_no_kernels():
    graph = FloatModel()
    x, kernel = graph.input("x", (1, 4)), graph.input("kernel", (3, 4))
    y = graph.add("FULLY_CONNECTED", [x, kernel], (1, 3), options=schema.FullyConnectedOptionsT())
    assert kernels_of(graph.finish(y)) == ()


def test_of_several_multiples_the_name_decides():
    """Kernels with one weight in each row are multiples of each other."""
    rows = KERNEL[:, :1, :1, :1]
    graph = FloatModel()
    x = graph.input("x", (1, 8, 8, 1))
    file = graph.finish(convolution(graph, x, 2 * rows, name="net/b_1/convolution"))
    factors = {"a": 1.0, "b": 3.0}
    (kernel,) = kernels_of(file, {KernelId(name, "kernel"): by * rows.reshape(5, 1, 1) for name, by in factors.items()})
    assert kernel.id == ("b", "kernel")
    np.testing.assert_allclose(kernel.uses[0].row_factors, 2 / 3, rtol=1e-6)


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
