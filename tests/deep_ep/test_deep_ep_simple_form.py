"""The simple form: dispatch(x, topk_idx) and combine(y, handle)."""

import deep_ep
import pytest
import torch
from deep_ep_ranks import in_rank, layout_arguments, routing_of, run


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (4, 2)])
def test_simple_form_runs_as_printed(shape: tuple[int, int]):
    def body(buffer: deep_ep.Buffer):
        routing = routing_of(buffer.rank, shape[0])
        recv_x, handle = buffer.dispatch(routing.x, routing.topk_idx)
        combined_x = buffer.combine(recv_x * 2, handle)
        num_copies = in_rank(routing.topk_idx, shape[0]).sum(dim=1, keepdim=True)
        torch.testing.assert_close(combined_x, routing.x * 2 * num_copies, rtol=0.02, atol=0.02)

    run(shape, body, hidden_bytes=256 * 2, num_experts=shape[0] * 4)


def test_simple_form_gives_the_rows_of_the_full_form():
    def body(buffer: deep_ep.Buffer):
        routing = routing_of(buffer.rank, 3)
        simple = buffer.dispatch(
            routing.x, topk_idx=routing.topk_idx, topk_weights=routing.topk_weights, num_experts=12
        )
        arguments = layout_arguments(buffer, routing.topk_idx)
        arguments |= {"topk_idx": routing.topk_idx, "topk_weights": routing.topk_weights}
        full = buffer.dispatch(routing.x, **arguments)
        assert torch.equal(simple.recv_x, full[0])
        assert torch.equal(simple.recv_topk_idx, full[1])
        assert torch.equal(simple.recv_topk_weights, full[2])
        assert list(simple.num_recv_tokens_per_expert) == full[3]
        again, _ = buffer.dispatch(routing.x, handle=simple.handle)
        assert torch.equal(again, full[0])

    run((3, 1), body)


def test_one_expert_per_rank_is_the_default():
    def body(buffer: deep_ep.Buffer):
        x = torch.full((2, 16), float(buffer.rank))
        topk_idx = torch.tensor([[0], [1]])
        recv_x, _ = buffer.dispatch(x, topk_idx)
        assert recv_x[:, 0].tolist() == [0.0, 1.0]

    run((2, 1), body)
