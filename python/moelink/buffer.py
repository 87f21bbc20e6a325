"""Buffer: dispatch tokens to experts and combine what the experts return."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

from moelink import _core
from moelink._core import Event
from moelink._places import place_of
from moelink._tensors import Library, library_and_dtype, library_of, view_like
from moelink.errors import invalid_argument
from moelink.group import Group, milliseconds
from moelink.low_latency import LowLatencyCalls
from moelink.results import (
    CombineResult,
    DispatchResult,
    LayoutResult,
    MemoryStatistics,
    NetworkStatistics,
)
from moelink.routing import Routing

__all__ = ["Buffer"]

_LAYOUTS = {"compact": _core.Layout.COMPACT, "expert_major": _core.Layout.EXPERT_MAJOR}
_SURVIVALS = {"raise": _core.Survival.RAISE, "mask": _core.Survival.MASK}
_NETWORK_PATHS = {
    "auto": _core.NetworkPath.AUTO,
    "hierarchical": _core.NetworkPath.HIERARCHICAL,
    "direct": _core.NetworkPath.DIRECT,
}
_PADDINGS = {"zero": _core.Padding.ZERO, "leave": _core.Padding.LEAVE}


class Buffer(LowLatencyCalls):
    """One rank's end of the exchange.

    Construction, :meth:`dispatch`, :meth:`combine`, :meth:`barrier` and :meth:`close` are
    collective: all ranks of the group make the same calls in the same order. A buffer is used by
    one thread at a time.

    Arguments of the constructor:

    * ``group``: a :class:`Group`, a ``torch.distributed`` process group, an mpi4py communicator, or
      None for the variables set by torchrun, mpirun or Slurm.
    * ``hidden_bytes``: largest payload of one row in bytes; larger rows are refused. 0: any.
    * ``num_experts``: experts over all ranks, for calls that do not say it. None: one per rank.
    * ``max_symmetric_bytes``: most symmetric memory that this rank may use. 0: what there is.
    * ``max_num_experts``: most experts that a call may name.
    * ``num_workers``: threads that one operation may use. 0: this rank's share of the cores.
    * ``timeout``: longest wait for a peer inside one operation, in seconds. None: the group's.
    * ``survival``: what happens when a peer is lost: ``"raise"``, or ``"mask"``: it is masked, with
      a warning, and the operation goes on without it.
    * ``network_path``: how high-throughput tokens cross the network between nodes (CPU):
      ``"hierarchical"``: once per node, to the rank there with the same local number, which
      forwards them; ``"direct"``: once per rank. ``"auto"``: ``MOELINK_NETWORK_MODE``, else direct
      with ``survival="mask"``, hierarchical without.
    * ``num_nodes``: see :class:`Group`; only where ``group`` is not a Group already.
    * ``device``: where the tensors of all calls and results are: ``"cpu"``, or ``"cuda"`` (torch's
      current GPU) or ``"cuda:1"`` for torch tensors on that GPU. On a GPU, ``max_symmetric_bytes``
      are taken at once (0: 1 GiB), and ``num_workers`` counts streaming multiprocessors (0: 24).
      Dispatches that a CUDA graph captures need ``num_worst_tokens``, low latency calls an earlier
      call of their shape; results keep their memory until the buffer is closed, because the graph
      may run at any time.
    * ``stage_clock``: on a GPU, kernels note when they pass each stage, for last_stage_times().

    Errors are :class:`moelink.Error`. Bad arguments (code ``INVALID_ARGUMENT``) leave the buffer
    usable. After a lost or late peer (``PEER_LOST``, ``TIMEOUT``) only :meth:`close` and a new
    group remain. As a context manager a buffer closes itself; when the block raises, it gives its
    memory up without waiting for the peers.

    Symbols in the methods: T tokens of this rank, H channels, K = top-k, E experts, R ranks,
    L = E / R local experts. Expert e lives on rank e // L. Tensors are NumPy arrays (bfloat16 and
    float8 through ml_dtypes), torch tensors or other objects with ``__dlpack__``, all arguments
    of one call of the same library; results are of the library of x, and their memory outlives the
    buffer. ``dispatch`` and ``combine`` both take

    * ``previous_event``: an event that the operation waits for before it reads its inputs;
    * ``async_finish``: return early. Wait for ``result.event`` before reading the results; inputs
      are kept alive until then and must not be changed;
    * ``num_workers``: threads for this call. 0: the buffer's.
    """

    def __init__(
        self,
        group: Any = None,
        hidden_bytes: int = 0,
        *,
        num_experts: int | None = None,
        max_symmetric_bytes: int = 0,
        max_num_experts: int = 2048,
        num_workers: int = 0,
        timeout: float | None = None,
        num_nodes: int = 0,
        survival: str = "raise",
        network_path: str = "auto",
        device: Any = "cpu",
        stage_clock: bool = False,
    ) -> None:
        self._group = Group.of(group, timeout, num_nodes)
        self._rank = self._group.rank
        self._place = place_of(device, f"Buffer (rank {self._rank})")
        self._num_experts = self._group.num_ranks if num_experts is None else num_experts
        config = _core.BufferConfig()
        config.device = self._place.device
        if timeout is not None:
            config.timeout_ms = milliseconds(timeout, f"Buffer (rank {self._rank})")
        sizes = {
            "hidden_bytes": hidden_bytes,
            "max_symmetric_bytes": max_symmetric_bytes,
            "max_num_experts": max_num_experts,
            "num_workers": num_workers,
        }
        for name, value in sizes.items():
            if value < 0:
                raise invalid_argument(f"Buffer (rank {self._rank}): {name} {value}, expected >= 0")
            setattr(config, name, value)
        if survival not in _SURVIVALS:
            raise invalid_argument(
                f"Buffer (rank {self._rank}): survival {survival!r}, expected 'raise' or 'mask'"
            )
        config.survival = _SURVIVALS[survival]
        if network_path not in _NETWORK_PATHS:
            raise invalid_argument(
                f"Buffer (rank {self._rank}): network_path {network_path!r}, expected 'auto', "
                "'hierarchical' or 'direct'"
            )
        config.network_path = _NETWORK_PATHS[network_path]
        self._network_path = _core.choose_network_path(config).name.lower()
        config.stage_clock = stage_clock
        self._core = _core.Buffer(self._group._core, config)

    @property
    def group(self) -> Group:
        """The group that the buffer was made with."""
        return self._group

    @property
    def device(self) -> str:
        """``"cpu"``, or such as ``"cuda:0"``."""
        return self._place.name

    @property
    def network_path(self) -> str:
        """The path in force between nodes: ``"hierarchical"`` or ``"direct"``."""
        return self._network_path

    @property
    def rank(self) -> int:
        """This rank's number."""
        return self._rank

    @property
    def num_ranks(self) -> int:
        """Number of ranks."""
        return self._group.num_ranks

    @property
    def num_experts(self) -> int:
        """Experts over all ranks, for calls that do not say it."""
        return self._num_experts

    def query_layout(self, topk_idx: Any, num_experts: int | None = None) -> LayoutResult:
        """Destinations and counts that follow from a top-k list. Local, not collective.

        ``topk_idx``: int64 or int32 [T, K], -1 = no selection.
        """
        where = self._where("query_layout", "topk_idx")
        library = library_of(topk_idx, where, self._place.name)
        config = _core.LayoutConfig()
        config.cuda_stream = self._place.current_stream()
        config.topk_idx = library.view(topk_idx, where)
        config.num_experts = self._num_experts if num_experts is None else num_experts
        result = self._core.query_layout(config)
        return LayoutResult(
            library.wrap(result.num_tokens_per_rank),
            library.wrap(result.num_tokens_per_node),
            library.wrap(result.num_tokens_per_expert),
            library.wrap(result.is_token_in_rank),
        )

    def dispatch(
        self,
        x: Any,
        topk_idx: Any = None,
        topk_weights: Any = None,
        *,
        num_experts: int | None = None,
        layout: str = "compact",
        expert_alignment: int = 1,
        padding: str = "zero",
        num_worst_tokens: int = 0,
        handle: Routing | None = None,
        is_token_in_rank: Any = None,
        recv_stats: Any = None,
        previous_event: Event | None = None,
        async_finish: bool = False,
        num_workers: int = 0,
    ) -> DispatchResult:
        """Sends each token once to every rank with an expert of it. Bit-exact and deterministic.

        * ``x``: [T, H] of any type, contiguous, row bytes a multiple of 16; or a pair (values,
          scales) with scales [T, S] of 1- or 4-byte elements and any strides. T may be 0.
        * ``topk_idx``: int64 or int32 [T, K], contiguous; -1 = no selection, an expert named twice
          counts twice. May be absent with ``is_token_in_rank``.
        * ``topk_weights``: float32 [T, K], contiguous. ``num_experts``: E; None: the buffer's.
        * ``layout``: ``"compact"``: a row per token, ordered by (source rank, token), or
          ``"expert_major"``: a row per selection, ordered by (local expert, source rank, token, k).
        * ``expert_alignment``: the counts per expert are rounded up to it, and so, in the
          expert-major layout, are the groups: ``padding`` is ``"zero"`` or ``"leave"`` (as is).
        * ``num_worst_tokens``: > 0: receive tensors get so many rows and the call does not wait for
          the counts; unused rows have topk_idx -1, weight 0 and an unspecified payload.
        * ``handle``: use the placement of an earlier dispatch and exchange no counts. Only x, whose
          type may differ, and ``topk_weights`` are given then.
        * ``is_token_in_rank``: bool [T, R], overrides the destinations; compact layout only.
        * ``recv_stats``: int32 [L], the selections received by each local expert are added.
        """
        values, scales = self._split_pair(x)
        library = library_of(values, self._where("dispatch", "x"), self._place.name)
        if handle is None:
            config: Any = self._routed_config(library, topk_idx, is_token_in_rank, recv_stats)
            config.num_experts = self._num_experts if num_experts is None else num_experts
            self._set_layout(config, layout, expert_alignment, padding, num_worst_tokens)
        else:
            config = self._cached_config(handle, layout, topk_idx, is_token_in_rank, recv_stats)
        self._set_payload(config, library, values, scales, topk_weights)
        if self._place.has_streams or previous_event is not None or async_finish or num_workers:
            config.stream = self._stream("dispatch", previous_event, async_finish, num_workers)
        inputs = (x, topk_idx, topk_weights, is_token_in_rank, recv_stats, config)
        result = self._place.run(self._core.dispatch, config, inputs, async_finish)
        return _wrap_dispatch(result, library, values, scales)

    def combine(
        self,
        x: Any,
        handle: Routing,
        topk_weights: Any = None,
        *,
        bias: Any = None,
        out: Any = None,
        previous_event: Event | None = None,
        async_finish: bool = False,
        num_workers: int = 0,
    ) -> Any:
        """Sums, for each token, the rows that its ranks return; there is no weighting.

        Accumulates in float32 from the biases, ranks ascending, and rounds once to nearest even.
        Expert-major rows of one rank are first summed for k ascending and rounded. With several
        nodes, the ranks of a node are summed and rounded first. A token sent nowhere gets the bias,
        or 0.

        * ``x``: [rows, H] in the row order of the dispatch, contiguous; bfloat16, float16 or
          float32. In symmetric memory (:meth:`empty`; receive tensors) it is read in place.
        * ``topk_weights``: float32, compact [rows, K], expert-major [rows]: summed per selection.
        * ``bias``: [T, H] of the type of x, or a pair of them.
        * ``out``: [T, H] of the type of x, contiguous, written instead of a new tensor.

        Returns the combined tensor [T, H]; with ``topk_weights`` or ``async_finish`` a
        :class:`CombineResult`.
        """
        where = self._where("combine", "x")
        library = library_of(x, where, self._place.name)
        config = _core.CombineConfig()
        config.x = library.view(x, where)
        config.handle = self._routing("combine", handle)
        if topk_weights is not None:
            where = self._where("combine", "topk_weights")
            config.topk_weights = view_like(library, topk_weights, where)
        if bias is not None:
            self._set_bias(config, library, bias)
        if out is not None:
            where = self._where("combine", "out")
            config.out = view_like(library, out, where)
            library.require_writable(out, where)
        if self._place.has_streams or previous_event is not None or async_finish or num_workers:
            config.stream = self._stream("combine", previous_event, async_finish, num_workers)
        inputs = (x, topk_weights, bias, out, config)
        result = self._place.run(self._core.combine, config, inputs, async_finish)
        combined = library.wrap(result.combined_x, library.dtype_of(x)) if out is None else out
        if topk_weights is None and not async_finish:
            return combined
        weights = result.combined_topk_weights
        wrapped_weights = None if weights is None else library.wrap(weights)
        return CombineResult(combined, wrapped_weights, result.event)

    def empty(self, shape: Sequence[int] | int, dtype: Any, like: Any = None) -> Any:
        """A tensor in symmetric memory, which ``combine`` reads in place. Local, not collective.

        ``dtype``: NumPy's, torch's, or a name such as ``"bfloat16"``. The result is of the library
        of ``like``, else of that of ``dtype``, else NumPy, on a GPU torch. Its contents are
        unspecified.
        """
        where = self._where("empty", "dtype")
        library, core_dtype = library_and_dtype(dtype, like, where, self._place.name)
        dims = (shape,) if isinstance(shape, int) else tuple(shape)
        return library.wrap(self._core.empty(core_dtype, dims), library.native_dtype(core_dtype))

    def barrier(self) -> None:
        """Collective: returns when all ranks have called it."""
        self._core.barrier()

    def memory_statistics(self) -> MemoryStatistics:
        """Symmetric memory of this rank. Local, not collective."""
        statistics = self._core.memory_statistics()
        names = MemoryStatistics.__dataclass_fields__
        return MemoryStatistics(**{name: getattr(statistics, name) for name in names})

    def network_statistics(self) -> NetworkStatistics:
        """What this rank has sent to other nodes; waits for the calls so far. Local.

        Zeros where there is one node, where nodes are emulated in shared memory, and on GPUs.
        """
        statistics = self._core.network_statistics()
        names = NetworkStatistics.__dataclass_fields__
        return NetworkStatistics(**{name: getattr(statistics, name) for name in names})

    def last_stage_times(self) -> list[tuple[str, float]]:
        """Stages of the last operation on a GPU, with their microseconds; waits for it.

        Of the first thread block; needs ``stage_clock=True``. Empty on the CPU, where
        ``moelink.set_trace_hook`` tells the same.
        """
        return self._core.last_stage_times()

    def close(self) -> None:
        """Collective: waits for all ranks, then releases the memory. Safe to call again.

        Tensors that are still alive keep their memory.
        """
        self._core.close()
        self._place.forget()

    def __enter__(self) -> Buffer:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None:
            self.close()
        else:
            self._core.abandon()
            self._place.forget()

    def __repr__(self) -> str:
        state = "closed" if self._core.closed else "open"
        return f"<moelink.Buffer rank {self._rank} of {self.num_ranks}, {state}>"

    def _split_pair(self, x: Any) -> tuple[Any, Any]:
        if not isinstance(x, (tuple, list)):
            return x, None
        if len(x) != 2:
            where = self._where("dispatch", "x")
            raise invalid_argument(f"{where}: {len(x)} tensors, expected one or (values, scales)")
        return x[0], x[1]

    def _routed_config(
        self, library: Library, topk_idx: Any, is_token_in_rank: Any, recv_stats: Any
    ) -> _core.DispatchConfig:
        config = _core.DispatchConfig()
        if topk_idx is not None:
            config.topk_idx = view_like(library, topk_idx, self._where("dispatch", "topk_idx"))
        elif is_token_in_rank is None:
            where = self._where("dispatch", "topk_idx")
            raise invalid_argument(f"{where}: absent, expected it, is_token_in_rank or a handle")
        if is_token_in_rank is not None:
            where = self._where("dispatch", "is_token_in_rank")
            config.is_token_in_rank = view_like(library, is_token_in_rank, where)
        if recv_stats is not None:
            where = self._where("dispatch", "recv_stats")
            config.recv_stats = view_like(library, recv_stats, where)
            library.require_writable(recv_stats, where)
        return config

    def _set_layout(
        self,
        config: _core.DispatchConfig,
        layout: str,
        expert_alignment: int,
        padding: str,
        num_worst_tokens: int,
    ) -> None:
        if layout != "compact":
            config.layout = self._choice("dispatch", "layout", layout, _LAYOUTS)
        if padding != "zero":
            config.padding = self._choice("dispatch", "padding", padding, _PADDINGS)
        config.expert_alignment = expert_alignment
        config.num_worst_tokens = num_worst_tokens

    def _cached_config(
        self, handle: Any, layout: str, topk_idx: Any, is_token_in_rank: Any, recv_stats: Any
    ) -> _core.CachedDispatchConfig:
        config = _core.CachedDispatchConfig()
        config.handle = self._routing("dispatch", handle)
        arguments = {
            "topk_idx": topk_idx,
            "is_token_in_rank": is_token_in_rank,
            "recv_stats": recv_stats,
        }
        given = [name for name, value in arguments.items() if value is not None]
        if given:
            where = self._where("dispatch", ", ".join(given))
            raise invalid_argument(
                f"{where}: given together with handle, expected None (the handle has the routing)"
            )
        if layout not in ("compact", handle.layout):
            where = self._where("dispatch", "layout")
            raise invalid_argument(f"{where}: {layout!r}, expected the handle's {handle.layout!r}")
        return config

    def _set_payload(
        self, config: Any, library: Library, values: Any, scales: Any, topk_weights: Any
    ) -> None:
        config.x = library.payload_view(values, self._where("dispatch", "x"))
        if scales is not None:
            config.scales = view_like(library, scales, self._where("dispatch", "scales"))
        if topk_weights is not None:
            where = self._where("dispatch", "topk_weights")
            config.topk_weights = view_like(library, topk_weights, where)

    def _set_bias(self, config: _core.CombineConfig, library: Library, bias: Any) -> None:
        biases = bias if isinstance(bias, (tuple, list)) else (bias,)
        where = self._where("combine", "bias")
        if len(biases) > 2:
            raise invalid_argument(f"{where}: {len(biases)} tensors, expected at most 2")
        for i, tensor in enumerate(biases):
            if tensor is not None:
                setattr(config, f"bias_{i}", view_like(library, tensor, f"{where} {i}"))

    def _routing(self, operation: str, handle: Any) -> _core.Routing:
        if isinstance(handle, Routing):
            return handle._core
        raise invalid_argument(
            f"{self._where(operation, 'handle')}: a {type(handle).__name__}, expected the handle "
            "of a dispatch"
        )


def _wrap_dispatch(
    result: _core.DispatchResult, library: Library, values: Any, scales: Any
) -> DispatchResult:
    recv_x = library.wrap(result.recv_x, library.dtype_of(values))
    recv_scales = result.recv_scales
    if recv_scales is not None:
        recv_x = (recv_x, library.wrap(recv_scales, library.dtype_of(scales)))
    topk_idx = result.recv_topk_idx
    weights = result.recv_topk_weights
    return DispatchResult(
        recv_x,
        Routing(result.handle, library),
        None if topk_idx is None else library.wrap(topk_idx),
        None if weights is None else library.wrap(weights),
        result.num_recv_tokens_per_expert,
        result.event,
    )
