"""What to know about how a file was made that does not make its result a bad one."""

import itertools
from collections.abc import Iterator, Mapping

from tfptq.float_file.layout_requests import layout_requests
from tfptq.report.outcome import Outcome
from tfptq.tflite.layouts import LAYOUTS, NATIVE, POLICIES
from tfptq.tflite.model import TFLiteModel

#: A difference that a float step makes, relative to the range of an output: half a step of an 8-bit grid.
LARGE_DIFFERENCE = 2e-3


def notes_on(outcome: Outcome) -> tuple[str, ...]:
    """All notes: of single steps, on types of inputs, roundings, layouts and the target."""
    parts = _on_samples(outcome), _on_inputs(outcome), outcome.notes, _on_kernels(outcome), _on_blocks(outcome)
    return (*itertools.chain(*parts), *_on_target(outcome))


def _on_samples(outcome: Outcome) -> Iterator[str]:
    if not outcome.num_samples:
        yield "made without samples: scales from the weights alone and nearest codes; outputs were not compared"


def _on_blocks(outcome: Outcome) -> Iterator[str]:
    """Layers that have other blocks than their config asks for, since stock kernels would compute theirs wrongly."""
    named: dict[str, list[str]] = {}
    for kernel in outcome.kernels:
        if kernel.id.layer is None or kernel.layout is NATIVE or not kernel.uses[0].alone:
            continue
        own = outcome.config.for_layer(kernel.id.layer)
        if own.activations == "dynamic" and own.granularity.has_blocks and own.layout in POLICIES:
            requests = layout_requests(own, outcome.float_file.model, kernel)
            problem = next(filter(None, map(NATIVE.obstacle, requests)), None)
            if problem is not None:
                named.setdefault(problem, []).append(kernel.id.label)
    for problem, labels in named.items():
        yield f"no blocks, but a scale per channel: {', '.join(labels)}; {problem}"


def _on_inputs(outcome: Outcome) -> Iterator[str]:
    """Inputs that ``input_type`` does not apply to: those that are no floats in Keras."""
    config = outcome.config
    model, readers = outcome.float_file.model, outcome.float_file.model.consumers()
    if config.interface_types[0] == "float32":
        return
    for tensor in outcome.model.inputs:
        index = outcome.float_file.inputs[tensor.name]
        if model.is_float(index):
            continue
        operators = [model.operators[at] for at in readers.get(index, [])]
        cast = any(model.operator_name(it) == "CAST" and model.is_float(it.outputs[0]) for it in operators)
        does = ", where the file casts it to float32 and quantizes that" if cast else ""
        yield (
            f"input_type={config.interface_types[0]!r} does not change input {tensor.name!r}, which is {tensor.dtype} "
            f"in Keras and is passed as it is{does}"
            + ("; build the model with keras.Input(dtype='float32') for integers from the start" if cast else "")
        )


def notes_on_rounding(float_differences: Mapping[str, float]) -> Iterator[str]:
    """What float32 itself does to a network: steps pass that are no further from it than its own rounding."""
    step, worst = max(float_differences.items(), key=lambda item: item[1], default=("", 0.0))
    if worst > LARGE_DIFFERENCE:
        yield (
            f"the rounding of float32 alone moves the outputs of this network by {worst:.2g} of their range (as found "
            f"after step {step!r}): it subtracts large, nearly equal values, or amplifies small differences. No file "
            "can be more exact; subtract such values before the model, in float64, or train it on differences"
        )


def _on_kernels(outcome: Outcome) -> Iterator[str]:
    """How kernels were rounded, and how they are stored."""
    # Eight bits lose next to nothing by nearest rounding.
    narrow = [kernel for kernel in outcome.kernels if kernel.plan.reason is not None and kernel.weight.bits < 8]
    for reason in dict.fromkeys(kernel.plan.reason for kernel in narrow):
        names = ", ".join(kernel.id.label for kernel in narrow if kernel.plan.reason == reason)
        yield f"rounded to the nearest codes, without statistics of inputs: {names}; {reason}"
    batch_size, of_model = outcome.float_file.batch_size, outcome.model.inputs[0].shape[0]
    if batch_size is not None and of_model is None and not outcome.config.takes_single(of_model):
        yield f"the file takes {batch_size} sample at a time: its recurrent layers cannot have a dynamic batch"
    uses = sum(len(kernel.uses) for kernel in outcome.kernels)
    expected = {name for names in outcome.config.target.layouts.values() for name in names}
    for layout in LAYOUTS:
        count = sum(len(kernel.uses) for kernel in outcome.kernels if kernel.layout is layout)
        if count and layout.cost is not None and layout.name not in expected:
            yield f"{count} of {uses} kernels {layout.cost}"


def _on_target(outcome: Outcome) -> Iterator[str]:
    """What the target makes of the widths that the config asks for, and operators that it lacks."""
    config = outcome.config
    widths = (config.weight_bits,) if config.mixed_precision is None else config.mixed_precision.bits
    alone = [kernel for kernel in outcome.kernels if kernel.uses[0].alone]
    wide = [kernel.id.label for kernel in alone if kernel.weight.bits == 8]
    if min(widths) < 8 and wide and not config.target.narrow_int8 and len(wide) < len(alone):
        yield (
            f"{len(wide)} of {len(alone)} kernels have 8 bits: target {config.target.name!r} stores them in "
            "INT8 in any case, or they are small ones at the inputs and outputs, or fewer bits would cost more than "
            f"latency_budget={config.latency_budget:g} allows"
        )
    ratio = None if config.mixed_precision is None else config.mixed_precision.ratio
    found = _stored_ratio(outcome)
    if ratio is not None and found > 1.02 * ratio and not config.target.narrow_int8:
        yield (
            f"the kernels take {found:.2f} of their bytes in INT8, and mixed_precision.ratio is {ratio:g}: target "
            f"{config.target.name!r} has no smaller layouts for them within latency_budget={config.latency_budget:g}"
        )
    model = TFLiteModel(outcome.tflite)
    kinds = {model.operator_name(operator) for operator in model.operators}
    for kind in sorted(kinds.intersection(config.target.missing)):
        yield f"target {config.target.name!r} has no kernel for {kind}, which the file holds"


def _stored_ratio(outcome: Outcome) -> float:
    """Bytes of codes and scales of all kernels, as a share of what they would take in INT8."""
    own = outcome.kernels
    stored = sum(kernel.layout.stored_bytes(kernel.in_file(kernel.uses[0]), kernel.uses[0].view) for kernel in own)
    return stored / max(sum(kernel.values.size + 4 * len(kernel.values) for kernel in own), 1)
