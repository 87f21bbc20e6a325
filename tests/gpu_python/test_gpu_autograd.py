"""moelink.torch gives the same on a GPU as on the CPU."""

import moelink
import pytest
import torch
from gpu_cases import all_sent, open_buffer
from gpu_ranks import RankPool
from moelink.torch import combine, dispatch


def gradients(group: moelink.Group, device: str, layout: str) -> dict[str, torch.Tensor]:
    """A step through experts that scale rows, whose arithmetic is alike everywhere."""
    sent = all_sent(group.num_ranks)[group.rank]
    x = torch.from_numpy(sent.x).to(device).requires_grad_()
    weights = torch.from_numpy(sent.topk_weights).to(device).requires_grad_()
    with open_buffer(group, device) as buffer:
        received = dispatch(
            buffer, x, torch.from_numpy(sent.topk_idx).to(device), weights, layout=layout
        )
        rows = received.recv_x * 2
        combined = combine(buffer, rows, received.handle, received.recv_topk_weights)
        factor = torch.arange(combined.combined_x.shape[1], device=device, dtype=torch.float32)
        loss = (combined.combined_x * factor).sum() + combined.combined_topk_weights.sum()
        loss.backward()
        assert x.grad is not None and weights.grad is not None
        values = {"combined": combined.combined_x, "x": x.grad, "weights": weights.grad}
        return {name: value.detach().cpu() for name, value in values.items()}


def compare_devices(group: moelink.Group, layout: str) -> None:
    expected = gradients(group, "cpu", layout)
    for name, value in gradients(group, "cuda", layout).items():
        assert torch.equal(value, expected[name]), f"{name}: {value}, expected {expected[name]}"


@pytest.mark.parametrize("layout", ["compact", "expert_major"])
def test_a_training_step_is_the_same_as_on_the_cpu(ranks: RankPool, layout: str):
    ranks.run(compare_devices, layout)
