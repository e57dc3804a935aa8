"""What ``benchmarks.draws`` compares: ways of quantizing, and how far they may lie apart."""

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks import mixed
from benchmarks.blocks import BASE as NEAREST
from benchmarks.blocks import PRESET as BLOCKS
from benchmarks.rounding_cells import MLPERF_TINY, PRESETS
from benchmarks.rounding_page import RESNET20_LIMITS
from tfptq import QuantizationConfig
from tfptq.config import PerChannel

NETWORKS = (*MLPERF_TINY, "resnet20", "resnet56", "mobilenetv2")
PARTS = ("w8a8", "rounding", "blocks")


@dataclass(frozen=True)
class Way:
    """A way of quantizing.

    Attributes:
        title: what a table calls it; tells it from all others.
        config: None for the TFLite converter.
    """

    title: str
    config: QuantizationConfig | None


@dataclass(frozen=True)
class Comparison:
    """What the files of a way must be.

    Attributes:
        network: key of ``zoo.ENTRIES``.
        way: whose files are judged.
        other: whose files they are compared with; None for the float network.
        unit: ``"points"`` of top-1 (or area under the curve), points of ``"agreement"`` with the float network's class,
            or ``"dB"`` of the outputs.
        at_least: least difference that meets the target.
    """

    network: str
    way: Way
    other: Way | None
    unit: str
    at_least: float


CONVERTER = Way("TFLite converter", None)


def preset(name: str, bits: int | None = None) -> Way:
    """A preset as it is, or at another width."""
    config = QuantizationConfig.from_preset(name)
    if bits is None or bits == config.weight_bits:
        return Way(f"`{name}`", config)
    return Way(f"`{name}` at {bits} bits", config.replace(weight_bits=bits))


def comparisons(part: str, network: str) -> list[Comparison]:
    """What a part compares on a network; nothing where it leaves the network out."""
    return [Comparison(network, *rest) for rest in _MAKERS[part](network)]


def _eight_bits(network: str) -> Iterable[tuple[Way, Way | None, str, float]]:
    shift, channel = preset("w8a8_shift"), preset("w8a8_channel")
    yield shift, None, "points", -1.0 if network == "mobilenetv2" else -0.5
    yield channel, None, "points", -0.5
    for unit in ("points", "agreement", "dB") if network != "ad01" else ("points", "dB"):
        yield shift, CONVERTER, unit, 0.0


def _rounding(network: str) -> Iterable[tuple[Way, Way | None, str, float]]:
    if network in MLPERF_TINY:
        yield from ((preset(name), None, "points", -1.0) for name in PRESETS)
    if network == "resnet20":
        for bits, limit in RESNET20_LIMITS.items():
            yield preset("w4a8_channel", bits), None, "points", -limit
        yield preset("w4a8_fine_block"), None, "points", -RESNET20_LIMITS[4]
        uniform, mean = mixed.uniform(network), mixed.by_average(network)[0]
        for unit in ("points", "dB"):
            yield Way(mean.weights, mean.config), Way(uniform.weights, uniform.config), unit, 0.0


def _blocks(network: str) -> Iterable[tuple[Way, Way | None, str, float]]:
    if network not in ("resnet20", "resnet56", "mobilenetv2"):
        return
    base = NEAREST.replace(weight_scale="output")
    blocks = base.replace(granularity=BLOCKS, scaler="integer", reorder=True)
    channels = Way("4-bit channels", base.replace(granularity=PerChannel()))
    for unit in ("dB", "points"):
        yield Way("reordered 4-bit blocks", blocks), channels, unit, 0.0
    kinds = {kind: blocks.replace(scaler=kind, layout="inline") for kind in ("integer", "float")}
    integer, real = (Way(f"blocks with `{kind}` scales", config) for kind, config in kinds.items())
    yield integer, real, "dB", -0.2


_MAKERS = {"w8a8": _eight_bits, "rounding": _rounding, "blocks": _blocks}
