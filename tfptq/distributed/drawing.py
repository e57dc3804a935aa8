"""Draw samples evenly from all shards, to where the walk through the kernels is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfptq.data.calibration import length_of
from tfptq.data.checks import Batch, InputSpec
from tfptq.distributed.runners import Runner
from tfptq.distributed.shards import Shard, calibration_batches, naming_shard


@dataclass(frozen=True)
class Drawn:
    """Samples of all shards.

    Attributes:
        samples: one after the other, each an array ``[1, ...]`` for every input.
        population: number of samples that they were drawn from.
    """

    samples: Sequence[list[np.ndarray]]
    population: int


def draw(runner: Runner, shards: Sequence[Shard], specs: tuple[InputSpec, ...], most: int) -> Drawn:
    """Draw samples ``floor((i + 1/2) n / k)`` of all ``n``, in the order of the shards.

    Args:
        runner: where the shards are read, once to count and once to draw; to count array files costs nothing.
        shards: at least one.
        specs: what is asked of the inputs.
        most: number ``k`` of samples; all, where there are fewer.

    Raises:
        DataError: samples do not fit, or a shard is empty.
    """
    numbered = list(enumerate(shards))
    counts = runner.sum(Count(specs), numbered).parts
    sizes = [counts[number] for number in range(len(shards))]
    wanted = evenly(sum(sizes), most)
    ends = np.cumsum(sizes)
    owners = np.searchsorted(ends, wanted, side="right")
    shares = [(int(at), wanted[owners == at] - (ends[at] - sizes[at])) for at in np.unique(owners)]
    found = runner.sum(Take(specs), [(at, shards[at], positions) for at, positions in shares]).parts
    return Drawn([sample for at in sorted(found) for sample in found[at]], sum(sizes))


def evenly(count: int, most: int) -> np.ndarray:
    """Positions of at most so many of ``count`` samples, int64, increasing."""
    chosen = min(count, most)
    return np.array([(2 * number + 1) * count // (2 * chosen) for number in range(chosen)], np.int64)


@dataclass(frozen=True, eq=False)
class ByShard:
    """Number of a shard -> what it gave; ``a + b`` has that of both."""

    parts: Mapping[int, Any]

    def __add__(self, other: "ByShard") -> "ByShard":
        return ByShard({**self.parts, **other.parts})


@dataclass(frozen=True)
class Count:
    """Number of samples of a numbered shard."""

    specs: tuple[InputSpec, ...]

    def __call__(self, numbered: tuple[int, Shard]) -> ByShard:
        """Under the number of the shard."""
        number, shard = numbered
        with naming_shard(shard):
            return ByShard({number: calibration_batches(shard, self.specs).num_samples})


@dataclass(frozen=True)
class Take:
    """The samples of a numbered shard at some positions, which increase."""

    specs: tuple[InputSpec, ...]

    def __call__(self, wanted: tuple[int, Shard, np.ndarray]) -> ByShard:
        """Lists of an array ``[1, ...]`` for each input, under the number of the shard."""
        number, shard, positions = wanted
        found: list[list[np.ndarray]] = []
        first = 0
        with naming_shard(shard):
            for batch in calibration_batches(shard, self.specs):
                size = length_of(batch)
                inside = positions[(positions >= first) & (positions < first + size)] - first
                found += [self._sample(batch, at) for at in inside]
                first += size
                if len(found) == len(positions):
                    break
        return ByShard({number: found})

    def _sample(self, batch: Batch, at: int) -> list[np.ndarray]:
        return [batch[spec.name][at : at + 1].copy() for spec in self.specs]
