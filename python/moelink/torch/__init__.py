"""Dispatch and combine that autograd can differentiate."""

from moelink.torch.autograd import (
    CombineResult,
    DispatchOptions,
    DispatchResult,
    combine,
    dispatch,
)

__all__ = ["CombineResult", "DispatchOptions", "DispatchResult", "combine", "dispatch"]
