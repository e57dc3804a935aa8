"""Cells of ``benchmarks.rounding``, part by part. A cell that serves several parts is measured once."""

from collections.abc import Iterable

from benchmarks.cells import Cell
from tfptq.config import MixedPrecision, PerBlock, PerChannel, QuantizationConfig, Rounding

#: Small networks first.
NETWORKS = ("ic01", "vww01", "kws01", "ad01", "resnet20", "resnet56", "mobilenetv2")
MLPERF_TINY = NETWORKS[:4]
#: The decisive parts first.
PARTS = ("presets", "network", "methods", "samples", "attention", "blocks")
PRESETS = ("w4a8_channel", "w4a8_block", "w4a8_fine_block", "w4a8_mixed")
METHODS = ("nearest", "coordinate", "adaround", "attention")
#: Widths beside 4 bits.
NARROW = {"resnet20": (3, 2), "resnet56": (2,), "mobilenetv2": (3,)}
SAMPLES = (256, 32, 64, 128, 512, 1024)
#: In the layout ``int8`` all cells run on the same kernels.
BASE = QuantizationConfig(
    PerChannel(),
    weight_scale="output",
    rounding="nearest",
    statistics_samples=None,
    equalize=False,
    layout="int8",
    name="custom",
)
_BLOCKS = {"granularity": PerBlock(input_blocks=4), "scaler": "integer", "reorder": True}


def preset(network: str, name: str, bits: int = 4, samples: int = 256) -> Cell:
    """A preset as it is, or at another width, which is the average where bits differ from layer to layer."""
    config = QuantizationConfig.from_preset(name)
    if bits == config.weight_bits:
        return Cell(network, f"`{name}`", config.rounding.method, config, samples)
    mixed = config.mixed_precision and MixedPrecision(average_bits=float(bits))
    config = config.replace(weight_bits=bits, mixed_precision=mixed)
    return Cell(network, f"`{name}` at {bits} bits", config.rounding.method, config, samples)


def mixed_blocks(network: str, bits: int, samples: int) -> Cell:
    """``w4a8_fine_block`` with bits by coding length, of some average."""
    config = QuantizationConfig.from_preset("w4a8_fine_block")
    config = config.replace(mixed_precision=MixedPrecision(average_bits=float(bits)))
    return Cell(network, f"`w4a8_fine_block`, {bits} bits on average", config.rounding.method, config, samples)


def changed(network: str, weights: str, **changes) -> Cell:
    """``w4a8_channel`` with other fields."""
    config = QuantizationConfig.from_preset("w4a8_channel").replace(**changes)
    return Cell(network, f"`w4a8_channel` {weights}", config.rounding.method, config)


def learned(network: str, bits: int, method: str, *, samples: int = 256, blocks: bool = False, **options) -> Cell:
    """A way of rounding; ``options`` are fields of ``Rounding``, and named only where they are not its defaults."""
    usual = Rounding(method)
    changed = [f"{key} {value}" for key, value in options.items() if value != getattr(usual, key)]
    config = BASE.replace(weight_bits=bits, rounding=Rounding(method, **options), **(_BLOCKS if blocks else {}))
    weights = f"W{bits} 4 input blocks" if blocks else f"W{bits} channel"
    return Cell(network, weights, ", ".join([method, *changed]), config, samples)


def cells_of(part: str, network: str) -> list[Cell]:
    """The cells of a part for a network; none where the part leaves the network out."""
    return list(_MAKERS[part](network))


def _presets(network: str) -> Iterable[Cell]:
    if network == "mobilenetv2":
        yield from (preset(network, name, samples=1024) for name in PRESETS)
        for name in ("w4a8_channel", "w4a8_fine_block", "w4a8_mixed"):
            yield preset(network, name, 3, samples=1024)
        yield mixed_blocks(network, 3, samples=1024)
    yield from (preset(network, name) for name in PRESETS)
    if network == "resnet20":
        yield from (preset(network, "w4a8_channel", bits) for bits in (3, 2))


def _network(network: str) -> Iterable[Cell]:
    """What steps beyond single layers bring."""
    yield preset(network, "w4a8_channel")
    yield changed(network, "without equalization", equalize=False)
    if network == "mobilenetv2":  # the others have no channels that may be rotated
        yield changed(network, "without rotation", rotate=False)


def _methods(network: str) -> Iterable[Cell]:
    for bits in (4, *NARROW.get(network, ())):
        yield from (learned(network, bits, method) for method in METHODS)


def _samples(network: str) -> Iterable[Cell]:
    if network in ("resnet20", "mobilenetv2"):
        yield from (learned(network, 4, "coordinate", samples=count) for count in SAMPLES)


def _attention(network: str) -> Iterable[Cell]:
    """One factor changed at a time; AdaRound at the same numbers of steps."""
    for bits in (4, 3) if network == "resnet20" else ():
        yield learned(network, bits, "attention")
        for field, values in {"tau": (0.25, 1.0), "steps": (100, 2000)}.items():
            yield from (learned(network, bits, "attention", **{field: value}) for value in values)
        yield from (learned(network, bits, "adaround", steps=steps) for steps in (500, 2000))


def _blocks(network: str) -> Iterable[Cell]:
    for bits in {"resnet20": (4, 3), "mobilenetv2": (4,)}.get(network, ()):
        for blocks in (True, False):
            yield from (learned(network, bits, method, blocks=blocks) for method in ("coordinate", "attention"))


_MAKERS = {
    "presets": _presets,
    "network": _network,
    "methods": _methods,
    "samples": _samples,
    "attention": _attention,
    "blocks": _blocks,
}
