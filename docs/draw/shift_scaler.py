"""WES: one scale for the layer, and a shift for each output channel."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from docs.draw.style import BLUE, GREY, ORANGE, TEXT, panels
from tfptq.core.affine import weight_code_limit
from tfptq.core.blocks import QuantizedWeight, quantize_nearest
from tfptq.core.decibels import signal_to_noise
from tfptq.core.shift_scaler import shift_scales
from tfptq.core.weight_scales import max_abs_scales

BITS = 8


def draw() -> Figure:
    """The codes that each channel uses, under one scale and with shifts."""
    weights = _kernel()
    layer = quantize_nearest(weights, max_abs_scales(weights, weights.shape[:2], BITS), BITS)
    scales = shift_scales(weights, BITS)
    shifted = quantize_nearest(weights, scales, BITS)
    figure, (before, after) = panels(11, 3.6, 2, sharey=True)
    _show(before, weights, layer, GREY, "one scale: small channels have few codes left")
    _show(after, weights, shifted, BLUE, "with a shift each: at least half of all codes")
    for channel, shift in enumerate(-scales.factors[:, 0]):
        after.text(channel, 6, f"{shift}", ha="center", fontsize=9, color="white", weight="bold")
    after.axhline(weight_code_limit(BITS) / 2, color=ORANGE, linewidth=1.2, linestyle="--")
    after.text(len(weights) - 0.4, 66, "half", color=ORANGE, fontsize=9, ha="left", va="bottom")
    after.set_xlabel("output channels, and their shifts to the right")
    before.set(xlabel="output channels", ylabel="largest code")
    return figure


def _kernel() -> np.ndarray:
    """Weights ``[16, 64, 1]`` of output channels that differ in size by up to 2^7, as after a folded BatchNorm."""
    rng = np.random.default_rng(3)
    return rng.normal(size=(16, 64, 1)) * np.exp2(-rng.uniform(0.0, 7.0, 16))[:, None, None]


def _show(axes: Axes, weights: np.ndarray, quantized: QuantizedWeight, colour: str, title: str) -> None:
    largest = np.abs(quantized.codes).max(axis=(1, 2))
    axes.bar(range(len(largest)), largest, color=colour)
    ratios = [signal_to_noise(*pair) for pair in zip(weights, quantized.dequantize(), strict=True)]
    axes.set(title=title, ylim=(0, 150), xticks=[], yticks=[0, 64, 127])
    note = f"channels have {min(ratios):.0f} to {max(ratios):.0f} dB"
    axes.text(0.99, 0.97, note, ha="right", va="top", color=TEXT, transform=axes.transAxes)
