"""Processes as ranks: a gloo process group, and ranks that stop taking part."""

import os
import signal
from typing import Any

import deep_ep
import moelink
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
from process_jobs import Fault
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


def dispatch(buffer: deep_ep.Buffer, routing: Routing) -> Any:
    num_experts = buffer.group_size * LOCAL_EXPERTS
    return buffer.low_latency_dispatch(
        routing.x, routing.topk_idx, MAX_TOKENS, num_experts, use_fp8=False
    )


def shrinking_steps(buffer: deep_ep.Buffer, rank: int, stops: dict[str, int]) -> Any:
    """Masks after each call; ranks leave before the call that ``stops`` names."""
    routing = routing_of(rank, SHRINK_RANKS, MAX_TOKENS, 256)
    seen = []
    if rank == stops["dispatch"]:
        return seen
    recv, _, handle, _, _ = dispatch(buffer, routing)
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


def shrinking_rank(rank: int, num_ranks: int, port: int, opened: bool) -> Any:
    group = join(rank, num_ranks, port)
    buffer = deep_ep.Buffer(
        group, 0, 0, low_latency_mode=True, explicitly_destroy=True, enable_shrink=True
    )
    if opened:
        dispatch(buffer, routing_of(rank, num_ranks, MAX_TOKENS, 256))
    seen = shrinking_steps(buffer, rank, {"dispatch": 1, "combine": 3, "clean": 5})
    dist.barrier()  # the ranks that left come back for the end only
    buffer.destroy()
    return seen


@needs_low_latency
@pytest.mark.timeout(180)
@pytest.mark.parametrize("opened", [True, False], ids=["second_dispatch", "first_dispatch"])
def test_survivors_mask_exactly_the_ranks_that_stopped(opened: bool):
    """One rank stops before the second dispatch, or before the first, which opens the memory."""
    outcomes = values_of(
        run_processes(SHRINK_RANKS, shrinking_rank, free_port(), opened, limit_s=150.0)
    )
    after_each_call = [{1}, {1, 3}, {1, 3, 5}]
    for rank in (0, 2, 4):
        assert outcomes[rank] == after_each_call
    assert outcomes[1] == []
    assert outcomes[3] == after_each_call[:1]
    assert outcomes[5] == after_each_call[:2]


KILLED_RANKS = 4
VICTIM = 2
# Where the victim dies: a call of deep_ep before which it does, or a point inside of one.
DEATHS = [
    "first dispatch",
    "second dispatch",
    Fault(VICTIM, "low_latency_dispatch", "send"),
    Fault(VICTIM, "low_latency_dispatch", "receive"),
    Fault(VICTIM, "low_latency_combine", "send_back"),
]


def name_of(death: Fault | str) -> str:
    return death if isinstance(death, str) else f"{death.operation}-{death.stage}"


def dies_before(rank: int, call: str, death: Fault | str) -> None:
    if rank == VICTIM and call == death:
        os.kill(os.getpid(), signal.SIGKILL)


def rounds_with_a_death(buffer: deep_ep.Buffer, death: Fault | str) -> tuple[bool, set[int]]:
    """Whether the combined rows of a last round lack the victim's and nothing else; the masks."""
    rank = buffer.rank
    routing = routing_of(rank, KILLED_RANKS, MAX_TOKENS, 256)
    dies_before(rank, "first dispatch", death)
    if death != "first dispatch":
        dispatch(buffer, routing)
    dies_before(rank, "second dispatch", death)
    if rank == VICTIM and isinstance(death, Fault):
        death.arm()
    for _ in range(2):
        recv, _, handle, _, _ = dispatch(buffer, routing)
        arguments = (recv, routing.topk_idx, routing.topk_weights, handle)
        combined = buffer.low_latency_combine(*arguments)[0]
    expected = expected_of(routing, {VICTIM})
    return torch.allclose(combined.float(), expected, rtol=0.02, atol=0.05), masked(buffer)


def rank_beside_a_killed_one(
    rank: int, num_ranks: int, port: int, death: Fault | str, shrink: bool
) -> Any:
    """What rounds_with_a_death returns, or the text of its error."""
    buffer = deep_ep.Buffer(
        join(rank, num_ranks, port),
        low_latency_mode=True,
        explicitly_destroy=True,
        enable_shrink=shrink,
    )
    try:
        result = rounds_with_a_death(buffer, death)
    except moelink.Error as error:
        assert error.code is moelink.ErrorCode.PEER_LOST, error
        result = str(error)
    buffer.destroy()
    return result


def survivors_of(death: Fault | str, shrink: bool) -> list[Any]:
    outcomes = run_processes(KILLED_RANKS, rank_beside_a_killed_one, free_port(), death, shrink)
    assert outcomes.pop(VICTIM).killed
    return values_of(outcomes)


@needs_low_latency
@pytest.mark.parametrize("death", DEATHS, ids=name_of)
def test_survivors_of_a_killed_process_mask_it_and_lack_its_experts_alone(death: Fault | str):
    for are_right, masks in survivors_of(death, shrink=True):
        assert are_right
        assert masks == {VICTIM}


@needs_low_latency
@pytest.mark.parametrize("death", DEATHS, ids=name_of)
def test_survivors_of_a_killed_process_raise_without_shrink(death: Fault | str):
    for text in survivors_of(death, shrink=False):
        assert f"rank {VICTIM}" in text
