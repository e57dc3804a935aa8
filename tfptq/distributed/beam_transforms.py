"""The pipeline of a sum in Apache Beam, which this module imports."""

from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems

from tfptq.base import worker


def sum_to_file(pipeline: beam.Pipeline, arguments: Sequence[bytes], stored: str, result: str) -> None:
    """Add to a pipeline what sums a stored function over pickled arguments, and writes the pickled sum to a file."""
    (
        pipeline
        | "shards" >> beam.Create(arguments)
        | "share out" >> beam.Reshuffle()
        | "apply" >> beam.ParDo(Apply(stored))
        | "sum" >> beam.CombineGlobally(Sum())
        | "write" >> beam.Map(lambda total: write(result, worker.packed(total)))
    )


class Apply(beam.DoFn):
    """The function that is stored in a file, which each worker reads once, on pickled arguments."""

    def __init__(self, stored: str):
        self._stored = stored

    def setup(self) -> None:
        """Read the function."""
        self._function = worker.unpacked(read(self._stored))

    def process(self, argument: bytes) -> Iterable[Any]:
        """The value of one shard."""
        yield self._function(worker.unpacked(argument))


class Sum(beam.CombineFn):
    """The sum of values that add up by ``+``; None is that of no value."""

    def create_accumulator(self) -> Any:
        """No value."""
        return None

    def add_input(self, accumulator: Any, value: Any) -> Any:
        """One more value."""
        return value if accumulator is None else accumulator + value

    def merge_accumulators(self, accumulators: Iterable[Any]) -> Any:
        """The sum of sums."""
        total = None
        for accumulator in accumulators:
            total = total if accumulator is None else self.add_input(total, accumulator)
        return total

    def extract_output(self, accumulator: Any) -> Any:
        """The sum."""
        return accumulator


def read(path: str) -> bytes:
    """A file of any file system that Beam knows."""
    with FileSystems.open(path, compression_type="uncompressed") as file:
        return file.read()


def write(path: str, content: bytes) -> None:
    """Write a file of any file system that Beam knows."""
    with FileSystems.create(path, compression_type="uncompressed") as file:
        file.write(content)


def remove(*paths: str) -> None:
    """Remove those of some files that exist."""
    there = [path for path in paths if FileSystems.exists(path)]
    if there:
        FileSystems.delete(there)
