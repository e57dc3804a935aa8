"""Observe the channels of tensors of a float file."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tfptq.core.channel_headroom import ChannelStatistics
from tfptq.float_file.float_file import FloatFile
from tfptq.tflite.runtime import TensorRunner


class ChannelObserver:
    """Observes the channels of tensors, by their indexes."""

    def __init__(self, float_file: FloatFile, tensors: Sequence[int]):
        self._file, self._tensors = float_file, list(tensors)
        self._runner = TensorRunner(float_file.data, self._tensors) if tensors else None

    def observe(self, batches: Iterable[Mapping[str, np.ndarray]]) -> dict[int, ChannelStatistics]:
        """Statistics of all samples; at least one batch, input name -> samples."""
        if self._runner is None:
            return {}
        found: dict[int, list[tuple[np.ndarray, ...]]] = {index: [] for index in self._tensors}
        counts = []
        for batch in batches:
            counts.append(len(next(iter(batch.values()))))
            self._runner.run(
                self._file.by_tensor_name(batch), lambda index, values: found[index].append(_reduced(values))
            )
        return {index: _joined(parts, counts) for index, parts in found.items()}


def _reduced(values: np.ndarray) -> tuple[np.ndarray, ...]:
    """Minimum, maximum and mean square of each channel ``[..., C]``."""
    flat = values.reshape(-1, values.shape[-1])
    return flat.min(axis=0), flat.max(axis=0), np.einsum("pc,pc->c", flat, flat, dtype=np.float64) / len(flat)


def _joined(parts: Sequence[tuple[np.ndarray, ...]], counts: Sequence[int]) -> ChannelStatistics:
    """Statistics of batches with so many samples each."""
    low, high, square = (np.stack(each).astype(np.float64) for each in zip(*parts, strict=True))
    return ChannelStatistics(low.min(axis=0), high.max(axis=0), np.average(square, axis=0, weights=counts))
