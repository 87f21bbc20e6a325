"""Where the tensors of a buffer live: the CPU, or a GPU with its streams."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any, Protocol

from moelink import _core
from moelink._core import Event
from moelink.errors import invalid_argument

__all__ = ["Place", "place_of"]


class Place(Protocol):
    """What a Buffer needs to know of its device."""

    name: str
    """``"cpu"``, or such as ``"cuda:0"``."""
    device: _core.Device
    has_streams: bool
    """Whether every call says which stream it belongs to."""

    def current_stream(self) -> int:
        """The CUDA stream of the caller; 0 is the default stream."""

    def run(self, call: Callable[..., Any], config: Any, inputs: Any, is_async: bool) -> Any:
        """``call(config)``, with ``inputs`` kept alive until they have been read."""

    def forget(self) -> None:
        """Lets go of everything that was kept: the buffer is closed."""


class _Cpu:
    def __init__(self) -> None:
        # Of the object, not of the class: the low latency calls read them, and this is quicker.
        self.name = "cpu"
        self.device = _core.Device(_core.DeviceKind.CPU, 0)
        self.has_streams = False

    def current_stream(self) -> int:
        return 0

    def run(self, call: Callable[..., Any], config: Any, inputs: Any, is_async: bool) -> Any:
        del is_async
        return call(config, inputs)  # the core keeps them

    def forget(self) -> None:
        pass


class _Gpu:
    def __init__(self, index: int) -> None:
        self.has_streams = True
        self.name = f"cuda:{index}"
        self.device = _core.Device(_core.DeviceKind.CUDA, index)
        self._index = index
        self._in_flight: list[tuple[Event, Any]] = []
        self._captured_inputs: list[Any] = []

    def current_stream(self) -> int:
        torch = _torch_with_cuda()
        return 0 if torch is None else torch.cuda.current_stream(self._index).cuda_stream

    def run(self, call: Callable[..., Any], config: Any, inputs: Any, is_async: bool) -> Any:
        # A call that is not asynchronous runs in the order of the caller's stream, in which torch
        # gives memory to others. The state of events must not be asked for during a capture.
        if _is_capturing():
            if is_async:
                self._captured_inputs.append(inputs)
            return call(config, None)
        if self._in_flight or self._captured_inputs:
            self._in_flight = [entry for entry in self._in_flight if entry[0].pending]
            self._captured_inputs.clear()  # the graph's memory is now of the graph alone
        result = call(config, None)
        if is_async:
            self._in_flight.append((result.event, inputs))
        return result

    def forget(self) -> None:
        self._in_flight.clear()
        self._captured_inputs.clear()


_cpu = _Cpu()


def place_of(device: Any, where: str) -> Place:
    """The place meant by ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or a torch.device."""
    name = str(device)
    if name == "cpu":
        return _cpu
    match = re.fullmatch(r"cuda(?::(\d+))?", name)
    if match is None:
        raise invalid_argument(f"{where}: device {name!r}, expected 'cpu', 'cuda' or 'cuda:N'")
    return _Gpu(_current_index() if match[1] is None else int(match[1]))


def _torch_with_cuda() -> Any:
    """torch, if it uses CUDA in this process already: else all its work is on default streams."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and torch.cuda.is_initialized() else None


def _current_index() -> int:
    torch = _torch_with_cuda()
    return 0 if torch is None else torch.cuda.current_device()


def _is_capturing() -> bool:
    torch = _torch_with_cuda()
    return torch is not None and torch.cuda.is_current_stream_capturing()
