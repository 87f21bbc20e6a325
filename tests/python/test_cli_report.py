"""From the times of the ranks to rows, JSON and tables."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from moelink.cli import bench_report, tables
from moelink.cli.bench_measure import RankTimes, StageClock
from moelink.cli.bench_options import BenchOptions

OPTIONS = BenchOptions(ranks=2)


def make_times(rank: int, mismatches: list[str] | None = None) -> RankTimes:
    """Three calls; rank 0 is the slow one in the first of them, rank 1 in the others."""
    calls = [[9_000, 2_000, 3_000], [1_000, 5_000, 4_000]][rank]
    return RankTimes("dispatch", 1_000 * (rank + 1), calls, [2_000] * 3, mismatches or [])


def test_percentile_is_a_value_that_was_seen() -> None:
    values = [float(value) for value in range(1, 101)]
    assert bench_report.percentile(values, 99) == 99.0
    assert bench_report.percentile([7.0], 99) == 7.0


def test_row_takes_the_slowest_rank_of_each_call() -> None:
    row = bench_report.make_row([make_times(0), make_times(1)])
    assert row["times_us"] == [9.0, 5.0, 4.0]
    assert (row["median_us"], row["min_us"], row["p99_us"]) == (5.0, 4.0, 9.0)


def test_row_relates_bytes_to_time_and_floor() -> None:
    row = bench_report.make_row([make_times(0), make_times(1)])
    assert row["bytes_total"] == 3_000
    assert row["gb_per_s"] == pytest.approx(3_000 / 5e-6 / 1e9)
    assert row["ratio_to_floor"] == pytest.approx(2.5)


def test_row_is_not_verified_when_one_rank_differs() -> None:
    row = bench_report.make_row([make_times(0), make_times(1, ["recv_x differs"])])
    assert not row["verified"]
    assert row["mismatches"] == ["rank 1: recv_x differs"]
    document = bench_report.make_document(OPTIONS, "moelink bench", [row], [])
    assert not document["verified"]


def test_document_survives_json() -> None:
    row = bench_report.make_row([make_times(0), make_times(1)])
    results = [{"memory": {"live_bytes": 1}, "device": "cpu"}]
    document = bench_report.make_document(OPTIONS, "moelink bench", [row], results)
    assert document["memory_per_rank"] == [{"live_bytes": 1}]
    assert document["device_per_rank"] == ["cpu"]
    assert json.loads(json.dumps(document)) == document
    assert {"cpu", "cores", "kernel", "python", "versions"} <= set(document["machine"])


def test_table_fits_in_80_columns_with_long_names_and_times() -> None:
    times = RankTimes("combine, staged", 10**9, [98_765_432] * 3, [12_345_678] * 3)
    row = bench_report.make_row([times, times])
    text = tables.format_plain(bench_report.make_table(OPTIONS, [row]), 80)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert text.splitlines()[-1].endswith("yes")


def test_plain_table_wraps_its_wide_column_and_aligns_numbers() -> None:
    columns = (tables.Column("n", numeric=True), tables.Column("text", wraps=True))
    table = tables.Table("", columns, (("7", "word " * 20), ("1234", "short\n→ advice")))
    lines = tables.format_plain(table, 40).splitlines()
    assert max(len(line) for line in lines) <= 40
    assert lines[2].startswith("   7 word")
    assert lines[-1] == "     → advice"


def trace_event(stage: str, point: str, time_ns: int, operation: str = "dispatch") -> object:
    return SimpleNamespace(operation=operation, stage=stage, point=point, time_ns=time_ns)


def test_stage_clock_counts_overlapping_threads_once() -> None:
    clock = StageClock()
    for point, time_ns in (("begin", 10), ("begin", 15), ("end", 20), ("end", 30)):
        clock(trace_event("send", point, time_ns))
    assert clock.totals_ns == {"send": 20}


def test_stage_clock_ignores_barriers_and_stages_begun_earlier() -> None:
    clock = StageClock()
    clock(trace_event("signal", "end", 5))
    clock(trace_event("exchange", "begin", 1, operation="barrier"))
    clock(trace_event("exchange", "end", 9, operation="barrier"))
    assert clock.totals_ns == {}
