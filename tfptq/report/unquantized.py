"""Layers whose weights were not fitted by their config, where they compute, and why."""

from collections.abc import Sequence

import keras

from tfptq.float_file.kernel import KernelId
from tfptq.float_file.layer_operators import operators_of_layers, reads_weights
from tfptq.layers import is_weighted, supports
from tfptq.report.outcome import Outcome
from tfptq.report.values import SkippedLayer


def unquantized_layers(outcome: Outcome) -> tuple[tuple[SkippedLayer, ...], tuple[SkippedLayer, ...]]:
    """Layers whose weights were not fitted by their config: those that compute in float, and those on integers."""
    operators = operators_of_layers(outcome.float_file, outcome.model)
    float_reasons = {tensor: reason for _, tensor, reason in outcome.plan.float_operators}
    looked_up = {table.layer for table in outcome.tables}
    in_float: list[SkippedLayer] = []
    on_integers: list[SkippedLayer] = []
    for layer in outcome.model.layers:
        keys = [key for key in outcome.weights if key.layer == layer.name]
        if layer.name in looked_up or not is_weighted(layer) or (keys and outcome.written.issuperset(keys)):
            continue
        results = _results_without_fitted_kernels(outcome, layer.name, keys, operators[layer.name])
        if operators[layer.name] and not results:  # all its kernels were fitted, by names of their own
            continue
        reasons = [float_reasons[result] for result in results if result in float_reasons]
        cause = _cause(outcome, layer, keys, reasons) + _where_computed(len(results), len(reasons))
        is_float = bool(reasons) if results else _unknown_operators_are_likely_float(outcome)
        (in_float if is_float else on_integers).append(SkippedLayer(layer.name, type(layer).__name__, cause))
    return tuple(in_float), tuple(on_integers)


def _results_without_fitted_kernels(
    outcome: Outcome, layer: str, keys: Sequence[KernelId], positions: Sequence[int]
) -> tuple[str, ...]:
    """Names of what the operators of a layer write that hold none of its fitted weights.

    Args:
        outcome: what the pipeline knows.
        layer: name of the layer.
        keys: its weights that the registry knows.
        positions: positions of its operators.
    """
    model = outcome.float_file.model
    own = [it for it in outcome.kernels if it.id in keys or not it.id.layer or (not keys and it.id.layer == layer)]
    fitted = {use.operator for kernel in own for use in kernel.uses}
    others = [position for position in positions if position not in fitted]
    with_weights = [position for position in others if reads_weights(model, position)]
    return tuple(model.name(model.operators[position].outputs[0]) for position in with_weights or others)


def _cause(
    outcome: Outcome,
    layer: keras.Layer,
    keys: Sequence[KernelId],
    float_reasons: Sequence[str],
) -> str:
    """Why the weights of a layer were not fitted by its config.

    Args:
        outcome: what the pipeline knows.
        layer: the layer.
        keys: its weights.
        float_reasons: why operators of the layer compute in float.
    """
    if outcome.config.for_layer(layer.name).skip:
        return "the config skips it"
    if outcome.config.for_layer(layer.name).keeps_weights:
        return "its weights are float16"
    if any(kernel.id.layer == layer.name for kernel in outcome.float_file.kernels) and not keys:
        return ", ".join(dict.fromkeys(float_reasons))
    if not supports(layer):
        return f"tfptq has no quantization for {type(layer).__name__}"
    found = {kernel.id for kernel in outcome.float_file.kernels}
    lost = [key.name for key in keys if key not in found]
    if lost:
        which = "its weights" if len(lost) == len(keys) else f"its {', '.join(lost)}"
        return f"the converter changed {which} beyond recognition"
    return ", ".join(dict.fromkeys(float_reasons))


def _where_computed(operators: int, in_float: int) -> str:
    """What the cause leaves open about so many operators of a layer, of which so many compute in float."""
    if not operators:
        return "; the file names no operator after it"
    if not in_float:
        return "; its constants are integers that no config was fitted to"
    if in_float < operators:
        return f"; {in_float} of its {operators} operators compute in float, the others on integers"
    return ""


def _unknown_operators_are_likely_float(outcome: Outcome) -> bool:
    """Whether a layer whose operators are not known is rather among the float ones.

    It is a guess: there are float operators, and no integer kernel without a Keras weight, which could be the layer's.
    """
    return bool(outcome.plan.float_operators) and all(kernel.id.layer is not None for kernel in outcome.kernels)
