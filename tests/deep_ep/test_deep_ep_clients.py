"""Clients in the manner of the programs that use deep_ep: one that trains, one that decodes."""

from typing import Any

import deep_ep
import pytest
import torch
from deep_ep.utils.math import calc_diff
from deep_ep_ranks import LOCAL_EXPERTS, in_rank, needs_low_latency, routing_of, run


def event_for(async_finish: bool) -> deep_ep.EventOverlap | None:
    return deep_ep.EventOverlap(deep_ep.EventHandle()) if async_finish else None


class FusedDispatch(torch.autograd.Function):
    """Dispatch; its gradient is a combine over the same handle."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, routing: tuple, buffer: Any, is_async: bool):
        topk_idx, topk_weights = routing
        execution = {
            "previous_event": event_for(is_async),
            "async_finish": is_async,
            "allocate_on_comm_stream": is_async,
        }
        per_rank, per_node, per_expert, is_in_rank, layout_event = buffer.get_dispatch_layout(
            topk_idx, buffer.group_size * LOCAL_EXPERTS, **execution
        )
        execution["previous_event"] = layout_event if is_async else None
        recv_x, _, weights, counts, handle, event = buffer.dispatch(
            x,
            topk_idx=topk_idx,
            topk_weights=topk_weights,
            num_tokens_per_rank=per_rank,
            num_tokens_per_rdma_rank=per_node,
            is_token_in_rank=is_in_rank,
            num_tokens_per_expert=per_expert,
            **execution,
        )
        if is_async:
            event.current_stream_wait()
        ctx.buffer, ctx.handle, ctx.is_async = buffer, handle, is_async
        return recv_x, weights, handle, counts

    @staticmethod
    def backward(ctx: Any, grad_x: torch.Tensor, grad_weights: torch.Tensor, *_: Any):
        grad, _, event = ctx.buffer.combine(
            grad_x.contiguous(),
            ctx.handle,
            topk_weights=grad_weights.float(),
            previous_event=event_for(ctx.is_async),
            async_finish=ctx.is_async,
            allocate_on_comm_stream=ctx.is_async,
        )
        if ctx.is_async:
            event.current_stream_wait()
        return grad, None, None, None


class FusedCombine(torch.autograd.Function):
    """Combine; its gradient is a cached dispatch over the same handle."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, handle: tuple, buffer: Any, is_async: bool):
        ctx.buffer, ctx.handle, ctx.is_async = buffer, handle, is_async
        combined, _, event = buffer.combine(
            x, handle, previous_event=event_for(is_async), async_finish=is_async
        )
        if is_async:
            event.current_stream_wait()
        return combined

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor):
        grad_x, *_, event = ctx.buffer.dispatch(
            grad.contiguous(),
            handle=ctx.handle,
            previous_event=event_for(ctx.is_async),
            async_finish=ctx.is_async,
        )
        if ctx.is_async:
            event.current_stream_wait()
        return grad_x, None, None, None


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("shape", [(2, 1), (4, 1), (4, 2)])
def test_training_client_gets_the_gradients_of_the_local_computation(
    shape: tuple[int, int], is_async: bool
):
    def body(buffer: deep_ep.Buffer):
        routing = routing_of(buffer.rank, shape[0])
        routing.topk_idx[5:9] = -1  # dropped tokens
        num_copies = in_rank(routing.topk_idx, shape[0]).sum(dim=1, keepdim=True)
        for _ in range(3):
            x = routing.x.clone().requires_grad_()
            topk = (routing.topk_idx, routing.topk_weights)
            recv_x, _, handle, _ = FusedDispatch.apply(x, topk, buffer, is_async)
            combined = FusedCombine.apply(recv_x * 0.5, handle, buffer, is_async)
            assert calc_diff(combined, routing.x * num_copies * 0.5) < 5e-6
            upstream = torch.full_like(combined, 2.0)
            combined.backward(upstream)
            assert torch.equal(x.grad, num_copies.expand_as(x).bfloat16())

    run(shape, body)


@needs_low_latency
def test_decoding_client_overlaps_two_micro_batches():
    def body(buffer: deep_ep.Buffer):
        num_experts = 4 * LOCAL_EXPERTS
        halves = [routing_of(buffer.rank + 4 * i, 4, 12 + i, 512) for i in range(2)]
        for _ in range(4):
            sent = []
            for half in halves:
                result = buffer.low_latency_dispatch(
                    half.x, half.topk_idx, 16, num_experts, use_fp8=False, return_recv_hook=True
                )
                sent.append(result)
            outputs = []
            for half, (recv, _, handle, _, receive) in zip(halves, sent, strict=True):
                receive()
                out = torch.empty_like(half.x)
                _, _, receive = buffer.low_latency_combine(
                    recv * 2,
                    half.topk_idx,
                    half.topk_weights,
                    handle,
                    return_recv_hook=True,
                    out=out,
                )
                receive()
                outputs.append(out)
            for half, out in zip(halves, outputs, strict=True):
                weights = torch.where(half.topk_idx >= 0, half.topk_weights, 0.0)
                expected = half.x.float() * 2 * weights.sum(dim=1, keepdim=True)
                assert calc_diff(out, expected) < 1e-5

    run((4, 1), body, low_latency_mode=True)


@needs_low_latency
def test_one_buffer_serves_prefill_and_decoding_in_turn():
    def body(buffer: deep_ep.Buffer):
        routing = routing_of(buffer.rank, 3, 16, 512)
        num_experts = 3 * LOCAL_EXPERTS
        weights = torch.where(routing.topk_idx >= 0, routing.topk_weights, 0.0)
        num_copies = in_rank(routing.topk_idx, 3).sum(dim=1, keepdim=True)
        for _ in range(2):
            layout = buffer.get_dispatch_layout(routing.topk_idx, num_experts)
            recv_x, _, _, _, handle, _ = buffer.dispatch(
                routing.x, None, *layout[:2], layout[3], layout[2]
            )
            combined = buffer.combine(recv_x, handle)[0]
            assert calc_diff(combined, routing.x * num_copies) < 5e-6
            buffer.clean_low_latency_buffer(16, 512, num_experts)
            recv, _, ll_handle, _, _ = buffer.low_latency_dispatch(
                routing.x, routing.topk_idx, 16, num_experts, use_fp8=False
            )
            arguments = (recv, routing.topk_idx, routing.topk_weights, ll_handle)
            combined = buffer.low_latency_combine(*arguments)[0]
            assert calc_diff(combined, routing.x.float() * weights.sum(1, keepdim=True)) < 1e-5

    run((3, 1), body, low_latency_mode=True, num_nvl_bytes=1 << 20, num_rdma_bytes=1 << 20)
