"""Choose the layout of a layer.

Whether a layout holds the weights exactly follows from the config of the layer, its operator and its shape alone, but
for questions that the codes decide, such as whether all codes times multipliers fit 4 bits. So ``plan_layout`` decides
before weights are fitted whether the layer computes in integers, and ``settle_layout`` the rest afterwards.

The target of the config says which layouts its kernels run well. Integer computation is not traded for bytes, since a
layer that could run on an integer device would become one that cannot.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tfptq.config import QuantizationConfig, Target
from tfptq.core.blocks import QuantizedWeight
from tfptq.tflite.layouts import (
    INLINE,
    INT8,
    LAYOUTS,
    POLICIES,
    WEIGHTS_ONLY,
    Computes,
    Layout,
    LayoutError,
    LayoutRequest,
    layout_named,
)


@dataclass(frozen=True)
class LayoutPlan:
    """Layouts that a kernel may get.

    Attributes:
        candidates: best first. The first that holds the fitted weight is taken.
        computes: what the operator will compute on.
        alternatives: names of all layouts that the kernel could have whatever its codes will be, for messages.
    """

    candidates: tuple[Layout, ...]
    computes: Computes = Computes.INTEGER
    alternatives: tuple[str, ...] = ()


def plan_layout(layer: str, config: QuantizationConfig, requests: Sequence[LayoutRequest]) -> LayoutPlan:
    """Layouts of a layer as far as they are known before its weights are fitted.

    Args:
        layer: name of the layer, for messages.
        config: config of the layer.
        requests: what is known of each use of its kernel.

    Raises:
        LayoutError: the config names a layout that the layer cannot have.
    """
    wanted = requests[0].computes
    sure = [layout for layout in LAYOUTS if all(_is_sure(layout, each) for each in requests)]
    alternatives = tuple(layout.name for layout in sure if _computes(layout, wanted) is not None)
    if config.layout in POLICIES:
        candidates, computes = _preferred(config.target, requests)
        return LayoutPlan(candidates, computes, alternatives)
    layout = layout_named(config.layout)
    problem, found = _obstacle(layout, requests), _computes(layout, wanted)
    if problem is None and found is None:
        problem = f"its operators compute on integers alone, and activations={config.activations!r}"
    if problem is not None or found is None:
        raise _error(layer, layout, problem or "", alternatives)
    return LayoutPlan((layout,), found, alternatives)


def _computes(layout: Layout, wanted: Computes) -> Computes | None:
    """What operators of a layout that is asked for by name compute on: what is wanted, else what they can but integers.

    None where they compute on integers alone, which would need grids.
    """
    if wanted in layout.serves:
        return wanted
    return next((found for found in layout.serves if found is not Computes.INTEGER), None)


def settle_layout(layer: str, plan: LayoutPlan, weight: QuantizedWeight) -> Layout:
    """Layout of a layer whose weights are known.

    Raises:
        LayoutError: no candidate can hold the weight.
    """
    problems = []
    for layout in plan.candidates:
        problem = layout.obstacle_of(weight)
        if problem is None:
            return layout
        problems.append(problem)
    raise _error(layer, plan.candidates[-1], problems[-1], plan.alternatives)


def _obstacle(layout: Layout, requests: Iterable[LayoutRequest]) -> str | None:
    """Why some use of a kernel cannot have a layout."""
    return next(filter(None, map(layout.obstacle, requests)), None)


def _is_sure(layout: Layout, request: LayoutRequest) -> bool:
    """Whether a layout can hold a kernel whatever its codes will be."""
    return layout.obstacle(request) is None and not layout.depends_on_codes(request)


def _preferred(target: Target, requests: Sequence[LayoutRequest]) -> tuple[tuple[Layout, ...], Computes]:
    """The layouts of a target, best first, and what they compute on.

    The smallest for few bits, then INT8; then what computes in float, unpacked when the file is loaded or at run time.
    """
    wanted = requests[0].computes
    names = [target.layouts_for(request.operator, wanted) if request.weight_bits < 8 else () for request in requests]
    narrow = [layout_named(name) for name in names[0] if all(name in each for each in names)]
    narrow.sort(key=lambda layout: layout.code_bits(requests[0].weight_bits))
    in_order = [(layout, wanted) for layout in (*narrow, INT8) if wanted in layout.serves]
    if wanted is not Computes.INTEGER:
        in_order.append((WEIGHTS_ONLY, Computes.FLOAT))
    in_order.append((INLINE, Computes.FLOAT))
    possible = [
        (layout, computes) for layout, computes in dict.fromkeys(in_order) if _obstacle(layout, requests) is None
    ]
    _, first = possible[0]
    return tuple(layout for layout, computes in possible if computes is first), first


def _error(layer: str, layout: Layout, problem: str, alternatives: tuple[str, ...]) -> LayoutError:
    possible = ", ".join(map(repr, alternatives))
    return LayoutError(f"layer {layer!r} cannot have the layout {layout.name!r}: {problem}; it can have {possible}")
