"""A rank that dies in an operation: with a mask the survivors go on, without one they name it."""

import os
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import moelink
import numpy as np
import pytest
from moelink import reference, reference_low_latency
from moelink.reference_low_latency import Call, Sent
from process_jobs import Fault, connect
from process_ranks import free_port, run_processes

NUM_RANKS = 4
NUM_EXPERTS = 8
MAX_TOKENS = 6
NUM_ROUNDS = 3  # the fault happens in the second one
STAGE = re.compile("|".join(moelink.STAGES))
FAULTS = [
    Fault(1, "low_latency_dispatch", "send"),
    Fault(0, "low_latency_dispatch", "send", "end"),
    Fault(3, "low_latency_dispatch", "receive"),
    Fault(2, "low_latency_combine", "send_back"),
    Fault(0, "low_latency_combine", "send_back", "end"),
    Fault(1, "low_latency_combine", "reduce"),
]
HIGH_THROUGHPUT_FAULTS = [
    Fault(1, "dispatch", "exchange"),
    Fault(0, "dispatch", "send"),
    Fault(2, "dispatch", "receive"),
    Fault(3, "combine", "exchange"),
    Fault(1, "combine", "send_back"),
]


def name_of(fault: Fault) -> str:
    return f"{fault.operation}-{fault.stage}-{fault.point}"


@dataclass
class LateFault(Fault):
    """Happens when the point is reached for the second time."""

    num_seen: int = 0

    def _kill_if_reached(self, event: moelink.TraceEvent) -> None:
        here = (event.operation, event.stage, event.point)
        if here != (self.operation, self.stage, self.point):
            return
        self.num_seen += 1
        if self.num_seen == 2:
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Round:
    """What a survivor saw in one round."""

    combined: bytes
    num_from: list[int]  # rows or tokens received from each rank
    masked: list[bool]  # after the combine


def sent_by(rank: int) -> Sent:
    rng = np.random.default_rng(rank)
    x = rng.standard_normal((MAX_TOKENS - rank % 2, 128), np.float32).astype(ml_dtypes.bfloat16)
    topk_idx = np.array([rng.permutation(NUM_EXPERTS)[:5] for _ in range(len(x))])
    return Sent(x, topk_idx, rng.random(topk_idx.shape, np.float32))


def low_latency_round(buffer: moelink.Buffer) -> Round:
    mine = sent_by(buffer.rank)
    recv_x, _, handle = buffer.low_latency_dispatch(
        mine.x, mine.topk_idx, MAX_TOKENS, mine.topk_weights
    )
    num_from = (handle.layout_range & 0xFFFFFFFF).sum(axis=0).tolist()
    combined = buffer.low_latency_combine(recv_x, mine.topk_idx, mine.topk_weights, handle)
    return Round(combined.tobytes(), num_from, masks_of(buffer))


def high_throughput_round(buffer: moelink.Buffer) -> Round:
    mine = sent_by(buffer.rank)
    recv_x, handle = buffer.dispatch(mine.x, mine.topk_idx)
    prefix = handle.rank_prefix_matrix[:, buffer.rank]
    num_from = np.diff(prefix, prepend=0).tolist()
    combined = buffer.combine(recv_x, handle)
    return Round(combined.tobytes(), num_from, masks_of(buffer))


def masks_of(buffer: moelink.Buffer) -> list[bool]:
    return [buffer.is_masked(rank) for rank in range(buffer.num_ranks)]


def work(
    rank: int,
    num_ranks: int,
    fault: LateFault,
    port: int,
    survival: str,
    one_round: Callable[[moelink.Buffer], Round],
) -> list[Round] | str:
    """The rounds, or the text of the error that ended them."""
    group = connect(rank, num_ranks, port)
    if rank == fault.victim:
        fault.arm()
    try:
        with moelink.Buffer(
            group, num_experts=NUM_EXPERTS, survival=survival, timeout=20.0
        ) as buffer:
            return [one_round(buffer) for _ in range(NUM_ROUNDS)]
    except moelink.Error as error:
        assert error.code is moelink.ErrorCode.PEER_LOST, error
        return str(error)


def survivors_of(fault: Fault, survival: str, one_round: Callable[..., Round]) -> dict[int, Any]:
    late = LateFault(fault.victim, fault.operation, fault.stage, fault.point)
    outcomes = run_processes(NUM_RANKS, work, late, free_port(), survival, one_round)
    assert outcomes[fault.victim].killed
    values = {}
    for rank, outcome in enumerate(outcomes):
        if rank != fault.victim:
            assert outcome.error is None, outcome.error
            values[rank] = outcome.value
    return values


def low_latency_results(victim: int | None) -> list[bytes]:
    """Combined tensors of all ranks; with a victim of those that go on without it."""
    is_cut = np.zeros((NUM_RANKS, NUM_RANKS), bool)
    if victim is not None:
        is_cut[victim, :] = is_cut[:, victim] = True
    call = Call(NUM_EXPERTS, MAX_TOKENS, is_cut=is_cut)
    sent = [sent_by(rank) for rank in range(NUM_RANKS)]
    received = reference_low_latency.dispatch(sent, call)
    returned = [one.x for one in received]
    combined = reference_low_latency.combine(returned, received, sent, call)
    return [one.tobytes() for one in combined]


def high_throughput_results(victim: int | None) -> list[bytes]:
    sent = []
    for rank in range(NUM_RANKS):
        mine = sent_by(rank)
        topk_idx = mine.topk_idx.copy()
        if victim is not None:
            is_lost = topk_idx // (NUM_EXPERTS // NUM_RANKS) == victim
            topk_idx[is_lost | (rank == victim)] = -1
        sent.append(reference.Sent(mine.x, topk_idx))
    handles = reference.dispatch(sent, NUM_EXPERTS)
    combined = reference.combine([handle.x for handle in handles], handles)
    return [one.tobytes() for one in combined]


def check_rounds(
    survivors: dict[int, list[Round]], victim: int, results: Callable[..., list[bytes]]
) -> None:
    """Whole before the fault, without the victim after it, one of both in the round between."""
    whole, without = results(None), results(victim)
    for rank, rounds in survivors.items():
        first, faulty, last = rounds
        assert first.combined == whole[rank]
        assert not any(first.masked)
        assert all(count > 0 for count in first.num_from)
        assert faulty.combined in (whole[rank], without[rank])
        assert last.combined == without[rank]
        assert last.masked == [peer == victim for peer in range(NUM_RANKS)]
        assert last.num_from[victim] == 0
        assert all(last.num_from[peer] > 0 for peer in survivors)


@pytest.mark.parametrize("fault", FAULTS, ids=name_of)
def test_survivors_of_a_low_latency_operation_mask_the_victim(fault: Fault):
    survivors = survivors_of(fault, "mask", low_latency_round)
    check_rounds(survivors, fault.victim, low_latency_results)


@pytest.mark.parametrize("fault", FAULTS, ids=name_of)
def test_survivors_of_a_low_latency_operation_name_the_victim(fault: Fault):
    for text in survivors_of(fault, "raise", low_latency_round).values():
        assert f"rank {fault.victim}" in text
        assert STAGE.search(text)


@pytest.mark.parametrize("fault", HIGH_THROUGHPUT_FAULTS, ids=name_of)
def test_survivors_of_a_high_throughput_operation_mask_the_victim(fault: Fault):
    survivors = survivors_of(fault, "mask", high_throughput_round)
    check_rounds(survivors, fault.victim, high_throughput_results)


def clean_round(buffer: moelink.Buffer) -> Round:
    """A round with a clean at its end, in which the victim no longer takes part."""
    seen = low_latency_round(buffer)
    buffer.clean_low_latency()
    return replace(seen, masked=masks_of(buffer))


def test_survivors_of_a_rank_killed_before_clean_mask_it():
    """The end of the second combine lies before the clean."""
    fault = Fault(2, "low_latency_combine", "reduce", "end")
    survivors = survivors_of(fault, "mask", clean_round)
    check_rounds(survivors, fault.victim, low_latency_results)
    for rank, rounds in survivors.items():
        assert rounds[1].combined == low_latency_results(None)[rank]
        assert rounds[1].masked[fault.victim]
