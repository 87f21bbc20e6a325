"""Random cases of dispatch and combine for the property-based tests."""

from dataclasses import dataclass

import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from moelink.reference import Sent

REDUCIBLE = ("bfloat16", "float16", "float32")
PAYLOADS = (*REDUCIBLE, "float8_e4m3fn", "int8", "uint8", "int32", "float64")
ROUTINGS = ("uniform", "one_hot", "empty", "repeated", "to_last")


def dtype_named(name: str) -> np.dtype:
    """NumPy's dtype, from ml_dtypes where NumPy has none."""
    return np.dtype(getattr(ml_dtypes, name, name))


@dataclass(frozen=True)
class Case:
    """Everything that decides the tensors of all ranks."""

    num_ranks: int
    num_nodes: int
    num_local_experts: int
    num_topk: int
    row_bytes: int
    num_tokens: tuple[int, ...]
    routing: tuple[str, ...]
    dtype: str
    index_dtype: str
    layout: str
    alignment: int
    has_weights: bool
    scales: str | None
    seed: int

    @property
    def num_experts(self) -> int:
        return self.num_ranks * self.num_local_experts

    @property
    def hidden(self) -> int:
        return self.row_bytes // dtype_named(self.dtype).itemsize

    def rng(self, *salt: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, *salt))

    def payload(self, rank: int, dtype: str | None = None, salt: int = 0) -> np.ndarray:
        """[T, H] of any bits, or of numbers around 1 where combine must sum them."""
        chosen = dtype_named(dtype or self.dtype)
        shape = (self.num_tokens[rank], self.row_bytes // chosen.itemsize)
        return random_tensor(self.rng(1, rank, salt), shape, chosen)

    def sent(self) -> list[Sent]:
        """The arguments of dispatch on every rank."""
        return [self._sent(rank) for rank in range(self.num_ranks)]

    def _sent(self, rank: int) -> Sent:
        rng = self.rng(2, rank)
        topk_idx = self._topk_idx(rank, rng).astype(self.index_dtype)
        weights = rng.random(topk_idx.shape, np.float32)
        scales = None
        if self.scales is not None:
            shape = (self.num_tokens[rank], 3)
            scales = random_tensor(rng, shape, dtype_named(self.scales))
        return Sent(self.payload(rank), topk_idx, weights if self.has_weights else None, scales)

    def _topk_idx(self, rank: int, rng: np.random.Generator) -> np.ndarray:
        shape = (self.num_tokens[rank], self.num_topk)
        kind = self.routing[rank]
        if kind == "empty":
            return np.full(shape, -1)
        if kind == "one_hot":
            return np.full(shape, rng.integers(self.num_experts))
        if kind == "to_last":
            low = self.num_experts - self.num_local_experts
            return rng.integers(low, self.num_experts, shape)
        topk_idx = rng.integers(-1, self.num_experts, shape)
        if kind == "repeated" and self.num_topk > 1:
            topk_idx[:, 1] = topk_idx[:, 0]
        return topk_idx


def random_tensor(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Numbers around 1 for types that combine sums, else any bits."""
    if dtype.name in REDUCIBLE:
        return rng.standard_normal(shape, np.float32).astype(dtype)
    num_bytes = shape[-1] * dtype.itemsize
    return rng.integers(0, 256, (*shape[:-1], num_bytes), np.uint8).view(dtype).reshape(shape)


@st.composite
def cases(draw: st.DrawFn, dtypes: tuple[str, ...] = PAYLOADS) -> Case:
    """Rank counts 1 to 9, with ranks that send nothing or receive nothing.

    Sizes and routings of the ranks follow from the seed: drawing each of them makes similar cases.
    """
    num_ranks = draw(st.integers(1, 9))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng((seed, 0))
    divisors = [n for n in range(2, num_ranks + 1) if num_ranks % n == 0]
    return Case(
        num_ranks=num_ranks,
        num_nodes=draw(st.sampled_from([1, *divisors])),
        num_local_experts=int(rng.integers(1, 6)),
        num_topk=draw(st.integers(1, 8)),
        row_bytes=16 * int(rng.integers(1, 21)),
        num_tokens=tuple(rng.integers(0, 18, num_ranks).tolist()),
        routing=tuple(rng.choice(ROUTINGS, num_ranks).tolist()),
        dtype=draw(st.sampled_from(dtypes)),
        index_dtype=draw(st.sampled_from(["int64", "int32"])),
        layout=draw(st.sampled_from(["compact", "expert_major"])),
        alignment=draw(st.sampled_from([1, 2, 8, 16])),
        has_weights=draw(st.booleans()),
        scales=draw(st.sampled_from([None, "float32", "int32", "uint8"])),
        seed=seed,
    )


def assert_same_bits(actual: np.ndarray | None, expected: np.ndarray | None, what: str) -> None:
    """Equal shape, dtype and bits."""
    if expected is None:
        assert actual is None, what
        return
    assert actual is not None, what
    assert actual.shape == expected.shape, what
    assert actual.dtype == expected.dtype, what
    same = np.ascontiguousarray(actual).tobytes() == np.ascontiguousarray(expected).tobytes()
    assert same, f"{what}: {actual} != {expected}"
