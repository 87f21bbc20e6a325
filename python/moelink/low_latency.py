"""The low latency calls of a Buffer: small batches, fixed slots, no exchange of counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from moelink import _core
from moelink._call_arguments import CallArguments
from moelink._core import Event
from moelink._tensors import Library, library_of, view_like
from moelink.errors import invalid_argument

__all__ = ["LowLatencyCalls", "LowLatencyCombineResult", "LowLatencyDispatchResult"]

_FORMATS = {
    "float32": _core.ScaleFormat.FLOAT32,
    "power_of_two": _core.ScaleFormat.POWER_OF_TWO,
    "ue8m0": _core.ScaleFormat.PACKED_UE8M0,
}
_LAYOUTS = {
    "per_expert": _core.LowLatencyLayout.PER_EXPERT,
    "per_rank": _core.LowLatencyLayout.PER_RANK,
}
_NUMERICS = {
    "exact": _core.CombineNumerics.EXACT,
    "pre_reduced": _core.CombineNumerics.PRE_REDUCED,
}
# What set_tensors() of the configs takes, in this order.
_DISPATCH_TENSORS = ("x", "topk_idx", "topk_weights", "recv_stats", "wait_cost")
_COMBINE_TENSORS = ("x", "topk_idx", "topk_weights", "out", "wait_cost")


class LowLatencyHandle:
    """The routing of one low latency dispatch."""

    __slots__ = ("_core", "_library")

    def __init__(self, core: _core.LowLatencyRouting, library: Library) -> None:
        self._core = core
        self._library = library

    @property
    def src_info(self) -> Any:
        """int32 [L, R*M] (per rank: [R, M]): each row's token at its source rank."""
        return self._library.wrap(self._core.src_info)

    @property
    def layout_range(self) -> Any:
        """int64 [L, R]: low 32 bits the rows from that rank, high 32 bits the first one."""
        return self._library.wrap(self._core.layout_range)

    @property
    def num_max_tokens_per_rank(self) -> int:
        """M."""
        return self._core.num_max_tokens_per_rank

    @property
    def hidden(self) -> int:
        """H."""
        return self._core.hidden

    @property
    def num_experts(self) -> int:
        """Experts over all ranks."""
        return self._core.num_experts


class LowLatencyDispatchResult:
    """What a low latency dispatch returns; iterating yields (recv_x, recv_count, handle)."""

    __slots__ = ("_core", "_library", "handle", "hook", "recv_x")

    recv_x: Any
    """[L, R*M, H], or [R, M, H] per rank; with FP8 a pair with the scales, whose strides are those
    of a transposed view."""
    handle: LowLatencyHandle
    """For :meth:`Buffer.low_latency_combine`."""
    hook: Callable[[], None] | None
    """With ``return_hook``, runs the receiving half; call it once before reading anything else."""

    def __init__(
        self,
        core: _core.LowLatencyDispatchResult,
        library: Library,
        recv_x: Any,
        hook: Callable[[], None] | None,
    ) -> None:
        self._core = core
        self._library = library
        self.recv_x = recv_x
        self.handle = LowLatencyHandle(core.handle, library)
        self.hook = hook

    @property
    def recv_count(self) -> Any:
        """Valid rows: int32 [L], or [R] per rank."""
        return self._library.wrap(self._core.recv_count)

    @property
    def recv_topk_idx(self) -> Any:
        """int32 [R, M, K], the local expert or -1; per rank only."""
        return self._wrap_optional(self._core.recv_topk_idx)

    @property
    def recv_topk_weights(self) -> Any:
        """float32 [R, M, K]; per rank and with weights only."""
        return self._wrap_optional(self._core.recv_topk_weights)

    @property
    def event(self) -> Event:
        """Completion, if the call was asynchronous."""
        return self._core.event

    def __iter__(self) -> Iterator[Any]:
        yield self.recv_x
        yield self.recv_count
        yield self.handle

    def _wrap_optional(self, tensor: _core.Tensor | None) -> Any:
        return None if tensor is None else self._library.wrap(tensor)


@dataclass(slots=True)
class LowLatencyCombineResult:
    """What a low latency combine with a hook or an event returns."""

    combined_x: Any
    event: Event
    hook: Callable[[], None] | None


class LowLatencyCalls(CallArguments):
    """Mixed into Buffer. At most two operations may be outstanding; M tokens per rank at most."""

    _core: Any
    _num_experts: int

    def low_latency_dispatch(
        self,
        x: Any,
        topk_idx: Any,
        num_max_tokens_per_rank: int,
        topk_weights: Any = None,
        *,
        num_experts: int | None = None,
        fp8: str | None = None,
        layout: str = "per_expert",
        recv_stats: Any = None,
        wait_cost: Any = None,
        return_hook: bool = False,
        previous_event: Event | None = None,
        async_finish: bool = False,
    ) -> LowLatencyDispatchResult:
        """Sends each token once per rank; the receiver expands it to a row per local expert.

        * ``x``: bfloat16 [T, H], T <= M = ``num_max_tokens_per_rank``, H a multiple of 128.
        * ``topk_idx``: int64 or int32 [T, K], -1 = none. ``topk_weights``: float32 [T, K], needed
          by pre-reduced combines and handed out by the per-rank layout.
        * ``fp8``: None, or quantise on send with scales ``"float32"``, ``"power_of_two"`` or
          ``"ue8m0"`` (packed; H a multiple of 512).
        * ``layout``: ``"per_expert"`` or ``"per_rank"``, which needs 1/L of the memory.
        * ``recv_stats``: int32 [L], received rows are added. ``wait_cost``: int64 [R], nanoseconds
          waited for each rank are added.
        * ``return_hook``: only send; ``result.hook()`` receives. On a GPU it enqueues that on the
          stream of this call.
        """
        choice = self._choice("low_latency_dispatch", "layout", layout, _LAYOUTS)
        experts = self._num_experts if num_experts is None else num_experts
        config = _core.LowLatencyDispatchConfig(num_max_tokens_per_rank, experts, choice)
        if fp8 is not None:
            config.fp8 = self._choice("low_latency_dispatch", "fp8", fp8, _FORMATS)
        tensors = (x, topk_idx, topk_weights, recv_stats, wait_cost)
        place = self._place
        if not config.set_tensors(tensors, place.device):
            self._set_views(config, "low_latency_dispatch", _DISPATCH_TENSORS, tensors)
        if place.has_streams or return_hook or previous_event is not None or async_finish:
            self._set_execution(
                config, "low_latency_dispatch", return_hook, previous_event, async_finish
            )
        call = self._core.low_latency_dispatch
        if place.has_streams:
            result = place.run(call, config, tensors, async_finish)
        else:
            result = call(config, tensors)  # as run does, which costs more than it looks
        library = library_of(x, "x", place.name)
        recv_x = result.recv_x_like(x, place.device) if fp8 is None else None
        if recv_x is None:
            recv_x = _wrap_rows(result, library)
        hook = _make_hook(result, tensors) if return_hook else None
        return LowLatencyDispatchResult(result, library, recv_x, hook)

    def low_latency_combine(
        self,
        x: Any,
        topk_idx: Any,
        topk_weights: Any,
        handle: LowLatencyHandle,
        *,
        numerics: str = "exact",
        zero_copy: bool = False,
        out: Any = None,
        wait_cost: Any = None,
        return_hook: bool = False,
        previous_event: Event | None = None,
        async_finish: bool = False,
    ) -> Any:
        """Brings the experts' rows back and sums them with the weights, k ascending, in float32.

        * ``x``: bfloat16, shaped as recv_x. ``topk_idx``, ``topk_weights``: this rank's routing.
        * ``numerics``: ``"exact"``: a row per expert travels; ``"pre_reduced"``: the experts' ranks
          sum first, and a row per rank travels (the dispatch must have had the weights).
        * ``zero_copy``: x was written to the tensor of :meth:`low_latency_combine_buffer`.
        * ``out``: bfloat16 [T, H], written instead of a new tensor.

        Returns the combined tensor, or with a hook or an event a :class:`LowLatencyCombineResult`.
        """
        if not isinstance(handle, LowLatencyHandle):
            raise invalid_argument(
                f"{self._where('low_latency_combine', 'handle')}: a {type(handle).__name__}, "
                "expected the handle of a low latency dispatch"
            )
        choice = self._choice("low_latency_combine", "numerics", numerics, _NUMERICS)
        config = _core.LowLatencyCombineConfig(handle._core, choice)
        if zero_copy:
            config.input = _core.CombineInput.NEXT_AREA
        tensors = (x, topk_idx, topk_weights, out, wait_cost)
        place = self._place
        if not config.set_tensors(tensors, place.device):
            self._set_views(config, "low_latency_combine", _COMBINE_TENSORS, tensors)
        if place.has_streams or return_hook or previous_event is not None or async_finish:
            self._set_execution(
                config, "low_latency_combine", return_hook, previous_event, async_finish
            )
        call = self._core.low_latency_combine
        if place.has_streams:
            result = place.run(call, config, tensors, async_finish)
        else:
            result = call(config, tensors)  # as run does, which costs more than it looks
        combined = result.combined_x_like(x, place.device) if out is None else out
        if combined is None:
            library = library_of(x, "x", place.name)
            combined = library.wrap(result.combined_x, library.dtype_of(x))
        if not return_hook and not async_finish:
            return combined
        hook = _make_hook(result, tensors) if return_hook else None
        return LowLatencyCombineResult(combined, result.event, hook)

    def low_latency_combine_buffer(self, handle: LowLatencyHandle, like: Any = None) -> Any:
        """The tensor that the next low latency operation can combine from without a copy.

        bfloat16, shaped as recv_x of the handle; valid until that operation. Of the library of
        ``like``, or NumPy.
        """
        library = handle._library if like is None else library_of(like, "like", self._place.name)
        return library.wrap(self._core.low_latency_combine_buffer(handle._core))

    def clean_low_latency(self) -> None:
        """Collective among unmasked ranks: a barrier, after which another shape may be used."""
        self._core.clean_low_latency()

    @staticmethod
    def low_latency_size_hint(
        num_max_tokens_per_rank: int, hidden: int, num_ranks: int, num_topk: int
    ) -> int:
        """Bytes of symmetric memory that the low latency mode takes for a shape."""
        hint = _core.Buffer.low_latency_size_hint
        return hint(num_max_tokens_per_rank, hidden, num_ranks, num_topk)

    def mask_rank(self, rank: int) -> None:
        """Leaves a peer out from now on: nothing is sent to it or awaited from it. Local."""
        self._core.mask_rank(rank)

    def unmask_rank(self, rank: int) -> None:
        """Takes a peer back. Local."""
        self._core.unmask_rank(rank)

    def is_masked(self, rank: int) -> bool:
        """Whether a peer is left out; lost peers are masked with ``survival="mask"``."""
        return rank != self._rank and self._core.is_masked(rank)

    def _set_views(
        self, config: Any, operation: str, names: tuple[str, ...], tensors: tuple[Any, ...]
    ) -> None:
        library = library_of(tensors[0], self._where(operation, names[0]), self._place.name)
        for name, tensor in zip(names, tensors, strict=True):
            if tensor is not None:
                view = view_like(library, tensor, self._where(operation, name))
                setattr(config, name, view)

    def _set_execution(
        self,
        config: Any,
        operation: str,
        return_hook: bool,
        previous_event: Event | None,
        async_finish: bool,
    ) -> None:
        if return_hook:
            config.receive = _core.ReceivePhase.BY_HOOK
        if self._place.has_streams or previous_event is not None or async_finish:
            config.stream = self._stream(operation, previous_event, async_finish)


def _make_hook(result: Any, inputs: Any) -> Callable[[], None]:
    kept = [inputs]  # the receiving half reads some of them

    def hook() -> None:
        result.receive()
        kept.clear()

    return hook


def _wrap_rows(result: _core.LowLatencyDispatchResult, library: Library) -> Any:
    recv_x = library.wrap(result.recv_x)
    by_column = result.recv_scales_by_column
    return recv_x if by_column is None else (recv_x, library.wrap(by_column).swapaxes(1, 2))
