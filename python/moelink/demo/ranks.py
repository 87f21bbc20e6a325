"""The ranks of the demo: processes that train together and report every step to the parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from moelink.demo.model import ModelConfig
from moelink.demo.text import Corpus
from moelink.demo.train import TrainConfig, Trainer, train

_TIMEOUT_SECONDS = 60.0


class RankError(RuntimeError):
    """A rank raised or ended; the message has its story."""


@dataclass(frozen=True)
class Job:
    """What all ranks need to know."""

    num_ranks: int
    corpus: Corpus
    model: ModelConfig
    config: TrainConfig
    prompts: tuple[str, ...]
    num_written: int


@dataclass(frozen=True)
class RankStep:
    """One step as one rank saw it."""

    rank: int
    step: int
    loss: float  # of the whole batch
    seconds: dict[str, float]
    loads: list[list[int]]  # [layer][local expert]: rows received


@dataclass(frozen=True)
class RankEnd:
    """What a rank has to say when it is done."""

    rank: int
    held_out_loss: float
    text: str
    symmetric_bytes: int


@dataclass(frozen=True)
class _Failure:
    rank: int
    story: str


def run_ranks(job: Job) -> Iterator[RankStep | RankEnd]:
    """Starts the ranks and yields what they report. Raises RankError when one of them fails.

    No process outlives the generator.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="moelink-demo-") as folder:
        meeting = str(Path(folder) / "meeting")
        pipes: dict[Connection, BaseProcess] = {}
        try:
            with _interrupts_kept_from_children():
                for rank in range(job.num_ranks):
                    reader, writer = context.Pipe(duplex=False)
                    process: BaseProcess = context.Process(
                        target=_rank_main, args=(rank, job, meeting, writer), name=f"rank {rank}"
                    )
                    process.start()
                    writer.close()
                    pipes[reader] = process
            yield from _reports(dict(pipes))
        finally:
            for process in pipes.values():
                process.terminate()
                process.join()


@contextmanager
def _interrupts_kept_from_children() -> Iterator[None]:
    """Ctrl-C reaches this process only, which then ends the children."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _reports(pipes: dict[Connection, BaseProcess]) -> Iterator[RankStep | RankEnd]:
    """Messages of all ranks until each has sent its last one."""
    while pipes:
        for ready in wait(list(pipes)):
            assert isinstance(ready, Connection)
            try:
                message = ready.recv()
            except EOFError:
                process = pipes[ready]
                process.join()
                raise RankError(f"{process.name} died (exit code {process.exitcode})") from None
            if isinstance(message, _Failure):
                raise RankError(f"rank {message.rank} failed:\n{message.story}")
            yield message
            if isinstance(message, RankEnd):
                pipes.pop(ready).join()


def _rank_main(rank: int, job: Job, meeting: str, pipe: Connection) -> None:
    try:
        _train_as_rank(rank, job, meeting, pipe)
    except Exception:
        pipe.send(_Failure(rank, traceback.format_exc()))


def _train_as_rank(rank: int, job: Job, meeting: str, pipe: Connection) -> None:
    import torch
    import torch.distributed as dist

    import moelink
    from moelink.demo.clock import StepClock
    from moelink.demo.parallel import ExpertParallel

    torch.set_num_threads(1)  # the ranks are the parallelism
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "gloo",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=job.num_ranks,
        timeout=timedelta(seconds=_TIMEOUT_SECONDS),
    )
    clock = StepClock()
    moelink.set_trace_hook(clock.on_trace)
    with moelink.Buffer(
        dist.group.WORLD,
        hidden_bytes=job.model.width * 4,
        num_experts=job.model.num_experts,
        timeout=_TIMEOUT_SECONDS,
    ) as buffer:
        placement = ExpertParallel(buffer, clock)
        trainer = Trainer(placement, job.corpus, job.model, job.config)

        def report(step: int, loss: float) -> None:
            pipe.send(RankStep(rank, step, loss, clock.lap(), placement.take_loads()))

        clock.lap()
        train(trainer, report)
        pipe.send(_finish(trainer, job, buffer))
    dist.destroy_process_group()


def _finish(trainer: Trainer, job: Job, buffer: Any) -> RankEnd:
    rank = trainer.placement.rank
    held_out_loss = trainer.held_out_loss()
    prompt = job.corpus.encode(job.prompts[rank % len(job.prompts)])
    text = job.corpus.decode(trainer.write(prompt, job.num_written))
    return RankEnd(rank, held_out_loss, text, buffer.memory_statistics().symmetric_bytes)
