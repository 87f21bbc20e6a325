"""Starts ranks on this machine, as processes or threads, and ends all of them when one fails."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

from moelink.cli import rank_process

Progress = Callable[[str], None]
# A job: (group, arguments, progress) -> JSON value. Collective: every rank runs it.
Job = Callable[[Any, Any, Progress], Any]

_GRACE_S = 1.0  # after the first failure: time for the rank that caused it to show itself
_KILL_AFTER_S = 2.0  # between the polite and the final signal


class RanksFailedError(Exception):
    """A local job failed; the text names the rank and the reason."""

    def __init__(self, message: str, code: str | None = None):
        super().__init__(message)
        self.code = code  # name of the moelink.ErrorCode behind it, if any


@dataclass(frozen=True)
class LocalJob:
    """What to run on how many local ranks."""

    target: str  # "package.module:function"
    arguments: Any
    num_ranks: int
    num_nodes: int = 0  # 0: MOELINK_NODES, else one for each host
    timeout_s: float = 60.0  # longest wait of one rank for another
    limit_s: float = 3600.0  # longest whole run


@dataclass
class _Child:
    rank: int
    process: subprocess.Popen[str]
    stderr: IO[bytes]
    answers: list[dict[str, Any]] = field(default_factory=list)

    def failure(self) -> dict[str, Any] | None:
        return next((answer["error"] for answer in self.answers if "error" in answer), None)

    def stderr_tail(self, num_lines: int = 15) -> str:
        self.stderr.seek(0)
        text = self.stderr.read().decode("utf-8", "replace")
        return "\n".join(text.strip().splitlines()[-num_lines:])


def run_processes(job: LocalJob, progress: Progress | None = None) -> list[Any]:
    """Results of all ranks in rank order. Throws RanksFailedError; leaves no process behind."""
    events: queue.Queue[tuple[_Child, dict[str, Any] | None]] = queue.Queue()
    children: list[_Child] = []
    try:
        secret, port = secrets.token_hex(32), free_port()
        for rank in range(job.num_ranks):
            children.append(_start(job, rank, port, secret))
            threading.Thread(target=_read, args=(children[-1], events), daemon=True).start()
        _wait(job, children, events, progress or (lambda text: None))
        return [child.answers[-1]["result"] for child in children]
    finally:
        _end(children)


def run_threads(job: LocalJob, progress: Progress | None = None) -> list[Any]:
    """As run_processes, with the ranks as threads of this process."""
    import moelink

    run = rank_process.resolve(job.target)
    groups = moelink.Group.threads(job.num_ranks, timeout=job.timeout_s, num_nodes=job.num_nodes)
    done: queue.Queue[tuple[int, Any, BaseException | None]] = queue.Queue()

    def rank_main(rank: int) -> None:
        silent: Progress = lambda text: None  # noqa: E731
        try:
            notify = progress if rank == 0 and progress is not None else silent
            done.put((rank, run(groups[rank], job.arguments, notify), None))
        except BaseException as error:  # handed to the caller's thread
            done.put((rank, None, error))

    for rank in range(job.num_ranks):
        threading.Thread(target=rank_main, args=(rank,), daemon=True).start()
    results: dict[int, Any] = {}
    deadline = time.monotonic() + job.limit_s
    while len(results) < job.num_ranks:
        try:
            rank, result, error = done.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise RanksFailedError(f"the run did not end within {job.limit_s:g} s") from None
        if error is not None:
            described = rank_process.describe_error(error)
            raise RanksFailedError(_error_text(rank, described), described["code"]) from error
        results[rank] = result
    return [results[rank] for rank in range(job.num_ranks)]


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(job: LocalJob, rank: int, port: int, secret: str) -> _Child:
    stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed by _end)
    process = subprocess.Popen(
        [sys.executable, "-m", "moelink.cli.rank_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env=_child_environment(),
    )
    order = {
        "target": job.target,
        "arguments": job.arguments,
        "rank": rank,
        "num_ranks": job.num_ranks,
        "num_nodes": job.num_nodes,
        "timeout": job.timeout_s,
        "port": port,
        "secret": secret,
    }
    child = _Child(rank, process, stderr)
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it ended already; waiting for it tells why
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
    return child


def _child_environment() -> dict[str, str]:
    """This process's environment plus its module search path."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return environment


def _read(child: _Child, events: queue.Queue[tuple[_Child, dict[str, Any] | None]]) -> None:
    """Forwards a child's answers as events; None when it has no more to say."""
    assert child.process.stdout is not None
    for line in child.process.stdout:
        events.put((child, json.loads(line)))
    events.put((child, None))


def _wait(
    job: LocalJob,
    children: list[_Child],
    events: queue.Queue[tuple[_Child, dict[str, Any] | None]],
    progress: Progress,
) -> None:
    """Returns when every child has delivered its result; throws at the first failure."""
    deadline = time.monotonic() + job.limit_s
    num_running = len(children)
    failed = False
    while num_running > 0:
        try:
            child, answer = events.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            if failed:
                break
            raise RanksFailedError(f"the run did not end within {job.limit_s:g} s") from None
        if answer is None:
            num_running -= 1
            failed_now = child.process.wait() != 0
        else:
            child.answers.append(answer)
            failed_now = "error" in answer
            if "progress" in answer and child.rank == 0:
                progress(answer["progress"])
        if failed_now and not failed:
            failed = True
            deadline = min(deadline, time.monotonic() + _GRACE_S)
    if failed:
        raise _explain(children)


def _explain(children: list[_Child]) -> RanksFailedError:
    """The failure that came first in the chain: a death explains its peers' complaints."""
    for child in children:
        code = child.process.poll()
        if code is not None and code != 0 and child.failure() is None:
            tail = child.stderr_tail()
            text = f"rank {child.rank} {_exit_text(code)}"
            return RanksFailedError(text + (f"; its last words:\n{tail}" if tail else ""))
    failures = [(child.rank, child.failure()) for child in children]
    known = [(rank, failure) for rank, failure in failures if failure is not None]
    # A rank that lost a peer or waited in vain only echoes somebody else's failure.
    echoes = ("PEER_LOST", "TIMEOUT")
    known.sort(key=lambda item: item[1]["code"] in echoes)
    rank, failure = known[0]
    return RanksFailedError(_error_text(rank, failure), failure["code"])


def _exit_text(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    hint = " (out of memory?)" if -code == signal.SIGKILL else ""
    return f"was ended by signal {-code} ({name}){hint}"


def _error_text(rank: int, failure: dict[str, Any]) -> str:
    if failure["code"] is not None:  # a moelink.Error explains itself
        return f"rank {rank} failed: {failure['message']}"
    return f"rank {rank} failed: {failure['type']}: {failure['message']}\n{failure['traceback']}"


def _end(children: list[_Child]) -> None:
    """Ends what still runs and reaps everything."""
    running = [child for child in children if child.process.poll() is None]
    for child in running:
        child.process.terminate()
    deadline = time.monotonic() + _KILL_AFTER_S
    for child in running:
        try:
            child.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
    for child in children:
        if child.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                child.process.stdin.close()
        child.stderr.close()
