"""Arithmetic for tests and benchmarks: rounding, comparison, FP8 casts and hashes."""

from __future__ import annotations

from typing import Any

import torch

_BLOCK = 128
_MAX_E4M3 = 448.0
_MIN_AMAX = 1e-4


def ceil_div(x: int, y: int) -> int:
    """x / y, rounded up."""
    return -(-x // y)


def align(x: int, y: int) -> int:
    """x, rounded up to a multiple of y."""
    return ceil_div(x, y) * y


def safe_div(a: float, b: float) -> float:
    """a / b, and 0 for 0 / 0."""
    return 0.0 if a == 0 and b == 0 else a / b


def calc_diff(x: torch.Tensor, y: torch.Tensor) -> float:
    """One minus the similarity of x + 1 and y + 1; 0 when they are equal."""
    x, y = x.double() + 1, y.double() + 1
    total = (x * x + y * y).sum().item()
    if total == 0:  # every value is -1, or there are none
        return 0.0
    return 1 - 2 * (x * y).sum().item() / total


def per_token_cast_to_fp8(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[m, n] as float8_e4m3fn [m, n] and float32 scales [m, ceil(n / 128)]."""
    num_rows, num_columns = x.shape
    padding = align(num_columns, _BLOCK) - num_columns
    blocks = torch.nn.functional.pad(x.float(), (0, padding)).view(num_rows, -1, _BLOCK)
    amax = blocks.abs().amax(dim=2).clamp(min=_MIN_AMAX)
    # A number over a tensor would multiply by the reciprocal, which rounds twice.
    factors = torch.full_like(amax, _MAX_E4M3) / amax
    values = (blocks * factors.unsqueeze(2)).to(torch.float8_e4m3fn)
    return values.view(num_rows, -1)[:, :num_columns].contiguous(), amax / _MAX_E4M3


def per_token_cast_back(q: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    """The inverse, in bfloat16. Scales: float32, or int32 with four exponent bytes each."""
    if q.numel() == 0:
        return torch.empty(q.shape, dtype=torch.bfloat16, device=q.device)
    if s.dtype is torch.int32:
        s = _unpack_ue8m0(s)
    num_rows, num_columns = q.shape
    padding = align(num_columns, _BLOCK) - num_columns
    blocks = torch.nn.functional.pad(q.float(), (0, padding)).view(num_rows, -1, _BLOCK)
    scales = s.reshape(num_rows, -1)[:, : blocks.shape[1]].unsqueeze(2)
    return (blocks * scales).view(num_rows, -1)[:, :num_columns].to(torch.bfloat16)


def _unpack_ue8m0(packed: torch.Tensor) -> torch.Tensor:
    shifts = torch.arange(0, 32, 8, dtype=torch.int32, device=packed.device)
    exponents = (packed.reshape(packed.shape[0], -1, 1) >> shifts) & 0xFF
    return torch.exp2((exponents - 127).float())


def inplace_unique(x: torch.Tensor, num_slots: int) -> None:
    """Each row becomes its distinct values in [0, num_slots), most frequent first, then -1."""
    counts = torch.zeros((x.shape[0], num_slots), dtype=torch.int64, device=x.device)
    valid = x >= 0
    counts.scatter_add_(1, x.clamp(min=0).long(), valid.long())
    order = counts.argsort(dim=1, descending=True, stable=True)
    found = torch.where(counts.gather(1, order) > 0, order, -1)[:, : x.shape[1]]
    x.fill_(-1)
    x[:, : found.shape[1]] = found.to(x.dtype)


def create_grouped_scores(
    scores: torch.Tensor, group_idx: torch.Tensor, num_groups: int
) -> torch.Tensor:
    """Scores with the experts outside the selected groups at zero."""
    num_tokens, num_experts = scores.shape
    selected = torch.zeros((num_tokens, num_groups), dtype=torch.bool, device=scores.device)
    selected.scatter_(1, group_idx.long(), True)
    mask = selected.repeat_interleave(num_experts // num_groups, dim=1)
    return torch.where(mask, scores, torch.zeros((), dtype=scores.dtype, device=scores.device))


def hash_tensor(t: torch.Tensor) -> int:
    """Sum of the memory as int32: independent of the order of elements."""
    raw = t.contiguous().flatten().view(torch.uint8)
    raw = torch.nn.functional.pad(raw, (0, -raw.numel() % 4))
    return int(raw.view(torch.int32).sum(dtype=torch.int64).item())


def hash_tensors(*tensors: torch.Tensor) -> int:
    """Exclusive or of the hashes."""
    result = 0
    for tensor in tensors:
        result ^= hash_tensor(tensor)
    return result


def count_bytes(*tensors: Any) -> int:
    """Bytes of tensors in nested tuples; None counts nothing."""
    total = 0
    for tensor in tensors:
        if isinstance(tensor, (tuple, list)):
            total += count_bytes(*tensor)
        elif tensor is not None:
            total += tensor.numel() * tensor.element_size()
    return total
