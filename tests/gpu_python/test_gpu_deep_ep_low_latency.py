"""The low latency mode of deep_ep on GPU tensors, as engines and DeepEP's own test use it."""

import os
import time
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import deep_ep
import moelink
import pytest
import torch
from gpu_ranks import DEVICE, RankPool
from low_latency_cases import Round, Shape, delay, same, synchronize
from test_gpu_low_latency_graphs import Captured

pytestmark = pytest.mark.any_device

SHAPE = Shape(max_tokens=16, num_topk=4, routing="distinct")
FORMATS: dict[str | None, dict[str, bool]] = {
    None: {"use_fp8": False},
    "float32": {"use_fp8": True},
    "power_of_two": {"use_fp8": True, "round_scale": True},
    "ue8m0": {"use_fp8": True, "round_scale": True, "use_ue8m0": True},
}
MODES = {
    "call": {},
    "hook": {"return_recv_hook": True},
    "event": {"async_finish": True},
}
TIMEOUT_MS = 2000


@contextmanager
def open_deep_ep(group: moelink.Group, **options: Any) -> Any:
    """With the bytes that the hint asks for, as engines do it."""
    num_experts = group.num_ranks * SHAPE.local_experts
    num_bytes = deep_ep.Buffer.get_low_latency_rdma_size_hint(
        SHAPE.max_tokens, SHAPE.hidden, group.num_ranks, num_experts
    )
    buffer = deep_ep.Buffer(
        group,
        num_rdma_bytes=num_bytes,
        low_latency_mode=True,
        explicitly_destroy=True,
        **options,
    )
    yield buffer
    buffer.destroy()


def dispatch(buffer: deep_ep.Buffer, one: Round, **options: Any) -> Any:
    return buffer.low_latency_dispatch(
        one.x,
        one.topk_idx,
        one.call.num_max_tokens_per_rank,
        one.call.num_experts,
        **FORMATS[one.call.fp8],
        **options,
    )


def combine(buffer: deep_ep.Buffer, one: Round, handle: Any, **options: Any) -> Any:
    rows = options.pop("x", one.rows)
    return buffer.low_latency_combine(rows, one.topk_idx, one.topk_weights, handle, **options)


def finish(mode: str, event: deep_ep.EventOverlap, hook: Any) -> None:
    assert (hook is not None) is (mode == "hook")
    assert (event.event is not None) is (mode == "event")
    if hook is not None:
        hook()
    if event.event is not None:
        event.current_stream_wait()


def check_received(one: Round, recv: Any, count: torch.Tensor, handle: Any) -> None:
    src_info, layout_range, *sizes = handle
    call = one.call
    assert sizes == [call.num_max_tokens_per_rank, one.x.shape[1], call.num_experts]
    received = SimpleNamespace(
        recv_x=recv,
        recv_count=count,
        handle=SimpleNamespace(src_info=src_info, layout_range=layout_range),
        recv_topk_idx=None,
        recv_topk_weights=None,
    )
    one.check_received(received)


def every_mode(group: moelink.Group, fp8: str | None) -> None:
    one = Round(group, SHAPE, fp8=fp8)
    stats = torch.zeros(SHAPE.local_experts, dtype=torch.int32, device=DEVICE)
    costs = torch.zeros(group.num_ranks, dtype=torch.int64, device=DEVICE)
    with open_deep_ep(group) as buffer:
        for i, (mode, execution) in enumerate(MODES.items()):
            out = torch.full_like(one.x, float("nan"))
            recv, count, handle, event, hook = dispatch(
                buffer,
                one,
                cumulative_local_expert_recv_stats=stats,
                dispatch_wait_recv_cost_stats=costs,
                **execution,
            )
            finish(mode, event, hook)
            check_received(one, recv, count, handle)
            same(stats, (i + 1) * one.expected.count, "statistics")
            combined, event, hook = combine(
                buffer,
                one,
                handle,
                use_logfmt=mode == "call",
                out=out,
                combine_wait_recv_cost_stats=costs,
                **execution,
            )
            finish(mode, event, hook)
            assert combined.data_ptr() == out.data_ptr()
            one.check_combined(combined)
        assert (costs.cpu() >= 0).all()


@pytest.mark.parametrize("num_ranks", [1, 2, 4, 8])
@pytest.mark.parametrize("fp8", FORMATS)
def test_every_format_and_mode(pool: RankPool, fp8: str | None, num_ranks: int):
    pool.run(every_mode, fp8, num_ranks=num_ranks)


def hooks_on_their_streams(group: moelink.Group) -> None:
    """hook() receives on the stream that was current at the call."""
    one = Round(group, SHAPE)
    stream = torch.cuda.Stream()
    with open_deep_ep(group) as buffer:
        combine(buffer, one, dispatch(buffer, one)[2])
        stream.wait_stream(torch.cuda.default_stream())
        for _ in range(2):
            with torch.cuda.stream(stream):
                delay()
                recv, count, handle, _, hook = dispatch(buffer, one, return_recv_hook=True)
            hook()
            with torch.cuda.stream(stream):
                combined, _, hook = combine(buffer, one, handle, return_recv_hook=True)
            hook()
            assert not stream.query(), "the host has waited"
            with torch.cuda.stream(stream):
                check_received(one, recv, count, handle)
                one.check_combined(combined)
        synchronize()


@pytest.mark.skipif(DEVICE == "cpu", reason="the CPU has no streams")
def test_hooks_receive_on_the_stream_of_their_call(pool: RankPool):
    pool.run(hooks_on_their_streams, num_ranks=2)


def zero_copy(group: moelink.Group) -> None:
    one = Round(group, SHAPE)
    with open_deep_ep(group) as buffer:
        for _ in range(3):
            handle = dispatch(buffer, one)[2]
            area = buffer.get_next_low_latency_combine_buffer(handle)
            assert area.shape == one.rows.shape
            area.copy_(one.rows)
            one.check_combined(combine(buffer, one, handle, x=area, zero_copy=True)[0])


def test_zero_copy_sends_the_combine_buffer(pool: RankPool):
    pool.run(zero_copy, num_ranks=4)


def graph_of_calls(group: moelink.Group, mode: str) -> None:
    slot = Round(group, SHAPE, fp8="float32")
    with open_deep_ep(group) as buffer:

        def step() -> list[tuple[str, Any]]:
            recv, count, handle, event, hook = dispatch(buffer, slot, **MODES[mode])
            finish(mode, event, hook)
            combined, event, hook = combine(buffer, slot, handle, **MODES[mode])
            finish(mode, event, hook)
            return [("received", (recv, count, handle)), ("combined", combined)]

        step()
        captured = Captured(step)
        for salt in range(1, 4):
            one = Round(group, SHAPE, salt, fp8="float32")
            slot.load(one)
            (_, received), (_, combined) = captured.replay()
            check_received(one, *received)
            one.check_combined(combined, what=f"replay {salt}")
        group.barrier()
        captured.end()


@pytest.mark.parametrize("mode", MODES)
def test_calls_can_be_captured(pool: RankPool, mode: str):
    pool.run(graph_of_calls, mode, num_ranks=4)


def both_modes(group: moelink.Group) -> None:
    """One buffer for prefill and decoding, with a clean between them."""
    one = Round(group, SHAPE)
    with open_deep_ep(group, num_nvl_bytes=1 << 20) as buffer:
        for _ in range(2):
            layout = buffer.get_dispatch_layout(one.topk_idx, one.call.num_experts)
            recv_x, _, _, _, handle, _ = buffer.dispatch(
                one.x,
                num_tokens_per_rank=layout[0],
                num_tokens_per_rdma_rank=layout[1],
                num_tokens_per_expert=layout[2],
                is_token_in_rank=layout[3],
                topk_idx=one.topk_idx,
                topk_weights=one.topk_weights,
            )
            buffer.combine(recv_x, handle)
            buffer.clean_low_latency_buffer(SHAPE.max_tokens, SHAPE.hidden, one.call.num_experts)
            for _ in range(3):
                recv, count, handle, _, _ = dispatch(buffer, one)
                check_received(one, recv, count, handle)
                one.check_combined(combine(buffer, one, handle)[0])


def test_one_buffer_serves_both_modes(pool: RankPool):
    pool.run(both_modes, num_ranks=4)


def masks_of(buffer: deep_ep.Buffer) -> list[int]:
    status = torch.full((buffer.group_size,), 9, dtype=torch.int32, device=DEVICE)
    buffer.low_latency_query_mask_buffer(status)
    return status.tolist()


def masks_by_hand(group: moelink.Group) -> None:
    one = Round(group, SHAPE)
    other = (group.rank + 1) % group.num_ranks
    with open_deep_ep(group, enable_shrink=True) as buffer:
        handle = dispatch(buffer, one)[2]
        assert masks_of(buffer) == [0] * group.num_ranks
        buffer.low_latency_update_mask_buffer(other, True)
        assert masks_of(buffer) == [int(rank == other) for rank in range(group.num_ranks)]
        buffer.low_latency_update_mask_buffer(other, False)
        buffer.low_latency_update_mask_buffer(other, True)
        buffer.low_latency_clean_mask_buffer()
        assert masks_of(buffer) == [0] * group.num_ranks
        one.check_combined(combine(buffer, one, handle)[0])


def test_masks_are_queried_into_a_tensor(pool: RankPool):
    pool.run(masks_by_hand, num_ranks=3)


def shrink(group: moelink.Group) -> None:
    """The last rank makes no call until the others have masked it; then all take it back."""
    silent = group.num_ranks - 1
    is_cut = torch.zeros(group.num_ranks, group.num_ranks, dtype=torch.bool).numpy()
    is_cut[silent, :] = is_cut[:, silent] = True
    whole, without = Round(group, SHAPE), Round(group, SHAPE, is_cut=is_cut)
    expected = [int(rank == silent) for rank in range(group.num_ranks)]
    os.environ["MOELINK_TIMEOUT_MS"] = str(TIMEOUT_MS)
    with open_deep_ep(group, enable_shrink=True) as buffer:
        del os.environ["MOELINK_TIMEOUT_MS"]
        check_round(buffer, whole)
        group.barrier()
        if group.rank != silent:
            recv, count, handle, _, _ = dispatch(buffer, without)
            assert masks_of(buffer) == expected
            check_received(without, recv, count, handle)
            without.check_combined(combine(buffer, without, handle)[0])
            begin = time.monotonic()
            check_round(buffer, without)  # nobody waits any more
            synchronize()
            assert time.monotonic() - begin < TIMEOUT_MS / 1000
            assert masks_of(buffer) == expected
            buffer.low_latency_clean_mask_buffer()
        group.barrier()
        buffer.clean_low_latency_buffer(SHAPE.max_tokens, SHAPE.hidden, whole.call.num_experts)
        for _ in range(3):
            check_round(buffer, whole)
        assert masks_of(buffer) == [0] * group.num_ranks


def check_round(buffer: deep_ep.Buffer, one: Round) -> None:
    recv, count, handle, _, _ = dispatch(buffer, one)
    check_received(one, recv, count, handle)
    one.check_combined(combine(buffer, one, handle)[0])


def test_a_silent_rank_is_masked_and_taken_back(pool: RankPool):
    pool.run(shrink, num_ranks=4)


def misuse(group: moelink.Group) -> None:
    one = Round(group, SHAPE)
    with open_deep_ep(group) as buffer:
        pending = [dispatch(buffer, one, return_recv_hook=True) for _ in range(2)]
        with pytest.raises(moelink.Error, match="outstanding"):
            dispatch(buffer, one)
        for result in pending:
            result[4]()
        with pytest.raises(RuntimeError, match="enable_shrink"):
            buffer.low_latency_clean_mask_buffer()
        with pytest.raises(moelink.Error, match="exclude"):
            dispatch(buffer, one, return_recv_hook=True, async_finish=True)
        check_round(buffer, one)


def test_misuse_is_refused_and_the_buffer_stays_usable(pool: RankPool):
    pool.run(misuse, num_ranks=2)
