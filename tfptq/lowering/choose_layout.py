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
from tfptq.float_file.kernel import Kernel, KernelUse
from tfptq.tflite.layouts import (
    INLINE,
    INT8,
    LAYOUTS,
    POLICIES,
    Computes,
    Layout,
    LayoutError,
    LayoutRequest,
    layout_named,
)
from tfptq.tflite.model import TFLiteModel


@dataclass(frozen=True)
class LayoutPlan:
    """Layouts that a kernel may get.

    Attributes:
        candidates: best first; all compute on the same. The first that holds the fitted weight is taken.
        alternatives: names of all layouts that the kernel could have whatever its codes will be, for messages.
    """

    candidates: tuple[Layout, ...]
    alternatives: tuple[str, ...] = ()

    @property
    def computes(self) -> Computes:
        """What the operator will compute on."""
        return self.candidates[0].computes


def plan_layout(layer: str, config: QuantizationConfig, requests: Sequence[LayoutRequest]) -> LayoutPlan:
    """Layouts of a layer as far as they are known before its weights are fitted.

    Args:
        layer: name of the layer, for messages.
        config: config of the layer.
        requests: what is known of each use of its kernel.

    Raises:
        LayoutError: the config names a layout that the layer cannot have.
    """
    alternatives = tuple(layout.name for layout in LAYOUTS if all(_is_sure(layout, each) for each in requests))
    if config.layout in POLICIES:
        return LayoutPlan(_preferred(config.target, requests), alternatives)
    layout = layout_named(config.layout)
    problem = _obstacle(layout, requests)
    if problem:
        raise _error(layer, layout, problem, alternatives)
    return LayoutPlan((layout,), alternatives)


def layout_requests(config: QuantizationConfig, model: TFLiteModel, kernel: Kernel) -> list[LayoutRequest]:
    """What a layout has to know of each use of a kernel; of uses that are alike, once."""
    return list(dict.fromkeys(layout_request(config, model, use) for use in kernel.uses))


def layout_request(config: QuantizationConfig, model: TFLiteModel, use: KernelUse) -> LayoutRequest:
    """What a layout has to know of one use of a kernel in a float file."""
    view_shape = use.view.view_shape
    return LayoutRequest(
        model.operator_name(model.operators[use.operator]),
        view_shape,
        config.granularity.block_shape(*view_shape[:2]),
        config.scaler,
        config.weight_bits,
        config.device_activation_bits,
        is_shift_scaler=config.is_shift_scaler,
        window=use.window,
        input_sizes=tuple(model.sizes(use.input)),
    )


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


def _preferred(target: Target, requests: Sequence[LayoutRequest]) -> tuple[Layout, ...]:
    """The layouts of a target, best first: the smallest for few bits, then INT8, then what computes in float."""
    names = [target.layouts_for(request.operator) if request.weight_bits < 8 else () for request in requests]
    narrow = [layout for layout in LAYOUTS if all(layout.name in each for each in names)]
    narrow.sort(key=lambda layout: layout.code_bits(requests[0].weight_bits))
    possible = [layout for layout in (*narrow, INT8, INLINE) if _obstacle(layout, requests) is None]
    return tuple(layout for layout in possible if layout.computes is possible[0].computes)


def _error(layer: str, layout: Layout, problem: str, alternatives: tuple[str, ...]) -> LayoutError:
    possible = ", ".join(map(repr, alternatives))
    return LayoutError(f"layer {layer!r} cannot have the layout {layout.name!r}: {problem}; it can have {possible}")
