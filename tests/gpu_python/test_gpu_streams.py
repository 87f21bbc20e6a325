"""Calls keep the order of CUDA streams: of the caller's, of events, and inside graphs."""

from typing import Any

import moelink
import torch
from gpu_cases import NUM_TOPK, all_sent, assert_same, on_gpu, open_buffer
from gpu_ranks import RankPool
from moelink import reference

LONG = 50_000_000  # clock cycles: far longer than an exchange


def current_stream() -> int:
    return torch.cuda.current_stream().cuda_stream


def expected_sum(sent: list[reference.Sent], num_experts: int, rank: int) -> Any:
    received = reference.dispatch(sent, num_experts)
    return reference.combine([part.x for part in received], received)[rank]


def late_inputs(group: moelink.Group) -> None:
    sent = all_sent(group.num_ranks)
    good = on_gpu(sent[group.rank].x)
    topk_idx = on_gpu(sent[group.rank].topk_idx)
    with open_buffer(group) as buffer, torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda.current_stream().wait_stream(torch.cuda.default_stream())
        x = torch.zeros_like(good)
        torch.cuda._sleep(LONG)
        x.copy_(good)
        result = buffer.dispatch(x, topk_idx)
        x.zero_()  # the dispatch has read it in the order of the stream
        combined = buffer.combine(result.recv_x, result.handle)
        expected = expected_sum(sent, buffer.num_experts, group.rank)
        assert_same(combined, expected, "combined")


def test_calls_run_in_the_order_of_the_current_stream(ranks: RankPool):
    ranks.run(late_inputs)


def asynchronous_calls(group: moelink.Group) -> None:
    sent = all_sent(group.num_ranks)
    good = on_gpu(sent[group.rank].x)
    topk_idx = on_gpu(sent[group.rank].topk_idx)
    with open_buffer(group) as buffer:
        expected = expected_sum(sent, buffer.num_experts, group.rank)
        for worst in (0, 500):
            x = torch.zeros_like(good)
            torch.cuda._sleep(LONG)
            x.copy_(good)
            ready = moelink.Event.record(torch.cuda.current_device(), current_stream())
            torch.cuda._sleep(LONG)  # later work is no matter of the dispatch
            result = buffer.dispatch(
                x, topk_idx, num_worst_tokens=worst, previous_event=ready, async_finish=True
            )
            del x
            combined = buffer.combine(
                result.recv_x, result.handle, previous_event=result.event, async_finish=True
            )
            combined.event.wait_on(current_stream())
            assert_same(combined.combined_x, expected, f"combined, num_worst_tokens {worst}")
            result.event.wait()
            assert not result.event.pending


def test_asynchronous_calls_wait_for_events_and_can_be_waited_for(ranks: RankPool):
    ranks.run(asynchronous_calls)


def replayed_graph(group: moelink.Group, is_async: bool) -> None:
    num_ranks = group.num_ranks
    sent = all_sent(num_ranks)
    x, topk_idx = on_gpu(sent[group.rank].x), on_gpu(sent[group.rank].topk_idx)
    with open_buffer(group) as buffer:

        def step() -> torch.Tensor:
            result = buffer.dispatch(x, topk_idx, num_worst_tokens=500, async_finish=is_async)
            if is_async:
                result.event.wait_on(current_stream())
            return buffer.combine(result.recv_x * 1, result.handle)

        step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            combined = step()
        for salt in range(1, 4):
            sent = all_sent(num_ranks, salt=salt)
            x.copy_(on_gpu(sent[group.rank].x))
            topk_idx.copy_(on_gpu(sent[group.rank].topk_idx))
            graph.replay()
            expected = expected_sum(sent, buffer.num_experts, group.rank)
            assert_same(combined, expected, f"replay {salt}")
        assert topk_idx.shape[1] == NUM_TOPK
        group.barrier()
        del graph, combined
        torch.cuda.synchronize()


def eager_calls_between_replays(group: moelink.Group) -> None:
    sent = all_sent(group.num_ranks)
    x, topk_idx = on_gpu(sent[group.rank].x), on_gpu(sent[group.rank].topk_idx)
    with open_buffer(group) as buffer:
        expected = expected_sum(sent, buffer.num_experts, group.rank)

        def step() -> torch.Tensor:
            result = buffer.dispatch(x, topk_idx, num_worst_tokens=500)
            return buffer.combine(result.recv_x, result.handle)

        step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            combined = step()
        held = []
        for replay in range(3):
            result = buffer.dispatch(x * (replay + 2), topk_idx)
            held.append((result.recv_x, result.recv_x.clone()))
            graph.replay()
            assert_same(combined, expected, f"replay {replay}")
        for recv_x, copy in held:
            assert torch.equal(recv_x, copy), "a graph wrote into a tensor of a later call"
        del graph, combined


def test_graphs_leave_tensors_of_later_calls_alone(ranks: RankPool):
    ranks.run(eager_calls_between_replays)


def test_a_captured_graph_follows_the_contents_of_its_inputs(ranks: RankPool):
    ranks.run(replayed_graph, False)


def test_asynchronous_calls_can_be_captured(ranks: RankPool):
    ranks.run(replayed_graph, True)
