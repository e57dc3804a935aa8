"""What the rounding of each weight adds to the error of the outputs, to first order.

With the outputs ``f(x)`` and a weight ``W`` that is rounded to ``W + D``, the outputs move by ``J D`` with the Jacobian
``J = df/dW``. For random directions ``r`` with ``E[r r^T] = I`` the mean of ``(r^T J D)^2 = <dr^T f/dW, D>^2`` is
``|J D|^2`` (Hutchinson), so that one backward pass for each sample and direction serves all weights and widths. What is
the same for all samples is left out: the bias takes it up (``core.bias_correction``). So all samples have the same
directions; these are orthogonal, so that as few outputs as directions are measured exactly.
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

import keras
import numpy as np
import tensorflow as tf

from tfptq.graph import input_names
from tfptq.graph.read_graph import graph_of

Change = TypeVar("Change", bound=Hashable)

#: Samples, and directions for each. The relative error of an estimate is sqrt(2 / (directions x ranks)) at most, with
#: the rank of what the outputs move by from sample to sample.
SAMPLES, DIRECTIONS = 32, 4


def output_errors(
    model: keras.Model,
    batches: Sequence[Mapping[str, np.ndarray]],
    changes: Mapping[Change, Sequence[tuple[keras.Variable, np.ndarray]]],
    *,
    seed: int = 0,
    advance: Callable[[int], None] = lambda samples: None,
) -> dict[Change, float]:
    """Share of the power of the outputs that each change of weights takes up.

    Args:
        model: float model.
        batches: input name -> array with a batch axis; the first ``SAMPLES`` samples count, or so many full batches
            of a model with a fixed batch.
        changes: key of a change -> the variables that move, and by how much, in their shape.
        seed: seed of the directions.
        advance: called with the number of samples done.

    Returns:
        Key of the change -> relative squared error, 1 for noise as large as the outputs; all outputs count alike.
    """
    size = model.inputs[0].shape[0] or 1
    samples = [
        {name: values[at : at + size] for name, values in batch.items()}
        for batch in batches
        for at in range(0, len(next(iter(batch.values()))), size)
    ][:SAMPLES]
    variables = list({id(variable): variable for moved in changes.values() for variable, _ in moved}.values())
    place = {id(variable): number for number, variable in enumerate(variables)}
    gradients_of = _gradients(model, [variable.value for variable in variables], _directions(model, samples, seed))
    found: dict[Change, list] = {name: [] for name in changes}  # name -> for each sample [directions]
    for sample in samples:
        gradients = [np.asarray(part) for part in gradients_of(sample)]  # [directions, ...] of each variable
        for name, moved in changes.items():
            parts = (
                np.tensordot(gradients[place[id(variable)]], change, axes=change.ndim) for variable, change in moved
            )
            found[name].append(sum(parts))
        advance(1)
    return {name: float(np.square(_varying(np.array(each, np.float64))).mean()) for name, each in found.items()}


def _varying(values: np.ndarray) -> np.ndarray:
    """Values ``[samples, ...]`` without what all samples have in common; of one sample, the values."""
    return values - values.mean(axis=0) if len(values) > 1 else values


def _directions(model: keras.Model, samples: Sequence[Mapping[str, np.ndarray]], seed: int) -> list[np.ndarray]:
    """For each output ``[DIRECTIONS, ...]``, scaled so that all have the power 1; 0 for one that does not vary."""
    outputs = [tf.nest.flatten(model(_arguments(model, sample), training=False)) for sample in samples]
    columns = [np.stack([np.asarray(value, np.float64) for value in values]) for values in zip(*outputs, strict=True)]
    sizes = [math.prod(stacked.shape[1:]) for stacked in columns]
    parts = np.split(_orthogonal(np.random.default_rng(seed), sum(sizes)), np.cumsum(sizes)[:-1], axis=1)
    directions = []
    for stacked, part in zip(columns, parts, strict=True):
        whole, power = (np.square(it).sum() / len(it) for it in (stacked, _varying(stacked)))
        scale = 1.0 / np.sqrt(power * len(columns)) if power > 1e-12 * whole else 0.0
        directions.append((part * scale).reshape(DIRECTIONS, *stacked.shape[1:]).astype(np.float32))
    return directions


def _orthogonal(rng: np.random.Generator, size: int) -> np.ndarray:
    """Random ``[DIRECTIONS, size]`` whose rows, or columns where these are fewer, are orthogonal; squares average 1."""
    found, _ = np.linalg.qr(rng.standard_normal((max(size, DIRECTIONS), min(size, DIRECTIONS))))
    return (found if size < DIRECTIONS else found.T) * np.sqrt(max(size, DIRECTIONS))


def _gradients(model: keras.Model, variables: Sequence[tf.Variable], directions: Sequence[np.ndarray]):
    """A function from a sample to the gradients ``[DIRECTIONS, ...]`` of its outputs along the directions."""

    @tf.function(reduce_retracing=True)
    def run(sample):
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(variables)
            outputs = tf.nest.flatten(model(_arguments(model, sample), training=False))
            totals = [
                tf.add_n(
                    [
                        tf.reduce_sum(tf.cast(value, tf.float32) * each[number])
                        for value, each in zip(outputs, directions, strict=True)
                    ]
                )
                for number in range(DIRECTIONS)
            ]
        rows = [tape.gradient(total, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO) for total in totals]
        return [tf.stack([tf.convert_to_tensor(part) for part in column]) for column in zip(*rows, strict=True)]

    return lambda sample: run({name: tf.constant(values) for name, values in sample.items()})


def _arguments(model: keras.Model, sample: Mapping[str, Any]) -> Any:
    """A sample in the structure that the model takes."""
    return keras.tree.pack_sequence_as(graph_of(model)._inputs_struct, [sample[name] for name in input_names(model)])
