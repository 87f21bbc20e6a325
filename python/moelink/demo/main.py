"""Runs both trainings, shows them, and judges."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from moelink.cli import exit_codes
from moelink.demo.options import BATCH_SIZE, NUM_EXPERTS, DemoOptions, parse

if TYPE_CHECKING:
    from moelink.demo.ranks import Job
    from moelink.demo.record import ParallelRun, SingleRun
    from moelink.demo.screen import Screen

_PROMPTS = ("This License ", "You may ", "The software ", "The work ")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the demo and returns its exit code; usage errors leave by SystemExit(2)."""
    options = parse(argv)
    # Threads that wait for one another should leave the cores to others.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from moelink.demo.ranks import RankError
        from moelink.demo.text import TextError
    except ModuleNotFoundError as error:
        _complain(f"no module named {error.name!r}; install: pip install 'moelink[demo]'")
        return exit_codes.CANNOT
    try:
        return _run(options)
    except TextError as error:
        _complain(str(error))
        return exit_codes.CANNOT
    except RankError as error:
        _complain(str(error))
        return exit_codes.RUNTIME
    except KeyboardInterrupt:
        _complain("interrupted")
        return exit_codes.INTERRUPTED


def _complain(message: str) -> None:
    print(f"moelink demo: {message}", file=sys.stderr)


def _run(options: DemoOptions) -> int:
    from moelink.demo import verdict
    from moelink.demo.picture import draw
    from moelink.demo.screen import Screen

    started = time.perf_counter()
    job = _make_job(options)
    screen = Screen(job)
    screen.show_start()
    single = _run_single(job, screen)
    parallel = _run_parallel(job, single, screen)
    entropy = job.corpus.unigram_entropy()
    checks = verdict.judge(parallel.losses, single.losses, entropy)
    draw(options.out, parallel, single, entropy)
    screen.show_texts(parallel)
    screen.show_end(parallel, single, checks)
    screen.show_verdict(checks, options.out, time.perf_counter() - started)
    passed = all(check.passed for check in checks)
    return exit_codes.OK if passed else exit_codes.VERIFICATION_FAILED


def _make_job(options: DemoOptions) -> Job:
    from moelink.demo.model import ModelConfig
    from moelink.demo.ranks import Job
    from moelink.demo.text import read_corpus
    from moelink.demo.train import TrainConfig

    corpus = read_corpus()
    return Job(
        num_ranks=options.num_ranks,
        corpus=corpus,
        model=ModelConfig(vocabulary_size=len(corpus.vocabulary), num_experts=NUM_EXPERTS),
        config=TrainConfig(options.num_steps, options.seed, BATCH_SIZE),
        prompts=_PROMPTS,
        num_written=options.num_written,
    )


def _run_single(job: Job, screen: Screen) -> SingleRun:
    import torch

    from moelink.demo.record import SingleRun
    from moelink.demo.train import SingleProcess, Trainer, train

    torch.set_num_threads(min(job.num_ranks, len(os.sched_getaffinity(0))))
    trainer = Trainer(SingleProcess(), job.corpus, job.model, job.config)
    with screen.single_progress() as advance:
        started = time.perf_counter()
        losses = train(trainer, lambda _, loss: advance(loss))
        seconds = time.perf_counter() - started
    return SingleRun(losses, seconds, trainer.held_out_loss())


def _run_parallel(job: Job, single: SingleRun, screen: Screen) -> ParallelRun:
    from moelink.demo.ranks import RankEnd, run_ranks
    from moelink.demo.record import ParallelRun

    run = ParallelRun(job.num_ranks)
    with screen.parallel_progress(single) as advance:
        for report in run_ranks(job):
            if isinstance(report, RankEnd):
                run.ends.append(report)
            elif (step := run.add(report)) is not None:
                advance(step)
    run.seconds = sum(sum(step.seconds.values()) for step in run.steps)
    run.ends.sort(key=lambda end: end.rank)
    return run
