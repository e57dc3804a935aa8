"""What layouts cost at run time, as ``benchmarks/layout_costs.py`` has measured it.

A table holds, for one kind of operator with so many taps and one stride, the time of the layout ``int8`` and the ratios
of other layouts to it over input channels, output channels and positions of the output. Between its points, logarithms
are interpolated.
"""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

from tfptq.tflite.layouts import INT8, Layout, LayoutRequest

#: What an open height or width of an input is taken for.
OPEN_SIZE = 14
#: Kinds that were not measured -> kinds that do as much work: on the output, on each step of a sequence.
_ALIKE = {"TRANSPOSE_CONV": "CONV_2D", "UNIDIRECTIONAL_SEQUENCE_LSTM": "FULLY_CONNECTED"}


@dataclass(frozen=True, eq=False)
class CostTable:
    """Measured costs of one kind of operator.

    Attributes:
        operator: its kind.
        taps: of its kernel.
        stride: along both axes.
        points: input channels, output channels and positions that were measured, each ascending.
        microseconds: ``[inputs, outputs, positions]``, in the layout ``int8``, on one thread.
        ratios: name of a layout -> ``[inputs, outputs, positions]``, times of ``int8``.
    """

    operator: str
    taps: int
    stride: int
    points: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    microseconds: np.ndarray
    ratios: Mapping[str, np.ndarray]

    @classmethod
    def from_json(cls, entry: Mapping) -> "CostTable":
        """A table as the benchmark writes it."""
        points = tuple(entry["inputs"]), tuple(entry["outputs"]), tuple(entry["positions"])
        shape = tuple(map(len, points))
        ratios = {name: np.reshape(values, shape) for name, values in entry["ratios"].items()}
        microseconds = np.reshape(entry["microseconds"], shape)
        return cls(entry["operator"], entry["taps"], entry["stride"], points, microseconds, ratios)

    def interpolate(self, values: np.ndarray, at: Sequence[float]) -> float:
        """A value between the points, or that of the nearest ones outside of them."""
        corners = [_neighbours(points, wanted) for points, wanted in zip(self.points, at, strict=True)]
        terms = (
            math.prod(share for _, share in corner) * math.log(values[tuple(index for index, _ in corner)])
            for corner in itertools.product(*corners)
        )
        return math.exp(sum(terms))

    def beyond(self, at: Sequence[float]) -> float:
        """How many times the work of the largest points lies outside of them."""
        return math.prod(max(wanted / points[-1], 1.0) for points, wanted in zip(self.points, at, strict=True))


def _neighbours(points: Sequence[int], wanted: float) -> list[tuple[int, float]]:
    """(index, share) of the points around a number; shares are those of logarithms."""
    place = float(np.interp(math.log(wanted), np.log(points), np.arange(len(points))))
    low = min(int(place), max(len(points) - 2, 0))
    return [(low, 1.0)] if len(points) == 1 else [(low, 1.0 - (place - low)), (low + 1, place - low)]


@dataclass(frozen=True, eq=False)
class Costs:
    """The tables of one target."""

    tables: tuple[CostTable, ...]

    def ratio(self, layout: Layout, request: LayoutRequest) -> float:
        """Time of a layout as a multiple of that of ``int8``; infinite where it was not measured."""
        if layout.name == INT8.name:
            return 1.0
        table = self._nearest(request, layout.name)
        return math.inf if table is None else table.interpolate(table.ratios[layout.name], _place(request))

    def microseconds(self, request: LayoutRequest) -> float:
        """Time of the layout ``int8`` for one sample on one thread of the machine that was measured.

        A TRANSPOSE_CONV counts as the convolution of its output, a recurrent layer as dense layers on each step; other
        kernels than the measured ones by their taps.
        """
        table = self._nearest(request)
        if table is None:
            raise ValueError(f"there is no measured time of a {request.operator}")
        at, taps = _place(request), request.view_shape[2] / table.taps
        return table.interpolate(table.microseconds, at) * table.beyond(at) * taps

    def _nearest(self, request: LayoutRequest, layout: str | None = None) -> CostTable | None:
        """The table of the operator whose taps and strides are most alike, among those that know a layout."""
        operator = _ALIKE.get(request.operator, request.operator)
        able = [it for it in self.tables if it.operator == operator and (layout is None or layout in it.ratios)]
        taps, stride = request.view_shape[2], max(request.window.strides)

        def distance(table: CostTable) -> tuple[bool, bool, int]:
            return (table.taps == 1) != (taps == 1), (table.stride == 1) != (stride == 1), -table.microseconds.size

        return min(able, key=distance, default=None)


def _place(request: LayoutRequest) -> tuple[float, float, float]:
    """Input channels, output channels and positions of the output of one sample."""
    outputs, inputs, _ = request.view_shape
    sizes = [OPEN_SIZE if size < 0 else size for size in request.input_sizes[1:-1]]
    if _ALIKE.get(request.operator, request.operator) != "FULLY_CONNECTED":
        sizes = [request.window.output_size(size, axis) for axis, size in enumerate(sizes)]
    return inputs, outputs, max(math.prod(sizes), 1)


@cache
def shipped_costs() -> tuple[str, ...]:
    """Names of the tables that the package has."""
    files = (resources.files("tfptq.tflite") / "cost_tables").iterdir()
    return tuple(sorted(file.name.removesuffix(".json") for file in files if file.name.endswith(".json")))


@cache
def load_costs(name: str) -> Costs:
    """The costs of a target, such as ``"cpu"``: the file of its name in ``cost_tables``."""
    text = (resources.files("tfptq.tflite") / "cost_tables" / f"{name}.json").read_text(encoding="utf-8")
    return Costs(tuple(map(CostTable.from_json, json.loads(text)["tables"].values())))
