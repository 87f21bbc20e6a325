"""The low latency mode: packing, quantisation, combine, hooks, masks, and misuse."""

from typing import Any

import deep_ep
import moelink
import pytest
import torch
from deep_ep.utils.math import calc_diff, hash_tensors, per_token_cast_back
from deep_ep_ranks import (
    LOCAL_EXPERTS,
    ONE_NODE,
    TWO_NODES,
    Routing,
    in_rank,
    layout_arguments,
    needs_low_latency,
    routing_of,
    run,
)

pytestmark = needs_low_latency

MAX_TOKENS = 32
HIDDEN = 512
SHAPES = [*ONE_NODE, *TWO_NODES]
# use_fp8, round_scale, use_ue8m0
FORMATS = [
    (False, False, False),
    (True, False, False),
    (True, True, False),
    (True, True, True),
]


def coded(rank: int, num_ranks: int, num_tokens: int = 24) -> Routing:
    """Rows of a value that names the rank, with the token's index in the last 128 channels."""
    routing = routing_of(rank, num_ranks, num_tokens, HIDDEN)
    routing.x[:] = float(rank + 2)
    routing.x[:, -128:] = torch.arange(num_tokens).bfloat16().view(-1, 1)
    return routing


def dispatch(buffer: deep_ep.Buffer, routing: Routing, **options: Any) -> Any:
    num_experts = buffer.group_size * LOCAL_EXPERTS
    return buffer.low_latency_dispatch(
        routing.x, routing.topk_idx, MAX_TOKENS, num_experts, **options
    )


def unpacked(recv: Any, expert: int) -> torch.Tensor:
    """bfloat16 rows of one local expert."""
    if isinstance(recv, torch.Tensor):
        return recv[expert]
    return per_token_cast_back(recv[0][expert], recv[1][expert].contiguous())


def check_packing(buffer: deep_ep.Buffer, result: Any, tolerance: float) -> None:
    recv, counts, (src_info, layout_range, *sizes), _, _ = result
    num_ranks = buffer.group_size
    assert sizes == [MAX_TOKENS, HIDDEN, num_ranks * LOCAL_EXPERTS]
    for i in range(LOCAL_EXPERTS):
        rows = unpacked(recv, i).float()
        expert = buffer.rank * LOCAL_EXPERTS + i
        num_rows = 0
        for source in range(num_ranks):
            packed = int(layout_range[i, source])
            num, first = packed & 0xFFFFFFFF, packed >> 32
            sent = coded(source, num_ranks).topk_idx == expert
            assert num == int(sent.sum())
            tokens = src_info[i, first : first + num].long()
            assert sorted(tokens.tolist()) == sent.any(dim=1).nonzero().flatten().tolist()
            block = rows[first : first + num]
            assert calc_diff(block[:, :-128], torch.full_like(block[:, :-128], source + 2)) < 1e-3
            expected = tokens.view(-1, 1).expand(-1, 128)
            assert calc_diff(block[:, -128:], expected) <= tolerance
            num_rows += num
        assert int(counts[i]) == num_rows


def expected_combine(routing: Routing) -> torch.Tensor:
    weights = torch.where(routing.topk_idx >= 0, routing.topk_weights, 0.0)
    return routing.x.float() * weights.sum(dim=1, keepdim=True)


@pytest.mark.parametrize("number_format", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_rows_are_packed_by_expert_and_source(
    shape: tuple[int, int], number_format: tuple[bool, bool, bool]
):
    use_fp8, round_scale, use_ue8m0 = number_format

    def body(buffer: deep_ep.Buffer):
        stats = torch.full((LOCAL_EXPERTS,), 5, dtype=torch.int32)
        wait_cost = torch.zeros(shape[0], dtype=torch.int64)
        result = dispatch(
            buffer,
            coded(buffer.rank, shape[0]),
            use_fp8=use_fp8,
            round_scale=round_scale,
            use_ue8m0=use_ue8m0,
            cumulative_local_expert_recv_stats=stats,
            dispatch_wait_recv_cost_stats=wait_cost,
        )
        check_packing(buffer, result, 0.007 if round_scale else 1e-10)
        assert torch.equal(stats, result[1] + 5)
        assert (wait_cost >= 0).all()
        assert result[3].event is None and result[4] is None
        if use_fp8:
            num_rows = shape[0] * MAX_TOKENS
            assert result[0][1].stride()[1:] == (1, num_rows)
            width = HIDDEN // (512 if use_ue8m0 else 128)
            assert result[0][1].shape == (LOCAL_EXPERTS, num_rows, width)

    run(shape, body, low_latency_mode=True)


@pytest.mark.parametrize("mode", ["call", "hook", "event"])
@pytest.mark.parametrize("shape", SHAPES)
def test_combine_weighs_the_rows_of_the_experts(shape: tuple[int, int], mode: str):
    execution = {"return_recv_hook": mode == "hook", "async_finish": mode == "event"}

    def finish(event: deep_ep.EventOverlap, hook: Any) -> None:
        assert (hook is not None) is (mode == "hook")
        assert (event.event is not None) is (mode == "event")
        if hook is not None:
            hook()
        if event.event is not None:
            event.current_stream_wait()

    def body(buffer: deep_ep.Buffer):
        routing = routing_of(buffer.rank, shape[0], 24, HIDDEN)
        out = torch.full_like(routing.x, float("nan"))
        recv, _, handle, event, hook = dispatch(buffer, routing, use_fp8=False, **execution)
        finish(event, hook)
        arguments = (recv, routing.topk_idx, routing.topk_weights, handle)
        combined, event, hook = buffer.low_latency_combine(*arguments, out=out, **execution)
        finish(event, hook)
        assert combined.data_ptr() == out.data_ptr()
        assert not combined.isnan().any()
        assert calc_diff(combined, expected_combine(routing)) < 1e-5

    run(shape, body, low_latency_mode=True)


@pytest.mark.parametrize("options", [{"use_logfmt": True}, {"zero_copy": True}])
@pytest.mark.parametrize("use_fp8", [False, True])
def test_wire_format_and_zero_copy_keep_the_result(options: dict[str, bool], use_fp8: bool):
    def body(buffer: deep_ep.Buffer):
        routing = routing_of(buffer.rank, 4, 24, HIDDEN)
        recv, _, handle, _, _ = dispatch(buffer, routing, use_fp8=use_fp8)
        rows = torch.stack([unpacked(recv, i) for i in range(LOCAL_EXPERTS)])
        if options.get("zero_copy"):
            area = buffer.get_next_low_latency_combine_buffer(handle)
            assert area.shape == rows.shape
            area.copy_(rows)
        wait_cost = torch.zeros(4, dtype=torch.int64)
        combined, _, _ = buffer.low_latency_combine(
            rows,
            routing.topk_idx,
            routing.topk_weights,
            handle,
            combine_wait_recv_cost_stats=wait_cost,
            **options,
        )
        assert calc_diff(combined, expected_combine(routing)) < (9e-4 if use_fp8 else 1e-5)

    run((4, 1), body, low_latency_mode=True)


def test_two_dispatches_may_be_outstanding_and_a_third_is_refused():
    def body(buffer: deep_ep.Buffer):
        routing = coded(buffer.rank, 3)
        pending = [dispatch(buffer, routing, use_fp8=False, return_recv_hook=True) for _ in "ab"]
        with pytest.raises(moelink.Error, match="outstanding"):
            dispatch(buffer, routing)
        for result in pending:
            result[4]()
            check_packing(buffer, result, 1e-10)
        with pytest.raises(moelink.Error):
            pending[0][4]()

    run((3, 1), body, low_latency_mode=True)


def test_repeated_rounds_are_equal_bit_for_bit():
    def body(buffer: deep_ep.Buffer):
        routing = routing_of(buffer.rank, 4, 24, HIDDEN)
        hashes = set()
        for _ in range(20):
            recv, counts, handle, _, _ = dispatch(buffer, routing)
            rows = torch.stack([unpacked(recv, i) for i in range(LOCAL_EXPERTS)])
            valid = [rows[i, : int(counts[i])] for i in range(LOCAL_EXPERTS)]
            arguments = (rows, routing.topk_idx, routing.topk_weights, handle)
            combined = buffer.low_latency_combine(*arguments)[0]
            hashes.add(hash_tensors(*valid, combined))
        assert len(hashes) == 1

    run((4, 1), body, low_latency_mode=True)


def test_misuse_is_refused_and_the_buffer_stays_usable():
    def body(buffer: deep_ep.Buffer):
        routing = routing_of(buffer.rank, 2, 24, HIDDEN)
        recv, _, handle, _, _ = dispatch(buffer, routing, use_fp8=False)
        arguments = (recv, routing.topk_idx, routing.topk_weights, handle)
        with pytest.raises(ValueError, match="stale"):
            buffer.low_latency_combine(*arguments, zero_copy=True)
        with pytest.raises(ValueError, match="use_logfmt with zero_copy"):
            buffer.low_latency_combine(*arguments, zero_copy=True, use_logfmt=True)
        with pytest.raises(ValueError, match="use_ue8m0 without round_scale"):
            dispatch(buffer, routing, use_ue8m0=True)
        with pytest.raises(moelink.Error, match="exclude"):
            dispatch(buffer, routing, return_recv_hook=True, async_finish=True)
        with pytest.raises(ValueError, match="handle of a low latency dispatch"):
            buffer.combine(recv, handle)
        buffer.low_latency_combine(*arguments, overlap=False, block_m=64, threshold=0, num_sms=3)

    run((2, 1), body, low_latency_mode=True)


def test_size_hint_is_a_multiple_of_128_and_grows_with_the_tokens():
    small = deep_ep.Buffer.get_low_latency_rdma_size_hint(16, 2048, 8, 64)
    large = deep_ep.Buffer.get_low_latency_rdma_size_hint(
        num_max_dispatch_tokens_per_rank=128, hidden=2048, num_ranks=8, num_experts=64
    )
    assert 0 < small < large
    assert small % 128 == 0 and large % 128 == 0


def test_size_hint_has_room_for_the_tensors_of_two_outstanding_dispatches_and_more():
    hint = deep_ep.Buffer.get_low_latency_rdma_size_hint(128, 7168, 8, 288)
    area = moelink.Buffer.low_latency_size_hint(128, 7168, 8, 32)
    assert hint - area >= 4 * 288 * 128 * 7168 * 2


def test_masks_are_local_and_are_cleaned():
    def body(buffer: deep_ep.Buffer):
        status = torch.full((3,), 9, dtype=torch.int32)
        buffer.low_latency_update_mask_buffer((buffer.rank + 1) % 3, True)
        buffer.low_latency_query_mask_buffer(status)
        assert status.nonzero().flatten().tolist() == [(buffer.rank + 1) % 3]
        buffer.low_latency_clean_mask_buffer()
        buffer.low_latency_query_mask_buffer(status)
        assert not status.any()
        with pytest.raises(ValueError, match="mask_status"):
            buffer.low_latency_query_mask_buffer(torch.zeros(2, dtype=torch.int32))

    run((3, 1), body, low_latency_mode=True, enable_shrink=True)


def low_latency_round(buffer: deep_ep.Buffer, taking_part: set[int]) -> None:
    """Checks that the combined rows have the experts of these ranks and no others."""
    routing = routing_of(buffer.rank, buffer.group_size, 24, HIDDEN)
    recv, _, handle, _, _ = dispatch(buffer, routing, use_fp8=False)
    combined = buffer.low_latency_combine(recv, routing.topk_idx, routing.topk_weights, handle)[0]
    takes_part = torch.isin(
        routing.topk_idx // LOCAL_EXPERTS, torch.tensor(sorted(taking_part))
    ) & (routing.topk_idx >= 0)
    weights = torch.where(takes_part, routing.topk_weights, 0.0).sum(dim=1, keepdim=True)
    assert calc_diff(combined, routing.x.float() * weights) < 1e-5


def normal_round(buffer: deep_ep.Buffer, taking_part: set[int]) -> None:
    routing = routing_of(buffer.rank, buffer.group_size)
    recv_x, _, _, _, handle, _ = buffer.dispatch(
        routing.x, **layout_arguments(buffer, routing.topk_idx)
    )
    combined = buffer.combine(recv_x, handle)[0]
    copies = in_rank(routing.topk_idx, buffer.group_size)[:, sorted(taking_part)]
    assert calc_diff(combined, routing.x * copies.sum(dim=1, keepdim=True)) < 5e-6


def test_unmasked_rank_takes_part_again_after_a_clean_of_all():
    """Ranks 0 and 1 leave out rank 2, which makes no call until it is taken back."""

    def body(buffer: deep_ep.Buffer):
        everybody = {0, 1, 2}
        for _ in range(2):
            low_latency_round(buffer, everybody)
            normal_round(buffer, everybody)
            if buffer.rank != 2:
                buffer.low_latency_update_mask_buffer(2, True)
                for _ in range(3):
                    low_latency_round(buffer, {0, 1})
                    normal_round(buffer, {0, 1})
                buffer.low_latency_update_mask_buffer(2, False)
            buffer.clean_low_latency_buffer(MAX_TOKENS, HIDDEN, 3 * LOCAL_EXPERTS)
            low_latency_round(buffer, everybody)
            normal_round(buffer, everybody)

    run((3, 1), body, low_latency_mode=True, enable_shrink=True)
