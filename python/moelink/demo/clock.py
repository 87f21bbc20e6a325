"""Where the time of a training step goes on one rank."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# In the order of a picture: what the exchange costs, then what would be there without it.
PARTS = ("dispatch", "combine", "wait", "expert", "all-reduce", "dense")

# Stages in which a rank is idle until its peers have come as far.
_WAITING_STAGES = frozenset({"exchange", "receive", "release"})


class StepClock:
    """Adds up seconds by part; what no part claims is the model's dense layers."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._open_stages: dict[str, int] = {}
        self._started = time.perf_counter()
        self._expert_started = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Adds the time of a block, less the waiting inside it, to `name`."""
        waited = self._seconds["wait"]
        started = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - started
            self._seconds[name] += elapsed - (self._seconds["wait"] - waited)

    def on_trace(self, event: Any) -> None:
        """A hook for `moelink.set_trace_hook`: notices the stages spent waiting for peers."""
        if event.stage not in _WAITING_STAGES:
            return
        if event.point == "begin":
            self._open_stages[event.stage] = event.time_ns
        else:
            begin = self._open_stages.pop(event.stage, event.time_ns)
            self._seconds["wait"] += (event.time_ns - begin) / 1e9

    def expert_backward_begins(self, gradient: Any) -> None:
        """A tensor hook on what the experts return."""
        del gradient
        self._expert_started = time.perf_counter()

    def expert_backward_ends(self, gradient: Any) -> None:
        """A tensor hook on what the experts are given."""
        del gradient
        self._seconds["expert"] += time.perf_counter() - self._expert_started

    def lap(self) -> dict[str, float]:
        """Seconds of every part since the last lap."""
        now = time.perf_counter()
        seconds = {name: self._seconds[name] for name in PARTS}
        seconds["dense"] = max(0.0, now - self._started - sum(seconds.values()))
        self._seconds.clear()
        self._started = now
        return seconds
