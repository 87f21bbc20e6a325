"""Low latency rounds that every rank can recompute, on the device under test, and their checks."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import moelink
import numpy as np
import torch
from gpu_ranks import DEVICE
from moelink import reference_low_latency as reference
from moelink.cli.bench_device import to_array
from moelink.reference_low_latency import Call, Received, Sent

Array = np.ndarray[Any, Any]

FORMATS = (None, "float32", "power_of_two", "ue8m0")
LAYOUTS = ("per_expert", "per_rank")
NUMERICS = ("exact", "pre_reduced")
SYMMETRIC_BYTES = 128 << 20
LONG = 20_000_000  # clock cycles: far longer than an exchange


@dataclass(frozen=True)
class Shape:
    """What all ranks agree on, and how the tokens are routed."""

    hidden: int = 512
    max_tokens: int = 8
    num_topk: int = 3
    local_experts: int = 4
    routing: str = "random"
    index_dtype: str = "int64"

    def num_tokens(self, rank: int) -> int:
        """From none to M."""
        return (self.max_tokens, 0, self.max_tokens // 2 + 1, 1)[rank % 4]


class Round:
    """Inputs of this rank as tensors, and what all ranks' inputs lead to."""

    def __init__(
        self,
        group: moelink.Group,
        shape: Shape | None = None,
        salt: int = 0,
        *,
        fp8: str | None = None,
        layout: str = "per_expert",
        is_cut: Array | None = None,
    ) -> None:
        shape = shape or Shape()
        num_ranks, self.rank = group.num_ranks, group.rank
        self.call = Call(num_ranks * shape.local_experts, shape.max_tokens, fp8, layout, is_cut)
        self.sent = [sent_by(rank, num_ranks, shape, salt) for rank in range(num_ranks)]
        self.received = reference.dispatch(self.sent, self.call)
        self.returned = [returned_by(rank, one, salt) for rank, one in enumerate(self.received)]
        mine = self.sent[self.rank]
        self.x = to_device(mine.x)
        self.topk_idx = to_device(mine.topk_idx)
        self.topk_weights = to_device(mine.topk_weights)
        self.rows = to_device(self.returned[self.rank])

    @property
    def expected(self) -> Received:
        """What this rank gets from the dispatch."""
        return self.received[self.rank]

    def load(self, other: "Round") -> None:
        """Gives the tensors the contents of another round's, as before the replay of a graph."""
        for name in ("x", "topk_idx", "topk_weights", "rows"):
            getattr(self, name).copy_(getattr(other, name))

    def dispatch(self, buffer: moelink.Buffer, **options: Any) -> Any:
        arguments = {
            "num_experts": self.call.num_experts,
            "fp8": self.call.fp8,
            "layout": self.call.layout,
            **options,
        }
        weights = arguments.pop("topk_weights", self.topk_weights)
        return buffer.low_latency_dispatch(
            self.x, self.topk_idx, self.call.num_max_tokens_per_rank, weights, **arguments
        )

    def combine(self, buffer: moelink.Buffer, result: Any, **options: Any) -> Any:
        rows = options.pop("x", self.rows)
        return buffer.low_latency_combine(
            rows, self.topk_idx, self.topk_weights, result.handle, **options
        )

    def combined(self, numerics: str = "exact", missing: int | None = None) -> Array:
        """What this rank gets from the combine, in which a rank may be missing."""
        received = list(self.received)
        if missing is not None:
            received[missing] = replace(received[missing], count=0 * received[missing].count)
        everywhere = reference.combine(self.returned, received, self.sent, self.call, numerics)
        return everywhere[self.rank]

    def check_received(self, result: Any, what: str = "dispatch") -> None:
        """All that belongs to rows in use."""
        expected = self.expected
        used = tuple(expected.rows().T)
        values, scales = (
            result.recv_x if isinstance(result.recv_x, tuple) else (result.recv_x, None)
        )
        same(values, expected.x, f"{what}: recv_x", used)
        same(scales, expected.scales, f"{what}: recv_scales", used)
        if scales is not None:
            _, num_rows, num_columns = scales.shape
            assert scales.stride() == (num_rows * num_columns, 1, num_rows), scales.stride()
        same(result.recv_count, expected.count, f"{what}: recv_count")
        same(result.handle.src_info, expected.src_info, f"{what}: src_info", used)
        if expected.topk_idx is None:
            same(result.handle.layout_range, expected.layout_range, f"{what}: layout_range")
        same(result.recv_topk_idx, expected.topk_idx, f"{what}: recv_topk_idx", used)
        same(result.recv_topk_weights, expected.topk_weights, f"{what}: recv_topk_weights", used)

    def check_combined(self, combined: Any, numerics: str = "exact", what: str = "combine") -> None:
        same(combined, self.combined(numerics), f"{what}: combined_x, {numerics}")

    def check_round_trip(self, buffer: moelink.Buffer, what: str = "round trip") -> None:
        result = self.dispatch(buffer)
        self.check_received(result, what)
        self.check_combined(self.combine(buffer, result), what=what)


def open_low_latency(group: moelink.Group, **options: Any) -> moelink.Buffer:
    options.setdefault("max_symmetric_bytes", SYMMETRIC_BYTES if DEVICE == "cuda" else 0)
    return moelink.Buffer(group, device=DEVICE, **options)


def sent_by(rank: int, num_ranks: int, shape: Shape, salt: int = 0) -> Sent:
    rng = np.random.default_rng((salt, num_ranks, rank, shape.hidden))
    num_tokens = shape.num_tokens(rank)
    topk_idx = _ROUTINGS[shape.routing](rng, num_tokens, num_ranks, shape)
    drop_repeats(topk_idx, shape.max_tokens)
    magnitude = 10.0 ** rng.integers(-3, 4, (num_tokens, 1))
    x = rng.standard_normal((num_tokens, shape.hidden), np.float32) * magnitude
    weights = rng.standard_normal(topk_idx.shape, np.float32)
    return Sent(x.astype(ml_dtypes.bfloat16), topk_idx.astype(shape.index_dtype), weights)


def returned_by(rank: int, received: Received, salt: int = 0) -> Array:
    """What the experts return: numbers, and NaN in the rows that are not in use."""
    rng = np.random.default_rng((salt, 7, rank))
    rows = rng.standard_normal(received.x.shape, np.float32).astype(ml_dtypes.bfloat16)
    is_used = np.arange(rows.shape[1]) < received.count[:, None]
    return np.where(is_used[:, :, None], rows, ml_dtypes.bfloat16(np.nan))


def drop_repeats(topk_idx: Array, max_rows: int) -> None:
    """Leaves at most ``max_rows`` selections of each expert."""
    flat = topk_idx.reshape(-1)
    for expert in np.unique(flat[flat >= 0]):
        flat[np.flatnonzero(flat == expert)[max_rows:]] = -1


def _random(rng: Any, num_tokens: int, num_ranks: int, shape: Shape) -> Array:
    """Some selections are -1, some name an expert twice."""
    num_experts = num_ranks * shape.local_experts
    return rng.integers(-1, num_experts, (num_tokens, shape.num_topk))


def _distinct(rng: Any, num_tokens: int, num_ranks: int, shape: Shape) -> Array:
    scores = rng.random((num_tokens, num_ranks * shape.local_experts))
    return np.ascontiguousarray(np.argsort(scores, axis=1)[:, : shape.num_topk])


def _repeated(rng: Any, num_tokens: int, num_ranks: int, shape: Shape) -> Array:
    topk_idx = _random(rng, num_tokens, num_ranks, shape)
    topk_idx[:, 1:] = topk_idx[:, :1]
    return topk_idx


def _to_last(rng: Any, num_tokens: int, num_ranks: int, shape: Shape) -> Array:
    """All to the experts of the last rank."""
    first = (num_ranks - 1) * shape.local_experts
    return rng.integers(first, first + shape.local_experts, (num_tokens, shape.num_topk))


def _nowhere(rng: Any, num_tokens: int, num_ranks: int, shape: Shape) -> Array:
    del rng, num_ranks
    return np.full((num_tokens, shape.num_topk), -1)


_ROUTINGS: dict[str, Callable[..., Array]] = {
    "random": _random,
    "distinct": _distinct,
    "repeated": _repeated,
    "to_last": _to_last,
    "nowhere": _nowhere,
}
ROUTINGS = tuple(_ROUTINGS)


def to_device(array: Array) -> torch.Tensor:
    dtype = getattr(torch, array.dtype.name)
    if array.size == 0:
        return torch.empty(array.shape, dtype=dtype, device=DEVICE)
    raw = torch.from_numpy(np.ascontiguousarray(array).view(np.uint8))
    return raw.to(DEVICE).view(dtype)


def same(actual: Any, expected: Array | None, what: str, used: Any = None) -> None:
    """A tensor has the type, the shape and the bits of an array, or both are absent."""
    if expected is None or actual is None:
        assert actual is None and expected is None, f"{what}: {actual}, expected {expected}"
        return
    assert actual.device.type == DEVICE, f"{what}: on {actual.device}"
    seen = to_array(actual)
    assert (seen.dtype, seen.shape) == (expected.dtype, expected.shape), (
        f"{what}: {seen.dtype} {seen.shape}, expected {expected.dtype} {expected.shape}"
    )
    if used is not None:
        seen, expected = seen[used], expected[used]
    if seen.tobytes() != np.ascontiguousarray(expected).tobytes():
        raise AssertionError(f"{what}: {difference(seen, expected)}")


def difference(seen: Array, expected: Array) -> str:
    size = seen.itemsize
    pairs = [np.ascontiguousarray(one).view(np.uint8).reshape(-1, size) for one in (seen, expected)]
    wrong = np.flatnonzero((pairs[0] != pairs[1]).any(axis=1))
    first = tuple(int(i) for i in np.unravel_index(wrong[0], expected.shape))
    return (
        f"{len(wrong)} of {seen.size} elements differ, first at {first}: {seen[first]}, "
        f"expected {expected[first]}"
    )


def synchronize() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def delay() -> None:
    """Keeps the current stream busy for a while."""
    if DEVICE == "cuda":
        torch.cuda._sleep(LONG)


def current_stream() -> int:
    return torch.cuda.current_stream().cuda_stream if DEVICE == "cuda" else 0


def refusal(
    call: Callable[[], Any], code: moelink.ErrorCode = moelink.ErrorCode.INVALID_ARGUMENT
) -> str:
    """The text of the error for bad use."""
    try:
        call()
    except moelink.Error as error:
        assert error.code is code, error
        return str(error)
    raise AssertionError("no error")
