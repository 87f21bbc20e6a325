"""The rules of the low latency calls: what may be outstanding, what is refused, what is counted."""

import time
from collections.abc import Callable
from typing import Any

import ml_dtypes
import moelink
import numpy as np
import pytest
from cases import assert_same_bits
from moelink import reference_low_latency as reference
from moelink.reference_low_latency import Call, Sent
from thread_ranks import errors_of, run_threads

NUM_RANKS = 3
NUM_EXPERTS = 6
MAX_TOKENS = 8
HIDDEN = 256
CALL = Call(NUM_EXPERTS, MAX_TOKENS)
INVALID = moelink.ErrorCode.INVALID_ARGUMENT


def sent_by(rank: int, salt: int = 0) -> Sent:
    rng = np.random.default_rng((rank, salt))
    x = rng.standard_normal((MAX_TOKENS - rank, HIDDEN), np.float32).astype(ml_dtypes.bfloat16)
    scores = rng.random((len(x), NUM_EXPERTS))
    topk_idx = np.ascontiguousarray(np.argsort(scores, axis=1)[:, :4])
    return Sent(x, topk_idx, rng.random(topk_idx.shape, np.float32))


def all_sent(salt: int = 0) -> list[Sent]:
    return [sent_by(rank, salt) for rank in range(NUM_RANKS)]


def expected_combined(numerics: str = "exact", salt: int = 0) -> list[np.ndarray]:
    """Of experts that return their input."""
    sent = all_sent(salt)
    received = reference.dispatch(sent, CALL)
    return reference.combine([one.x for one in received], received, sent, CALL, numerics)


def run(body: Callable[[moelink.Buffer], Any]) -> list[Any]:
    def with_buffer(group: moelink.Group) -> Any:
        with moelink.Buffer(group, num_experts=NUM_EXPERTS) as buffer:
            return body(buffer)

    return run_threads(NUM_RANKS, with_buffer)


def dispatch(buffer: moelink.Buffer, salt: int = 0, **options: Any) -> Any:
    sent = sent_by(buffer.rank, salt)
    options = {"topk_weights": sent.topk_weights, **options}
    return buffer.low_latency_dispatch(sent.x, sent.topk_idx, MAX_TOKENS, **options)


def combine(buffer: moelink.Buffer, result: Any, salt: int = 0, **options: Any) -> Any:
    sent = sent_by(buffer.rank, salt)
    rows = options.pop("x", result.recv_x)
    return buffer.low_latency_combine(
        rows, sent.topk_idx, sent.topk_weights, result.handle, **options
    )


def refusal(call: Callable[[], Any]) -> str:
    """The text of the error for bad use; the code must be INVALID_ARGUMENT."""
    with pytest.raises(moelink.Error) as caught:
        call()
    assert caught.value.code is INVALID, caught.value
    return str(caught.value)


def check_round_trip(buffer: moelink.Buffer) -> None:
    combined = combine(buffer, dispatch(buffer))
    assert_same_bits(combined, expected_combined()[buffer.rank], "combined_x")


@pytest.mark.parametrize("numerics", ["exact", "pre_reduced"])
@pytest.mark.parametrize("fp8", [None, "float32"])
def test_twenty_repeats_are_bitwise_equal(numerics: str, fp8: str | None):
    def body(buffer: moelink.Buffer) -> list[bytes]:
        seen = []
        for _ in range(20):
            result = dispatch(buffer, fp8=fp8)
            values = result.recv_x if fp8 is None else result.recv_x[0]
            used = np.arange(values.shape[1]) < result.recv_count[:, None]
            rows = values.astype(ml_dtypes.bfloat16)
            combined = combine(buffer, result, x=rows, numerics=numerics)
            seen.append(values[used].tobytes() + combined.tobytes())
        return seen

    for seen in run(body):
        assert len(seen) == 20
        assert set(seen) == {seen[0]}


def test_third_outstanding_operation_is_refused_and_the_two_go_on():
    def body(buffer: moelink.Buffer) -> list[np.ndarray]:
        first = dispatch(buffer, salt=1, return_hook=True)
        second = dispatch(buffer, salt=2, return_hook=True)
        assert "outstanding" in refusal(lambda: dispatch(buffer, salt=3))
        first.hook()
        second.hook()
        return [combine(buffer, first, salt=1), combine(buffer, second, salt=2)]

    for rank, combined in enumerate(run(body)):
        for actual, salt in zip(combined, (1, 2), strict=True):
            assert_same_bits(actual, expected_combined(salt=salt)[rank], "combined_x")


def test_operation_that_would_reuse_an_unreceived_half_is_refused():
    """The area has two halves: the second operation after A would overwrite A's messages."""

    def body(buffer: moelink.Buffer) -> np.ndarray:
        first = dispatch(buffer, salt=1, return_hook=True)
        dispatch(buffer, salt=2)
        assert "outstanding" in refusal(lambda: dispatch(buffer, salt=3))
        first.hook()
        return combine(buffer, first, salt=1)

    for rank, combined in enumerate(run(body)):
        assert_same_bits(combined, expected_combined(salt=1)[rank], "combined_x")


def receive_in_reverse(buffer: moelink.Buffer, first: Any, second: Any) -> None:
    """B before A, with time for the peers to send C; or A first where that is refused."""
    try:
        second.hook()
        is_refused = False
    except moelink.Error as error:
        assert error.code is INVALID, error
        is_refused = True
    buffer.group.barrier()
    time.sleep(0.2)  # a good implementation lets the peers wait
    first.hook()
    if is_refused:
        second.hook()


def test_hooks_in_reverse_order_do_not_lose_data():
    def body(buffer: moelink.Buffer) -> list[np.ndarray]:
        first, second = (dispatch(buffer, salt=salt, return_hook=True) for salt in (1, 2))
        if buffer.rank == 0:
            receive_in_reverse(buffer, first, second)
        else:
            first.hook()
            second.hook()
            buffer.group.barrier()
        third = dispatch(buffer, salt=3, return_hook=True)
        third.hook()
        results = enumerate((first, second, third), start=1)
        return [combine(buffer, one, salt) for salt, one in results]

    for rank, combined in enumerate(run(body)):
        for salt, actual in enumerate(combined, start=1):
            assert_same_bits(actual, expected_combined(salt=salt)[rank], f"combined_x {salt}")


def test_hook_called_twice_is_refused():
    def body(buffer: moelink.Buffer) -> None:
        result = dispatch(buffer, return_hook=True)
        result.hook()
        assert "called twice" in refusal(result.hook)
        combined = combine(buffer, result, return_hook=True)
        combined.hook()
        assert "called twice" in refusal(combined.hook)
        check_round_trip(buffer)

    run(body)


def test_hook_called_after_close_is_refused():
    def body(group: moelink.Group) -> str:
        buffer = moelink.Buffer(group, num_experts=NUM_EXPERTS)
        result = dispatch(buffer, return_hook=True)
        buffer.close()
        return refusal(result.hook)

    assert all("closed" in text for text in run_threads(NUM_RANKS, body))


def test_calls_without_hook_or_event_have_none():
    def body(buffer: moelink.Buffer) -> None:
        assert dispatch(buffer).hook is None
        result = dispatch(buffer, async_finish=True)
        result.event.wait()
        assert combine(buffer, result, async_finish=True).hook is None

    run(body)


@pytest.mark.parametrize("numerics", ["exact", "pre_reduced"])
def test_zero_copy_combine_reads_the_combine_buffer(numerics: str):
    def body(buffer: moelink.Buffer) -> np.ndarray:
        dispatch(buffer, salt=5)  # an odd number of operations before
        result = dispatch(buffer)
        rows = buffer.low_latency_combine_buffer(result.handle)
        assert (rows.shape, rows.dtype) == (result.recv_x.shape, result.recv_x.dtype)
        rows[:] = result.recv_x
        return combine(buffer, result, x=rows, zero_copy=True, numerics=numerics)

    for rank, combined in enumerate(run(body)):
        assert_same_bits(combined, expected_combined(numerics)[rank], "combined_x")


def test_stale_or_missing_combine_buffer_is_refused():
    def body(buffer: moelink.Buffer) -> None:
        result = dispatch(buffer)
        missing = refusal(lambda: combine(buffer, result, zero_copy=True))
        assert "combine buffer is stale" in missing
        rows = buffer.low_latency_combine_buffer(result.handle)
        later = dispatch(buffer)
        stale = refusal(lambda: combine(buffer, later, x=rows, zero_copy=True))
        assert "combine buffer is stale" in stale
        check_round_trip(buffer)

    run(body)


def test_out_is_written_and_returned():
    def body(buffer: moelink.Buffer) -> np.ndarray:
        out = np.full_like(sent_by(buffer.rank).x, np.nan)
        assert combine(buffer, dispatch(buffer), out=out) is out
        return out

    for rank, combined in enumerate(run(body)):
        assert_same_bits(combined, expected_combined()[rank], "out")


def test_statistics_and_wait_costs_are_added():
    def body(buffer: moelink.Buffer) -> None:
        stats = np.array([100, 200], np.int32)
        cost = np.zeros(NUM_RANKS, np.int64)
        result = dispatch(buffer, recv_stats=stats, wait_cost=cost)
        dispatch(buffer, recv_stats=stats, wait_cost=cost)
        expected = np.array([100, 200]) + 2 * result.recv_count
        assert np.array_equal(stats, expected)
        assert (np.delete(cost, buffer.rank) > 0).all()
        before = cost.copy()
        combine(buffer, dispatch(buffer), wait_cost=cost)
        assert (np.delete(cost - before, buffer.rank) > 0).all()

    run(body)


WRONG_DISPATCHES = {
    "more tokens than M": ({"num_max_tokens_per_rank": 2}, "num_max_tokens_per_rank=2"),
    "M of 0": ({"num_max_tokens_per_rank": 0}, "num_max_tokens_per_rank is 0"),
    "wrong type": ({"x": np.ones((4, HIDDEN), np.float32)}, "bfloat16"),
    "wrong hidden": ({"x": np.ones((4, 192), ml_dtypes.bfloat16)}, "multiple of 128"),
    "hidden too small for ue8m0": ({"fp8": "ue8m0"}, "multiple of 512"),
    "unknown format": ({"fp8": "e5m2"}, "'ue8m0'"),
    "unknown layout": ({"layout": "compact"}, "'per_rank'"),
    "wrong index type": ({"topk_idx": np.zeros((4, 2), np.int16)}, "topk_idx"),
    "id too large": ({"topk_idx": np.full((4, 2), NUM_EXPERTS)}, "topk_idx"),
    "wrong weights": ({"topk_weights": np.ones((4, 3), np.float32)}, "topk_weights"),
    "too many repeats": ({"topk_idx": np.zeros((4, 3), np.int64)}, "12 times"),
    "wrong statistics": ({"recv_stats": np.zeros(5, np.int32)}, "recv_stats"),
    "wrong wait cost": ({"wait_cost": np.zeros(NUM_RANKS, np.int32)}, "wait_cost"),
    "hook and event": ({"return_hook": True, "async_finish": True}, "exclude each other"),
    "experts that do not split": ({"num_experts": 7}, "num_experts is 7"),
}


@pytest.mark.parametrize("name", WRONG_DISPATCHES)
def test_wrong_dispatch_is_refused_and_the_buffer_stays_usable(name: str):
    change, complaint = WRONG_DISPATCHES[name]
    arguments = {
        "x": np.ones((4, HIDDEN), ml_dtypes.bfloat16),
        "topk_idx": np.zeros((4, 2), np.int64),
        "num_max_tokens_per_rank": MAX_TOKENS,
    }

    def body(buffer: moelink.Buffer) -> None:
        text = refusal(lambda: buffer.low_latency_dispatch(**{**arguments, **change}))
        assert complaint in text
        assert f"rank {buffer.rank}" in text
        check_round_trip(buffer)

    run(body)


def wrong_combines(buffer: moelink.Buffer, result: Any) -> dict[str, dict[str, Any]]:
    """Arguments by a part of the complaint."""
    return {
        "x is": {"x": result.recv_x[:, :-1]},
        "bfloat16": {"x": result.recv_x.astype(np.float32)},
        "topk_weights are missing": {"topk_weights": None},
        "topk_weights is": {"topk_weights": np.ones((1, 4), np.float32)},
        "topk_idx is": {"topk_idx": np.zeros((1, 4), np.int64)},
        "topk_idx[0, 0] is 6": {
            "topk_idx": np.full((len(sent_by(buffer.rank).x), 4), NUM_EXPERTS),
        },
        "'pre_reduced'": {"numerics": "fast"},
        "out is": {"out": np.zeros((1, HIDDEN), ml_dtypes.bfloat16)},
        "expected the handle": {"handle": None},
        "need topk_weights in the dispatch": {"numerics": "pre_reduced"},
    }


def test_wrong_combines_are_refused_and_the_buffer_stays_usable():
    def body(buffer: moelink.Buffer) -> None:
        sent = sent_by(buffer.rank)
        result = dispatch(buffer, topk_weights=None)
        arguments = {
            "x": result.recv_x,
            "topk_idx": sent.topk_idx,
            "topk_weights": sent.topk_weights,
            "handle": result.handle,
        }
        for complaint, change in wrong_combines(buffer, result).items():
            text = refusal(lambda: buffer.low_latency_combine(**{**arguments, **change}))  # noqa: B023
            assert complaint in text
        check_round_trip(buffer)

    run(body)


def test_handle_of_another_buffer_is_refused():
    def body(group: moelink.Group) -> None:
        with (
            moelink.Buffer(group, num_experts=NUM_EXPERTS) as one,
            moelink.Buffer(group, num_experts=NUM_EXPERTS) as other,
        ):
            result = dispatch(one)
            assert "another buffer" in refusal(lambda: combine(other, result))

    run_threads(NUM_RANKS, body)


DIFFERENCES = {
    "fp8 format": {"fp8": "float32"},
    "another fp8 format": {"fp8": "power_of_two"},
    "weights": {"topk_weights": None},
    "experts": {"num_experts": 2 * NUM_EXPERTS},
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_ranks_that_differ_all_raise_and_go_on(name: str):
    def body(buffer: moelink.Buffer) -> None:
        check_round_trip(buffer)
        odd = DIFFERENCES[name] if buffer.rank == 1 else {}
        base = {"fp8": "float32"} if name == "another fp8 format" else {}
        text = refusal(lambda: dispatch(buffer, **{**base, **odd}))
        assert "the ranks' calls differ" in text
        for _ in range(3):
            check_round_trip(buffer)

    run(body)


def test_ranks_whose_shapes_differ_raise_and_corrupt_nothing():
    """Neither shape is that of the open area, which must not be used with its old place."""

    def body(buffer: moelink.Buffer) -> None:
        check_round_trip(buffer)
        x, ids = np.ones((1, 128), ml_dtypes.bfloat16), np.zeros((1, 1), np.int64)
        refusal(lambda: buffer.low_latency_dispatch(x, ids, 1 + buffer.rank % 2))
        unrelated = buffer.empty((1 << 20,), np.uint8)
        unrelated[:] = 7
        for _ in range(3):
            check_round_trip(buffer)
        assert (unrelated == 7).all()

    run(body)


def test_clean_allows_another_shape():
    def body(buffer: moelink.Buffer) -> None:
        check_round_trip(buffer)
        buffer.clean_low_latency()
        x = np.ones((2, 128), ml_dtypes.bfloat16)
        ids, weights = np.array([[0], [5]]), np.full((2, 1), 0.5, np.float32)
        recv_x, _, handle = buffer.low_latency_dispatch(x, ids, 2, weights)
        assert (buffer.low_latency_combine(recv_x, ids, weights, handle) == 0.5).all()
        buffer.clean_low_latency()
        check_round_trip(buffer)

    run(body)


def test_low_latency_and_high_throughput_calls_alternate_on_one_buffer():
    def body(buffer: moelink.Buffer) -> None:
        sent = sent_by(buffer.rank)
        for _ in range(3):
            check_round_trip(buffer)
            recv_x, handle = buffer.dispatch(sent.x, sent.topk_idx)
            buffer.combine(recv_x, handle)

    run(body)


def test_size_hint_covers_what_the_mode_takes():
    def body(buffer: moelink.Buffer) -> int:
        before = buffer.memory_statistics().live_bytes
        result = dispatch(buffer)
        del result
        return buffer.memory_statistics().live_bytes - before

    hint = moelink.Buffer.low_latency_size_hint(MAX_TOKENS, HIDDEN, NUM_RANKS, 4)
    for taken in run(body):
        assert 0 < taken <= hint


def test_masks_are_local_and_can_be_taken_back():
    def body(buffer: moelink.Buffer) -> None:
        other = 1 - buffer.rank
        if buffer.rank == 2:
            check_round_trip_without(buffer, set())
            return
        assert not buffer.is_masked(other)
        buffer.mask_rank(other)
        assert buffer.is_masked(other)
        assert not buffer.is_masked(2)
        check_round_trip_without(buffer, {other})
        buffer.unmask_rank(other)
        assert not buffer.is_masked(other)

    run(body)


def check_round_trip_without(buffer: moelink.Buffer, masked: set[int]) -> None:
    """Ranks 0 and 1 have masked each other."""
    is_cut = np.zeros((NUM_RANKS, NUM_RANKS), bool)
    is_cut[0, 1] = is_cut[1, 0] = True
    call = Call(NUM_EXPERTS, MAX_TOKENS, is_cut=is_cut)
    sent = all_sent()
    received = reference.dispatch(sent, call)
    expected = reference.combine([one.x for one in received], received, sent, call)[buffer.rank]
    result = dispatch(buffer)
    for peer in masked:
        assert not (result.handle.layout_range[:, peer] & 0xFFFFFFFF).any()
    assert_same_bits(combine(buffer, result), expected, "combined_x")


@pytest.mark.parametrize("peer", [-1, NUM_RANKS])
def test_masking_a_rank_that_does_not_exist_is_refused(peer: int):
    def body(group: moelink.Group) -> None:
        with moelink.Buffer(group) as buffer:
            buffer.mask_rank(peer)

    for error in errors_of(NUM_RANKS, body):
        assert error is not None
        assert error.code is INVALID
