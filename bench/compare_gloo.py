"""Compares Moelink on the CPU with torch.distributed over gloo and with plain memcpy, in one run.

    python bench/compare_gloo.py [--rounds N] [--output bench/results/compare_gloo.json]

One process per rank. Rounds alternate between the contestants, whose order rotates, so that all of
them meet the same noise; a round's time is that of its slowest rank. All results are checked.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import moelink
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from compare_contestants import (
    Contestant,
    GlooContestant,
    MemcpyContestant,
    MoelinkContestant,
    MoelinkLowLatencyContestant,
    MoelinkPerExpertContestant,
    MoelinkStagedContestant,
    TorchInputs,
)
from moelink.cli import machine, ranks, tables
from moelink.cli.bench_expectation import expect
from moelink.cli.bench_inputs import make_inputs
from moelink.cli.bench_options import BenchOptions
from moelink.cli.bench_report import slowest_us

GOALS = {
    "ratio": ("gloo / moelink", "at least", 4.0),
    "memcpy_share": ("memcpy / moelink", "at least", 0.60),
    "small_ratio": ("moelink / gloo, few tokens", "below", 0.25),
    "ll_small_ratio": ("moelink_ll / gloo, few tokens", "below", 1 / 6),
    "ll_over_ht": ("moelink_ll / moelink, few tokens", "below", 2 / 3),
    "memory_ratio": ("symmetric memory / receive tensors", "at most", 1.30),
}
OPERATIONS = ("dispatch", "combine")
_WARMUP_ROUNDS = 3
_TIMEOUT = datetime.timedelta(seconds=120)

# Nanoseconds of one rank: times[contestant][operation][round].
Times = dict[str, dict[str, list[int]]]


def main() -> int:
    arguments = parse_arguments()
    shape = BenchOptions(
        ranks=arguments.ranks,
        tokens=arguments.tokens,
        hidden=arguments.hidden,
        topk=arguments.topk,
        experts=arguments.experts,
    )
    shapes = {
        "large": (shape, arguments.rounds),
        "small": (replace(shape, tokens=arguments.small_tokens), arguments.small_rounds),
    }
    load = os.getloadavg()[0]
    if load > machine.num_usable_cores() / 2:
        print(
            f"note: the machine is busy (load {load:.1f}): do not trust the times", file=sys.stderr
        )
    queue = multiprocessing.get_context("spawn").SimpleQueue()
    # A rank that fails ends the others; its traceback is raised here.
    multiprocessing.spawn(run_rank, (ranks.free_port(), shapes, queue), nprocs=arguments.ranks)
    document = summarize(queue.get())
    document["command"] = shlex.join(["python", *sys.argv])
    document["load_before"] = load
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print_summary(document)
    print(f"written: {arguments.output}")
    return 0 if document["verified"] else 1


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default_output = Path(__file__).parent / "results" / "compare_gloo.json"
    parser.add_argument("--output", type=Path, default=default_output)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--small-tokens", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--topk", type=int, default=8)
    parser.add_argument("--experts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--small-rounds", type=int, default=201)
    return parser.parse_args()


def run_rank(rank: int, port: int, shapes: dict[str, tuple[BenchOptions, int]], queue: Any) -> None:
    """One process: takes part in all shapes; rank 0 reports."""
    num_ranks = shapes["large"][0].ranks or 1
    torch.set_num_threads(1)  # the ranks share the cores
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", address, _TIMEOUT, num_ranks, rank)
    results = {name: run_shape(name, options, rounds) for name, (options, rounds) in shapes.items()}
    if rank == 0:
        queue.put(results)
    dist.barrier()
    dist.destroy_process_group()


def run_shape(name: str, options: BenchOptions, num_rounds: int) -> dict[str, Any]:
    """Collective. The same dictionary on all ranks."""
    rank = dist.get_rank()
    numpy_inputs = make_inputs(options, rank)
    inputs, expected = TorchInputs(numpy_inputs), expect(options, rank)
    with (
        moelink.Buffer(dist.group.WORLD, hidden_bytes=options.row_bytes) as buffer,
        moelink.Buffer(dist.group.WORLD, hidden_bytes=options.row_bytes) as staging_buffer,
    ):
        memcpy = MemcpyContestant(expected)
        contestants: list[Contestant] = [
            GlooContestant(options, inputs, expected),
            MoelinkContestant(buffer, options, inputs, expected),
            MoelinkStagedContestant(staging_buffer, options, inputs, expected),
            memcpy,
        ]
        if name == "small":
            for kind in (MoelinkLowLatencyContestant, MoelinkPerExpertContestant):
                contestants.append(kind(buffer, options, inputs, expected))
        times, mismatches = compete(contestants, buffer, num_rounds)
        report = {
            "times_ns": times,
            "mismatches": mismatches,
            "memcpy_bytes": memcpy.dispatch_bytes + memcpy.combine_bytes,
            "memory": asdict(buffer.memory_statistics()),
        }
    reports: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(reports, report)
    return {"options": asdict(options), "num_rounds": num_rounds, "ranks": reports}


def compete(
    contestants: list[Contestant], buffer: moelink.Buffer, num_rounds: int
) -> tuple[Times, list[str]]:
    """Collective. Results of the first and the last round are checked."""
    times: Times = {one.name: defaultdict(list) for one in contestants}
    mismatches = []
    last_round = _WARMUP_ROUNDS + num_rounds - 1
    for round_idx in range(last_round + 1):
        first = round_idx % len(contestants)
        for contestant in contestants[first:] + contestants[:first]:
            elapsed = run_round(contestant, buffer)
            if round_idx in (0, last_round):
                found = contestant.check()
                mismatches += [f"{contestant.name}, round {round_idx}: {text}" for text in found]
            if isinstance(contestant, MoelinkContestant):
                contestant.release()
            if round_idx < _WARMUP_ROUNDS:
                continue
            for operation, elapsed_ns in zip(OPERATIONS, elapsed, strict=True):
                times[contestant.name][operation].append(elapsed_ns)
    return {name: dict(per_operation) for name, per_operation in times.items()}, mismatches


def run_round(contestant: Contestant, buffer: moelink.Buffer) -> tuple[int, int]:
    """Collective. Nanoseconds of dispatch and of combine on this rank, each after a barrier."""
    buffer.barrier()
    begin = time.perf_counter_ns()
    contestant.dispatch()
    dispatch_ns = time.perf_counter_ns() - begin
    contestant.prepare()
    buffer.barrier()
    begin = time.perf_counter_ns()
    contestant.combine()
    return dispatch_ns, time.perf_counter_ns() - begin


def medians_us(shape: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Per contestant: median microseconds of dispatch, combine and of their sum."""
    ranks_ns = [rank["times_ns"] for rank in shape["ranks"]]
    medians = {}
    for name in ranks_ns[0]:
        slowest = {
            operation: slowest_us([times[name][operation] for times in ranks_ns])
            for operation in OPERATIONS
        }
        slowest["total"] = [sum(times) for times in zip(*slowest.values(), strict=True)]
        medians[name] = {
            operation: statistics.median(times) for operation, times in slowest.items()
        }
    return medians


def summarize(shapes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    large, small = medians_us(shapes["large"]), medians_us(shapes["small"])
    memory = [rank["memory"] for rank in shapes["large"]["ranks"]]
    mismatches = [
        f"{name}, rank {rank_idx}: {text}"
        for name, shape in shapes.items()
        for rank_idx, rank in enumerate(shape["ranks"])
        for text in rank["mismatches"]
    ]
    figures = {
        "ratio": large["gloo"]["total"] / large["moelink"]["total"],
        "memcpy_share": large["memcpy"]["total"] / large["moelink"]["total"],
        "small_ratio": small["moelink"]["total"] / small["gloo"]["total"],
        "ll_small_ratio": small["moelink_ll"]["total"] / small["gloo"]["total"],
        "ll_over_ht": small["moelink_ll"]["total"] / small["moelink"]["total"],
        "memory_ratio": max(one["symmetric_bytes"] / one["peak_live_bytes"] for one in memory),
    }
    return {
        **figures,
        "ll_per_expert_us": small["moelink_ll_per_expert"]["total"],
        "goals_met": {name: is_met(name, value) for name, value in figures.items()},
        "verified": not mismatches,
        "mismatches": mismatches,
        "machine": machine.machine_facts(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "memcpy_processes": "one per rank, all at the same time",
        "median_us": {"large": large, "small": small},
        "memory_per_rank": memory,
        "shapes": {name: shape_summary(shape) for name, shape in shapes.items()},
    }


def shape_summary(shape: dict[str, Any]) -> dict[str, Any]:
    return {
        "options": shape["options"],
        "num_rounds": shape["num_rounds"],
        "memcpy_bytes_per_rank": [rank["memcpy_bytes"] for rank in shape["ranks"]],
    }


def is_met(name: str, value: float) -> bool:
    _, direction, goal = GOALS[name]
    if direction == "at least":
        return value >= goal
    return value < goal if direction == "below" else value <= goal


def print_summary(document: dict[str, Any]) -> None:
    for text in document["mismatches"]:
        print(f"WRONG: {text}", file=sys.stderr)
    for shape, medians in document["median_us"].items():
        options = document["shapes"][shape]["options"]
        title = (
            f"{options['ranks']} ranks, {options['tokens']} tokens of {options['hidden']} bf16, "
            f"top-{options['topk']} of {options['experts']}: median µs of the slowest rank"
        )
        columns = (
            tables.Column("contestant"),
            *(tables.Column(name, numeric=True) for name in (*OPERATIONS, "total")),
        )
        rows = tuple(
            (name, *(f"{value:,.0f}" for value in times.values()))
            for name, times in medians.items()
        )
        tables.print_table(tables.Table(title, columns, rows))
        print()
    columns = tuple(tables.Column(name) for name in ("figure", "meaning", "value", "goal", "met"))
    goals = tuple(
        (name, meaning, f"{document[name]:.3g}", f"{direction} {goal:.3g}", _yes(document, name))
        for name, (meaning, direction, goal) in GOALS.items()
    )
    verdict = "all results verified" if document["verified"] else "SOME RESULTS ARE WRONG"
    tables.print_table(tables.Table(verdict, columns, goals, {"yes": "green", "NO": "bold red"}))


def _yes(document: dict[str, Any], name: str) -> str:
    return "yes" if document["goals_met"][name] else "NO"


if __name__ == "__main__":
    sys.exit(main())
