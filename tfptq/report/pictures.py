"""Pictures of layers as numbers: blocks before and after reordering, and histograms of the noisiest layers."""

from collections.abc import Mapping, Sequence

import numpy as np

from tfptq.core.affine import weight_code_range
from tfptq.core.blocks import run_maxima
from tfptq.core.histograms import Histogram
from tfptq.lowering.quantized_kernel import QuantizedKernel
from tfptq.prepare.reorder import ReorderedLayer
from tfptq.report.outcome import Outcome
from tfptq.report.values import BlockPicture, Distribution, LayerPicture, LayerReport

#: Number of layers whose blocks the report pictures, and most pixels along a side.
PICTURES, PICTURE_SIZE = 4, 96
#: Number of layers whose histograms it shows, and bins of each.
HISTOGRAMS, BINS = 4, 60


def block_pictures(reordered: Mapping[str, ReorderedLayer]) -> tuple[BlockPicture, ...]:
    """Pictures of the layers that reordering helped most, the best first."""
    gains = {name: layer.noise_before / layer.noise_after for name, layer in reordered.items() if layer.noise_after}
    best = sorted((name for name, gain in gains.items() if gain > 1.0), key=lambda name: -gains[name])
    return tuple(
        BlockPicture(
            name, *(_pixels(values) for values in (reordered[name].maxima_before, reordered[name].maxima_after))
        )
        for name in best[:PICTURES]
    )


def _pixels(maxima: np.ndarray) -> tuple[tuple[float, ...], ...]:
    """Block maxima with at most ``PICTURE_SIZE`` rows and columns; neighbours share a pixel where there are more."""
    for axis in (0, 1):
        maxima = run_maxima(maxima, -(-maxima.shape[axis] // PICTURE_SIZE), axis)
    return tuple(tuple(float(f"{value:.4g}") for value in row) for row in maxima)


def distributions(outcome: Outcome, layers: Sequence[LayerReport]) -> tuple[LayerPicture, ...]:
    """Histograms of the layers with the lowest signal to noise, the worst first."""
    pairs = zip(outcome.kernels, layers, strict=True)
    measured = [(layer.measured_db, kernel) for kernel, layer in pairs if layer.measured_db is not None]
    worst = sorted(measured, key=lambda pair: pair[0])[:HISTOGRAMS]
    return tuple(
        LayerPicture(kernel.id.label, _of_weights(outcome, kernel), _of_output(outcome, kernel)) for _, kernel in worst
    )


def _of_weights(outcome: Outcome, kernel: QuantizedKernel) -> Distribution:
    """Weights in steps of their scales, so that all blocks and channels have one grid: the codes."""
    weight, values = kernel.weight, outcome.weights.get(kernel.id, kernel.values)
    steps = values / weight.scales.expand(*values.shape[:2])
    least, largest = weight_code_range(weight.bits)
    low, high = min(float(steps.min()), least - 1.0), max(float(steps.max()), largest + 1.0)
    counts, _ = np.histogram(steps, BINS, (low, high))
    return _distribution(low, high, counts, (least, largest), 1.0)


def _of_output(outcome: Outcome, kernel: QuantizedKernel) -> Distribution | None:
    output = kernel.uses[0].output
    statistics, grid = outcome.statistics.get(output), outcome.plan.grids.get(output)
    if statistics is None or statistics.histogram is None or grid is None:
        return None
    low, high = grid.real_range
    return _distribution(*_rebinned(statistics.histogram), (low, high), grid.scale)


def _rebinned(histogram: Histogram) -> tuple[float, float, np.ndarray]:
    """Edges and counts of ``BINS`` bins, each of the finer ones counted where its middle is."""
    edges = histogram.edges
    middles = 0.5 * (edges[1:] + edges[:-1])
    counts, _ = np.histogram(middles, BINS, (edges[0], edges[-1]), weights=histogram.counts)
    return float(edges[0]), float(edges[-1]), counts


def _distribution(low: float, high: float, counts: np.ndarray, grid: tuple[float, float], step: float) -> Distribution:
    low, high, grid_low, grid_high, step = (float(f"{value:.6g}") for value in (low, high, *grid, step))
    return Distribution(low, high, tuple(int(count) for count in counts), grid_low, grid_high, step)
