"""Events: completion of asynchronous calls, and what they keep alive."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

import moelink

from deep_ep.device import current_stream, recorded_event

__all__ = ["EventHandle", "EventOverlap", "event_of"]


class EventHandle:
    """A point in time of the current stream; on the CPU it has always passed."""

    def __init__(self) -> None:
        self._event = recorded_event()
        self._after_wait: Callable[[], None] | None = None

    @classmethod
    def of(cls, event: moelink.Event, after_wait: Callable[[], None] | None = None) -> EventHandle:
        """The completion of a call; ``after_wait`` runs once, after the first wait."""
        handle = cls.__new__(cls)
        handle._event = event
        handle._after_wait = after_wait
        return handle

    @property
    def native(self) -> moelink.Event:
        """The event that moelink waits for."""
        return self._event

    def current_stream_wait(self) -> None:
        """What the current stream does from now on happens after the event.

        On a GPU the calling thread goes on at once.
        """
        self._event.wait_on(current_stream())
        after_wait, self._after_wait = self._after_wait, None
        if after_wait is not None:
            after_wait()


class EventOverlap:
    """An event, or None, with the tensors that must live until it."""

    def __init__(
        self, event: EventHandle | None = None, extra_tensors: tuple[Any, ...] | None = None
    ) -> None:
        self.event = event
        self.extra_tensors = extra_tensors
        self.hook_after_wait: Callable[[], None] | None = None
        self._release_at_exit = False

    def current_stream_wait(self, release_handle: bool = False) -> None:
        """Waits, then runs the registered hook; drops the event with ``release_handle``."""
        if self.event is None:
            raise RuntimeError("EventOverlap.current_stream_wait: event is None, expected an event")
        self.event.current_stream_wait()
        hook, self.hook_after_wait = self.hook_after_wait, None
        if hook is not None:
            hook()
        if release_handle:
            self.event = None

    def register_hook_after_wait(self, hook: Callable[[], None]) -> None:
        """``hook`` runs after the next wait; one at a time."""
        if self.hook_after_wait is not None:
            raise RuntimeError(
                "EventOverlap.register_hook_after_wait: a hook is registered already"
            )
        self.hook_after_wait = hook

    def __call__(self, release_handle: bool = False) -> EventOverlap:
        """For ``with event(release_handle=True): ...``."""
        self._release_at_exit = release_handle
        return self

    def __enter__(self) -> EventOverlap:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        release, self._release_at_exit = self._release_at_exit, False
        if self.event is not None:
            self.current_stream_wait(release)


def event_of(previous_event: Any, where: str) -> moelink.Event | None:
    """The event meant by an argument ``previous_event`` of either class; None if it has none."""
    if isinstance(previous_event, EventOverlap):
        previous_event = previous_event.event
    if previous_event is None or isinstance(previous_event, moelink.Event):
        return previous_event
    if isinstance(previous_event, EventHandle):
        return previous_event.native
    raise ValueError(
        f"{where}: previous_event is a {type(previous_event).__name__}, expected an EventOverlap, "
        "an EventHandle or None"
    )
