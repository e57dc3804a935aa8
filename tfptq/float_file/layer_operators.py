"""Layers that the config leaves in float, and the operators of the file that compute them.

The operators of a layer are those with its kernels. The converter may change kernels beyond recognition, or a layer
may be one that tfptq does not know; then they are those whose results are named after it.
"""

import keras

from tfptq.config import QuantizationConfig, override
from tfptq.float_file.float_file import FloatFile
from tfptq.float_file.matching import layers_in_names
from tfptq.float_file.operator_names import OperatorNames
from tfptq.layers import is_weighted
from tfptq.tflite.model import TFLiteModel


def operators_of_layers(float_file: FloatFile, model: keras.Model) -> dict[str, tuple[int, ...]]:
    """Name of each layer with weights -> positions of the operators that compute it.

    They are those with its kernels, and those that are named after it and have constants which may be weights but match
    no Keras weight; where there are none, all named after it.
    """
    found: dict[str, set[int]] = {layer.name: set() for layer in model.layers if is_weighted(layer)}
    named = _layers_of_operators(float_file, model)
    for kernel in float_file.kernels:
        for use in kernel.uses:
            for layer in named[use.operator] if kernel.id.layer is None else {kernel.id.layer}:
                found.setdefault(layer, set()).add(use.operator)
    taken = set().union(*found.values())
    for at, layers in enumerate(named):
        if at not in taken and reads_weights(float_file.model, at):
            for layer in layers:
                found[layer].add(at)
    for layer in [layer for layer, positions in found.items() if not positions]:
        found[layer].update(at for at, layers in enumerate(named) if layer in layers and at not in taken)
    return {layer: tuple(sorted(positions)) for layer, positions in found.items()}


def reads_weights(file: TFLiteModel, at: int) -> bool:
    """Whether the operator at a position reads a float constant with two axes or more."""
    constants = filter(file.is_constant, file.operators[at].inputs)
    return any(file.is_float(index) and len(file.shape(index)) >= 2 for index in constants)


def skipped_operators(
    float_file: FloatFile, model: keras.Model, config: QuantizationConfig, names: OperatorNames
) -> dict[int, str]:
    """Operators that the config leaves in float, with the reason.

    Raises:
        ValueError: the operators of a layer that the config skips cannot be told from others; or a pattern of ``tail``
            covers no tensor.
    """
    skipped = _behind_tail(config, names)
    for item in config.overrides:
        skip = dict(item.changes).get("skip")
        if skip is not None:
            for at in names.operators(item):
                if skip:
                    skipped.setdefault(at, f"the config skips {item.pattern!r}")
                else:
                    skipped.pop(at, None)
    for layer, positions in operators_of_layers(float_file, model).items():
        own = config.for_layer(layer)
        if not own.keeps_weights:
            continue
        if not positions and config.on_integers:
            raise ValueError(
                f"the config skips layer {layer!r} ({type(model.get_layer(layer)).__name__}), but the converted file "
                "has neither its weights nor an operator of its name, so that it cannot be left in float; drop the "
                "override, or skip other layers"
            )
        reason = f"the config skips layer {layer!r}" if own.skip else f"layer {layer!r} has float16 weights"
        skipped.update(dict.fromkeys(positions, reason))
    for kernel in float_file.kernels:
        own = config.for_layer(kernel.id.owner)
        if own.keeps_weights:
            reason = f"the config skips {kernel.id.owner!r}" if own.skip else f"{kernel.id.owner!r} has float16 weights"
            skipped.update({use.operator: reason for use in kernel.uses if use.operator not in skipped})
    return skipped


def widths_by_overrides(config: QuantizationConfig, names: OperatorNames) -> dict[int, int]:
    """Positions of the operators that overrides give a width of activations -> that width, 8 or 16."""
    found: dict[int, int] = {}
    for item in config.overrides:
        bits = dict(item.changes).get("activation_bits")
        if bits is not None:
            found.update(dict.fromkeys(names.operators(item), max(bits, 8)))
    return found


def _behind_tail(config: QuantizationConfig, names: OperatorNames) -> dict[int, str]:
    """The operators behind the tensors that ``tail`` names, with the reason to leave them in float."""
    found: dict[int, str] = {}
    for item in map(override, config.tail):
        if not names.tensors(item):
            listed = ", ".join(map(repr, names.examples()))
            raise ValueError(f"tail={item.pattern!r} covers no tensor of the float file; there are: {listed}, ...")
        found.update(dict.fromkeys(names.behind(item), f"lies behind {item.pattern!r}, the tail that stays in float"))
    return found


def _layers_of_operators(float_file: FloatFile, model: keras.Model) -> list[frozenset[str]]:
    """For each operator the layers that its result is named after, or its constants where that is an output."""
    file, layers = float_file.model, [layer.name for layer in model.layers]
    weighted = frozenset(layer.name for layer in model.layers if is_weighted(layer))
    # What writes the state of another operator computes nothing of its own.
    results = ["" if file.is_state(it.outputs[0]) else file.name(it.outputs[0]) for it in file.operators]
    constants = [";".join(map(file.name, filter(file.is_constant, operator.inputs))) for operator in file.operators]
    outputs = set(file.subgraph.outputs)
    named = layers_in_names([*results, *constants], layers)
    by_result, by_constants = named[: len(results)], named[len(results) :]
    return [
        weighted & (by_constants[at] if outputs.intersection(operator.outputs) else by_result[at])
        for at, operator in enumerate(file.operators)
    ]
