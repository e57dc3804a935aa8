"""Functions that other processes import: shards of the digits, and sums over shards."""

import functools
import os

import numpy as np


def write_shards(folder, samples, cuts, labels=None):
    """Files of the samples between the cuts, ``.npz`` where there are labels."""
    folder.mkdir(exist_ok=True)
    for number, (start, stop) in enumerate(zip([0, *cuts], [*cuts, len(samples)], strict=True)):
        if labels is None:
            np.save(folder / f"{number:03}.npy", samples[start:stop])
        else:
            np.savez(folder / f"{number:03}.npz", x=samples[start:stop], labels=labels[start:stop])
    return folder


def samples_of_file(path, shards, number):
    """A ``tf.data`` pipeline that shards by itself."""
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(np.load(path)).shard(shards, number).batch(8).as_numpy_iterator()


def tf_data_shards(path, shards):
    return [functools.partial(samples_of_file, str(path), shards, number) for number in range(shards)]


def labelled_samples(path, start, stop):
    with np.load(path) as arrays:
        yield from zip(arrays["x"][start:stop], arrays["labels"][start:stop], strict=True)


def as_tuple(shard):
    return (shard,)


def process_of(shard):
    return Pids({os.getpid()})


class Pids:
    """Numbers of processes; a sum has those of both."""

    def __init__(self, found):
        self.found = found

    def __add__(self, other):
        return Pids(self.found | other.found)


def refuse(shard):
    raise ValueError(f"shard {shard} is bad")


def right_decision(labels, outputs):
    return labels == outputs.argmax(axis=1)


def one_number(labels, outputs):
    return float(outputs.mean())
