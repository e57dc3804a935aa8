"""Random samples, for what only has to run a model: to find its weights in a file, and to compare files."""

import numpy as np

from tfptq.data.checks import Batch, InputSpec

#: Number of samples.
SAMPLES = 4
#: Size of an axis that the model leaves open.
OPEN_SIZE = 32


def random_samples(specs: tuple[InputSpec, ...]) -> Batch:
    """The same few samples each time: numbers from 0 to 1, which any function takes, and the integers 0 and 1."""
    rng = np.random.default_rng(0)
    return {spec.name: _values(rng, spec) for spec in specs}


def _values(rng: np.random.Generator, spec: InputSpec) -> np.ndarray:
    shape = [SAMPLES, *(OPEN_SIZE if size is None else size for size in spec.shape)]
    if np.issubdtype(np.dtype(spec.dtype), np.floating):
        return rng.random(shape).astype(spec.dtype)
    return rng.integers(0, 2, shape).astype(spec.dtype)
