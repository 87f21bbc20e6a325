"""The low latency calls of a Buffer: small batches, fixed slots, no exchange of counts."""

from __future__ import annotations

from collections.abc import Callable
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


class LowLatencyHandle:
    """The routing of one low latency dispatch.

    ``src_info``: int32 [L, R*M] (per rank: [R, M]), each row's token at its source rank.
    ``layout_range``: int64 [L, R], low 32 bits the rows from that rank, high 32 bits the first one.
    """

    def __init__(self, core: _core.LowLatencyRouting, library: Library) -> None:
        self._core = core
        self.src_info = library.wrap(core.src_info)
        self.layout_range = library.wrap(core.layout_range)
        self.num_max_tokens_per_rank = core.num_max_tokens_per_rank
        self.hidden = core.hidden
        self.num_experts = core.num_experts


@dataclass
class LowLatencyDispatchResult:
    """What a low latency dispatch returns; iterating yields (recv_x, recv_count, handle).

    ``recv_x``: [L, R*M, H], or [R, M, H] per rank; with FP8 a pair with the scales, whose strides
    are those of a transposed view. ``recv_count``: valid rows, int32 [L] or [R].
    ``recv_topk_idx``, ``recv_topk_weights``: [R, M, K], per rank only. ``hook``: with
    ``return_hook``, runs the receiving half; call it once before reading anything else.
    """

    recv_x: Any
    recv_count: Any
    handle: LowLatencyHandle
    recv_topk_idx: Any
    recv_topk_weights: Any
    event: Event
    hook: Callable[[], None] | None

    def __iter__(self) -> Any:
        return iter((self.recv_x, self.recv_count, self.handle))


@dataclass
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
        * ``return_hook``: only send; ``result.hook()`` receives.
        """
        where = self._where("low_latency_dispatch", "x")
        library = library_of(x, where)
        config = _core.LowLatencyDispatchConfig()
        config.x = library.view(x, where)
        config.num_max_tokens_per_rank = num_max_tokens_per_rank
        config.num_experts = self._num_experts if num_experts is None else num_experts
        if fp8 is not None:
            config.fp8 = self._choice("low_latency_dispatch", "fp8", fp8, _FORMATS)
        config.layout = self._choice("low_latency_dispatch", "layout", layout, _LAYOUTS)
        tensors = {
            "topk_idx": topk_idx,
            "topk_weights": topk_weights,
            "recv_stats": recv_stats,
            "wait_cost": wait_cost,
        }
        self._set_views(config, "low_latency_dispatch", library, tensors)
        self._set_execution(
            config, "low_latency_dispatch", return_hook, previous_event, async_finish
        )
        result = self._core.low_latency_dispatch(config, (x, tensors, config))
        return _wrap_dispatch(result, library, x, return_hook, (x, tensors, config))

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
        where = self._where("low_latency_combine", "x")
        library = library_of(x, where)
        if not isinstance(handle, LowLatencyHandle):
            raise invalid_argument(
                f"{self._where('low_latency_combine', 'handle')}: a {type(handle).__name__}, "
                "expected the handle of a low latency dispatch"
            )
        config = _core.LowLatencyCombineConfig()
        config.x = library.view(x, where)
        config.handle = handle._core
        config.numerics = self._choice("low_latency_combine", "numerics", numerics, _NUMERICS)
        if zero_copy:
            config.input = _core.CombineInput.NEXT_AREA
        tensors = {
            "topk_idx": topk_idx,
            "topk_weights": topk_weights,
            "out": out,
            "wait_cost": wait_cost,
        }
        self._set_views(config, "low_latency_combine", library, tensors)
        self._set_execution(
            config, "low_latency_combine", return_hook, previous_event, async_finish
        )
        result = self._core.low_latency_combine(config, (x, tensors, config))
        combined = out if out is not None else library.wrap(result.combined_x, library.dtype_of(x))
        if not return_hook and not async_finish:
            return combined
        hook = _make_hook(result, (x, tensors, config)) if return_hook else None
        return LowLatencyCombineResult(combined, result.event, hook)

    def low_latency_combine_buffer(self, handle: LowLatencyHandle, like: Any = None) -> Any:
        """The tensor that the next low latency operation can combine from without a copy.

        bfloat16, shaped as recv_x of the handle; valid until that operation. Of the library of
        ``like``, or NumPy.
        """
        library = library_of(handle.src_info if like is None else like, "like")
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
        self, config: Any, operation: str, library: Library, tensors: dict[str, Any]
    ) -> None:
        for name, tensor in tensors.items():
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
        if previous_event is not None or async_finish:
            config.stream = self._stream(operation, previous_event, async_finish)


def _make_hook(result: Any, inputs: Any) -> Callable[[], None]:
    kept = [inputs]  # the receiving half reads some of them

    def hook() -> None:
        result.receive()
        kept.clear()

    return hook


def _wrap_dispatch(
    result: Any, library: Library, x: Any, return_hook: bool, inputs: Any
) -> LowLatencyDispatchResult:
    by_column = result.recv_scales_by_column
    recv_x: Any = library.wrap(result.recv_x)
    if by_column is not None:
        recv_x = (recv_x, library.wrap(by_column).swapaxes(1, 2))
    topk_idx = result.recv_topk_idx
    weights = result.recv_topk_weights
    return LowLatencyDispatchResult(
        recv_x,
        library.wrap(result.recv_count),
        LowLatencyHandle(result.handle, library),
        None if topk_idx is None else library.wrap(topk_idx),
        None if weights is None else library.wrap(weights),
        result.event,
        _make_hook(result, inputs) if return_hook else None,
    )
