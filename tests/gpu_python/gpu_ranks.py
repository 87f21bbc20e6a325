"""Ranks as processes that share the GPUs of this machine: a pool that runs one body after another.

Kernels of ranks wait for one another, which CUDA promises to work for processes only.
"""

import multiprocessing
import os
import socket
import time
import traceback
from collections.abc import Callable
from typing import Any

DEVICE = os.environ.get("MOELINK_TEST_DEVICE", "cuda")
"""cpu: where there is no GPU, to try those tests whose bodies run anywhere."""

SECRET = "the secret of the tests"
WAIT_S = 20.0

_context = multiprocessing.get_context("spawn")


class RankPool:
    """Processes that start once, since a start with CUDA takes seconds. Ended by a failure.

    They start when they are needed: a run may use the first of them only.
    """

    def __init__(self, num_ranks: int) -> None:
        self.num_ranks = num_ranks
        self._processes: list[Any] = []
        self._pipes: list[Any] = []

    def run(
        self, body: Callable[..., Any], *args: Any, num_ranks: int = 0, limit_s: float = 100.0
    ) -> list[Any]:
        """Results of ``body(group, *args)`` in rank order; raises what went wrong anywhere."""
        outcomes = self.outcomes(body, *args, num_ranks=num_ranks, limit_s=limit_s)
        errors = [f"rank {rank}: {error}" for rank, (_, error) in enumerate(outcomes) if error]
        if errors:
            self.end()
            raise AssertionError("\n".join(errors))
        return [value for value, _ in outcomes]

    def outcomes(
        self, body: Callable[..., Any], *args: Any, num_ranks: int = 0, limit_s: float = 100.0
    ) -> list[tuple[Any, str | None]]:
        """As ``run``: (value, what went wrong) of each rank. ``num_ranks``: 0 for all."""
        num_ranks = num_ranks or self.num_ranks
        self._start(num_ranks)
        try:
            return self._exchange(body, args, num_ranks, time.monotonic() + limit_s)
        except BaseException:  # such as the end of pytest's patience
            self.end()
            raise

    def end(self) -> None:
        """Ends the processes; the next run starts new ones."""
        for process in self._processes:
            process.kill()
            process.join()
        self._processes, self._pipes = [], []

    def _exchange(
        self, body: Callable[..., Any], args: tuple[Any, ...], num_ranks: int, deadline: float
    ) -> list[tuple[Any, str | None]]:
        port = _free_port()
        pipes = self._pipes[:num_ranks]
        for pipe in pipes:
            pipe.send((body, num_ranks, port, args))
        return [_receive(pipe, deadline) for pipe in pipes]

    def _start(self, num_ranks: int) -> None:
        for rank in range(len(self._processes), num_ranks):
            ours, theirs = _context.Pipe()
            process = _context.Process(target=_serve, args=(theirs, rank), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(ours)


def _serve(pipe: Any, rank: int) -> None:
    import moelink
    import torch

    if DEVICE == "cuda":
        torch.cuda.set_device(rank % torch.cuda.device_count())
    while True:
        body, num_ranks, port, args = pipe.recv()
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
