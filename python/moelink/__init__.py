"""Expert parallelism: dispatch tokens to the ranks of their experts, and combine the results.

The simple form::

    buffer = Buffer(group, hidden_bytes=7168 * 2)
    recv_x, handle = buffer.dispatch(x, topk_idx)
    combined_x = buffer.combine(expert(recv_x), handle)
"""

from moelink._core import Event, __version__, has_cuda_backend
from moelink.buffer import Buffer
from moelink.errors import Error, ErrorCode
from moelink.group import Group
from moelink.network import NetworkLink, NetworkRank, NetworkReport, measure_network
from moelink.quantize import dequantize_fp8, quantize_fp8
from moelink.results import (
    CombineResult,
    DispatchResult,
    LayoutResult,
    MemoryStatistics,
    NetworkStatistics,
)
from moelink.routing import Routing
from moelink.trace import STAGES, TraceEvent, set_trace_hook

__all__ = [
    "STAGES",
    "Buffer",
    "CombineResult",
    "DispatchResult",
    "Error",
    "ErrorCode",
    "Event",
    "Group",
    "LayoutResult",
    "MemoryStatistics",
    "NetworkLink",
    "NetworkRank",
    "NetworkReport",
    "NetworkStatistics",
    "Routing",
    "TraceEvent",
    "__version__",
    "dequantize_fp8",
    "has_cuda_backend",
    "measure_network",
    "quantize_fp8",
    "set_trace_hook",
]
