"""``fully_connected_int4`` and ``_int2``: dense layers and 1x1 convolutions as FULLY_CONNECTED with packed codes.

XNNPACK has INT4 and INT2 kernels for FULLY_CONNECTED, and none for convolutions. A CONV_2D with one tap computes the
same as a FULLY_CONNECTED that keeps the number of axes; rows and columns that strides leave out are left out in front
of it (``tfptq.tflite.layouts.gather``).

The built-in kernels give the codes of ``int8`` bit for bit; in the reference kernels, and in those of XNNPACK,
FULLY_CONNECTED rounds otherwise than CONV_2D, by one step at most.
"""

import dataclasses
import math

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfptq.core.blocks import WeightView
from tfptq.core.windows import Window
from tfptq.tflite.layouts.base import Computes, KernelSite, LayoutRequest, WrittenKernel
from tfptq.tflite.layouts.gather import Mover, gather, operators_to_gather
from tfptq.tflite.layouts.int4 import Int4

_KIND = "FULLY_CONNECTED"


class FullyConnectedInt4(Int4):
    """Half a byte per code, ``[O, I]``."""

    name = "fully_connected_int4"
    format_name = "FullyConnectedInt4"
    serves: tuple[Computes, ...] = (Computes.INTEGER, Computes.DYNAMIC)
    keeps_shape = False
    cost = None
    _gathers = False

    def obstacle(self, request: LayoutRequest) -> str | None:
        """Only what XNNPACK computes, and only where it keeps the whole graph."""
        problem = super().obstacle(request) or self._window_obstacle(request)
        if problem is not None:
            return problem
        if (request.view_shape[2] > 1 or _moves(request.window)) and -1 in (request.input_sizes[1:] or (-1,)):
            return f"height and width of its input are open ({request.input_sizes}), and it needs them to pick from it"
        products, in_byte = math.prod(request.view_shape[1:]), 8 // self.width
        if products % in_byte:
            return (
                f"an output sums {products} products, and XNNPACK reads INT{self.width} kernels of a multiple of "
                f"{in_byte} only"
            )
        return None

    def symmetric(self, weight_bits: int, computes: Computes) -> bool:
        """The built-in kernel of TF 2.21 and LiteRT 2.3 that quantizes activations computes garbage from INT4 -8."""
        return computes is Computes.DYNAMIC and weight_bits == self.width == 4

    def operators_in_front(self, request: LayoutRequest) -> int:
        """Those that bring together what an output reads."""
        if request.operator == _KIND or not _moves(request.window):
            return 0
        return operators_to_gather(request.input_sizes, request.window)

    def _window_obstacle(self, request: LayoutRequest) -> str | None:
        """Only operators that are a product of matrices."""
        if request.operator not in (_KIND, "CONV_2D") or request.window.groups > 1:
            return f"{'a grouped ' * (request.window.groups > 1)}{request.operator} is no {_KIND}"
        if request.view_shape[2] > 1:
            return f"its kernel has {request.view_shape[2]} taps, which the layout im2col_int{self.width} gathers"
        return None

    def _reader(self, operator: str) -> str:
        return _KIND

    def write(self, site: KernelSite, earlier: WrittenKernel | None = None) -> WrittenKernel:
        """One constant for all uses; a FULLY_CONNECTED takes the place of a convolution."""
        if site.model.operator_name(site.operator) == _KIND:
            return super().write(site, earlier)
        _, bias_at, input_at = site.model.spec(site.operator).weights
        mover = Mover(site.model, site.operator.inputs[input_at])
        source = gather(mover, site.window) if _moves(site.window) else mover.source
        options = schema.FullyConnectedOptionsT(
            fusedActivationFunction=site.operator.builtinOptions.fusedActivationFunction, keepNumDims=True
        )
        inputs = [source, site.operator.inputs[site.kernel_at], *site.operator.inputs[bias_at:]]
        reader = site.model.new_operator(_KIND, inputs, site.operator.outputs, options=options)
        written = super().write(dataclasses.replace(site, operator=reader, kernel_at=1), earlier)
        return dataclasses.replace(written, operators=[*mover.operators, reader], moved=mover.moved)

    def fits_shape(self, stored: tuple[int, ...], shape: tuple[int, ...]) -> bool:
        """``[O, elements of one output]``."""
        return stored == (shape[0], math.prod(shape[1:]))

    def operator_obstacle(self, operator: str, view: WeightView) -> str | None:
        """FULLY_CONNECTED, which may stand in the place of a convolution."""
        if operator != _KIND:
            return f"{operator} does not read the layout {self.name}"
        in_place_of = _KIND if len(view.shape) == 2 else "CONV_2D"
        problem = super().operator_obstacle(in_place_of, view)
        if problem is None and (view.view_shape[2] > 1) != self._gathers:
            return f"a kernel of shape {view.shape} does not lie in the layout {self.name}"
        return problem

    def _in_tensor_shape(self, kernel: np.ndarray) -> np.ndarray:
        """Output channels, and all else in the order that it has."""
        return kernel.reshape(len(kernel), -1)

    def _tensor_scales(self, scales: np.ndarray) -> np.ndarray:
        """All of them: XNNPACK takes no INT2 kernel with one scale for all outputs, and in tf.lite no INT4 kernel."""
        return scales


class FullyConnectedInt2(FullyConnectedInt4):
    """A quarter of a byte per code, ``[O, I]``."""

    name = "fully_connected_int2"
    format_name = "FullyConnectedInt2"
    tensor_types = ("INT2",)
    width = 2


def _moves(window: Window) -> bool:
    """Whether something has to be done to the input of a convolution before a product of matrices."""
    return window.taps > 1 or max(window.strides) > 1


FULLY_CONNECTED_INT4 = FullyConnectedInt4()
FULLY_CONNECTED_INT2 = FullyConnectedInt2()
