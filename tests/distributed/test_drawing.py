import numpy as np
import pytest
import shard_sources
from hypothesis import given, settings
from hypothesis import strategies as st

from tfptq.data.checks import InputSpec
from tfptq.distributed import InProcess
from tfptq.distributed.drawing import draw, evenly

SPECS = (InputSpec("x", (2,), "float32"),)


@given(count=st.integers(1, 10**7), most=st.integers(1, 600))
def test_positions_are_even(count, most):
    found = evenly(count, most)
    assert len(found) == min(count, most) and found[0] >= 0 and found[-1] < count
    steps = np.diff(found, prepend=found[0] - 1)
    if len(found) > 1:
        assert set(steps[1:]) <= {count // len(found), -(-count // len(found))}


@settings(max_examples=15)
@given(data=st.data(), most=st.integers(1, 50))
def test_the_same_samples_whatever_the_shards_are(tmp_path_factory, data, most):
    samples = np.arange(80, dtype=np.float32).reshape(40, 2)
    cuts = sorted(data.draw(st.sets(st.integers(1, 39), max_size=5)))
    folder = shard_sources.write_shards(tmp_path_factory.mktemp("shards"), samples, cuts)
    found = draw(InProcess(), sorted(folder.iterdir()), SPECS, most)
    assert found.population == 40
    np.testing.assert_array_equal(np.concatenate([x for (x,) in found.samples]), samples[evenly(40, most)])


def test_streams_are_drawn_from_as_well(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(80, dtype=np.float32).reshape(40, 2))
    found = draw(InProcess(), shard_sources.tf_data_shards(tmp_path / "x.npy", 4), SPECS, 40)
    assert sorted(float(x[0, 0]) for (x,) in found.samples) == pytest.approx(list(range(0, 80, 2)))
