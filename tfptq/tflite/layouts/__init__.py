"""Layouts: the ways in which the codes of one kernel can lie in the file, each with the same weights.

One module per layout; ``tfptq.lowering.choose_layout`` chooses among them. To add one, write a subclass of ``Layout``
in a module of its own and append its instance to ``LAYOUTS``; if compilers have to know it, name it in
``docs/format.md`` and ``blocks.fbs`` first.
"""

from tfptq.tflite.layouts.base import POLICIES, Computes, KernelSite, Layout, LayoutError, LayoutRequest, WrittenKernel
from tfptq.tflite.layouts.composite import COMPOSITE
from tfptq.tflite.layouts.fully_connected import FULLY_CONNECTED_INT2, FULLY_CONNECTED_INT4
from tfptq.tflite.layouts.im2col import IM2COL_INT2, IM2COL_INT4
from tfptq.tflite.layouts.inline import INLINE
from tfptq.tflite.layouts.int4 import INT4
from tfptq.tflite.layouts.int8 import INT8
from tfptq.tflite.layouts.native import NATIVE
from tfptq.tflite.layouts.weights_only import WEIGHTS_ONLY

__all__ = [
    "COMPOSITE",
    "FULLY_CONNECTED_INT2",
    "FULLY_CONNECTED_INT4",
    "IM2COL_INT2",
    "IM2COL_INT4",
    "INLINE",
    "INT4",
    "INT8",
    "LAYOUTS",
    "NATIVE",
    "POLICIES",
    "WEIGHTS_ONLY",
    "Computes",
    "KernelSite",
    "Layout",
    "LayoutError",
    "LayoutRequest",
    "WrittenKernel",
    "layout_named",
]

#: Every layout, in the order in which messages and reports name them.
LAYOUTS: tuple[Layout, ...] = (
    *(INT8, INT4, NATIVE, INLINE, COMPOSITE),
    *(FULLY_CONNECTED_INT4, FULLY_CONNECTED_INT2, IM2COL_INT4, IM2COL_INT2, WEIGHTS_ONLY),
)
_BY_NAME = {layout.name: layout for layout in LAYOUTS}


def layout_named(name: str) -> Layout:
    """The layout of a name; raises KeyError for policies and unknown names."""
    return _BY_NAME[name]
