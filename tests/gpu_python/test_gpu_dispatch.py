"""moelink on GPU tensors agrees bit for bit with the reference."""

from typing import Any

import moelink
import numpy as np
import pytest
import torch
from gpu_cases import all_sent, assert_same, on_gpu, open_buffer
from gpu_ranks import RankPool
from moelink import reference


def check_received(result: Any, expected: reference.Received, what: str) -> None:
    """Unused rows have an unspecified payload."""
    values, scales = result.recv_x if isinstance(result.recv_x, tuple) else (result.recv_x, None)
    filled = torch.from_numpy(expected.is_filled).cuda()
    assert_same(values[filled], expected.x[expected.is_filled], f"{what}: recv_x")
    if scales is not None:
        assert_same(scales[filled], expected.scales[expected.is_filled], f"{what}: recv_scales")
    assert_same(result.recv_topk_idx, expected.topk_idx, f"{what}: recv_topk_idx")
    assert_same(result.recv_topk_weights, expected.topk_weights, f"{what}: recv_topk_weights")
    counts = result.num_recv_tokens_per_expert
    assert counts == expected.num_tokens_per_expert, f"{what}: {counts}"


def check_handle(handle: moelink.Routing, expected: reference.Received, what: str) -> None:
    assert_same(handle.is_token_in_rank, expected.is_token_in_rank, f"{what}: is_token_in_rank")
    assert_same(handle.recv_src_token, expected.src_token, f"{what}: recv_src_token")
    assert_same(handle.rank_prefix_matrix, expected.rank_prefix_matrix, f"{what}: prefix")
    assert_same(handle.recv_tokens_per_expert, expected.tokens_per_expert, f"{what}: per expert")
    assert handle.num_recv_tokens == len(expected.src_token), what


def gpu_arguments(sent: reference.Sent, dtype: str, index_dtype: str = "int64") -> tuple[Any, ...]:
    """x, with scales in column-major order if it is FP8, topk_idx and topk_weights."""
    x: Any = on_gpu(sent.x, dtype)
    if dtype == "float8_e4m3fn":
        x = (x, on_gpu(sent.scales).t().contiguous().t())
    return x, on_gpu(sent.topk_idx.astype(index_dtype)), on_gpu(sent.topk_weights)


def dispatch_of_every_kind(group: moelink.Group, layout: str, dtype: str) -> None:
    sent = all_sent(group.num_ranks, dtype)
    with open_buffer(group) as buffer:
        for alignment, worst in ((1, 0), (8, 0), (1, 500), (8, 500)):
            what = f"alignment {alignment}, num_worst_tokens {worst}"
            expected = reference.dispatch(sent, buffer.num_experts, layout, alignment, worst)
            options = {"expert_alignment": alignment, "num_worst_tokens": worst}
            result = buffer.dispatch(
                *gpu_arguments(sent[group.rank], dtype), layout=layout, **options
            )
            check_received(result, expected[group.rank], what)
            check_handle(result.handle, expected[group.rank], what)


@pytest.mark.parametrize("layout", ["compact", "expert_major"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float8_e4m3fn"])
def test_dispatch_equals_the_reference(ranks: RankPool, layout: str, dtype: str):
    ranks.run(dispatch_of_every_kind, layout, dtype)


def cached_dispatch(group: moelink.Group, layout: str) -> None:
    sent, fresh = all_sent(group.num_ranks), all_sent(group.num_ranks, "float8_e4m3fn", salt=1)
    with open_buffer(group) as buffer:
        first = reference.dispatch(sent, buffer.num_experts, layout)
        expected = reference.dispatch_cached(fresh, first)[group.rank]
        x, topk_idx, weights = gpu_arguments(sent[group.rank], "float32")
        handle = buffer.dispatch(x, topk_idx, weights, layout=layout).handle
        x, _, weights = gpu_arguments(fresh[group.rank], "float8_e4m3fn")
        result = buffer.dispatch(x, topk_weights=weights, handle=handle)
        filled = torch.from_numpy(expected.is_filled).cuda()
        for i, part in enumerate((expected.x, expected.scales)):
            assert_same(result.recv_x[i][filled], part[expected.is_filled], f"recv_x {i}")
        assert_same(result.recv_topk_weights, expected.topk_weights, "recv_topk_weights")


@pytest.mark.parametrize("layout", ["compact", "expert_major"])
def test_cached_dispatch_equals_the_reference(ranks: RankPool, layout: str):
    ranks.run(cached_dispatch, layout)


def combine_of_every_kind(group: moelink.Group, layout: str, dtype: str) -> None:
    sent = all_sent(group.num_ranks, dtype)
    rank = group.rank
    with open_buffer(group) as buffer:
        received = reference.dispatch(sent, buffer.num_experts, layout)
        rows = [(part.x * 3).astype(dtype) for part in received]
        biases = [[part.x, part.x[::-1].copy()] for part in sent]
        sums = reference.combine(rows, received, biases)
        weights = reference.combine_weights(
            [part.topk_weights for part in received], received, [part.topk_idx for part in sent]
        )
        result = buffer.dispatch(*gpu_arguments(sent[rank], dtype), layout=layout)
        bias = tuple(on_gpu(part) for part in biases[rank])
        out = torch.empty_like(bias[0])
        for given in (None, out):
            combined = buffer.combine(
                on_gpu(rows[rank]), result.handle, result.recv_topk_weights, bias=bias, out=given
            )
            assert given is None or combined.combined_x is given
            assert_same(combined.combined_x, sums[rank], "combined_x")
            assert_same(combined.combined_topk_weights, weights[rank], "combined_topk_weights")
        assert_same(
            buffer.combine(result.recv_x, result.handle),
            reference.combine([part.x for part in received], received)[rank],
            "combined in place",
        )


@pytest.mark.parametrize("layout", ["compact", "expert_major"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_combine_equals_the_reference(ranks: RankPool, layout: str, dtype: str):
    ranks.run(combine_of_every_kind, layout, dtype)


def layout_query(group: moelink.Group) -> None:
    sent = all_sent(group.num_ranks)[group.rank]
    with open_buffer(group) as buffer:
        expected = reference.query_layout(sent.topk_idx, group.num_ranks, buffer.num_experts)
        actual = buffer.query_layout(on_gpu(sent.topk_idx.astype(np.int32)))
        for name in vars(expected):
            assert_same(getattr(actual, name), getattr(expected, name), name)


def test_query_layout_equals_the_reference(ranks: RankPool):
    ranks.run(layout_query)
