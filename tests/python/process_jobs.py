"""What the ranks of the process tests do; a module of its own so that children can import it."""

import gc
import os
import resource
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import moelink
import numpy as np
from moelink import reference
from moelink.reference import Sent
from process_ranks import SECRET

NUM_EXPERTS = 12
TIMEOUT_S = 30.0


def connect(rank: int, num_ranks: int, port: int, timeout: float = TIMEOUT_S) -> moelink.Group:
    return moelink.Group.connect(rank, num_ranks, "127.0.0.1", port, SECRET, timeout=timeout)


def sent_by(rank: int) -> Sent:
    """Tokens and top-k list of a rank, large enough for several chunks and workers."""
    rng = np.random.default_rng(rank)
    num_tokens = 200 + 50 * rank
    x = rng.standard_normal((num_tokens, 256), np.float32)
    return Sent(x, rng.integers(-1, NUM_EXPERTS, (num_tokens, 4)))


def round_trip_agrees(group: moelink.Group) -> bool:
    """Dispatch and combine on a new buffer, compared with the reference."""
    sent = [sent_by(rank) for rank in range(group.num_ranks)]
    handles = reference.dispatch(sent, NUM_EXPERTS, "expert_major", expert_alignment=8)
    expected = reference.combine([handle.x for handle in handles], handles)
    mine = sent[group.rank]
    with moelink.Buffer(group, num_experts=NUM_EXPERTS) as buffer:
        recv_x, handle = buffer.dispatch(
            mine.x, mine.topk_idx, layout="expert_major", expert_alignment=8
        )
        combined = buffer.combine(recv_x, handle)
    same = recv_x.tobytes() == handles[group.rank].x.tobytes()  # the tensor outlives the buffer
    return same and combined.tobytes() == expected[group.rank].tobytes()


def round_trip(rank: int, num_ranks: int, port: int) -> bool:
    return round_trip_agrees(connect(rank, num_ranks, port))


def round_trip_from_environment(rank: int, num_ranks: int, variables: dict[str, str]) -> bool:
    os.environ.update({name: value.format(rank=rank) for name, value in variables.items()})
    group = moelink.Group.from_environment(timeout=TIMEOUT_S)
    assert (group.rank, group.num_ranks) == (rank, num_ranks)
    return round_trip_agrees(group)


def join_with_secret(rank: int, num_ranks: int, port: int, secrets: list[str]) -> int:
    group = moelink.Group.connect(
        rank, num_ranks, "127.0.0.1", port, secrets[rank], timeout=TIMEOUT_S / 10
    )
    return group.rank


@dataclass
class Fault:
    """A rank that kills itself when it reaches a point."""

    victim: int
    operation: str
    stage: str
    point: str = "begin"

    def arm(self) -> None:
        moelink.set_trace_hook(self._kill_if_reached)

    def _kill_if_reached(self, event: moelink.TraceEvent) -> None:
        if (event.operation, event.stage, event.point) == (
            self.operation,
            self.stage,
            self.point,
        ):
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Survival:
    """What a rank that was not killed saw."""

    message: str
    code: moelink.ErrorCode
    seconds: float
    leaked_fds: int
    leaked_maps: int
    works_again: bool


def num_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def num_shared_maps() -> int:
    """Mappings of memory files."""
    return Path("/proc/self/maps").read_text().count("memfd:")


def work_until_error(group: moelink.Group, timeout: float) -> moelink.Error:
    """Round trips until one fails; closes the buffer."""
    mine = sent_by(group.rank)
    buffer = None
    try:
        buffer = moelink.Buffer(group, num_experts=NUM_EXPERTS, timeout=timeout)
        for _ in range(5):
            recv_x, handle = buffer.dispatch(mine.x, mine.topk_idx)
            buffer.combine(recv_x * 1, handle)  # outside symmetric memory, as an expert's output
            buffer.dispatch(mine.x, handle=handle)
    except moelink.Error as error:
        if buffer is not None:
            refused_again(buffer, mine)
            buffer.close()
        return error.with_traceback(None)
    raise AssertionError("no operation failed")


def refused_again(buffer: moelink.Buffer, mine: Sent) -> None:
    """A broken buffer says so at once."""
    try:
        buffer.dispatch(mine.x, mine.topk_idx)
    except moelink.Error as error:
        assert "earlier failure" in str(error), error
        return
    raise AssertionError("a broken buffer works")


def survive(rank: int, num_ranks: int, fault: Fault, port: int, next_port: int) -> Survival:
    """Works until the fault shows, then forms a group without the victim."""
    moelink.Group.threads(1)  # opens what stays open
    fds, maps = num_fds(), num_shared_maps()
    group = connect(rank, num_ranks, port)
    if rank == fault.victim:
        fault.arm()
    begin = time.monotonic()
    error = work_until_error(group, TIMEOUT_S)
    seconds = time.monotonic() - begin
    del group
    gc.collect()
    leaked_fds, leaked_maps = num_fds() - fds, num_shared_maps() - maps
    works = round_trip_agrees(connect(rank - (rank > fault.victim), num_ranks - 1, next_port))
    return Survival(str(error), error.code, seconds, leaked_fds, leaked_maps, works)


def open_with_little_memory(rank: int, num_ranks: int, port: int, limit: str) -> tuple[str, str]:
    """Rank 1 may map or open too little; returns the code and text of the error of every rank."""
    group = connect(rank, num_ranks, port)
    if rank == 1:
        which = getattr(resource, limit)
        used = num_fds() if limit == "RLIMIT_NOFILE" else 0
        resource.setrlimit(which, (used + 1, resource.getrlimit(which)[1]))
    try:
        moelink.Buffer(group)
    except moelink.Error as error:
        return error.code.name, str(error)
    return "", "no error"


def cycles(rank: int, num_ranks: int, port: int, num_warm_up: int, num_cycles: int) -> tuple:
    """Resources held after the warm-up and at the end of many create and destroy cycles."""
    group = connect(rank, num_ranks, port)
    before = {}
    for cycle in range(num_warm_up + num_cycles):
        use_and_close(group)
        if cycle == num_warm_up:
            before = held_resources()
    return before, held_resources()


def use_and_close(group: moelink.Group) -> None:
    x = np.ones((64, 256), np.float32)
    topk_idx = np.arange(128).reshape(64, 2) % group.num_ranks
    buffer = moelink.Buffer(group)
    received = buffer.dispatch(x, topk_idx, async_finish=True)
    buffer.combine(received.recv_x, received.handle, previous_event=received.event)
    buffer.close()


def held_resources() -> dict[str, int]:
    """Open files, mappings, resident KiB and threads of this process."""
    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return {
        "fds": num_fds(),
        "maps": len(Path("/proc/self/maps").read_text().splitlines()),
        "rss_kib": int(status["VmRSS"].split()[0]),
        "threads": int(status["Threads"]),
    }


def die_before_barrier(rank: int, num_ranks: int, port: int, victim: int) -> str:
    """The victim dies when the group stands but has not met."""
    group = connect(rank, num_ranks, port)
    if rank == victim:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        group.barrier()
    except moelink.Error as error:
        assert error.code is moelink.ErrorCode.PEER_LOST, error
        return str(error)
    raise AssertionError("the barrier passed")


def die_instead_of_connecting(rank: int, num_ranks: int, port: int, victim: int) -> str:
    """The victim never arrives at the rendezvous."""
    if rank == victim:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        connect(rank, num_ranks, port, timeout=2.0)
    except moelink.Error as error:
        return str(error)
    raise AssertionError("the group formed")


def use_process_group(rank: int, num_ranks: int, store: str) -> list[float]:
    """The simple form of the documentation, over a gloo process group."""
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=num_ranks)
    group = dist.group.WORLD
    x = torch.full((4, 32), float(rank + 1), dtype=torch.bfloat16)
    topk_idx = torch.tensor([[0, 1], [1, -1], [rank, rank], [-1, -1]])

    def expert(rows: torch.Tensor) -> torch.Tensor:
        return rows * 2

    buffer = moelink.Buffer(group, hidden_bytes=32 * 2)
    recv_x, handle = buffer.dispatch(x, topk_idx)
    combined_x = buffer.combine(expert(recv_x), handle)
    buffer.close()
    subgroup = dist.new_group([1, 0])
    with moelink.Buffer(subgroup, num_experts=4) as again:
        assert (again.rank, again.num_ranks) == (dist.get_rank(subgroup), num_ranks)
        again.dispatch(x, topk_idx)
    dist.destroy_process_group()
    return combined_x[:, 0].tolist()
