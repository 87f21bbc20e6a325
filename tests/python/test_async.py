"""Asynchronous calls: events, their order, and the life of the inputs."""

import gc
import threading
import time
import weakref

import moelink
import numpy as np
import pytest
from thread_ranks import errors_of, run_threads

NUM_RANKS = 3


def tokens_of(rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens whose values name their rank, and a top-k list over all ranks."""
    rng = np.random.default_rng(rank)
    x = np.full((64, 16), rank + 1, np.float32)
    return x, rng.integers(-1, NUM_RANKS, (64, 2))


def num_copies(topk_idx: np.ndarray) -> np.ndarray:
    """Distinct ranks of every token, with one expert per rank."""
    return (topk_idx[:, :, None] == np.arange(NUM_RANKS)).any(axis=1).sum(axis=1)


def test_asynchronous_calls_give_the_results_of_synchronous_ones():
    def body(group: moelink.Group):
        x, topk_idx = tokens_of(group.rank)
        with moelink.Buffer(group) as buffer:
            expected = buffer.dispatch(x, topk_idx)
            received = buffer.dispatch(x, topk_idx, async_finish=True)
            received.event.wait()
            assert not received.event.pending
            assert (received.recv_x == expected.recv_x).all()
            combined = buffer.combine(received.recv_x, received.handle, async_finish=True)
            assert combined.combined_topk_weights is None
            combined.event.wait()
            assert (combined.combined_x == x * num_copies(topk_idx)[:, None]).all()

    run_threads(NUM_RANKS, body)


def test_previous_event_orders_operations_without_waits():
    def body(group: moelink.Group):
        x, topk_idx = tokens_of(group.rank)
        with moelink.Buffer(group) as buffer:
            received = buffer.dispatch(x, topk_idx, async_finish=True)
            combined = buffer.combine(
                received.recv_x,
                received.handle,
                previous_event=received.event,
                async_finish=True,
            )
            again = buffer.dispatch(
                combined.combined_x,
                handle=received.handle,
                previous_event=combined.event,
                async_finish=True,
            )
            total = buffer.combine(again.recv_x, again.handle, previous_event=again.event)
            assert (total == x * num_copies(topk_idx)[:, None] ** 2).all()

    run_threads(NUM_RANKS, body)


def test_inputs_dropped_by_the_caller_live_until_the_event():
    def body(group: moelink.Group):
        with moelink.Buffer(group) as buffer:
            x, topk_idx = tokens_of(group.rank)
            _, handle = buffer.dispatch(x, topk_idx)
            expected = x * num_copies(topk_idx)[:, None]
            for _ in range(20):
                recv_x = buffer.dispatch(x, handle=handle).recv_x.copy()
                combined = buffer.combine(recv_x, handle, async_finish=True)
                del recv_x
                noise = np.full((256, 16), np.nan, np.float32)
                combined.event.wait()
                assert (combined.combined_x == expected).all()
                del noise

    run_threads(NUM_RANKS, body)


def test_inputs_are_released_after_the_event():
    class Watched(np.ndarray):
        pass

    def body(group: moelink.Group):
        x, topk_idx = tokens_of(group.rank)
        with moelink.Buffer(group) as buffer:
            mine = x.view(Watched)
            watcher = weakref.ref(mine)
            received = buffer.dispatch(mine, topk_idx, async_finish=True)
            del mine
            received.event.wait()
            buffer.dispatch(x, topk_idx)
            gc.collect()
            assert watcher() is None

    run_threads(NUM_RANKS, body)


def test_previous_event_of_slow_work_is_waited_for():
    """Rank 0 starts late, so the event of rank 1 is pending when its next operation starts."""
    started = threading.Event()

    def body(group: moelink.Group):
        x, topk_idx = tokens_of(group.rank)
        with moelink.Buffer(group) as buffer:
            recv_x, handle = buffer.dispatch(x, topk_idx)
            if group.rank == 0:
                started.wait(30)
            combined = buffer.combine(recv_x, handle, async_finish=True)
            was_pending = combined.event.pending
            started.set()
            again = buffer.dispatch(
                combined.combined_x, handle=handle, previous_event=combined.event
            )
            total = buffer.combine(again.recv_x, handle)
            assert (total == x * num_copies(topk_idx)[:, None] ** 2).all()
            return was_pending

    outcomes = run_threads(NUM_RANKS, body)
    assert any(outcomes[1:])


def test_default_event_is_complete():
    event = moelink.Event()
    assert not event.pending
    assert not event
    event.wait()


def test_event_raises_the_error_of_its_operation():
    def body(group: moelink.Group):
        x, topk_idx = tokens_of(group.rank)
        buffer = moelink.Buffer(group, timeout=0.3)
        recv_x, handle = buffer.dispatch(x, topk_idx)
        if group.rank == 0:
            time.sleep(1.0)  # longer than the others wait
            return
        combined = buffer.combine(recv_x, handle, async_finish=True)
        for _ in range(2):  # the error stays
            with pytest.raises(moelink.Error, match=r"combine.*rank 0|rank 0.*combine"):
                combined.event.wait()
        assert not combined.event.pending

    assert errors_of(NUM_RANKS, body) == [None] * NUM_RANKS
