"""Times one operation on one rank; between the calls, a memcpy of the same bytes is its floor."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from moelink.cli.bench_device import Device


@dataclass(frozen=True)
class Operation:
    """A call to measure. `check` lists how a result differs from the reference (empty: equal)."""

    name: str
    call: Callable[[], Any]
    check: Callable[[Any], list[str]]
    num_bytes: int  # that this rank's results take, or that its combine reads
    num_calls: int = 1  # that one call stands for, each of which is counted as one


@dataclass
class RankTimes:
    """One operation on one rank; travels to rank 0 as JSON."""

    name: str
    num_bytes: int
    times_ns: list[int] = field(default_factory=list)
    floor_ns: list[int] = field(default_factory=list)
    mismatches: list[str] = field(default_factory=list)
    stages_ns: dict[str, list[int]] = field(default_factory=dict)
    network: dict[str, int] = field(default_factory=dict)  # NetworkStatistics of the last call


class MemcpyFloor:
    """Copies a number of bytes between two buffers of this rank whose pages are in memory."""

    def __init__(self, device: Device, max_bytes: int):
        self.device = device
        self._source = device.put(np.ones(max_bytes, dtype=np.uint8))
        self._target = device.put(np.zeros(max_bytes, dtype=np.uint8))
        device.write(self._target, self._source)

    def copy_ns(self, num_bytes: int) -> int:
        source, target = self._source[:num_bytes], self._target[:num_bytes]
        return self.device.timed(lambda: self.device.write(target, source))[1]


def measure(
    operation: Operation,
    buffer: Any,
    floor: MemcpyFloor,
    num_warmups: int,
    num_iterations: int,
) -> RankTimes:
    """Collective. The first and the last call are checked in full, outside the measured time."""
    times = RankTimes(operation.name, operation.num_bytes)
    num_calls = num_warmups + num_iterations
    for call_idx in range(num_calls):
        before = asdict(buffer.network_statistics())
        buffer.barrier()
        result, elapsed_ns = floor.device.timed(operation.call)
        if call_idx in (0, num_calls - 1):
            times.mismatches += [f"call {call_idx}: {text}" for text in operation.check(result)]
        del result  # receive memory is free again before the next call
        buffer.barrier()
        copy_ns = floor.copy_ns(operation.num_bytes)
        if call_idx >= num_warmups:
            times.times_ns.append(elapsed_ns // operation.num_calls)
            times.floor_ns.append(copy_ns)
    after = asdict(buffer.network_statistics())
    times.network = {name: after[name] - before[name] for name in after}
    return times


class StageClock:
    """Adds up, per stage, the time in which at least one thread of a rank is inside the stage."""

    def __init__(self) -> None:
        self._depth: dict[str, int] = defaultdict(int)
        self._begin_ns: dict[str, int] = {}
        self.totals_ns: dict[str, int] = defaultdict(int)

    def __call__(self, event: Any) -> None:
        """The hook: see moelink.set_trace_hook."""
        if event.operation == "barrier":
            return
        stage = str(event.stage)
        if event.point == "begin":
            if self._depth[stage] == 0:
                self._begin_ns[stage] = event.time_ns
            self._depth[stage] += 1
        elif self._depth[stage] > 0:  # else it began before this clock
            self._depth[stage] -= 1
            if self._depth[stage] == 0:
                self.totals_ns[stage] += event.time_ns - self._begin_ns[stage]


def read_stages(
    operation: Operation,
    barrier: Callable[[], None],
    last_stage_times: Callable[[], list[tuple[str, float]]],
    num_iterations: int,
) -> dict[str, list[int]]:
    """Collective. As measure_stages, from the clock that kernels keep on a GPU."""
    stages: dict[str, list[int]] = defaultdict(lambda: [0] * num_iterations)
    for call_idx in range(num_iterations):
        barrier()
        result = operation.call()
        for stage, microseconds in last_stage_times():
            stages[stage][call_idx] = round(1000 * microseconds)
        del result
    return dict(stages)


def measure_stages(
    operation: Operation,
    barrier: Callable[[], None],
    set_clock: Callable[[int, StageClock | None], None],
    rank: int,
    num_iterations: int,
) -> dict[str, list[int]]:
    """Collective. Per stage, this rank's nanoseconds of each call."""
    stages: dict[str, list[int]] = defaultdict(lambda: [0] * num_iterations)
    for call_idx in range(num_iterations):
        clock = StageClock()
        barrier()
        set_clock(rank, clock)
        result = operation.call()
        del result
        barrier()  # stages that outlast the call belong to it
        set_clock(rank, None)
        for stage, total_ns in clock.totals_ns.items():
            stages[stage][call_idx] = total_ns
    return dict(stages)
