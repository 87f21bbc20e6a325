"""The reference itself, against results worked out by hand."""

import ml_dtypes
import numpy as np
import pytest
from moelink import reference
from moelink.reference import Sent


def two_ranks() -> list[Sent]:
    """Rank 0 has tokens 10, 11, 12; rank 1 has token 20. Two experts per rank."""
    first = Sent(
        np.array([[10], [11], [12]], np.int32),
        np.array([[0, 3], [1, 1], [-1, -1]]),
        np.array([[0.5, 0.25], [0.125, 1.0], [2.0, 4.0]], np.float32),
    )
    second = Sent(
        np.array([[20]], np.int32), np.array([[2, 1]]), np.array([[8.0, 16.0]], np.float32)
    )
    return [first, second]


def test_query_layout_counts_ranks_once_and_experts_per_selection():
    layout = reference.query_layout(two_ranks()[0].topk_idx, 2, 4, num_nodes=2)
    assert layout.num_tokens_per_rank.tolist() == [2, 1]
    assert layout.num_tokens_per_node.tolist() == [2, 1]
    assert layout.num_tokens_per_expert.tolist() == [1, 2, 0, 1]
    assert layout.is_token_in_rank.tolist() == [[True, True], [True, False], [False, False]]


def test_compact_dispatch_orders_rows_by_source_rank_and_token():
    received = reference.dispatch(two_ranks(), num_experts=4)
    assert received[0].x[:, 0].tolist() == [10, 11, 20]
    assert received[0].topk_idx.tolist() == [[0, -1], [1, 1], [-1, 1]]
    assert received[0].topk_weights.tolist() == [[0.5, 0.0], [0.125, 1.0], [0.0, 16.0]]
    assert received[0].num_tokens_per_expert == [1, 3]
    assert received[1].x[:, 0].tolist() == [10, 20]
    assert received[1].rank_prefix_matrix.tolist() == [[2, 1], [3, 2]]


def test_expert_major_dispatch_groups_and_pads_rows():
    received = reference.dispatch(two_ranks(), 4, "expert_major", expert_alignment=4)
    assert received[0].x[:, 0].tolist() == [10, 0, 0, 0, 11, 11, 20, 0]
    assert received[0].topk_weights.tolist() == [0.5, 0, 0, 0, 0.125, 1.0, 16.0, 0]
    assert received[0].num_tokens_per_expert == [4, 4]
    assert received[0].tokens_per_expert.tolist() == [1, 3]
    assert received[0].expert_row.tolist() == [[0, -1], [4, 5], [-1, 6]]


def test_cached_dispatch_keeps_the_placement():
    handles = reference.dispatch(two_ranks(), 4, "expert_major", expert_alignment=2)
    others = [Sent(np.array([[1.5], [2.5], [3.5]])), Sent(np.array([[9.5]]))]
    received = reference.dispatch_cached(others, handles)
    assert received[0].x[:, 0].tolist() == [1.5, 0, 2.5, 2.5, 9.5, 0]
    assert received[1].x[:, 0].tolist() == [9.5, 0, 1.5, 0]


def test_worst_case_dispatch_fills_the_tail():
    received = reference.dispatch(two_ranks(), 4, num_worst_tokens=5)
    assert received[0].x.shape == (5, 1)
    assert received[0].topk_idx[3:].tolist() == [[-1, -1], [-1, -1]]
    assert received[0].num_tokens_per_expert == []
    with pytest.raises(ValueError, match="expected at least 3"):
        reference.dispatch(two_ranks(), 4, num_worst_tokens=2)


def test_combine_sums_each_token_over_its_ranks_from_the_bias():
    handles = reference.dispatch(two_ranks(), 4)
    x = [np.array([[1], [2], [4]], np.float32), np.array([[8], [16]], np.float32)]
    bias = [np.full((3, 1), 100, np.float32)], [np.zeros((1, 1), np.float32)]
    combined = reference.combine(x, handles, bias)
    assert combined[0][:, 0].tolist() == [109, 102, 100]
    assert combined[1][:, 0].tolist() == [20]


def test_combine_rounds_once_per_level():
    one_token = Sent(np.zeros((1, 1), np.float32), np.array([[0, 1, 2, 3]]))
    silent = Sent(np.zeros((0, 1), np.float32), np.zeros((0, 4), np.int64))
    handles = reference.dispatch([one_token, silent, silent, silent], 4)
    # bfloat16 has 8 significant bits: 256 + 1 rounds to 256, 256 + 2 is exact.
    x = [np.array([[value]], ml_dtypes.bfloat16) for value in (256, 1, 1, 1)]
    assert reference.combine(x, handles)[0][0, 0] == 260
    assert reference.combine(x, handles, num_nodes=2)[0][0, 0] == 258


def test_combine_weights_returns_each_selection():
    sent = two_ranks()
    topk_idx = [rank_sent.topk_idx for rank_sent in sent]
    compact = reference.dispatch(sent, 4)
    weights = reference.combine_weights([r.topk_weights for r in compact], compact, topk_idx)
    assert weights[0].tolist() == [[0.5, 0.25], [0.125, 1.0], [0.0, 0.0]]
    expanded = reference.dispatch(sent, 4, "expert_major", expert_alignment=8)
    weights = reference.combine_weights([r.topk_weights for r in expanded], expanded, topk_idx)
    assert weights[0].tolist() == [[0.5, 0.25], [0.125, 1.0], [0.0, 0.0]]
    assert weights[1].tolist() == [[8.0, 16.0]]
