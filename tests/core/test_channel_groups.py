"""Channel groups of graphs of plain steps."""

import numpy as np
import pytest

from tfptq.core.channel_graph import Change, ChannelGraph, Role, Step, repeats_of_channels
from tfptq.core.channel_groups import Side, find_groups
from tfptq.core.channel_moves import KernelAxes, Permutations, Rotations, Scales, move_kernel


def graph_of(*steps, outputs, change=Change.SCALE, **channels):
    return ChannelGraph(change, steps, frozenset(outputs), channels)


def layer(name, read, written, channels, **others):
    return Step(name, Role.PRODUCER, (read,), (written,), channels, **others)


def chain(**others):
    steps = layer("first", "x", "y", 4, **others), layer("last", "y", "z", 2)
    return graph_of(*steps, outputs="z", x=3, y=4, z=2)


def test_a_group_lies_between_two_layers():
    found = find_groups(chain(clip_level=6.0))
    (group,) = found.groups
    assert (group.producers, group.consumers) == ((Side("first", "output", (0,)),), (Side("last", "input", (0,)),))
    assert group.clipped and set(found.tensors) == {"y"}
    assert find_groups(chain(is_free=False)).groups == ()


@pytest.mark.parametrize("sizes, count", [((4, 4), 1), ((4, 1), 1), ((4, 2), 0), ((4, None), 0)])
def test_terms_of_one_channel_are_broadcast_and_others_are_not_merged(sizes, count):
    first = layer("first", "x", "a", sizes[0])
    other = Step("other", Role.BARRIER, ("x",), ("b",)) if sizes[1] != 4 else layer("other", "x", "b", 4)
    merged = Step("sum", Role.MERGE, ("a", "b"), ("y",))
    graph = graph_of(
        first, other, merged, layer("last", "y", "z", 2), outputs="z", x=3, a=sizes[0], b=sizes[1], y=4, z=2
    )
    assert len(find_groups(graph).groups) == count


def test_a_concatenation_of_what_has_no_channels_pins():
    open_one = Step("open", Role.BARRIER, ("x",), ("b",))
    joined = Step("join", Role.CONCATENATE, ("a", "b"), ("y",))
    steps = layer("first", "x", "a", 4), open_one, joined, layer("last", "y", "z", 2)
    assert find_groups(graph_of(*steps, outputs="z", x=3, a=4, b=None, y=None, z=2)).groups == ()
    assert len(find_groups(graph_of(*steps, outputs="z", x=3, a=4, b=3, y=7, z=2)).groups) == 1


def test_repeats():
    assert repeats_of_channels((None, 2, 3, 4), (None, 24)) == 6
    assert repeats_of_channels((None, 2, 3, 4), (None, 6, 4)) == 1
    assert repeats_of_channels((None, 2, 3, 4), (None, 4, 6)) is None
    assert repeats_of_channels((None, 2, None, 4), (None, 24)) is None
    assert repeats_of_channels((None, 2, 3, 4), ()) is None


def test_moves_of_rows_and_columns():
    groups = find_groups(chain())
    rng = np.random.default_rng(0)
    first, last, x = rng.normal(size=(4, 3)), rng.normal(size=(2, 4)), rng.normal(size=3)
    rotation = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    for move in (
        Permutations(groups, {0: np.array([2, 0, 3, 1])}),
        Scales(groups, {0: np.array([1.0, 2.0, 3.0, 0.5])}),
        Rotations(groups, {0: rotation}),
    ):
        one, other = (
            move_kernel(move, name, values, KernelAxes(0, 1)) for name, values in (("first", first), ("last", last))
        )
        assert not np.allclose(one, first) and not np.allclose(other, last)
        np.testing.assert_allclose(other @ one @ x, last @ first @ x, rtol=1e-5)
        np.testing.assert_allclose(move.outputs("first", first @ x), one @ x, rtol=1e-5)
