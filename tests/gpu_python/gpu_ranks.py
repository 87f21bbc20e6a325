"""Ranks as processes that share the GPUs of this machine: a pool that runs one body after another.

Kernels of ranks wait for one another, which CUDA promises to work for processes only.
"""

import multiprocessing
import socket
import time
import traceback
from collections.abc import Callable
from typing import Any

SECRET = "the secret of the tests"
WAIT_S = 20.0

_context = multiprocessing.get_context("spawn")


class RankPool:
    """Processes that start once, since a start with CUDA takes seconds. Ended by a failure."""

    def __init__(self, num_ranks: int) -> None:
        self.num_ranks = num_ranks
        self._processes: list[Any] = []
        self._pipes: list[Any] = []

    def run(self, body: Callable[..., Any], *args: Any, limit_s: float = 100.0) -> list[Any]:
        """Results of ``body(group, *args)`` in rank order; raises what went wrong anywhere."""
        if not self._processes:
            self._start()
        try:
            outcomes = self._exchange(body, args, time.monotonic() + limit_s)
        except BaseException:  # such as the end of pytest's patience
            self.end()
            raise
        errors = [f"rank {rank}: {error}" for rank, (_, error) in enumerate(outcomes) if error]
        if errors:
            self.end()
            raise AssertionError("\n".join(errors))
        return [value for value, _ in outcomes]

    def end(self) -> None:
        """Ends the processes; the next run starts new ones."""
        for process in self._processes:
            process.kill()
            process.join()
        self._processes, self._pipes = [], []

    def _exchange(
        self, body: Callable[..., Any], args: tuple[Any, ...], deadline: float
    ) -> list[tuple[Any, str | None]]:
        port = _free_port()
        for pipe in self._pipes:
            pipe.send((body, port, args))
        return [_receive(pipe, deadline) for pipe in self._pipes]

    def _start(self) -> None:
        for rank in range(self.num_ranks):
            ours, theirs = _context.Pipe()
            process = _context.Process(
                target=_serve, args=(theirs, rank, self.num_ranks), daemon=True
            )
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(ours)


def _serve(pipe: Any, rank: int, num_ranks: int) -> None:
    import moelink
    import torch

    torch.cuda.set_device(rank % torch.cuda.device_count())
    while True:
        body, port, args = pipe.recv()
        try:
            group = moelink.Group.connect(
                rank, num_ranks, "127.0.0.1", port, SECRET, timeout=WAIT_S
            )
            pipe.send((body(group, *args), None))
        except BaseException:
            pipe.send((None, traceback.format_exc()))


def _receive(pipe: Any, deadline: float) -> tuple[Any, str | None]:
    try:
        if pipe.poll(max(0.0, deadline - time.monotonic())):
            return pipe.recv()
        return None, "no result in time"
    except (EOFError, OSError):
        return None, "the process died"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
