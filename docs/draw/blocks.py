"""PTQ-SL: scales of blocks, and what reordering does for them."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from docs.draw.style import BLUE, GREEN, GREY, ORANGE, panels
from tfptq.core.blocks import quantize_nearest
from tfptq.core.decibels import signal_to_noise
from tfptq.core.reorder import AxisSegment, BlockedLayer, reorder
from tfptq.core.weight_scales import mse_scales

BLOCK, BITS = (4, 8), 4


def draw() -> Figure:
    """A kernel in blocks before and after reordering, and the signal to noise of its codes."""
    weights = _kernel()
    groups = (AxisSegment("outputs"),), (AxisSegment("inputs"),)
    layer = BlockedLayer(np.abs(weights).max(axis=2), BLOCK, *groups)
    order = reorder([layer], {"outputs": weights.shape[0], "inputs": weights.shape[1]}).permutations
    reordered = weights[order["outputs"]][:, order["inputs"]]
    figure, (before, after, quality) = panels(11, 4.2, 3, width_ratios=(1, 1, 1.05))
    _show(before, weights, "as trained: sizes mix in a block")
    _show(after, reordered, "reordered: one size to a block")
    ways = {
        "one scale per layer": (weights, weights.shape[:2], GREY),
        "one per output channel": (weights, (1, weights.shape[1]), ORANGE),
        "blocks of 4 x 8": (weights, BLOCK, BLUE),
        "blocks of 4 x 8, reordered": (reordered, BLOCK, GREEN),
    }
    for row, (name, (view, shape, colour)) in enumerate(ways.items()):
        scales = mse_scales(view, shape, BITS)
        ratio = signal_to_noise(view, quantize_nearest(view, scales, BITS).dequantize())
        quality.barh(row, ratio, height=0.42, color=colour)
        count = scales.values().size
        note = f" {ratio:.1f} dB, {count} scale{'s' * (count > 1)}"
        quality.text(ratio, row, note, va="center", fontsize=9)
        quality.text(0.2, row - 0.26, name, va="bottom", fontsize=9)
    quality.set(yticks=[], xlim=(0, 32), ylim=(3.5, -0.7), xlabel="signal to noise of 4-bit weights, dB")
    quality.set_title("reordered blocks are most exact")
    return figure


def _kernel() -> np.ndarray:
    """Weights ``[16, 32, 1]`` whose channels differ in size on both sides, as after folding BatchNormalization."""
    rng = np.random.default_rng(5)
    outputs, inputs = (np.exp2(rng.permutation(np.linspace(-2.0, 2.0, count))) for count in (16, 32))
    return rng.normal(size=(16, 32, 1)) * outputs[:, None, None] * inputs[None, :, None]


def _show(axes: Axes, weights: np.ndarray, title: str) -> None:
    """Magnitudes ``[O, I]`` on a logarithmic scale, with the lines between blocks."""
    axes.imshow(np.log2(np.abs(weights[:, :, 0]) + 1e-2), cmap="Blues", vmin=-4, vmax=4, aspect="auto")
    rows, columns = weights.shape[:2]
    for edge in range(0, rows + 1, BLOCK[0]):
        axes.axhline(edge - 0.5, color=ORANGE, linewidth=1.2)
    for edge in range(0, columns + 1, BLOCK[1]):
        axes.axvline(edge - 0.5, color=ORANGE, linewidth=1.2)
    axes.set(title=title, xlabel="input channels", ylabel="output channels", xticks=[], yticks=[])
