"""Random low latency dispatches and combines agree with the plain NumPy reference, bit for bit."""

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import moelink
import numpy as np
from cases import assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from moelink import reference_low_latency as reference
from moelink.reference_low_latency import Call, Received, Sent
from thread_ranks import run_threads

PHASES = ("in_call", "hook", "async")
FORMATS = (None, "float32", "power_of_two", "ue8m0")


@dataclass(frozen=True)
class Case:
    """Everything that decides the tensors of all ranks."""

    num_ranks: int
    num_local_experts: int
    num_topk: int
    hidden: int
    max_tokens: int
    fp8: str | None
    layout: str
    numerics: str
    phase: str
    index_dtype: str
    has_masks: bool
    seed: int

    @property
    def num_experts(self) -> int:
        return self.num_ranks * self.num_local_experts

    @property
    def is_cut(self) -> np.ndarray:
        """[R, R], symmetric: pairs of ranks that mask each other."""
        shape = (self.num_ranks, self.num_ranks)
        chance = 0.3 if self.has_masks else 0.0
        upper = np.triu(np.random.default_rng((self.seed, 1)).random(shape) < chance, 1)
        return upper | upper.T

    @property
    def call(self) -> Call:
        return Call(self.num_experts, self.max_tokens, self.fp8, self.layout, self.is_cut)

    def sent(self, salt: int = 0) -> list[Sent]:
        return [self._sent_by(rank, salt) for rank in range(self.num_ranks)]

    def returned(self, received: list[Received]) -> list[np.ndarray]:
        """What the experts return: numbers, and NaN in the rows that are not in use."""
        outputs = []
        for rank, one in enumerate(received):
            rng = np.random.default_rng((self.seed, 3, rank))
            rows = rng.standard_normal(one.x.shape, np.float32).astype(ml_dtypes.bfloat16)
            is_used = np.arange(rows.shape[1]) < one.count[:, None]
            outputs.append(np.where(is_used[:, :, None], rows, ml_dtypes.bfloat16(np.nan)))
        return outputs

    def _sent_by(self, rank: int, salt: int) -> Sent:
        rng = np.random.default_rng((self.seed, 2, rank, salt))
        num_tokens = int(rng.integers(0, self.max_tokens + 1))
        topk_idx = rng.integers(-1, self.num_experts, (num_tokens, self.num_topk))
        if rng.random() < 0.3:
            topk_idx[:, 1:] = topk_idx[:, :1]
        drop_repeats(topk_idx, self.max_tokens)
        x = rng.standard_normal((num_tokens, self.hidden), np.float32) * 10.0 ** rng.integers(-3, 4)
        weights = rng.standard_normal(topk_idx.shape, np.float32)
        return Sent(x.astype(ml_dtypes.bfloat16), topk_idx.astype(self.index_dtype), weights)


def drop_repeats(topk_idx: np.ndarray, max_rows: int) -> None:
    """Leaves at most ``max_rows`` selections of each expert."""
    flat = topk_idx.reshape(-1)
    for expert in np.unique(flat[flat >= 0]):
        flat[np.flatnonzero(flat == expert)[max_rows:]] = -1


@st.composite
def cases(draw: st.DrawFn) -> Case:
    fp8 = draw(st.sampled_from(FORMATS))
    granule = 512 if fp8 == "ue8m0" else 128
    return Case(
        num_ranks=draw(st.integers(1, 8)),
        num_local_experts=draw(st.integers(1, 5)),
        num_topk=draw(st.integers(1, 9)),
        hidden=granule * draw(st.integers(1, 3)),
        max_tokens=draw(st.integers(1, 9)),
        fp8=fp8,
        layout=draw(st.sampled_from(["per_expert", "per_rank"])),
        numerics=draw(st.sampled_from(["exact", "pre_reduced"])),
        phase=draw(st.sampled_from(PHASES)),
        index_dtype=draw(st.sampled_from(["int64", "int32"])),
        has_masks=draw(st.booleans()),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


def finish(result: Any, phase: str) -> None:
    if phase == "hook":
        result.hook()
    elif phase == "async":
        result.event.wait()


def dispatch(buffer: moelink.Buffer, case: Case, sent: Sent) -> Any:
    result = buffer.low_latency_dispatch(
        sent.x,
        sent.topk_idx,
        case.max_tokens,
        sent.topk_weights,
        fp8=case.fp8,
        layout=case.layout,
        return_hook=case.phase == "hook",
        async_finish=case.phase == "async",
    )
    finish(result, case.phase)
    return result


def combine(buffer: moelink.Buffer, case: Case, sent: Sent, rows: Any, handle: Any) -> np.ndarray:
    result = buffer.low_latency_combine(
        rows,
        sent.topk_idx,
        sent.topk_weights,
        handle,
        numerics=case.numerics,
        return_hook=case.phase == "hook",
        async_finish=case.phase == "async",
    )
    if case.phase == "in_call":
        return result
    finish(result, case.phase)
    return result.combined_x


def check_received(actual: Any, expected: Received) -> None:
    """All that belongs to rows in use."""
    used = tuple(expected.rows().T)
    values, scales = actual.recv_x if isinstance(actual.recv_x, tuple) else (actual.recv_x, None)
    assert values.shape == expected.x.shape
    assert_same_bits(values[used], expected.x[used], "recv_x")
    if expected.scales is None:
        assert scales is None
    else:
        assert scales.shape == expected.scales.shape
        assert scales.strides[1] == scales.itemsize
        assert_same_bits(scales[used], expected.scales[used], "recv_scales")
    assert_same_bits(actual.recv_count, expected.count, "recv_count")
    assert_same_bits(actual.handle.src_info[used], expected.src_info[used], "src_info")
    if expected.topk_idx is None:
        assert_same_bits(actual.handle.layout_range, expected.layout_range, "layout_range")
        assert actual.recv_topk_idx is None
        return
    assert_same_bits(actual.recv_topk_idx[used], expected.topk_idx[used], "recv_topk_idx")
    weights = expected.topk_weights
    assert_same_bits(actual.recv_topk_weights[used], weights[used], "recv_topk_weights")


@settings(max_examples=250)
@given(case=cases())
def test_low_latency_round_trips_agree_with_the_reference(case: Case):
    """Three rounds on one buffer, so that both halves of the area are used again."""
    rounds = [case.sent(salt) for salt in range(3)]
    received = [reference.dispatch(sent, case.call) for sent in rounds]
    returned = [case.returned(one) for one in received]

    def body(group: moelink.Group) -> list[tuple[Any, np.ndarray]]:
        with moelink.Buffer(group, num_experts=case.num_experts) as buffer:
            for peer in np.flatnonzero(case.is_cut[group.rank]):
                buffer.mask_rank(int(peer))
            results = []
            for sent, rows in zip(rounds, returned, strict=True):
                mine = sent[group.rank]
                result = dispatch(buffer, case, mine)
                combined = combine(buffer, case, mine, rows[group.rank], result.handle)
                results.append((result, combined))
            return results

    actual = run_threads(case.num_ranks, body)
    for round_idx, sent in enumerate(rounds):
        expected = reference.combine(
            returned[round_idx], received[round_idx], sent, case.call, case.numerics
        )
        for rank, results in enumerate(actual):
            result, combined = results[round_idx]
            check_received(result, received[round_idx][rank])
            assert_same_bits(combined, expected[rank], "combined_x")


@settings(max_examples=100)
@given(case=cases())
def test_two_outstanding_dispatches_and_combines_do_not_mix(case: Case):
    """A and B are sent before A and then B are received."""
    rounds = [case.sent(salt) for salt in range(2)]
    received = [reference.dispatch(sent, case.call) for sent in rounds]
    returned = [case.returned(one) for one in received]

    def body(group: moelink.Group) -> tuple[list[Any], list[np.ndarray]]:
        rank = group.rank
        with moelink.Buffer(group, num_experts=case.num_experts) as buffer:
            for peer in np.flatnonzero(case.is_cut[rank]):
                buffer.mask_rank(int(peer))
            dispatched = [
                buffer.low_latency_dispatch(
                    sent[rank].x,
                    sent[rank].topk_idx,
                    case.max_tokens,
                    sent[rank].topk_weights,
                    fp8=case.fp8,
                    layout=case.layout,
                    return_hook=True,
                )
                for sent in rounds
            ]
            for result in dispatched:
                result.hook()
            combined = [
                buffer.low_latency_combine(
                    rows[rank],
                    sent[rank].topk_idx,
                    sent[rank].topk_weights,
                    result.handle,
                    numerics=case.numerics,
                    return_hook=True,
                )
                for sent, rows, result in zip(rounds, returned, dispatched, strict=True)
            ]
            for result in combined:
                result.hook()
            return dispatched, [result.combined_x for result in combined]

    actual = run_threads(case.num_ranks, body)
    for round_idx, sent in enumerate(rounds):
        expected = reference.combine(
            returned[round_idx], received[round_idx], sent, case.call, case.numerics
        )
        for rank, (dispatched, combined) in enumerate(actual):
            check_received(dispatched[round_idx], received[round_idx][rank])
            assert_same_bits(combined[round_idx], expected[rank], "combined_x")
