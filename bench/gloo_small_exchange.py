"""One token to the other rank and one back: low latency dispatch beside gloo's all_to_all.

    python bench/gloo_small_exchange.py [--into bench/results/nodes_cpu.json]

Two processes on two emulated nodes; rounds alternate between the contestants. The result is added
to the JSON of bench/fabric/node_exchange.cpp. Needs torch with gloo.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import moelink
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from moelink.cli import ranks

HIDDEN = 7168
NUM_MAX_TOKENS = 16
PROVIDERS = ("tcp", "shm")
_TIMEOUT = datetime.timedelta(seconds=120)


def main() -> int:
    arguments = parse_arguments()
    load = os.getloadavg()[0]
    results = {}
    for provider in PROVIDERS:
        os.environ["MOELINK_FABRIC_PROVIDER"] = provider  # inherited, and read once per process
        queue = multiprocessing.get_context("spawn").SimpleQueue()
        order = (ranks.free_port(), arguments.rounds, arguments.times, queue)
        multiprocessing.spawn(run_rank, order, nprocs=2)
        results[provider] = summarize(queue.get())
        print(f"{provider}: {describe(results[provider])}")
    document = json.loads(arguments.into.read_text()) if arguments.into.exists() else {}
    document["gloo"] = {
        "what": "one token of 7168 bf16 each way between two processes, from Python; median "
        "microseconds of one exchange",
        "load_before": load,
        **results,
    }
    arguments.into.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).parent / "results" / "nodes_cpu.json"
    parser.add_argument("--into", type=Path, default=default)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--times", type=int, default=300)
    return parser.parse_args()


def run_rank(rank: int, port: int, num_rounds: int, num_times: int, queue: Any) -> None:
    """One process: takes part in all rounds; rank 0 reports the slower rank's time of each."""
    torch.set_num_threads(1)  # the ranks share the cores
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", _TIMEOUT, 2, rank)
    times: dict[str, list[float]] = {"gloo": [], "moelink": []}
    with moelink.Buffer(dist.group.WORLD, num_experts=2, num_nodes=2) as buffer:
        exchanges = {"gloo": gloo_exchange(rank), "moelink": moelink_exchange(buffer)}
        for round_idx in range(num_rounds + 1):
            for name, exchange in exchanges.items():
                us = timed_us(exchange, num_times)
                if round_idx > 0:  # the first one connects
                    times[name].append(us)
    if rank == 0:
        queue.put(times)
    dist.barrier()
    dist.destroy_process_group()


def timed_us(exchange: Callable[[], None], num_times: int) -> float:
    """Collective. Of one exchange at the slower rank."""
    dist.barrier()
    begin = time.perf_counter_ns()
    for _ in range(num_times):
        exchange()
    elapsed = torch.tensor([(time.perf_counter_ns() - begin) / num_times / 1e3])
    dist.all_reduce(elapsed, dist.ReduceOp.MAX)
    return float(elapsed)


def gloo_exchange(rank: int) -> Callable[[], None]:
    sent = torch.full((1, HIDDEN), rank, dtype=torch.bfloat16).view(
        torch.int32
    )  # gloo knows no bfloat16
    received = torch.empty_like(sent)
    counts = [1 - int(peer == rank) for peer in range(2)]

    def exchange() -> None:
        dist.all_to_all_single(received, sent, counts, counts)

    return exchange


def moelink_exchange(buffer: moelink.Buffer) -> Callable[[], None]:
    x = torch.full((1, HIDDEN), buffer.rank, dtype=torch.bfloat16)
    topk_idx = torch.tensor([[1 - buffer.rank]])

    def exchange() -> None:
        buffer.low_latency_dispatch(x, topk_idx, NUM_MAX_TOKENS)

    return exchange


def summarize(times: dict[str, list[float]]) -> dict[str, Any]:
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "median_us": medians,
        "gloo_over_moelink": medians["gloo"] / medians["moelink"],
        "times_us": times,
    }


def describe(result: dict[str, Any]) -> str:
    medians = result["median_us"]
    return (
        f"gloo {medians['gloo']:.1f} us, moelink {medians['moelink']:.1f} us, "
        f"gloo / moelink {result['gloo_over_moelink']:.2f}"
    )


if __name__ == "__main__":
    sys.exit(main())
