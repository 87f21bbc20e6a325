"""Runs a function on several ranks that are processes of this machine."""

import multiprocessing
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SECRET = "the secret of the tests"

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["numpy", "ml_dtypes", "moelink", "moelink.reference"])


@dataclass
class Outcome:
    """How one rank ended."""

    value: Any = None
    error: BaseException | None = None
    exit_code: int | None = None

    @property
    def killed(self) -> bool:
        return self.exit_code == -signal.SIGKILL


def free_port() -> int:
    """A TCP port that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_processes(
    num_ranks: int, body: Callable[..., Any], *args: Any, limit_s: float = 90.0
) -> list[Outcome]:
    """How ``body(rank, num_ranks, *args)`` ended on every rank. Processes left over are killed."""
    pipes = [_context.Pipe(duplex=False) for _ in range(num_ranks)]
    processes = [
        _context.Process(target=_child, args=(pipes[rank][1], body, rank, num_ranks, *args))
        for rank in range(num_ranks)
    ]
    for process in processes:
        process.start()
    for _, writer in pipes:
        writer.close()
    deadline = time.monotonic() + limit_s
    outcomes = [_collect(pipe[0], deadline) for pipe in pipes]
    for process, outcome in zip(processes, outcomes, strict=True):
        process.join(max(0.1, deadline - time.monotonic()))
        if process.exitcode is None:
            process.kill()
            process.join()
            outcome.error = outcome.error or AssertionError("the rank did not end in time")
        outcome.exit_code = process.exitcode
    return outcomes


def values_of(outcomes: list[Outcome]) -> list[Any]:
    """The values of ranks that must all have succeeded."""
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
        assert outcome.exit_code == 0
    return [outcome.value for outcome in outcomes]


def _child(writer: Any, body: Callable[..., Any], rank: int, num_ranks: int, *args: Any) -> None:
    try:
        writer.send(Outcome(value=body(rank, num_ranks, *args)))
    except BaseException as error:
        writer.send(Outcome(error=error))
    writer.close()


def _collect(reader: Any, deadline: float) -> Outcome:
    if not reader.poll(max(0.0, deadline - time.monotonic())):
        return Outcome(error=AssertionError("the rank sent no result in time"))
    try:
        return reader.recv()
    except EOFError:
        return Outcome()
