"""`moelink bench --mode ll`: the low latency operations of one rank, and what they must return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelink import reference_low_latency as reference
from moelink.cli.bench_device import Device, put_inputs, to_array
from moelink.cli.bench_expectation import differences
from moelink.cli.bench_inputs import RankInputs, make_inputs, numpy_dtype
from moelink.cli.bench_measure import MemcpyFloor, Operation
from moelink.cli.bench_options import BenchOptions

Array = NDArray[Any]

_CHANNELS_AT_ONCE = 512  # bounds the memory of the reference; whole blocks of every scale format
_NUMERICS = ("exact", "pre_reduced")
_CALLS_PER_GRAPH = 20


@dataclass(frozen=True)
class LowLatencyExpectation:
    """Results of one rank; of rows only those in use, group by group."""

    received: reference.Received  # all but the payload, which is in recv_x and scales
    recv_x: Array  # [rows in use, H]
    scales: Array | None  # [rows in use, H / 128]
    combined_x: dict[str, Array]  # by numerics: [T, H], of experts that return their input

    @property
    def used(self) -> tuple[Array, Array]:
        """Index of the rows in use into [groups, rows]."""
        groups, rows = self.received.rows().T
        return groups, rows


def make_call(options: BenchOptions) -> reference.Call:
    return reference.Call(
        num_experts=options.experts,
        num_max_tokens_per_rank=max(1, options.tokens),
        fp8="float32" if options.dtype == "fp8" else None,
        layout=options.layout.replace("-", "_"),
    )


def low_latency_inputs(options: BenchOptions, rank: int) -> RankInputs:
    """Always bfloat16: with `--dtype fp8` the dispatch quantises."""
    return make_inputs(replace(options, dtype="bf16"), rank)


def recv_bytes(options: BenchOptions, num_ranks: int) -> int:
    """More than the receive tensors of one dispatch, of the combine buffer too."""
    groups = options.experts if options.layout == "per-expert" else num_ranks
    return groups * max(1, options.tokens) * (2 * options.hidden + 64 + 8 * options.topk)


def low_latency_bytes(options: BenchOptions, num_ranks: int) -> int:
    """Symmetric memory for all operations, where it is taken at once."""
    import moelink

    num_tensors = 4
    if options.graph:  # graphs keep what they use, of two calls at a time
        num_tensors += 8
    area = moelink.Buffer.low_latency_size_hint(
        max(1, options.tokens), options.hidden, num_ranks, options.topk
    )
    return area + num_tensors * recv_bytes(options, num_ranks)


def expect_low_latency(options: BenchOptions, rank: int) -> LowLatencyExpectation:
    assert options.ranks is not None
    call = make_call(options)
    inputs = [low_latency_inputs(options, source) for source in range(options.ranks)]
    values: list[Array] = []
    scales: list[Array | None] = []
    combined: dict[str, list[Array]] = {numerics: [] for numerics in _NUMERICS}
    for begin in range(0, options.hidden, _CHANNELS_AT_ONCE):
        channels = slice(begin, begin + _CHANNELS_AT_ONCE)
        sent = [
            reference.Sent(np.ascontiguousarray(one.x[:, channels]), one.topk_idx, one.topk_weights)
            for one in inputs
        ]
        received = reference.dispatch(sent, call)
        mine = received[rank]
        used = tuple(mine.rows().T)
        values.append(mine.x[used])
        scales.append(None if mine.scales is None else mine.scales[used])
        returned = [one.x.astype(numpy_dtype("bf16"), copy=False) for one in received]
        for numerics, parts in combined.items():
            parts.append(reference.combine(returned, received, sent, call, numerics)[rank])
    has_scales = options.dtype == "fp8"
    return LowLatencyExpectation(
        received=mine,
        recv_x=np.concatenate(values, axis=1),
        scales=np.concatenate([s for s in scales if s is not None], axis=1) if has_scales else None,
        combined_x={name: np.concatenate(parts, axis=1) for name, parts in combined.items()},
    )


class LowLatencyBench:
    """The operations of one rank's buffer, ready to be measured one after the other."""

    def __init__(self, buffer: Any, options: BenchOptions, device: Device):
        self._buffer = buffer
        self._device = device
        self._call = make_call(options)
        self._calls_per_graph = _CALLS_PER_GRAPH if options.graph else 0
        self._inputs = put_inputs(device, low_latency_inputs(options, buffer.rank))
        self._expected = expect_low_latency(options, buffer.rank)
        self.floor = MemcpyFloor(device, self._dispatch_bytes() + self._combine_bytes() + 1)
        self.notes: list[str] = []

    def makers(self) -> list[Callable[[], Operation]]:
        """An operation is made just before it runs, so that tensors of others are free again."""
        makers = [
            lambda: self._dispatch("dispatch", by_hook=False),
            lambda: self._dispatch("dispatch, hook", by_hook=True),
            lambda: self._combine("combine", "exact", by_hook=False),
            lambda: self._combine("combine, hook", "exact", by_hook=True),
        ]
        has_numerics = self._call.layout == "per_expert"  # per rank, rows are summed as they are
        if has_numerics:
            makers += [
                lambda: self._combine("pre-reduced", "pre_reduced", by_hook=False),
                lambda: self._combine("pre-red., hook", "pre_reduced", by_hook=True),
            ]
        if not self._calls_per_graph:
            return makers
        makers += [
            lambda: self._in_graph(self._dispatch("dispatch, graph", by_hook=False)),
            lambda: self._in_graph(self._combine("combine, graph", "exact", by_hook=False)),
            lambda: self._in_graph(self._pair("pair, graph", "exact")),
        ]
        if has_numerics:
            makers += [
                lambda: self._in_graph(
                    self._combine("pre-red., graph", "pre_reduced", by_hook=False)
                ),
            ]
        return makers

    def _in_graph(self, operation: Operation) -> Operation:
        """So many of them in one CUDA graph; without the host's part of a call."""
        num_calls = self._calls_per_graph
        call = self._device.captured(operation.call, num_calls)
        return replace(operation, call=call, num_calls=num_calls)

    def _pair(self, name: str, numerics: str) -> Operation:
        """A dispatch, and the combine of rows that were there before."""
        inputs, expected = self._inputs, self._expected.combined_x[numerics]
        rows = self._expert_rows(self._dispatch_raw())

        def call() -> Any:
            return self._buffer.low_latency_combine(
                rows,
                inputs.topk_idx,
                inputs.topk_weights,
                self._dispatch_raw().handle,
                numerics=numerics,
            )

        return Operation(
            name,
            call,
            lambda combined: differences("combined_x", combined, expected),
            self._dispatch_bytes() + self._combine_bytes(),
        )

    def _expert_rows(self, result: Any) -> Any:
        """The benchmark's expert returns its input, in a type that can be summed."""
        return self._device.cast(_split(result.recv_x)[0], numpy_dtype("bf16"))

    def _dispatch_raw(self, **keywords: Any) -> Any:
        inputs, call = self._inputs, self._call
        result = self._buffer.low_latency_dispatch(
            inputs.x,
            inputs.topk_idx,
            call.num_max_tokens_per_rank,
            inputs.topk_weights,
            fp8=call.fp8,
            layout=call.layout,
            **keywords,
        )
        if result.hook is not None:
            result.hook()
        return result

    def _dispatch(self, name: str, *, by_hook: bool) -> Operation:
        return Operation(
            name,
            lambda: self._dispatch_raw(return_hook=by_hook),
            self._check_dispatch,
            self._dispatch_bytes(),
        )

    def _combine(self, name: str, numerics: str, *, by_hook: bool) -> Operation:
        inputs = self._inputs
        result = self._dispatch_raw()
        rows = self._expert_rows(result)

        def call() -> Any:
            combined = self._buffer.low_latency_combine(
                rows,
                inputs.topk_idx,
                inputs.topk_weights,
                result.handle,
                numerics=numerics,
                return_hook=by_hook,
            )
            if not by_hook:
                return combined
            combined.hook()
            return combined.combined_x

        expected = self._expected.combined_x[numerics]
        return Operation(
            name,
            call,
            lambda combined: differences("combined_x", combined, expected),
            self._combine_bytes(),
        )

    def _check_dispatch(self, result: Any) -> list[str]:
        expected, received = self._expected, self._expected.received
        used = expected.used
        count = to_array(result.recv_count)[:, None]
        found = differences("recv_count", count, received.count[:, None])
        if found:
            return found
        values, scales = _split(result.recv_x)
        found += differences("recv_x", to_array(values)[used], expected.recv_x)
        if expected.scales is not None:
            found += differences("recv_scales", to_array(scales)[used], expected.scales)
        src_info = to_array(result.handle.src_info)[used][:, None]
        found += differences("src_info", src_info, received.src_info[used][:, None])
        if received.topk_idx is None or received.topk_weights is None:
            return found + differences(
                "layout_range", result.handle.layout_range, received.layout_range
            )
        topk_idx, weights = to_array(result.recv_topk_idx), to_array(result.recv_topk_weights)
        found += differences("recv_topk_idx", topk_idx[used], received.topk_idx[used])
        return found + differences("recv_topk_weights", weights[used], received.topk_weights[used])

    def _dispatch_bytes(self) -> int:
        """Of the rows in use in the receive tensors."""
        expected, received = self._expected, self._expected.received
        num_bytes = expected.recv_x.nbytes + received.src_info[expected.used].nbytes
        for part in (received.topk_idx, received.topk_weights):
            num_bytes += 0 if part is None else part[expected.used].nbytes
        return num_bytes + (0 if expected.scales is None else expected.scales.nbytes)

    def _combine_bytes(self) -> int:
        """Of the rows that the experts return."""
        return self._expected.recv_x.size * numpy_dtype("bf16").itemsize


def _split(recv_x: Any) -> tuple[Any, Any]:
    return recv_x if isinstance(recv_x, tuple) else (recv_x, None)
