"""The normal mode: layout, dispatch, cached dispatch and combine, on one node and on two."""

from typing import Any

import deep_ep
import pytest
import torch
from deep_ep.utils.math import calc_diff, per_token_cast_back, per_token_cast_to_fp8
from deep_ep_ranks import (
    LOCAL_EXPERTS,
    ONE_NODE,
    TWO_NODES,
    in_rank,
    layout_arguments,
    routing_of,
    run,
)

EVERY_SHAPE = ONE_NODE + TWO_NODES
SOME_SHAPES = [(3, 1), (4, 2)]


def sent_rows(buffer: deep_ep.Buffer, field: str) -> torch.Tensor:
    """The rows that this rank must receive, by (source rank, token)."""
    parts = []
    for source in range(buffer.group_size):
        routing = routing_of(source, buffer.group_size)
        chosen = in_rank(routing.topk_idx, buffer.group_size)[:, buffer.rank]
        parts.append(getattr(routing, field)[chosen])
    return torch.cat(parts)


def local_ids(buffer: deep_ep.Buffer) -> torch.Tensor:
    ids = sent_rows(buffer, "topk_idx")
    is_local = (ids >= 0) & (ids // LOCAL_EXPERTS == buffer.rank)
    return torch.where(is_local, ids % LOCAL_EXPERTS, -1)


def rows_per_source(handle: tuple[Any, ...], buffer: deep_ep.Buffer) -> torch.Tensor:
    """Inclusive sums over source ranks, as the callers of DeepEP read them."""
    return handle[-4] if len(handle) == 10 else handle[0][:, buffer.rank]


@pytest.mark.parametrize("shape", EVERY_SHAPE)
def test_layout_counts_each_token_once_per_rank_and_node(shape: tuple[int, int]):
    def body(buffer: deep_ep.Buffer):
        num_ranks, num_nodes = shape
        topk_idx = routing_of(buffer.rank, num_ranks).topk_idx
        layout = layout_arguments(buffer, topk_idx)
        expected = in_rank(topk_idx, num_ranks)
        assert torch.equal(layout["is_token_in_rank"], expected)
        assert layout["num_tokens_per_rank"].tolist() == expected.sum(dim=0).tolist()
        selections = torch.bincount(topk_idx[topk_idx >= 0], minlength=num_ranks * LOCAL_EXPERTS)
        assert layout["num_tokens_per_expert"].tolist() == selections.tolist()
        if num_nodes == 1:
            assert layout["num_tokens_per_rdma_rank"] is None
        else:
            per_node = expected.view(-1, num_nodes, num_ranks // num_nodes).any(dim=2).sum(dim=0)
            assert layout["num_tokens_per_rdma_rank"].tolist() == per_node.tolist()

    run(shape, body)


@pytest.mark.parametrize("with_topk", [True, False])
@pytest.mark.parametrize("shape", EVERY_SHAPE)
def test_dispatch_returns_rows_by_source_rank_and_token(shape: tuple[int, int], with_topk: bool):
    def body(buffer: deep_ep.Buffer):
        routing = routing_of(buffer.rank, shape[0])
        topk: dict[str, Any] = {}
        if with_topk:
            topk = {"topk_idx": routing.topk_idx, "topk_weights": routing.topk_weights}
        arguments = layout_arguments(buffer, routing.topk_idx)
        recv_x, ids, weights, counts, handle, event = buffer.dispatch(
            routing.x, **arguments, **topk, expert_alignment=8
        )
        assert torch.equal(recv_x, sent_rows(buffer, "x"))
        expected_ids = local_ids(buffer)
        num_selected = [int((expected_ids == i).sum()) for i in range(LOCAL_EXPERTS)]
        assert counts == [-(-n // 8) * 8 for n in num_selected]
        assert len(handle) == (6 if shape[1] == 1 else 10)
        assert rows_per_source(handle, buffer)[-1] == recv_x.shape[0]
        assert event.event is None
        if not with_topk:
            assert ids is None and weights is None
            return
        assert torch.equal(ids, expected_ids)
        expected = torch.where(expected_ids >= 0, sent_rows(buffer, "topk_weights"), 0.0)
        assert torch.equal(weights, expected)

    run(shape, body)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("shape", EVERY_SHAPE)
def test_rank_constants_fill_the_rows_that_the_handle_names(shape: tuple[int, int], is_async: bool):
    def body(buffer: deep_ep.Buffer):
        topk_idx = routing_of(buffer.rank, shape[0]).topk_idx
        values, scales = per_token_cast_to_fp8(torch.full((48, 256), float(buffer.rank)).bfloat16())
        x = (values, scales.T.contiguous().T)  # column-major scales
        execution: dict[str, Any] = {}
        if is_async:
            execution = {
                "previous_event": deep_ep.Buffer.capture(),
                "async_finish": True,
                "allocate_on_comm_stream": True,
            }
        arguments = layout_arguments(buffer, topk_idx)
        recv_x, _, _, _, handle, event = buffer.dispatch(x, **arguments, **execution)
        assert (event.event is not None) is is_async
        if is_async:
            event.current_stream_wait()
        received = per_token_cast_back(*recv_x)
        ends = rows_per_source(handle, buffer).tolist()
        for source, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
            assert calc_diff(received[start:end], torch.full((end - start, 256), source)) < 1e-3

    run(shape, body)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("shape", EVERY_SHAPE)
def test_worst_tokens_give_the_same_rows_and_mark_the_others(
    shape: tuple[int, int], is_async: bool
):
    def body(buffer: deep_ep.Buffer):
        routing = routing_of(buffer.rank, shape[0])
        num_rows = 48 * shape[0]
        arguments = layout_arguments(buffer, routing.topk_idx)
        arguments |= {"topk_idx": routing.topk_idx, "topk_weights": routing.topk_weights}
        expected = buffer.dispatch(routing.x, **arguments)
        received = buffer.dispatch(
            routing.x, **arguments, num_worst_tokens=num_rows, async_finish=is_async
        )
        if is_async:
            received[5].current_stream_wait()
        num_used = expected[0].shape[0]
        for worst, exact in zip(received[:3], expected[:3], strict=True):
            assert worst.shape[0] == num_rows
            assert torch.equal(worst[:num_used], exact)
        assert (received[1][num_used:] == -1).all()
        assert received[3] == []
        ends = rows_per_source(received[4], buffer)
        assert torch.equal(ends, rows_per_source(expected[4], buffer))
        combined, _, _ = buffer.combine(received[0], received[4])
        assert torch.equal(combined, buffer.combine(expected[0], expected[4])[0])

    run(shape, body)


@pytest.mark.parametrize("shape", EVERY_SHAPE)
def test_combine_sums_the_copies_of_a_token_and_its_weights(shape: tuple[int, int]):
    def body(buffer: deep_ep.Buffer):
        routing = routing_of(buffer.rank, shape[0])
        arguments = layout_arguments(buffer, routing.topk_idx)
        arguments |= {"topk_idx": routing.topk_idx, "topk_weights": routing.topk_weights}
        recv_x, _, recv_weights, _, handle, _ = buffer.dispatch(routing.x, **arguments)
        combined, weights, event = buffer.combine(recv_x, handle, recv_weights)
        num_copies = in_rank(routing.topk_idx, shape[0]).sum(dim=1, keepdim=True)
        assert calc_diff(combined, routing.x * num_copies) < 5e-6
        expected = torch.where(routing.topk_idx >= 0, routing.topk_weights, 0.0)
        assert calc_diff(weights, expected) < 1e-9
        assert event.event is None

    run(shape, body)


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("shape", SOME_SHAPES)
def test_combine_starts_from_the_biases(shape: tuple[int, int], as_list: bool):
    def body(buffer: deep_ep.Buffer):
        routing = routing_of(buffer.rank, shape[0])
        biases = [torch.full_like(routing.x, 2.0), torch.full_like(routing.x, 0.5)]
        arguments = layout_arguments(buffer, routing.topk_idx)
        recv_x, _, _, _, handle, _ = buffer.dispatch(routing.x, **arguments)
        bias = biases if as_list else tuple(biases)
        combined, weights, _ = buffer.combine(recv_x, handle, bias=bias)
        num_copies = in_rank(routing.topk_idx, shape[0]).sum(dim=1, keepdim=True)
        assert weights is None
        assert (combined[0] == 2.5).all()
        assert calc_diff(combined.float() - 2.5, routing.x.float() * num_copies) < 5e-5

    run(shape, body)


@pytest.mark.parametrize("shape", EVERY_SHAPE)
def test_handles_serve_any_number_of_dispatches_also_as_other_tuples(shape: tuple[int, int]):
    def body(buffer: deep_ep.Buffer):
        routing = routing_of(buffer.rank, shape[0])
        arguments = layout_arguments(buffer, routing.topk_idx)
        recv_x, _, _, _, handle, _ = buffer.dispatch(routing.x, **arguments)
        expected = buffer.combine(recv_x, handle)[0]
        copied = handle[:3] + handle[3:]
        del handle
        for _ in range(3):
            again = buffer.dispatch(routing.x, handle=copied)
            assert torch.equal(again[0], recv_x)
            assert again[1:5] == (None, None, None, None)
            assert torch.equal(buffer.combine(again[0], copied)[0], expected)

    run(shape, body)


@pytest.mark.parametrize("shape", SOME_SHAPES)
def test_is_token_in_rank_drives_the_routing(shape: tuple[int, int]):
    def body(buffer: deep_ep.Buffer):
        routing = routing_of(buffer.rank, shape[0])
        arguments = layout_arguments(buffer, routing.topk_idx)
        to_last = torch.zeros((48, shape[0]), dtype=torch.bool)
        to_last[::2, -1] = True
        arguments["is_token_in_rank"] = to_last
        recv_x, _, _, _, handle, _ = buffer.dispatch(routing.x, **arguments)
        assert recv_x.shape[0] == (24 * shape[0] if buffer.rank == shape[0] - 1 else 0)
        combined = buffer.combine(recv_x, handle)[0]
        assert torch.equal(combined[::2], routing.x[::2])
        assert (combined[1::2] == 0).all()

    run(shape, body)


def test_internode_calls_do_what_dispatch_and_combine_do():
    def body(buffer: deep_ep.Buffer):
        routing = routing_of(buffer.rank, 4)
        config = deep_ep.Buffer.get_dispatch_config(16)
        arguments = layout_arguments(buffer, routing.topk_idx)
        arguments |= {"topk_idx": routing.topk_idx, "topk_weights": routing.topk_weights}
        expected = buffer.dispatch(routing.x, **arguments)
        received = buffer.internode_dispatch(routing.x, **arguments, config=config)
        assert torch.equal(received[0], expected[0])
        combined = buffer.internode_combine(received[0], received[4], config=config)[0]
        assert torch.equal(combined, buffer.combine(expected[0], expected[4])[0])
        with pytest.raises(ValueError, match="config is None"):
            buffer.internode_dispatch(routing.x, **arguments)

    run((4, 2), body)


@pytest.mark.parametrize("shape", SOME_SHAPES)
def test_repeated_runs_are_equal_bit_for_bit(shape: tuple[int, int]):
    def body(buffer: deep_ep.Buffer):
        routing = routing_of(buffer.rank, shape[0])
        arguments = layout_arguments(buffer, routing.topk_idx)
        first = None
        for _ in range(5):
            recv_x, _, _, _, handle, _ = buffer.dispatch(routing.x, **arguments)
            results = (recv_x.clone(), buffer.combine(recv_x, handle)[0])
            first = first or results
            assert all(torch.equal(a, b) for a, b in zip(results, first, strict=True))

    run(shape, body)


def test_ranks_without_tokens_take_part():
    def body(buffer: deep_ep.Buffer):
        num_tokens = 0 if buffer.rank == 1 else 5
        routing = routing_of(buffer.rank, 3, num_tokens)
        arguments = layout_arguments(buffer, routing.topk_idx)
        recv_x, _, _, _, handle, _ = buffer.dispatch(routing.x, **arguments)
        assert buffer.combine(recv_x, handle)[0].shape == (num_tokens, 256)

    run((3, 1), body)
