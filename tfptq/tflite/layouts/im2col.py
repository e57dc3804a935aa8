"""``im2col_int4`` and ``_int2``: k x k convolutions gathered into FULLY_CONNECTED with packed codes.

Copies of the input, one for each tap, are put side by side as channels (``tfptq.tflite.layouts.gather``), and a
FULLY_CONNECTED ``[O, taps * I]`` computes what the convolution would. The copies cost time, most where there are few
channels: the layout is for those who want the bytes.
"""

from tfptq.tflite.layouts.base import Computes, LayoutRequest
from tfptq.tflite.layouts.fully_connected import FullyConnectedInt2, FullyConnectedInt4


class Im2colInt4(FullyConnectedInt4):
    """Half a byte per code, ``[O, taps * I]``."""

    serves = (Computes.INTEGER,)
    name = "im2col_int4"
    format_name = "Im2colInt4"
    _gathers = True

    def _window_obstacle(self, request: LayoutRequest) -> str | None:
        return _gathers_nothing(self.width, request)


class Im2colInt2(FullyConnectedInt2):
    """A quarter of a byte per code, ``[O, taps * I]``."""

    serves = (Computes.INTEGER,)
    name = "im2col_int2"
    format_name = "Im2colInt2"
    _gathers = True

    def _window_obstacle(self, request: LayoutRequest) -> str | None:
        return _gathers_nothing(self.width, request)


def _gathers_nothing(width: int, request: LayoutRequest) -> str | None:
    """Why there is nothing to gather, or no way to."""
    if request.operator != "CONV_2D" or request.window.groups > 1:
        grouped = "a grouped " if request.window.groups > 1 else ""
        return f"{grouped}{request.operator} is no CONV_2D that can be gathered"
    if request.view_shape[2] == 1:
        return f"its kernel has one tap, which the layout fully_connected_int{width} takes without gathering"
    return None


IM2COL_INT4 = Im2colInt4()
IM2COL_INT2 = Im2colInt2()
