"""What one rank does in `moelink bench`: make inputs, measure each operation, check its results."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from moelink.cli import machine
from moelink.cli.bench_device import Device, device_of, put_inputs
from moelink.cli.bench_expectation import Expectation, differences, expect
from moelink.cli.bench_inputs import RankInputs, combine_dtype, make_inputs
from moelink.cli.bench_low_latency import LowLatencyBench, low_latency_bytes
from moelink.cli.bench_measure import (
    MemcpyFloor,
    Operation,
    RankTimes,
    StageClock,
    measure,
    measure_stages,
    read_stages,
)
from moelink.cli.bench_options import BenchOptions

_MAX_STAGE_CALLS = 10
_WORST_CASE_SHARE = 4  # worst-case receive tensors may take 1/4 of the free memory


def run_rank(group: Any, arguments: dict[str, Any], progress: Callable[[str], None]) -> Any:
    """A job for `moelink.cli.ranks`; returns what `bench.report` reads."""
    import moelink

    options = replace(BenchOptions(**arguments), nodes=group.num_nodes)
    device = device_of(options, group.rank, group.num_ranks)
    progress("inputs and reference")
    buffer = moelink.Buffer(
        group,
        hidden_bytes=_max_row_bytes(options),
        num_experts=options.experts,
        max_num_experts=max(2048, options.experts),
        max_symmetric_bytes=device.symmetric_bytes(_symmetric_bytes(options, group.num_ranks)),
        num_workers=options.workers,
        network_path=options.network_path,
        device=device.name,
        stage_clock=options.stages,
    )
    with buffer:
        bench = _make_bench(buffer, options, device)
        operations = []
        for make in bench.makers():
            operation = make()
            progress(operation.name)
            operations.append(_run_operation(buffer, options, operation, bench.floor))
        memory = asdict(buffer.memory_statistics())
    return {
        "operations": [asdict(times) for times in operations],
        "memory": memory,
        "device": device.title,
        "nodes": options.nodes,
        "network_path": buffer.network_path,
        "notes": bench.notes,
    }


def _max_row_bytes(options: BenchOptions) -> int:
    return options.hidden * max(
        combine_dtype(options).itemsize, options.row_bytes // options.hidden
    )


def _symmetric_bytes(options: BenchOptions, num_ranks: int) -> int:
    if options.mode == "ll":
        return low_latency_bytes(options, num_ranks)
    return 3 * worst_case_rows(options, num_ranks) * _max_row_bytes(options)


def _make_bench(buffer: Any, options: BenchOptions, device: Device) -> RankBench | LowLatencyBench:
    if options.mode == "ll":
        return LowLatencyBench(buffer, options, device)
    inputs = put_inputs(device, make_inputs(options, buffer.rank))
    return RankBench(buffer, options, device, inputs, expect(options, buffer.rank))


def worst_case_rows(options: BenchOptions, num_ranks: int) -> int:
    """Rows that suffice for any routing of these shapes; the same on all ranks."""
    num_tokens = options.tokens * num_ranks
    if options.layout == "compact":
        return max(1, num_tokens)
    num_local = options.experts // num_ranks
    num_rows = num_tokens * min(options.topk, num_local) + num_local * (options.alignment - 1)
    return max(1, -(-num_rows // options.alignment) * options.alignment)


def _run_operation(
    buffer: Any, options: BenchOptions, operation: Operation, floor: MemcpyFloor
) -> RankTimes:
    """Collective."""
    times = measure(operation, buffer, floor, options.warmup, options.iters)
    if options.stages:
        num_calls = min(options.iters, _MAX_STAGE_CALLS)
        if options.backend == "cuda":
            times.stages_ns = read_stages(
                operation, buffer.barrier, buffer.last_stage_times, num_calls
            )
        else:
            times.stages_ns = measure_stages(
                operation, buffer.barrier, _set_clock, buffer.rank, num_calls
            )
    return times


class RankBench:
    """The operations of one rank's buffer, ready to be measured one after the other."""

    def __init__(
        self,
        buffer: Any,
        options: BenchOptions,
        device: Device,
        inputs: RankInputs,
        expected: Expectation,
    ):
        self._buffer = buffer
        self._options = options
        self._device = device
        self._inputs = inputs
        self._expected = expected
        self.floor = MemcpyFloor(device, max(self._dispatch_bytes(), self._combine_bytes(), 1))
        self._keywords = {
            "layout": options.layout.replace("-", "_"),
            "expert_alignment": options.alignment,
        }
        self.notes: list[str] = []

    def makers(self) -> list[Callable[[], Operation]]:
        """An operation is made just before it runs, so that tensors of others are free again."""
        makers = [self._layout, self._dispatch, self._cached_dispatch]
        if self._fits_worst_case():
            makers.append(self._worst_case_dispatch)
        return [*makers, self._combine, self._staged_combine]

    def _dispatch_raw(self, **keywords: Any) -> Any:
        inputs = self._inputs
        return self._buffer.dispatch(
            inputs.payload, inputs.topk_idx, inputs.topk_weights, **self._keywords, **keywords
        )

    def _layout(self) -> Operation:
        topk_idx = self._inputs.topk_idx
        expected = self._expected.layout

        def check(result: Any) -> list[str]:
            names = vars(expected)
            return [
                text
                for name in names
                for text in differences(name, getattr(result, name), getattr(expected, name))
            ]

        return Operation(
            "layout query", lambda: self._buffer.query_layout(topk_idx), check, topk_idx.nbytes
        )

    def _dispatch(self) -> Operation:
        return Operation(
            "dispatch", self._dispatch_raw, self._check_dispatch, self._dispatch_bytes()
        )

    def _cached_dispatch(self) -> Operation:
        handle = self._dispatch_raw().handle
        inputs = self._inputs

        def call() -> Any:
            return self._buffer.dispatch(
                inputs.payload, topk_weights=inputs.topk_weights, handle=handle
            )

        return Operation("cached dispatch", call, self._check_cached, self._dispatch_bytes())

    def _worst_case_dispatch(self) -> Operation:
        num_rows = worst_case_rows(self._options, self._buffer.num_ranks)
        return Operation(
            "worst-case disp.",
            lambda: self._dispatch_raw(num_worst_tokens=num_rows),
            lambda result: self._check_worst_case(result, num_rows),
            self._dispatch_bytes(),
        )

    def _combine(self) -> Operation:
        """From symmetric memory: a receive tensor, or a copy of it in a type that can be summed."""
        result = self._dispatch_raw()
        rows = _values(result.recv_x)
        if self._options.dtype in ("fp8", "int8"):
            summable = self._buffer.empty(tuple(rows.shape), combine_dtype(self._options))
            self._device.write(summable, self._expert_rows(rows))
            rows = summable
        return self._combine_of(rows, result.handle, "combine")

    def _staged_combine(self) -> Operation:
        """From memory that the peers cannot reach."""
        result = self._dispatch_raw()
        rows = self._device.copy(self._expert_rows(_values(result.recv_x)))
        return self._combine_of(rows, result.handle, "combine, staged")

    def _expert_rows(self, recv_x: Any) -> Any:
        """As `bench_expectation.expert_rows`."""
        return self._device.cast(recv_x, combine_dtype(self._options))

    def _combine_of(self, rows: Any, handle: Any, name: str) -> Operation:
        return Operation(
            name,
            lambda: self._buffer.combine(rows, handle),
            lambda combined: differences("combined_x", combined, self._expected.combined_x),
            self._combine_bytes(),
        )

    def _check_dispatch(self, result: Any) -> list[str]:
        received = self._expected.received
        found = self._check_cached(result)
        found += differences("recv_topk_idx", result.recv_topk_idx, received.topk_idx)
        if list(result.num_recv_tokens_per_expert) != received.num_tokens_per_expert:
            found.append(
                f"num_recv_tokens_per_expert is {list(result.num_recv_tokens_per_expert)}, "
                f"expected {received.num_tokens_per_expert}"
            )
        return found

    def _check_cached(self, result: Any) -> list[str]:
        received = self._expected.received
        found = differences("recv_x", _values(result.recv_x), self._expected.recv_x)
        found += differences("recv_scales", _scales(result.recv_x), received.scales)
        return found + differences(
            "recv_topk_weights", result.recv_topk_weights, received.topk_weights
        )

    def _check_worst_case(self, result: Any, num_rows: int) -> list[str]:
        """The rows that are used, and that the others say so."""
        received, used = self._expected.received, self._expected.num_rows
        values, scales = _values(result.recv_x), _scales(result.recv_x)
        if len(values) != num_rows:
            return [f"recv_x has {len(values)} rows, expected {num_rows}"]
        found = differences("recv_x", values[:used], self._expected.recv_x)
        if scales is not None:
            found += differences("recv_scales", scales[:used], received.scales)
        weights = result.recv_topk_weights
        found += differences("recv_topk_weights", weights[:used], received.topk_weights)
        if bool((weights[used:] != 0).any()):
            found.append("recv_topk_weights of an unused row is not 0")
        if received.topk_idx is not None:
            found += differences("recv_topk_idx", result.recv_topk_idx[:used], received.topk_idx)
            if bool((result.recv_topk_idx[used:] != -1).any()):
                found.append("recv_topk_idx of an unused row is not -1")
        return found

    def _dispatch_bytes(self) -> int:
        """Of the receive tensors."""
        received = self._expected.received
        parts = (self._expected.recv_x, received.scales, received.topk_idx, received.topk_weights)
        return sum(part.nbytes for part in parts if part is not None)

    def _combine_bytes(self) -> int:
        """Of the rows that the experts return."""
        num_filled = int(self._expected.received.is_filled.sum())
        return num_filled * self._options.hidden * combine_dtype(self._options).itemsize

    def _fits_worst_case(self) -> bool:
        """Collective: all ranks decide alike."""
        num_ranks = self._buffer.num_ranks
        rank_bytes = worst_case_rows(self._options, num_ranks) * self._options.row_bytes
        num_bytes = rank_bytes * num_ranks
        if self._options.backend == "cuda":  # each rank has its memory already
            mine = 2 * rank_bytes <= self._buffer.memory_statistics().capacity_bytes
        else:
            mine = num_bytes * _WORST_CASE_SHARE <= machine.available_memory_bytes()
        votes = self._buffer.group.all_gather(b"yes" if mine else b"no")
        if all(vote == b"yes" for vote in votes):
            return True
        self.notes.append(
            f"worst-case dispatch left out: its tensors would take {num_bytes / 1e9:.1f} GB "
            "in total; use fewer tokens or a smaller hidden size"
        )
        return False


def _values(recv_x: Any) -> Any:
    return recv_x[0] if isinstance(recv_x, tuple) else recv_x


def _scales(recv_x: Any) -> Any:
    return recv_x[1] if isinstance(recv_x, tuple) else None


_clocks: dict[int, StageClock] = {}
_clocks_lock = threading.Lock()


def _set_clock(rank: int, clock: StageClock | None) -> None:
    """The hook belongs to the process, which may hold several ranks: one hook serves all clocks."""
    import moelink

    with _clocks_lock:
        if clock is None:
            _clocks.pop(rank, None)
        else:
            _clocks[rank] = clock
        moelink.set_trace_hook(_forward if _clocks else None)


def _forward(event: Any) -> None:
    clock = _clocks.get(int(event.rank))
    if clock is not None:
        clock(event)
