"""A rank that dies or is late: the survivors say who and where, clean up, and go on without it."""

import os
import re
import time

import moelink
import numpy as np
import process_jobs
import pytest
from process_jobs import Fault, Survival
from process_ranks import free_port, run_processes
from thread_ranks import outcomes_of

STAGE = re.compile("|".join(moelink.STAGES))
FAULTS = [
    Fault(1, "open", "exchange"),
    Fault(0, "dispatch", "route"),
    Fault(2, "dispatch", "exchange"),
    Fault(1, "dispatch", "exchange", "end"),
    Fault(0, "dispatch", "place"),
    Fault(1, "dispatch", "send"),
    Fault(2, "dispatch", "send", "end"),
    Fault(0, "dispatch", "signal"),
    Fault(1, "dispatch", "receive"),
    Fault(2, "combine", "send_back"),
    Fault(0, "combine", "exchange"),
    Fault(1, "combine", "reduce"),
    Fault(2, "combine", "reduce", "end"),
    Fault(0, "cached_dispatch", "send"),
]


@pytest.mark.parametrize(
    "fault", FAULTS, ids=lambda fault: f"{fault.operation}-{fault.stage}-{fault.point}"
)
def test_survivors_of_a_killed_rank_go_on_without_it(fault: Fault):
    shm_files = set(os.listdir("/dev/shm"))
    outcomes = run_processes(3, process_jobs.survive, fault, free_port(), free_port())
    assert outcomes[fault.victim].killed
    for rank, outcome in enumerate(outcomes):
        if rank == fault.victim:
            continue
        assert outcome.error is None, outcome.error
        check_survival(outcome.value, fault)
    assert set(os.listdir("/dev/shm")) <= shm_files


def check_survival(survival: Survival, fault: Fault) -> None:
    message = survival.message
    assert survival.code is moelink.ErrorCode.PEER_LOST, message
    assert f"rank {fault.victim}" in message
    assert STAGE.search(message) or fault.operation == "open", message
    assert survival.seconds < process_jobs.TIMEOUT_S
    assert (survival.leaked_fds, survival.leaked_maps) == (0, 0)
    assert survival.works_again


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_survivors_of_a_rank_killed_during_bootstrap_name_it(victim: int):
    outcomes = run_processes(3, process_jobs.die_before_barrier, free_port(), victim)
    for rank, outcome in enumerate(outcomes):
        if rank == victim:
            assert outcome.killed
            continue
        assert outcome.error is None, outcome.error
        assert f"rank {victim}" in outcome.value


@pytest.mark.parametrize("victim", [0, 2])
def test_rank_that_never_arrives_is_named(victim: int):
    outcomes = run_processes(3, process_jobs.die_instead_of_connecting, free_port(), victim)
    assert outcomes[victim].killed
    for rank, outcome in enumerate(outcomes):
        if rank == victim:
            continue
        assert outcome.error is None, outcome.error
        assert f"rank {victim}" in outcome.value or "127.0.0.1" in outcome.value


@pytest.mark.parametrize(("operation", "stage"), [("dispatch", "send"), ("combine", "send_back")])
def test_late_rank_is_named_with_the_stage(operation: str, stage: str):
    """Rank 1 sleeps in a stage for longer than the others wait."""

    def be_late(event: moelink.TraceEvent) -> None:
        if (event.rank, event.operation, event.stage, event.point) == (
            1,
            operation,
            stage,
            "begin",
        ):
            time.sleep(1.5)

    def body(group: moelink.Group) -> None:
        buffer = moelink.Buffer(group, timeout=0.4)
        x = np.ones((64, 256), np.float32)
        recv_x, handle = buffer.dispatch(x, np.arange(128).reshape(64, 2) % 3)
        buffer.combine(recv_x, handle)

    moelink.set_trace_hook(be_late)
    try:
        outcomes = outcomes_of(moelink.Group.threads(3), body)
    finally:
        moelink.set_trace_hook(None)
    for rank in (0, 2):
        assert isinstance(outcomes[rank].error, moelink.Error)
        message = str(outcomes[rank].error)
        assert "rank 1" in message
        assert operation in message
        assert STAGE.search(message), message
    codes = {outcomes[rank].error.code for rank in (0, 2)}
    assert moelink.ErrorCode.TIMEOUT in codes


@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_NOFILE", "RLIMIT_FSIZE"])
def test_limit_that_is_too_small_fails_on_all_ranks(limit: str):
    """The rank with the limit says what is needed; the other one says which rank failed."""
    outcomes = run_processes(2, process_jobs.open_with_little_memory, free_port(), limit)
    for outcome in outcomes:
        assert outcome.error is None, outcome.error
    (healthy_code, healthy), (limited_code, limited) = (outcome.value for outcome in outcomes)
    assert healthy_code in ("SYSTEM", "PEER_LOST")
    assert "rank 1" in healthy
    assert limited_code == "SYSTEM"
    assert re.search(r"\d+ more open files are needed|needs \d+", limited), limited
