"""Random dispatches and combines agree with the plain NumPy reference, bit for bit."""

from dataclasses import replace

import moelink
import numpy as np
import pytest
from cases import PAYLOADS, REDUCIBLE, Case, assert_same_bits, cases, dtype_named, random_tensor
from hypothesis import given
from hypothesis import strategies as st
from moelink import reference
from moelink.reference import Received, Sent
from thread_ranks import run_threads


def run_case(case: Case, body):
    """Results of ``body(buffer)`` on every rank of the case."""

    def with_buffer(group: moelink.Group):
        with moelink.Buffer(group, num_experts=case.num_experts) as buffer:
            return body(buffer)

    return run_threads(case.num_ranks, with_buffer, num_nodes=case.num_nodes)


def dispatch(buffer: moelink.Buffer, case: Case, sent: Sent, **options) -> moelink.DispatchResult:
    x = sent.x if sent.scales is None else (sent.x, sent.scales)
    return buffer.dispatch(
        x,
        sent.topk_idx,
        sent.topk_weights,
        layout=case.layout,
        expert_alignment=case.alignment,
        **options,
    )


def check_received(actual: moelink.DispatchResult, expected: Received) -> None:
    """Filled rows agree in every bit, and so do padding rows and unused weights and indices."""
    values, scales = actual.recv_x if isinstance(actual.recv_x, tuple) else (actual.recv_x, None)
    assert_same_bits(values, expected.x, "recv_x")
    assert_same_bits(scales, expected.scales, "recv_scales")
    assert_same_bits(actual.recv_topk_idx, expected.topk_idx, "recv_topk_idx")
    assert_same_bits(actual.recv_topk_weights, expected.topk_weights, "recv_topk_weights")


def check_handle(handle: moelink.Routing, expected: Received) -> None:
    assert handle.num_recv_tokens == len(expected.src_rank)
    assert handle.num_recv_rows == len(expected.is_filled)
    assert_same_bits(handle.is_token_in_rank, expected.is_token_in_rank, "is_token_in_rank")
    assert_same_bits(handle.recv_src_token, expected.src_token, "recv_src_token")
    assert_same_bits(handle.rank_prefix_matrix, expected.rank_prefix_matrix, "rank_prefix_matrix")
    assert_same_bits(
        handle.recv_tokens_per_expert, expected.tokens_per_expert, "recv_tokens_per_expert"
    )
    if handle.layout == "expert_major":
        assert_same_bits(handle.recv_expert_row, expected.expert_row, "recv_expert_row")


@given(case=cases())
def test_query_layout_agrees_with_the_reference(case: Case):
    sent = case.sent()

    def body(buffer: moelink.Buffer):
        return buffer.query_layout(sent[buffer.rank].topk_idx)

    for rank, actual in enumerate(run_case(case, body)):
        topk_idx = sent[rank].topk_idx
        expected = reference.query_layout(
            topk_idx, case.num_ranks, case.num_experts, case.num_nodes
        )
        for name, tensor in vars(expected).items():
            assert_same_bits(getattr(actual, name), tensor, name)


@pytest.mark.parametrize("layout", ["compact", "expert_major"])
@given(case=cases())
def test_dispatch_agrees_with_the_reference(layout: str, case: Case):
    case = replace(case, layout=layout)
    sent = case.sent()
    expected = reference.dispatch(sent, case.num_experts, case.layout, case.alignment)
    stats = [np.full(case.num_local_experts, 7, np.int32) for _ in range(case.num_ranks)]

    def body(buffer: moelink.Buffer):
        return dispatch(buffer, case, sent[buffer.rank], recv_stats=stats[buffer.rank])

    for rank, actual in enumerate(run_case(case, body)):
        check_received(actual, expected[rank])
        check_handle(actual.handle, expected[rank])
        assert actual.num_recv_tokens_per_expert == expected[rank].num_tokens_per_expert
        assert_same_bits(stats[rank], expected[rank].tokens_per_expert + np.int32(7), "recv_stats")


@pytest.mark.parametrize("layout", ["compact", "expert_major"])
@given(case=cases(), spare_rows=st.integers(0, 20))
def test_worst_case_dispatch_agrees_with_the_reference(layout: str, case: Case, spare_rows: int):
    case = replace(case, layout=layout)
    sent = case.sent()
    exact = reference.dispatch(sent, case.num_experts, case.layout, case.alignment)
    num_rows = max(1, spare_rows + max(len(received.is_filled) for received in exact))
    expected = reference.dispatch(
        sent, case.num_experts, case.layout, case.alignment, num_worst_tokens=num_rows
    )

    def body(buffer: moelink.Buffer):
        return dispatch(buffer, case, sent[buffer.rank], num_worst_tokens=num_rows)

    for rank, actual in enumerate(run_case(case, body)):
        is_tail = np.arange(num_rows) >= len(exact[rank].is_filled)
        values, scales = (
            actual.recv_x if isinstance(actual.recv_x, tuple) else (actual.recv_x, None)
        )
        values[is_tail] = np.zeros(1, values.dtype)  # unspecified
        if scales is not None:
            scales[is_tail] = np.zeros(1, scales.dtype)
        check_received(actual, expected[rank])
        assert actual.num_recv_tokens_per_expert == []
        assert actual.handle.num_recv_rows == num_rows


@given(case=cases())
def test_dispatch_by_mask_agrees_with_the_reference(case: Case):
    sent = case.sent()
    for rank, rank_sent in enumerate(sent):
        shape = (case.num_tokens[rank], case.num_ranks)
        rank_sent.is_token_in_rank = case.rng(3, rank).random(shape) < 0.5
        if case.has_weights:  # else routed by the mask alone
            continue
        rank_sent.topk_idx = None
    expected = reference.dispatch(sent, case.num_experts, "compact", case.alignment)

    def body(buffer: moelink.Buffer):
        mine = sent[buffer.rank]
        x = mine.x if mine.scales is None else (mine.x, mine.scales)
        return buffer.dispatch(
            x,
            mine.topk_idx,
            mine.topk_weights,
            is_token_in_rank=mine.is_token_in_rank,
            expert_alignment=case.alignment,
        )

    for rank, actual in enumerate(run_case(case, body)):
        check_received(actual, expected[rank])
        assert_same_bits(actual.handle.recv_src_token, expected[rank].src_token, "recv_src_token")


@pytest.mark.parametrize("layout", ["compact", "expert_major"])
@given(case=cases(), other_dtype=st.sampled_from(PAYLOADS))
def test_cached_dispatch_agrees_with_the_reference(layout: str, case: Case, other_dtype: str):
    case = replace(case, layout=layout)
    sent = case.sent()
    handles = reference.dispatch(sent, case.num_experts, case.layout, case.alignment)
    again = [
        Sent(case.payload(rank, other_dtype, salt=1), topk_weights=sent[rank].topk_weights)
        for rank in range(case.num_ranks)
    ]
    expected = reference.dispatch_cached(again, handles)

    def body(buffer: moelink.Buffer):
        handle = dispatch(buffer, case, sent[buffer.rank]).handle
        mine = again[buffer.rank]
        return buffer.dispatch(mine.x, topk_weights=mine.topk_weights, handle=handle)

    for rank, actual in enumerate(run_case(case, body)):
        assert_same_bits(actual.recv_x, expected[rank].x, "recv_x")
        assert_same_bits(actual.recv_topk_weights, expected[rank].topk_weights, "weights")


@pytest.mark.parametrize("layout", ["compact", "expert_major"])
@pytest.mark.parametrize("dtype", REDUCIBLE)
@given(
    case=cases(),
    num_biases=st.integers(0, 2),
    is_symmetric=st.booleans(),
    has_out=st.booleans(),
)
def test_combine_agrees_with_the_reference(
    layout: str, dtype: str, case: Case, num_biases: int, is_symmetric: bool, has_out: bool
):
    case = replace(case, layout=layout)
    sent = case.sent()
    handles = reference.dispatch(sent, case.num_experts, case.layout, case.alignment)
    element = dtype_named(dtype)
    hidden = 8 * (1 + case.hidden % 40)
    shapes = [(len(handle.is_filled), hidden) for handle in handles]
    x = [random_tensor(case.rng(4, rank), shape, element) for rank, shape in enumerate(shapes)]
    biases = [
        [
            random_tensor(case.rng(5, rank, i), (case.num_tokens[rank], hidden), element)
            for i in range(num_biases)
        ]
        for rank in range(case.num_ranks)
    ]
    expected = reference.combine(x, handles, biases, case.num_nodes)

    def body(buffer: moelink.Buffer):
        rank = buffer.rank
        handle = dispatch(buffer, case, sent[rank]).handle
        mine = buffer.empty(x[rank].shape, element) if is_symmetric else x[rank].copy()
        mine[...] = x[rank]
        out = np.full(expected[rank].shape, 1, element) if has_out else None
        combined = buffer.combine(mine, handle, bias=biases[rank] or None, out=out)
        assert out is None or combined is out
        return combined

    for rank, actual in enumerate(run_case(case, body)):
        assert_same_bits(actual, expected[rank], f"combined_x of rank {rank}")


@pytest.mark.parametrize("layout", ["compact", "expert_major"])
@given(case=cases(dtypes=REDUCIBLE))
def test_combine_of_weights_agrees_with_the_reference(layout: str, case: Case):
    case = replace(case, layout=layout)
    sent = case.sent()
    topk_idx = [rank_sent.topk_idx for rank_sent in sent]
    handles = reference.dispatch(sent, case.num_experts, case.layout, case.alignment)
    weights = [
        case.rng(6, rank).random(
            (len(handle.is_filled), case.num_topk)
            if case.layout == "compact"
            else len(handle.is_filled),
            np.float32,
        )
        for rank, handle in enumerate(handles)
    ]
    expected = reference.combine_weights(weights, handles, topk_idx, case.num_nodes)

    def body(buffer: moelink.Buffer):
        received = dispatch(buffer, case, sent[buffer.rank])
        values = received.recv_x if sent[buffer.rank].scales is None else received.recv_x[0]
        return buffer.combine(values, received.handle, weights[buffer.rank])

    for rank, actual in enumerate(run_case(case, body)):
        assert_same_bits(actual.combined_topk_weights, expected[rank], "combined_topk_weights")
