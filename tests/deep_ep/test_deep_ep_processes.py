"""Processes as ranks: a gloo process group, and ranks that stop taking part."""

import os
from typing import Any

import deep_ep
import pytest
import torch
import torch.distributed as dist
from deep_ep_ranks import (
    LOCAL_EXPERTS,
    Routing,
    in_rank,
    layout_arguments,
    needs_low_latency,
    routing_of,
)
from process_ranks import free_port, run_processes, values_of

SHRINK_RANKS = 6
MAX_TOKENS = 16


def join(rank: int, num_ranks: int, port: int) -> Any:
    torch.set_num_threads(1)
    os.environ["MOELINK_TIMEOUT_MS"] = "3000"
    method = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=method, rank=rank, world_size=num_ranks)
    return dist.group.WORLD


def normal_round(rank: int, num_ranks: int, port: int) -> bool:
    buffer = deep_ep.Buffer(join(rank, num_ranks, port), 0, 0, explicitly_destroy=True)
    routing = routing_of(rank, num_ranks)
    recv_x, _, _, _, handle, _ = buffer.dispatch(
        routing.x, **layout_arguments(buffer, routing.topk_idx)
    )
    combined = buffer.combine(recv_x, handle)[0]
    num_copies = in_rank(routing.topk_idx, num_ranks).sum(dim=1, keepdim=True)
    expected = routing.x * num_copies
    buffer.destroy()
    dist.destroy_process_group()
    return torch.allclose(combined.float(), expected.float(), rtol=0.02, atol=0.02)


def test_buffer_works_over_a_gloo_process_group():
    assert values_of(run_processes(2, normal_round, free_port())) == [True, True]


def masked(buffer: deep_ep.Buffer) -> set[int]:
    status = torch.zeros(buffer.group_size, dtype=torch.int32)
    buffer.low_latency_query_mask_buffer(status)
    return set(status.nonzero().flatten().tolist())


def expected_of(routing: Routing, lost: set[int]) -> torch.Tensor:
    """Without the experts of the lost ranks."""
    owner = routing.topk_idx // LOCAL_EXPERTS
    is_lost = torch.isin(owner, torch.tensor(sorted(lost)))
    kept = (routing.topk_idx >= 0) & ~is_lost
    weights = torch.where(kept, routing.topk_weights, 0.0).sum(dim=1, keepdim=True)
    return routing.x.float() * weights


def shrinking_steps(buffer: deep_ep.Buffer, rank: int, stops: dict[str, int]) -> Any:
    """Masks after each call; ranks leave before the call that ``stops`` names."""
    routing = routing_of(rank, SHRINK_RANKS, MAX_TOKENS, 256)
    seen = []
    if rank == stops["dispatch"]:
        return seen
    recv, _, handle, _, _ = buffer.low_latency_dispatch(
        routing.x, routing.topk_idx, MAX_TOKENS, SHRINK_RANKS * LOCAL_EXPERTS, use_fp8=False
    )
    seen.append(masked(buffer))
    assert not (handle[1][:, sorted(masked(buffer))] & 0xFFFFFFFF).any()
    if rank == stops["combine"]:
        return seen
    combined, _, _ = buffer.low_latency_combine(
        recv, routing.topk_idx, routing.topk_weights, handle
    )
    seen.append(masked(buffer))
    expected = expected_of(routing, masked(buffer))
    assert torch.allclose(combined.float(), expected, rtol=0.02, atol=0.05)
    if rank == stops["clean"]:
        return seen
    buffer.clean_low_latency_buffer(MAX_TOKENS, 256, SHRINK_RANKS * LOCAL_EXPERTS)
    seen.append(masked(buffer))
    return seen


def shrinking_rank(rank: int, num_ranks: int, port: int) -> Any:
    group = join(rank, num_ranks, port)
    buffer = deep_ep.Buffer(
        group, 0, 0, low_latency_mode=True, explicitly_destroy=True, enable_shrink=True
    )
    # Opens the area while all ranks are there.
    routing = routing_of(rank, num_ranks, MAX_TOKENS, 256)
    buffer.low_latency_dispatch(
        routing.x, routing.topk_idx, MAX_TOKENS, num_ranks * LOCAL_EXPERTS, use_fp8=False
    )
    seen = shrinking_steps(buffer, rank, {"dispatch": 1, "combine": 3, "clean": 5})
    dist.barrier()  # the ranks that left come back for the end only
    buffer.destroy()
    return seen


@needs_low_latency
@pytest.mark.timeout(180)
def test_survivors_mask_exactly_the_ranks_that_stopped():
    outcomes = values_of(run_processes(SHRINK_RANKS, shrinking_rank, free_port(), limit_s=150.0))
    after_each_call = [{1}, {1, 3}, {1, 3, 5}]
    for rank in (0, 2, 4):
        assert outcomes[rank] == after_each_call
    assert outcomes[1] == []
    assert outcomes[3] == after_each_call[:1]
    assert outcomes[5] == after_each_call[:2]
