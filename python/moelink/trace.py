"""Hooks on the stages of a token."""

from __future__ import annotations

from collections.abc import Callable

from moelink import _core
from moelink._core import TraceEvent

__all__ = ["STAGES", "TraceEvent", "set_trace_hook"]

STAGES = (
    "route",
    "count",
    "exchange",
    "place",
    "send",
    "signal",
    "receive",
    "send_back",
    "reduce",
    "release",
)
"""The stages in the order in which a token passes them."""


def set_trace_hook(hook: Callable[[TraceEvent], object] | None) -> None:
    """Calls ``hook(event)`` at the begin and the end of every stage; None removes it.

    The hook belongs to the whole process and runs on the thread that executes the stage. An event
    has ``operation``, ``stage``, ``point`` (``"begin"`` or ``"end"``), ``rank`` and ``time_ns``,
    which compares with ``time.monotonic_ns()``. What the hook raises is printed and ignored.
    """
    _core.set_trace_hook(hook)
