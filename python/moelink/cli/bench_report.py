"""Turns the times of all ranks into the rows, the JSON file and the tables of `moelink bench`."""

from __future__ import annotations

import datetime
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from moelink.cli.bench_measure import RankTimes
from moelink.cli.bench_options import BenchOptions
from moelink.cli.machine import machine_facts
from moelink.cli.tables import Column, Table
from moelink.trace import STAGES

SCHEMA_VERSION = 1


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def slowest_us(per_rank_ns: Sequence[Sequence[int]]) -> list[float]:
    """Per call, the time of the rank that took longest, in microseconds."""
    return [max(times) / 1e3 for times in zip(*per_rank_ns, strict=True)]


def make_row(ranks: Sequence[RankTimes]) -> dict[str, Any]:
    """One operation, from the times of all ranks in rank order."""
    times_us = slowest_us([rank.times_ns for rank in ranks])
    floor_us = statistics.median(slowest_us([rank.floor_ns for rank in ranks]))
    median_us = statistics.median(times_us)
    total_bytes = sum(rank.num_bytes for rank in ranks)
    mismatches = [
        f"rank {idx}: {text}" for idx, rank in enumerate(ranks) for text in rank.mismatches
    ]
    return {
        "operation": ranks[0].name,
        "median_us": median_us,
        "min_us": min(times_us),
        "p99_us": percentile(times_us, 99),
        "bytes_total": total_bytes,
        "bytes_per_rank": [rank.num_bytes for rank in ranks],
        "gb_per_s": total_bytes / median_us / 1e3 if median_us > 0 else None,
        "floor_us": floor_us,
        "ratio_to_floor": median_us / floor_us if floor_us > 0 else None,
        "verified": not mismatches,
        "mismatches": mismatches,
        **_network_part(ranks, median_us),
        "times_us": times_us,
        "stages_us": _stage_medians(ranks),
    }


def _network_part(ranks: Sequence[RankTimes], median_us: float) -> dict[str, Any]:
    """What one call sent to other nodes, and the rate of the rank that sent most."""
    sent = [rank.network.get("num_bytes", 0) for rank in ranks]
    rows = ("num_dispatch_rows", "num_combine_rows")
    return {
        "network_bytes_per_rank": sent,
        "network_rows_per_rank": [
            sum(rank.network.get(name, 0) for name in rows) for rank in ranks
        ],
        "network_messages_per_rank": [rank.network.get("num_messages", 0) for rank in ranks],
        "network_gb_per_s": max(sent) / median_us / 1e3 if median_us > 0 else None,
    }


def _stage_medians(ranks: Sequence[RankTimes]) -> dict[str, float]:
    names = [name for rank in ranks for name in rank.stages_ns]
    medians = {}
    for name in dict.fromkeys(names):
        per_rank = [rank.stages_ns[name] for rank in ranks if name in rank.stages_ns]
        medians[name] = statistics.median(slowest_us(per_rank))
    return medians


def make_document(
    options: BenchOptions,
    command: str,
    rows: list[dict[str, Any]],
    results: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """The JSON document; docs/cli.md describes every key."""
    return {
        "schema": SCHEMA_VERSION,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "machine": machine_facts(),
        "options": asdict(options),
        "verified": all(row["verified"] for row in rows),
        "rows": rows,
        "memory_per_rank": [result["memory"] for result in results],
        "device_per_rank": [result["device"] for result in results],
    }


def make_table(options: BenchOptions, rows: Sequence[dict[str, Any]]) -> Table:
    columns = (
        Column("operation"),
        *(
            Column(title, numeric=True)
            for title in ("median µs", "min", "p99", "MB/rank", "GB/s", "floor µs", "x floor")
        ),
        Column("verified"),
    )
    cells = tuple(
        (
            row["operation"],
            _number(row["median_us"]),
            _number(row["min_us"]),
            _number(row["p99_us"]),
            _number(max(row["bytes_per_rank"]) / 1e6),
            _number(row["gb_per_s"]),
            _number(row["floor_us"]),
            _number(row["ratio_to_floor"]),
            "yes" if row["verified"] else "NO",
        )
        for row in rows
    )
    return Table(title(options), columns, cells, {"yes": "green", "NO": "bold red"})


def make_network_table(options: BenchOptions, rows: Sequence[dict[str, Any]]) -> Table | None:
    """What the rank that sends most sends to other nodes; None if nothing is sent there."""
    users = [row for row in rows if max(row["network_bytes_per_rank"]) > 0]
    if not users:
        return None
    names = ("rows", "messages", "MB", "GB/s")
    columns = (Column("operation"), *(Column(f"{name}/rank", numeric=True) for name in names))
    cells = tuple(
        (
            row["operation"],
            f"{max(row['network_rows_per_rank']):,}",
            f"{max(row['network_messages_per_rank']):,}",
            _number(max(row["network_bytes_per_rank"]) / 1e6),
            _number(row["network_gb_per_s"]),
        )
        for row in users
    )
    return Table(f"sent between {options.nodes} nodes, {options.network_path}", columns, cells)


def title(options: BenchOptions) -> str:
    num_nodes = options.nodes or 1
    nodes = f" on {num_nodes} nodes" if num_nodes > 1 else ""
    mode = "low latency, " if options.mode == "ll" else ""
    device = ", CUDA" if options.backend == "cuda" else ""
    return (
        f"{options.ranks} ranks{nodes}, {options.tokens} tokens of {options.hidden} "
        f"{options.dtype}, top-{options.topk} of {options.experts}, {mode}{options.layout}{device}"
    )


def make_stage_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Stages as rows, in the order in which a token meets them; operations as columns."""
    timed = [row for row in rows if row["stages_us"]]
    used = [stage for stage in STAGES if any(stage in row["stages_us"] for row in timed)]
    columns = (
        Column("median µs"),
        *(Column(row["operation"], numeric=True) for row in timed),
    )
    cells = tuple(
        (stage, *(_number(row["stages_us"].get(stage)) for row in timed)) for stage in used
    )
    return Table("stages", columns, cells)


def _number(value: float | None) -> str:
    """Three significant digits, so that columns stay narrow."""
    if value is None:
        return "-"
    if value >= 99.95:
        return f"{value:,.0f}"
    if value >= 9.995:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.01 else f"{value:.1g}"
