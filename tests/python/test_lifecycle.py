"""Groups and buffers that are made and closed many times leave nothing behind."""

import os

import moelink
import numpy as np
import process_jobs
import pytest
from process_jobs import held_resources, use_and_close
from process_ranks import free_port, run_processes, values_of
from thread_ranks import run_threads

NUM_CYCLES = 200
WARM_UP_CYCLES = 20


def assert_nothing_leaked(before: dict[str, int], after: dict[str, int]) -> None:
    assert after["fds"] <= before["fds"], (before, after)
    assert after["threads"] <= before["threads"], (before, after)
    assert after["maps"] <= before["maps"] + 12, (before, after)
    assert after["rss_kib"] <= before["rss_kib"] + 12 * 1024, (before, after)


def test_cycles_of_thread_groups_leak_nothing():
    before = {}
    for cycle in range(WARM_UP_CYCLES + NUM_CYCLES):
        run_threads(2, use_and_close)
        if cycle == WARM_UP_CYCLES:
            before = held_resources()
    assert_nothing_leaked(before, held_resources())


def test_cycles_of_process_buffers_leak_nothing():
    shm_files = set(os.listdir("/dev/shm"))
    for before, after in values_of(
        run_processes(2, process_jobs.cycles, free_port(), WARM_UP_CYCLES, NUM_CYCLES)
    ):
        assert_nothing_leaked(before, after)
    assert set(os.listdir("/dev/shm")) <= shm_files


@pytest.mark.parametrize("closes", [True, False])
def test_buffers_that_are_dropped_leak_nothing(closes: bool):
    """Also when nobody calls close()."""

    def body(group: moelink.Group):
        buffer = moelink.Buffer(group)
        recv_x, _ = buffer.dispatch(np.ones((64, 256), np.float32), np.zeros((64, 1), np.int64))
        if closes:
            buffer.close()
        return recv_x.shape

    for _ in range(10):
        run_threads(2, body)
    before = held_resources()
    for _ in range(40):
        run_threads(2, body)
    assert_nothing_leaked(before, held_resources())
