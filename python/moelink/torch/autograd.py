"""Dispatch and combine as autograd functions: each one's gradient travels through the other.

Dispatch copies rows to ranks and combine sums rows over ranks, so each is the transpose of the
other over the same handle. Backward passes are therefore exchanges, hence collective: all ranks
build the same graph (the same inputs require gradients) and run it the same number of times, also
the ranks that have no tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from moelink import Buffer, Routing

__all__ = ["CombineResult", "DispatchOptions", "DispatchResult", "combine", "dispatch"]

_ROW_BYTES = 16  # the rows that travel are a multiple of it


class DispatchOptions(TypedDict, total=False):
    """The options of `moelink.Buffer.dispatch` that a differentiable dispatch takes."""

    num_experts: int | None
    layout: Literal["compact", "expert_major"]
    expert_alignment: int
    handle: Routing | None
    is_token_in_rank: torch.Tensor | None
    recv_stats: torch.Tensor | None
    num_workers: int


@dataclass(frozen=True, slots=True)
class DispatchResult:
    """What this rank received; unpacks as `recv_x, handle = result`."""

    recv_x: torch.Tensor
    """[rows, H] in the row order of the layout."""
    recv_topk_idx: torch.Tensor | None
    """Compact, routed by topk_idx: local expert or -1 [rows, K]."""
    recv_topk_weights: torch.Tensor | None
    """float32; compact [rows, K], 0 where the expert is -1; expert-major [rows], 0 in padding."""
    handle: Routing
    """For any number of combines and further dispatches on the same buffer."""
    num_recv_tokens_per_expert: list[int]
    """Rows of each local expert, rounded up to the alignment."""

    def __iter__(self) -> Iterator[Any]:
        yield self.recv_x
        yield self.handle


@dataclass(frozen=True, slots=True)
class CombineResult:
    """What came back for this rank's tokens when weights were sent along."""

    combined_x: torch.Tensor
    """[T, H] of the type of the rows."""
    combined_topk_weights: torch.Tensor
    """float32 [T, K]."""


def dispatch(
    buffer: Buffer,
    x: torch.Tensor,
    topk_idx: torch.Tensor | None = None,
    topk_weights: torch.Tensor | None = None,
    **options: Unpack[DispatchOptions],
) -> DispatchResult:
    """Sends each token to the ranks of its experts; gradients return to `x` and `topk_weights`.

    As `buffer.dispatch`: `x` [T, H] is float32, bfloat16 or float16, `topk_weights` [T, K] travels
    as float32, `topk_idx` [T, K] is absent where a `handle` repeats the routes of an earlier
    dispatch. Collective, and so is the backward pass.
    """
    unknown = options.keys() - DispatchOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"moelink.torch.dispatch has no differentiable option {sorted(unknown)}")
    if not isinstance(x, torch.Tensor) or not x.is_floating_point() or x.element_size() == 1:
        raise TypeError(
            f"moelink.torch.dispatch: x is {getattr(x, 'dtype', type(x).__name__)}, expected a "
            "float32, bfloat16 or float16 tensor (quantised rows have no gradient)"
        )
    weights = None if topk_weights is None else topk_weights.float()
    received = _Dispatch.apply(x, weights, topk_idx, _Call(buffer, options.get("handle"), options))
    return DispatchResult(*received)


def combine(
    buffer: Buffer,
    x: torch.Tensor,
    handle: Routing,
    topk_weights: torch.Tensor | None = None,
    *,
    bias: torch.Tensor | tuple[torch.Tensor, torch.Tensor] | None = None,
    num_workers: int = 0,
) -> Any:
    """Returns rows to the tokens that they came from and adds them up, without weighting.

    As `buffer.combine`: the sum [T, H], or a CombineResult when `topk_weights` are sent along.
    Gradients return to `x`, `topk_weights` and `bias`. Collective, and so is the backward pass.
    """
    weights = None if topk_weights is None else topk_weights.float()
    bias_0, bias_1 = bias if isinstance(bias, (tuple, list)) else (bias, None)
    call = _Call(buffer, handle, {"num_workers": num_workers})
    combined_x, combined_weights = _Combine.apply(x, weights, bias_0, bias_1, call)
    return combined_x if weights is None else CombineResult(combined_x, combined_weights)


@dataclass(frozen=True, slots=True)
class _Call:
    """What an exchange needs apart from tensors with gradients."""

    buffer: Buffer
    handle: Routing | None
    options: Mapping[str, Any] = field(default_factory=dict)

    def over(self, handle: Routing) -> _Call:
        """The exchange of gradients that belongs to this one."""
        return _Call(self.buffer, handle, {"num_workers": self.options.get("num_workers", 0)})


def _plain(tensor: torch.Tensor | None) -> torch.Tensor | None:
    """Contiguous values that may leave PyTorch."""
    return None if tensor is None else tensor.detach().contiguous()


class _Dispatch(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        topk_weights: torch.Tensor | None,
        topk_idx: torch.Tensor | None,
        call: _Call,
    ) -> tuple[Any, ...]:
        received = call.buffer.dispatch(
            _plain(x), _plain(topk_idx), _plain(topk_weights), **call.options
        )
        ctx.call = call.over(received.handle)
        ctx.is_local = None
        if ctx.needs_input_grad[1]:
            ctx.is_local = _local_selections(ctx.call, received)
        return (
            received.recv_x,
            received.recv_topk_idx,
            received.recv_topk_weights,
            received.handle,
            received.num_recv_tokens_per_expert,
        )

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        grad_x, _, grad_weights, _, _ = grads
        if not ctx.needs_input_grad[1]:
            grad_weights = None
        elif ctx.is_local is not None:
            grad_weights = grad_weights * ctx.is_local  # elsewhere the weight is a constant 0
        return (*_Combine.apply(grad_x, grad_weights, None, None, ctx.call), None, None)


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        topk_weights: torch.Tensor | None,
        bias_0: torch.Tensor | None,
        bias_1: torch.Tensor | None,
        call: _Call,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        assert call.handle is not None
        biases = tuple(_plain(bias) for bias in (bias_0, bias_1) if bias is not None)
        combined = call.buffer.combine(
            _plain(x), call.handle, _plain(topk_weights), bias=biases or None, **call.options
        )
        ctx.call = call
        if topk_weights is None:
            return combined, None
        return combined.combined_x, combined.combined_topk_weights

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        grad_x, grad_weights = grads
        needs_x, needs_weights, needs_bias_0, needs_bias_1, _ = ctx.needs_input_grad
        if not needs_weights:
            grad_weights = None
        grad_rows = grad_row_weights = None
        if needs_x or needs_weights:
            grad_rows, grad_row_weights = _send_gradients(ctx.call, grad_x, grad_weights)
        return (
            grad_rows,
            grad_row_weights,
            grad_x if needs_bias_0 else None,
            grad_x if needs_bias_1 else None,
            None,
        )


def _send_gradients(
    call: _Call, grad_x: torch.Tensor, grad_weights: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Gradients of the rows and of their weights from those of the sums."""
    assert call.handle is not None
    options = _Call(call.buffer, call.handle, {**call.options, "handle": call.handle})
    if grad_weights is None or call.handle.layout == "expert_major":
        grad_rows, _, grad_row_weights, _, _ = _Dispatch.apply(grad_x, grad_weights, None, options)
        return grad_rows, grad_row_weights
    # A compact combine adds up the weights of all ranks, whereas weights are dispatched to the rank
    # of their expert only. So these gradients travel as rows.
    num_topk = grad_weights.shape[1]
    row_length = _ROW_BYTES // grad_weights.element_size()
    padded = functional.pad(grad_weights, (0, -num_topk % row_length))
    grad_row_weights = _Dispatch.apply(padded, None, None, options)[0][:, :num_topk]
    return _Dispatch.apply(grad_x, None, None, options)[0], grad_row_weights


def _local_selections(call: _Call, received: Any) -> torch.Tensor | None:
    """Compact layout: bool [rows, K], which selections are of this rank. Otherwise None."""
    handle = received.handle
    if handle.layout == "expert_major":
        return None
    if received.recv_topk_idx is not None:
        return received.recv_topk_idx >= 0
    # A repeated dispatch brings no ids: see where a weight of 1 arrives.
    device = received.recv_x.device
    ones = torch.ones(handle.num_tokens, handle.num_topk, device=device)
    rows = torch.zeros(handle.num_tokens, _ROW_BYTES, dtype=torch.uint8, device=device)
    replay = call.buffer.dispatch(rows, topk_weights=ones, handle=handle, **call.options)
    return replay.recv_topk_weights > 0
