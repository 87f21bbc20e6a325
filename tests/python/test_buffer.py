"""The parts of a buffer that the other tests do not reach."""

import moelink
import numpy as np
import pytest
from moelink import reference
from moelink.reference import Sent
from thread_ranks import run_threads

NUM_RANKS = 3
NUM_EXPERTS = 6


def sent_by(rank: int, num_tokens: int = 300) -> Sent:
    rng = np.random.default_rng(rank)
    x = rng.standard_normal((num_tokens, 64), np.float32)
    return Sent(x, rng.integers(-1, NUM_EXPERTS, (num_tokens, 3)))


def test_padding_that_is_left_touches_no_filled_row():
    sent = [sent_by(rank) for rank in range(NUM_RANKS)]
    expected = reference.dispatch(sent, NUM_EXPERTS, "expert_major", expert_alignment=64)

    def body(group: moelink.Group):
        mine = sent[group.rank]
        with moelink.Buffer(group, num_experts=NUM_EXPERTS) as buffer:
            received = buffer.dispatch(
                mine.x,
                mine.topk_idx,
                layout="expert_major",
                expert_alignment=64,
                padding="leave",
            )
            return received.recv_x, buffer.combine(received.recv_x, received.handle)

    combined = reference.combine([received.x for received in expected], expected)
    for rank, (recv_x, combined_x) in enumerate(run_threads(NUM_RANKS, body)):
        is_filled = expected[rank].is_filled
        assert is_filled.sum() < len(is_filled)
        assert recv_x.shape == expected[rank].x.shape
        assert (recv_x[is_filled] == expected[rank].x[is_filled]).all()
        assert combined_x.tobytes() == combined[rank].tobytes()


@pytest.mark.parametrize("num_workers", [1, 2, 7])
def test_number_of_workers_does_not_change_the_results(num_workers: int):
    sent = [sent_by(rank, 1000) for rank in range(NUM_RANKS)]
    handles = reference.dispatch(sent, NUM_EXPERTS)
    expected = reference.combine([handle.x for handle in handles], handles)

    def body(group: moelink.Group):
        mine = sent[group.rank]
        with moelink.Buffer(group, num_experts=NUM_EXPERTS, num_workers=2) as buffer:
            recv_x, handle = buffer.dispatch(mine.x, mine.topk_idx, num_workers=num_workers)
            return buffer.combine(recv_x, handle, num_workers=num_workers)

    for rank, combined_x in enumerate(run_threads(NUM_RANKS, body)):
        assert combined_x.tobytes() == expected[rank].tobytes()


def test_handle_serves_many_combines_and_cached_dispatches():
    sent = [sent_by(rank) for rank in range(NUM_RANKS)]
    handles = reference.dispatch(sent, NUM_EXPERTS, "expert_major")
    expected = reference.combine([handle.x for handle in handles], handles)

    def body(group: moelink.Group):
        mine = sent[group.rank]
        with moelink.Buffer(group, num_experts=NUM_EXPERTS) as buffer:
            recv_x, handle = buffer.dispatch(mine.x, mine.topk_idx, layout="expert_major")
            for _ in range(5):
                recv_x, same = buffer.dispatch(mine.x, handle=handle)
                assert same.num_recv_rows == handle.num_recv_rows
                combined_x = buffer.combine(recv_x, handle)
            return combined_x

    for rank, combined_x in enumerate(run_threads(NUM_RANKS, body)):
        assert combined_x.tobytes() == expected[rank].tobytes()


def test_two_buffers_of_one_group_do_not_disturb_each_other():
    def body(group: moelink.Group):
        mine = sent_by(group.rank)
        with (
            moelink.Buffer(group, num_experts=NUM_EXPERTS) as first,
            moelink.Buffer(group, num_experts=NUM_EXPERTS) as second,
        ):
            one, one_handle = first.dispatch(mine.x, mine.topk_idx)
            two, two_handle = second.dispatch(mine.x, mine.topk_idx, layout="expert_major")
            assert not np.shares_memory(one, two)
            sums = first.combine(one, one_handle), second.combine(two, two_handle)
            assert not np.array_equal(*sums)  # a row per rank, a row per selection

    run_threads(NUM_RANKS, body)


def test_buffer_describes_itself():
    def body(group: moelink.Group):
        with moelink.Buffer(group) as buffer:
            assert repr(buffer) == f"<moelink.Buffer rank {group.rank} of 2, open>"
            assert (buffer.rank, buffer.num_ranks) == (group.rank, 2)
            assert buffer.num_experts == 2
            assert buffer.group is group
            _, handle = buffer.dispatch(np.ones((3, 4), np.float32), np.zeros((3, 1), np.int32))
            assert "compact, 3 tokens sent" in repr(handle)
            assert (handle.num_tokens, handle.num_topk, handle.num_experts) == (3, 1, 2)

    run_threads(2, body)


def test_memory_statistics_count_tensors_and_limits():
    def body(group: moelink.Group):
        with moelink.Buffer(group, max_symmetric_bytes=64 << 20) as buffer:
            before = buffer.memory_statistics()
            tensor = buffer.empty((1024, 1024), "float32")
            during = buffer.memory_statistics()
            assert before.live_bytes == 0
            assert tensor.nbytes <= during.live_bytes <= 1.1 * tensor.nbytes
            assert during.peak_live_bytes == during.live_bytes
            assert during.capacity_bytes <= 64 << 20
            assert during.symmetric_bytes >= tensor.nbytes + during.control_bytes
            with pytest.raises(moelink.Error, match=r"\d+"):
                buffer.empty((64, 1 << 20), np.float32)

    run_threads(1, body)
