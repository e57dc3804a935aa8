import os

import pytest
import shard_sources

from tfptq.distributed import InProcess, Processes


def test_values_are_added_in_the_order_of_the_shards(processes):
    shards = list(range(20))
    for runner in (InProcess(), processes):
        assert runner.sum(shard_sources.as_tuple, shards) == tuple(shards)


def test_work_is_done_elsewhere_and_bytes_are_counted(processes):
    sent, received = processes.sent, processes.received
    assert os.getpid() not in processes.sum(shard_sources.process_of, [1, 2, 3]).found
    assert processes.sent > sent and processes.received > received
    assert InProcess().sum(shard_sources.process_of, [1, 2, 3]).found == {os.getpid()}


def test_errors_come_back(processes):
    with pytest.raises(ValueError, match="shard 7 is bad"):
        processes.sum(shard_sources.refuse, [7, 8, 9, 10, 11, 12, 13])
    assert processes.sum(shard_sources.as_tuple, [1]) == (1,)


def test_what_cannot_be_sent_is_named(processes):
    with pytest.raises(TypeError, match=r"lambda.* cannot be sent to other processes"):
        processes.sum(shard_sources.as_tuple, [lambda: []])
    with pytest.raises(ValueError, match="workers is 0"):
        Processes(0)


def test_a_closed_runner_starts_anew():
    runner = Processes(1)
    first = runner.sum(shard_sources.process_of, [1]).found
    runner.close()
    assert runner.sum(shard_sources.process_of, [1]).found != first
    runner.close()
