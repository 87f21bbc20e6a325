"""Arguments that the calls of a Buffer share: where an error is, choices by name, streams."""

from __future__ import annotations

from typing import Any

from moelink import _core
from moelink._core import Event
from moelink._places import Place
from moelink.errors import invalid_argument

__all__ = ["CallArguments"]


class CallArguments:
    """Base of the classes that make up Buffer."""

    _rank: int
    _place: Place

    def _where(self, operation: str, argument: str) -> str:
        return f"{operation} (rank {self._rank}): {argument}"

    def _stream(
        self, operation: str, previous_event: Event | None, async_finish: bool, num_workers: int = 0
    ) -> _core.StreamOptions:
        options = _core.StreamOptions()
        if previous_event is not None:
            if not isinstance(previous_event, Event):
                raise invalid_argument(
                    f"{self._where(operation, 'previous_event')}: a "
                    f"{type(previous_event).__name__}, expected a moelink.Event or None"
                )
            options.previous_event = previous_event
        if async_finish:
            options.completion = _core.Completion.ASYNC
        options.num_workers = num_workers
        options.cuda_stream = self._place.current_stream()
        return options

    def _choice(self, operation: str, argument: str, value: Any, choices: dict[str, Any]) -> Any:
        try:
            return choices[value]
        except (KeyError, TypeError):
            expected = " or ".join(repr(name) for name in choices)
            where = self._where(operation, argument)
            raise invalid_argument(f"{where}: {value!r}, expected {expected}") from None
