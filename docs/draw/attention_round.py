"""Attention Round: which codes it chooses, and what the layer's output gains."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from docs.draw.style import BLUE, GREY, ORANGE, panels
from tfptq.core.rounding import round_weight
from tfptq.core.rounding.methods.adaround import AdaRoundOptions
from tfptq.core.rounding.methods.attention import AttentionRoundOptions
from tfptq.core.statistics import CentredStatistics, dense_statistics
from tfptq.core.weight_scales import mse_scales

#: Method, options, name, colour.
WAYS = (
    ("nearest", None, "nearest", GREY),
    ("adaround", AdaRoundOptions(steps=300), "AdaRound", ORANGE),
    ("attention", AttentionRoundOptions(steps=300), "Attention Round", BLUE),
)


def draw() -> Figure:
    """Codes against weights at 3 bits, and signal to noise of the output at 2 to 4 bits."""
    weights, statistics = _layer()
    figure, (codes, quality) = panels(11, 4.0, 2, width_ratios=(1.25, 1))
    _show_codes(codes, weights, statistics, 3)
    widths = (2, 3, 4)
    for place, (method, options, name, colour) in enumerate(WAYS):
        ratios = []
        for bits in widths:
            scales = mse_scales(weights, (1, weights.shape[1]), bits)
            found = round_weight(weights, scales, bits, statistics, method, options)
            ratios.append(statistics.output_snr(found.dequantize()))
        at = np.array(widths) + 0.27 * (place - 1)
        for bar, ratio in zip(quality.bar(at, ratios, width=0.25, color=colour, label=name), ratios, strict=True):
            quality.text(bar.get_x() + 0.125, ratio + 0.3, f"{ratio:.1f}", ha="center", fontsize=9)
    quality.set(xticks=widths, xlabel="bits of the weights", ylabel="signal to noise of the output, dB", ylim=(0, 38))
    quality.set_title("the output is what gains")
    quality.legend(loc="upper left")
    return figure


def _layer() -> tuple[np.ndarray, CentredStatistics]:
    """Weights ``[16, 64, 1]`` of a dense layer, and statistics of inputs that depend on one another."""
    rng = np.random.default_rng(1)
    kernel = rng.normal(size=(64, 16))
    inputs = np.maximum(rng.normal(size=(1024, 24)) @ rng.normal(size=(24, 64)) + rng.normal(size=(1024, 64)), 0.0)
    return kernel.T[:, :, None], dense_statistics(inputs, inputs @ kernel).centred()


def _show_codes(axes: Axes, weights: np.ndarray, statistics: CentredStatistics, bits: int) -> None:
    """Each weight in units of its scale against the code that it gets."""
    scales = mse_scales(weights, (1, weights.shape[1]), bits)
    found = round_weight(weights, scales, bits, statistics, "attention", WAYS[2][1])
    ratio = (weights / scales.expand(*weights.shape[:2])).ravel()
    codes = found.codes.ravel()
    nearest = np.clip(np.round(ratio), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    other = codes != nearest
    step = np.arange(-4.5, 4.6, 0.01)
    axes.plot(step, np.clip(np.round(step), -4, 3), color=GREY, linewidth=1, label="rounding to nearest")
    axes.scatter(ratio[~other], codes[~other], s=9, color=GREY)
    note = f"elsewhere: {np.mean(other):.0%} of the weights"
    axes.scatter(ratio[other], codes[other], s=14, color=BLUE, label=note, zorder=3)
    axes.set(xlabel="weight / scale", ylabel="code", xlim=(-4.6, 4.6), yticks=range(-4, 4))
    axes.set_title("3 bits: a weight may go to any level, and most stay near")
    axes.legend(loc="upper left")
