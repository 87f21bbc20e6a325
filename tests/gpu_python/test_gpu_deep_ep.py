"""The normal mode of deep_ep on GPU tensors, as DeepEP's own test uses it."""

from typing import Any

import deep_ep
import moelink
import numpy as np
import torch
from gpu_cases import LOCAL_EXPERTS, all_sent, as_bfloat16, assert_same, bits_of, on_gpu
from gpu_ranks import RankPool
from moelink import reference

ALIGNMENT = 8


class Case:
    """The inputs of all ranks as bfloat16, and what follows from them."""

    def __init__(self, buffer: deep_ep.Buffer) -> None:
        self.rank = buffer.rank
        self.num_experts = buffer.group_size * LOCAL_EXPERTS
        self.sent = all_sent(buffer.group_size)
        for sent in self.sent:  # float32 numbers that are bfloat16
            sent.x = torch.from_numpy(sent.x).bfloat16().float().numpy()
        self.all_received = reference.dispatch(
            self.sent, self.num_experts, expert_alignment=ALIGNMENT
        )
        mine = self.sent[self.rank]
        self.x = on_gpu(mine.x).bfloat16()
        self.topk = {"topk_idx": on_gpu(mine.topk_idx), "topk_weights": on_gpu(mine.topk_weights)}
        self.expected = self.all_received[self.rank]
        self.num_received = len(self.expected.src_token)

    def layout(self, buffer: deep_ep.Buffer, **options: Any) -> tuple[dict[str, Any], Any]:
        """What dispatch takes from get_dispatch_layout, and its event."""
        topk_idx = self.topk["topk_idx"]
        per_rank, per_node, per_expert, in_rank, event = buffer.get_dispatch_layout(
            topk_idx, self.num_experts, **options
        )
        expected = reference.query_layout(
            self.sent[self.rank].topk_idx, buffer.group_size, self.num_experts
        )
        if not options:
            assert_same(per_rank, expected.num_tokens_per_rank, "num_tokens_per_rank")
            assert_same(per_expert, expected.num_tokens_per_expert, "num_tokens_per_expert")
            assert_same(in_rank, expected.is_token_in_rank, "is_token_in_rank")
        assert per_node is None
        arguments = {
            "num_tokens_per_rank": per_rank,
            "num_tokens_per_rdma_rank": per_node,
            "is_token_in_rank": in_rank,
            "num_tokens_per_expert": per_expert,
            "expert_alignment": ALIGNMENT,
        }
        return arguments, event

    def check_received(self, recv_x: torch.Tensor, what: str) -> None:
        rows = recv_x[: self.num_received].float()
        assert_same(rows, self.expected.x[: self.num_received], f"{what}: recv_x")

    def check_combined(self, combined: torch.Tensor, factor: int, what: str) -> None:
        rows = [received.x * factor for received in self.all_received]
        expected = as_bfloat16(reference.combine(rows, self.all_received)[self.rank])
        assert bits_of(combined) == bits_of(expected), f"{what}: {combined.cpu()} != {expected}"


def open_deep_ep(group: moelink.Group) -> deep_ep.Buffer:
    buffer = deep_ep.Buffer(group, 1 << 28, explicitly_destroy=True)
    assert buffer.runtime.get_local_device_id() == torch.cuda.current_device()
    return buffer


def plain_calls(group: moelink.Group) -> None:
    buffer = open_deep_ep(group)
    case = Case(buffer)
    expected = case.expected
    arguments, event = case.layout(buffer)
    assert event.event is None
    recv_x, recv_idx, recv_weights, counts, handle, event = buffer.dispatch(
        case.x, **arguments, **case.topk
    )
    assert event.event is None and counts == expected.num_tokens_per_expert
    case.check_received(recv_x, "dispatch")
    assert_same(recv_idx, expected.topk_idx, "recv_topk_idx")
    assert_same(recv_weights, expected.topk_weights, "recv_topk_weights")
    assert_same(handle[0], expected.rank_prefix_matrix, "rank_prefix_matrix")
    assert_same(handle[3], expected.src_token, "recv_src_idx")
    again, *nothing, event = buffer.dispatch(case.x, handle=handle)
    assert nothing == [None] * 4 and event.event is None
    case.check_received(again, "cached dispatch")
    combined, combined_weights, _ = buffer.combine(recv_x * 2, handle, recv_weights)
    case.check_combined(combined, 2, "combine")
    sums = reference.combine_weights(
        [received.topk_weights for received in case.all_received],
        case.all_received,
        [sent.topk_idx for sent in case.sent],
    )
    assert_same(combined_weights, sums[case.rank], "combined_topk_weights")
    biased, _, _ = buffer.combine(recv_x, handle, bias=(case.x, case.x))
    assert biased.shape == case.x.shape
    buffer.destroy()


def test_dispatch_and_combine_equal_the_reference(ranks: RankPool):
    ranks.run(plain_calls)


def fp8_calls(group: moelink.Group) -> None:
    buffer = open_deep_ep(group)
    case = Case(buffer)
    sent = all_sent(buffer.group_size, "float8_e4m3fn")
    values = on_gpu(sent[case.rank].x, "float8_e4m3fn")
    scales = on_gpu(sent[case.rank].scales).t().contiguous().t()
    expected = reference.dispatch(sent, case.num_experts)[case.rank]
    arguments, _ = case.layout(buffer)
    recv_x, _, _, _, handle, _ = buffer.dispatch((values, scales), **arguments, **case.topk)
    for tensors in (recv_x, buffer.dispatch((values, scales), handle=handle)[0]):
        assert tensors[0].dtype is torch.float8_e4m3fn and tensors[1].is_contiguous()
        assert_same(tensors[0], expected.x, "values")
        assert_same(tensors[1], expected.scales, "scales")
    buffer.destroy()


def test_fp8_with_scales_equals_the_reference(ranks: RankPool):
    ranks.run(fp8_calls)


def asynchronous_calls(group: moelink.Group, worst: int) -> None:
    buffer = open_deep_ep(group)
    case = Case(buffer)
    torch.cuda._sleep(20_000_000)
    x = case.x * 1
    options: dict[str, Any] = {"async_finish": True, "allocate_on_comm_stream": True}
    arguments, event = case.layout(buffer, previous_event=buffer.capture(), **options)
    recv_x, recv_idx, _, counts, handle, event = buffer.dispatch(
        x, **arguments, **case.topk, num_worst_tokens=worst, previous_event=event, **options
    )
    del x
    assert counts == ([] if worst else case.expected.num_tokens_per_expert)
    event.current_stream_wait()
    case.check_received(recv_x, "dispatch")
    assert not worst or bool((recv_idx[case.num_received :] == -1).all())
    assert_same(handle[0], case.expected.rank_prefix_matrix, "rank_prefix_matrix")
    with buffer.dispatch(case.x, handle=handle, previous_event=buffer.capture(), **options)[-1]:
        pass
    rows = recv_x * 2
    event = deep_ep.EventOverlap(deep_ep.EventHandle())
    combined, _, event = buffer.combine(rows, handle, previous_event=event, **options)
    event.current_stream_wait()
    case.check_combined(combined, 2, "combine")
    buffer.destroy()


def test_asynchronous_calls_follow_their_events(ranks: RankPool):
    ranks.run(asynchronous_calls, 0)


def test_asynchronous_calls_with_num_worst_tokens(ranks: RankPool):
    ranks.run(asynchronous_calls, 500)


def graph_of_calls(group: moelink.Group) -> None:
    buffer = open_deep_ep(group)
    case = Case(buffer)

    def step() -> torch.Tensor:
        arguments, _ = case.layout(buffer, async_finish=False)
        recv_x, _, _, _, handle, _ = buffer.dispatch(
            case.x, **arguments, **case.topk, num_worst_tokens=500
        )
        return buffer.combine(recv_x * 2, handle)[0]

    step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        combined = step()
    for _ in range(2):
        combined.zero_()
        graph.replay()
        case.check_combined(combined, 2, "replayed")
    group.barrier()
    buffer.destroy()


def test_layout_dispatch_and_combine_can_be_captured(ranks: RankPool):
    ranks.run(graph_of_calls)


def hints(group: moelink.Group) -> None:
    buffer = open_deep_ep(group)
    case = Case(buffer)
    config = deep_ep.Config(4)
    arguments, _ = case.layout(buffer)
    recv_x, _, _, _, handle, _ = buffer.dispatch(case.x, **arguments, **case.topk, config=config)
    combined, _, _ = buffer.combine(recv_x, handle, config=config)
    case.check_combined(combined, 1, "with 4 SMs")
    assert buffer.get_local_buffer_tensor(torch.int8).is_cuda
    assert isinstance(buffer.get_comm_stream(), torch.cuda.Stream)
    assert np.prod(combined.shape) == case.x.numel()
    buffer.destroy()


def test_hints_do_not_change_results(ranks: RankPool):
    ranks.run(hints)
