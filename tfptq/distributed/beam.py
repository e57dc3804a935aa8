"""Shards on the workers of an Apache Beam pipeline: any runner that its options name.

The function may hold a whole model, which is more than a job description takes: it goes to the workers by a file in the
temporary location, and the sum comes back by another one.
"""

import tempfile
import uuid
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from tfptq.base.worker import unpacked
from tfptq.distributed.runners import Value, pickled


class Beam:
    """An Apache Beam pipeline for each sum; ``pip install tfptq[beam]``.

    Workers need tfptq, and the modules of functions that are shards. Whoever can write into the temporary location can
    run code on the workers and here.

    Args:
        options: ``PipelineOptions`` of Beam, or a list of flags such as ``["--runner=FlinkRunner", ...]``; by default
            Beam's DirectRunner in this process.
        temporary: path or address of a folder that this process and all workers read and write; by default the
            ``temp_location`` of the options, or else a folder of this machine, which will do for workers on it.

    Raises:
        ImportError: apache-beam is not installed.
    """

    def __init__(self, options: Any = None, temporary: str | None = None):
        beam, pipeline_options = _apache_beam()
        options_class = pipeline_options.PipelineOptions
        self._beam = beam
        self._options = options if isinstance(options, options_class) else options_class(list(options or ()))
        self._temporary = temporary or self._options.get_all_options().get("temp_location")

    def sum(self, function: Callable[[Any], Value], shards: Sequence[Any]) -> Value:
        """See ``Runner.sum``. Values are added in any order.

        Raises:
            TypeError: the function or a shard cannot be pickled.
            RuntimeError: a worker failed.
        """
        from tfptq.distributed.beam_transforms import read, remove, sum_to_file, write

        content, arguments = pickled(function), [pickled(shard) for shard in shards]
        here = tempfile.TemporaryDirectory(prefix="tfptq-") if self._temporary is None else nullcontext(self._temporary)
        with here as folder:
            stem = f"{str(folder).rstrip('/')}/tfptq-{uuid.uuid4().hex}"
            stored, result = f"{stem}.function", f"{stem}.sum"
            write(stored, content)
            try:
                with self._beam.Pipeline(options=self._options) as pipeline:
                    sum_to_file(pipeline, arguments, stored, result)
                return unpacked(read(result))
            finally:
                remove(stored, result)


def _apache_beam() -> tuple[Any, Any]:
    try:
        import apache_beam
        from apache_beam.options import pipeline_options
    except ImportError as error:
        raise ImportError(
            "tfptq.distributed.Beam needs Apache Beam; install it with: pip install tfptq[beam]"
        ) from error
    return apache_beam, pipeline_options
