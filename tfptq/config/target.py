"""Targets: kinds of devices, and what their stock kernels support."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tfptq.base.arguments import check_types, one_of
from tfptq.ops.micro import MICRO_METHODS
from tfptq.ops.table import OPERATORS
from tfptq.tflite.costs import shipped_costs
from tfptq.tflite.layouts import INT8, LAYOUTS, WEIGHTS_ONLY, Computes
from tfptq.tflite.model_reader import OPERATOR_NAMES

#: Types that the inputs and outputs of a file can have by themselves.
END_TYPES = ("float32", "int8")


@dataclass(frozen=True)
class Target:
    """What the stock kernels of a kind of device support.

    Weights of 8 bits are INT8 on every target. For fewer bits, a target lists layouts for each kind of operator.
    Kernels for which none of them is possible are stored as INT8, and have 8 bits, since fewer would not be smaller.

    Attributes:
        name: for reports.
        layouts: kind of operator (``"CONV_2D"``) -> names of layouts of less than 8 bits that its kernels run fast.
        narrow_int8: keep codes of less than 8 bits that are stored as INT8, because files are compressed later, by a
            compiler or web server.
        costs: name of a table of measured latencies in the package; None if latency is not estimated.
        batch_size: 1 for files that take one sample at a time; None for any number.
        end_type: default type of inputs and outputs, ``"float32"`` or ``"int8"``.
        missing: operators for which its runtime has no kernel.
        integers_only: the device has no float arithmetic: operators in float run on another processor, or not at all.
        dynamic: layouts of kernels that quantize float activations at run time, the preferred one first; empty if the
            runtime has no such kernels.
    """

    name: str
    layouts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    narrow_int8: bool = False
    costs: str | None = None
    batch_size: int | None = None
    end_type: str = "float32"
    missing: tuple[str, ...] = ()
    integers_only: bool = False
    dynamic: tuple[str, ...] = ()

    def __post_init__(self):
        for name in ("missing", "dynamic"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        check_types(self)
        for name in self.dynamic:
            one_of("target.dynamic", name, [layout.name for layout in LAYOUTS if Computes.DYNAMIC in layout.serves])
        one_of("target.end_type", self.end_type, END_TYPES)
        one_of("target.batch_size", self.batch_size, (None, 1))
        one_of("target.costs", self.costs, (None, *shipped_costs()))
        layouts = {kind: self._layouts_of(kind, names) for kind, names in self.layouts.items()}
        object.__setattr__(self, "layouts", layouts)

    def _layouts_of(self, kind: str, names: Any) -> tuple[str, ...]:
        one_of("operator of target.layouts", kind, [name for name, row in OPERATORS.items() if row.kernel])
        if not isinstance(names, tuple | list):
            raise ValueError(f"target.layouts[{kind!r}] is {names!r}; give a tuple of names of layouts")
        for name in names:
            one_of(f"target.layouts[{kind!r}]", name, [layout.name for layout in LAYOUTS])
        return tuple(names)

    def __hash__(self) -> int:
        return hash((self.name, tuple(sorted(self.layouts.items()))))

    def layouts_for(self, operator: str, computes: Computes = Computes.INTEGER) -> tuple[str, ...]:
        """Layouts of less than 8 bits for a kind of operator, the preferred one first."""
        if computes is Computes.FLOAT:
            return (WEIGHTS_ONLY.name,)
        if computes is Computes.DYNAMIC:
            return tuple(name for name in self.dynamic if name != INT8.name)
        return self.layouts.get(operator, ())

    def to_plain(self) -> str | dict[str, Any]:
        """For JSON: the name of a shipped target, or all fields of another one."""
        if TARGETS.get(self.name) == self:
            return self.name
        plain = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        layouts = {kind: list(names) for kind, names in self.layouts.items()}
        return {**plain, "layouts": layouts, "missing": list(self.missing), "dynamic": list(self.dynamic)}

    @classmethod
    def from_plain(cls, value: Any) -> Target:
        """What ``to_plain`` wrote, or a ``Target`` itself.

        Raises:
            ValueError: no such target, or unknown fields.
        """
        if isinstance(value, Target):
            return value
        if isinstance(value, str):
            one_of("target", value, TARGETS)
            return TARGETS[value]
        if not isinstance(value, Mapping):
            raise ValueError(f"target is {value!r}; give a name ({', '.join(map(repr, TARGETS))}) or a tfptq.Target")
        known = [item.name for item in dataclasses.fields(cls)]
        for name in value:
            one_of("target field", name, known)
        if "name" not in value:
            raise ValueError(f"target is {value!r}; a target needs a name")
        return cls(**value)


_FULLY_CONNECTED = ("fully_connected_int2", "fully_connected_int4")
_XNNPACK = {"FULLY_CONNECTED": _FULLY_CONNECTED, "CONV_2D": (*_FULLY_CONNECTED, "im2col_int4")}
#: The shipped ones. ``docs/targets.md`` says what each was tried with.
TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        # XNNPACK has no INT4 convolution; its FULLY_CONNECTED reads INT4 and INT2 at the speed of INT8.
        Target("cpu", layouts=_XNNPACK, costs="cpu", dynamic=(*_FULLY_CONNECTED, "native", "int8")),
        # LiteRT.js takes a fixed batch. In WebAssembly INT4 and INT2 take 10 to 38 times the time of INT8, and codes of
        # few bits in INT8 are as small as packed ones once the file is compressed for the download.
        Target("web", narrow_int8=True, costs="web", batch_size=1, dynamic=("int8",)),
        # TFLite Micro refuses FULLY_CONNECTED with INT4 weights and a scale per channel.
        Target(
            "micro",
            layouts={"CONV_2D": ("int4",), "DEPTHWISE_CONV_2D": ("int4",)},
            batch_size=1,
            end_type="int8",
            missing=tuple(sorted({*OPERATOR_NAMES.values()} - MICRO_METHODS.keys())),
        ),
        # Vela and its like take INT8 and compress it.
        Target("npu", narrow_int8=True, batch_size=1, end_type="int8", integers_only=True),
        Target("any", narrow_int8=True, dynamic=("int8",)),
    )
}
