"""The dtype of top-k expert indices."""

from __future__ import annotations

import os

import torch

__all__ = ["topk_idx_t"]

_DTYPE_OF_BITS = {"32": torch.int32, "64": torch.int64}


def _read() -> torch.dtype:
    for name in ("EP_NUM_TOPK_IDX_BITS", "TOPK_IDX_BITS"):
        bits = os.environ.get(name)
        if bits:
            if bits not in _DTYPE_OF_BITS:
                raise ValueError(f"{name}={bits}, expected 32 or 64")
            return _DTYPE_OF_BITS[bits]
    return torch.int64


topk_idx_t: torch.dtype = _read()
"""What callers are expected to pass; both widths are accepted everywhere."""
