"""Gradients of moelink.torch equal those of the same computation in one process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import moelink  # noqa: E402
import moelink.torch as mt  # noqa: E402

NUM_LOCAL_EXPERTS = 3
WIDTH = 16
LAYOUTS = ("compact", "expert_major")


def run_ranks(num_ranks: int, job: Callable[[Any], Any]) -> list[Any]:
    """Results of `job(buffer)` on ranks that are threads; raises what the first rank raised."""
    results: list[Any] = [None] * num_ranks
    errors: list[BaseException] = []

    def run(rank: int, group: Any) -> None:
        try:
            with moelink.Buffer(group, num_experts=num_ranks * NUM_LOCAL_EXPERTS) as buffer:
                results[rank] = job(buffer)
        except BaseException as error:
            errors.append(error)

    groups = moelink.Group.threads(num_ranks, timeout=30)
    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(groups)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


@dataclass
class Tokens:
    """Inputs of one rank."""

    x: Any
    topk_idx: Any
    topk_weights: Any


def make_tokens(rank: int, num_ranks: int, num_tokens: int, num_topk: int = 4) -> Tokens:
    """Random tokens; some selections are absent, some name an expert twice."""
    generator = torch.Generator().manual_seed(100 * num_ranks + rank)
    num_experts = num_ranks * NUM_LOCAL_EXPERTS
    topk_idx = torch.randint(-1, num_experts, (num_tokens, num_topk), generator=generator)
    return Tokens(
        torch.randn(num_tokens, WIDTH, generator=generator),
        topk_idx,
        torch.rand(num_tokens, num_topk, generator=generator),
    )


def make_expert_weights(num_experts: int) -> Any:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(num_experts, WIDTH, WIDTH, generator=generator) / WIDTH**0.5


def require_gradients(*tensors: Any) -> list[Any]:
    return [tensor.clone().requires_grad_() for tensor in tensors]


def run_local_experts(received: Any, weights: Any) -> Any:
    """Weighted outputs of the experts of one rank, row by row, in either layout."""
    if received.recv_topk_idx is None:
        groups = received.recv_x.split(received.num_recv_tokens_per_expert)
        outputs = [torch.tanh(rows @ weights[e]) for e, rows in enumerate(groups)]
        return torch.cat(outputs) * received.recv_topk_weights[:, None]
    total = torch.zeros_like(received.recv_x)
    for e in range(NUM_LOCAL_EXPERTS):
        share = torch.where(received.recv_topk_idx == e, received.recv_topk_weights, 0).sum(1)
        total = total + torch.tanh(received.recv_x @ weights[e]) * share[:, None]
    return total


def dense_layer(tokens: Tokens, weights: Any) -> Any:
    """The same layer in one process: every expert sees every token."""
    total = torch.zeros_like(tokens.x)
    for e in range(len(weights)):
        share = torch.where(tokens.topk_idx == e, tokens.topk_weights, 0).sum(1)
        total = total + torch.tanh(tokens.x @ weights[e]) * share[:, None]
    return total


def loss_of(y: Any) -> Any:
    """A loss whose gradient differs in every element."""
    return (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum() + (y**2).sum()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("alignment", [1, 8])
def test_gradients_of_a_layer_equal_the_dense_ones(
    num_ranks: int, layout: str, alignment: int
) -> None:
    num_tokens = [5 + 4 * rank for rank in range(num_ranks)]
    num_tokens[-1] = 0 if num_ranks > 1 else 9  # one rank is idle
    all_weights = make_expert_weights(num_ranks * NUM_LOCAL_EXPERTS)

    def job(buffer: Any) -> Any:
        rank = buffer.rank
        tokens = make_tokens(rank, num_ranks, num_tokens[rank])
        mine = slice(rank * NUM_LOCAL_EXPERTS, (rank + 1) * NUM_LOCAL_EXPERTS)
        x, topk_weights, weights = require_gradients(
            tokens.x, tokens.topk_weights, all_weights[mine]
        )
        received = mt.dispatch(
            buffer, x, tokens.topk_idx, topk_weights, layout=layout, expert_alignment=alignment
        )
        y = mt.combine(buffer, run_local_experts(received, weights), received.handle)
        loss_of(y).backward()
        return y.detach(), x.grad, topk_weights.grad, weights.grad

    results = run_ranks(num_ranks, job)
    (weights,) = require_gradients(all_weights)
    for rank, (y, grad_x, grad_topk_weights, _) in enumerate(results):
        tokens = make_tokens(rank, num_ranks, num_tokens[rank])
        x, topk_weights = require_gradients(tokens.x, tokens.topk_weights)
        expected = dense_layer(Tokens(x, tokens.topk_idx, topk_weights), weights)
        loss_of(expected).backward()
        torch.testing.assert_close(y, expected.detach(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(grad_x, x.grad, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(grad_topk_weights, topk_weights.grad, rtol=1e-5, atol=1e-5)
    grad_weights = torch.cat([result[3] for result in results])
    torch.testing.assert_close(grad_weights, weights.grad, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradient_of_a_pure_permutation_is_exact(layout: str, dtype: Any) -> None:
    """One selection per token and idle experts: gradients come back as they were sent."""

    def job(buffer: Any) -> Any:
        tokens = make_tokens(buffer.rank, 4, 33, num_topk=1)
        topk_idx = tokens.topk_idx.clamp(min=0)
        x = tokens.x.to(dtype).requires_grad_()
        received = mt.dispatch(buffer, x, topk_idx, layout=layout)
        y = mt.combine(buffer, received.recv_x, received.handle)
        gradient = torch.randn(y.shape, generator=torch.Generator().manual_seed(buffer.rank))
        y.backward(gradient.to(dtype))
        return x.detach(), y.detach(), x.grad, gradient.to(dtype)

    for x, y, grad_x, gradient in run_ranks(4, job):
        assert grad_x.dtype == dtype
        assert torch.equal(x, y)
        assert torch.equal(grad_x, gradient)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_dispatch_gradient_counts_the_copies_of_a_token(layout: str) -> None:
    def job(buffer: Any) -> Any:
        tokens = make_tokens(buffer.rank, 3, 11)
        (x,) = require_gradients(tokens.x)
        mt.dispatch(buffer, x, tokens.topk_idx, layout=layout).recv_x.sum().backward()
        return tokens.topk_idx, x.grad

    for topk_idx, grad_x in run_ranks(3, job):
        if layout == "expert_major":
            copies = (topk_idx >= 0).sum(1)
        else:
            ranks = torch.where(topk_idx >= 0, topk_idx // NUM_LOCAL_EXPERTS, -1)
            copies = torch.stack([(ranks == rank).any(1) for rank in range(3)]).sum(0)
        assert torch.equal(grad_x, copies[:, None].float().expand_as(grad_x))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("route", ["fresh", "repeated"])
def test_weights_that_stay_zero_pass_no_gradient(layout: str, route: str) -> None:
    """Selections of other ranks arrive as the constant 0, also where their gradient is not 0."""

    def job(buffer: Any) -> Any:
        tokens = make_tokens(buffer.rank, 3, 11)
        x, weights = require_gradients(tokens.x, tokens.topk_weights)
        received = mt.dispatch(buffer, x, tokens.topk_idx, weights, layout=layout)
        if route == "repeated":
            received = mt.dispatch(buffer, x, topk_weights=weights, handle=received.handle)
        received.recv_topk_weights.sum().backward()
        return tokens.topk_idx, weights.grad

    for topk_idx, grad_weights in run_ranks(3, job):
        assert torch.equal(grad_weights, (topk_idx >= 0).float())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_combine_gradient_reaches_rows_weights_and_biases(layout: str) -> None:
    """combine is linear: its gradient is the transpose, <combine(v), g> = <v, gradient(g)>."""

    def job(buffer: Any) -> Any:
        generator = torch.Generator().manual_seed(buffer.rank)
        tokens = make_tokens(buffer.rank, 3, 10, num_topk=3)
        received = mt.dispatch(
            buffer, tokens.x, tokens.topk_idx, tokens.topk_weights, layout=layout
        )
        leaves = require_gradients(
            torch.randn(received.recv_x.shape, generator=generator),
            torch.randn(received.recv_topk_weights.shape, generator=generator),
            torch.randn(tokens.x.shape, generator=generator),
            torch.randn(tokens.x.shape, generator=generator),
        )
        rows, row_weights, *biases = leaves
        result = mt.combine(buffer, rows, received.handle, row_weights, bias=tuple(biases))
        sums = (result.combined_x, result.combined_topk_weights)
        gradients = [torch.randn(total.shape, generator=generator) for total in sums]
        torch.autograd.backward(sums, gradients)
        forward = sum((a * b).sum().item() for a, b in zip(sums, gradients, strict=True))
        backward = sum((leaf * leaf.grad).sum().item() for leaf in leaves)
        return forward, backward, gradients[0], biases

    results = run_ranks(3, job)
    assert sum(r[0] for r in results) == pytest.approx(sum(r[1] for r in results), abs=1e-3)
    for _, _, gradient, biases in results:
        assert all(torch.equal(bias.grad, gradient) for bias in biases)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_handle_serves_several_combines_and_dispatches(layout: str) -> None:
    def job(buffer: Any) -> Any:
        tokens = make_tokens(buffer.rank, 2, 12)
        x, other = require_gradients(tokens.x, tokens.x + 1)
        received = mt.dispatch(buffer, x, tokens.topk_idx, layout=layout)
        again = mt.dispatch(buffer, other, handle=received.handle)
        assert torch.equal(again.recv_x.detach()[:1], received.recv_x.detach()[:1] + 1)
        y = mt.combine(buffer, received.recv_x * 2, received.handle)
        z = mt.combine(buffer, received.recv_x + again.recv_x, received.handle)
        (y + 3 * z).sum().backward()
        copies = mt.combine(buffer, torch.ones_like(received.recv_x), received.handle)
        return x.grad, other.grad, copies

    for grad_x, grad_other, copies in run_ranks(2, job):
        assert torch.equal(grad_x, 5 * copies)
        assert torch.equal(grad_other, 3 * copies)


@pytest.mark.parametrize("guard", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_forward_without_gradients_equals_the_buffer_itself(layout: str, guard: Any) -> None:
    def job(buffer: Any) -> None:
        tokens = make_tokens(buffer.rank, 2, 9)
        with guard():
            x = tokens.x.clone().requires_grad_(guard is torch.no_grad)
            received = mt.dispatch(buffer, x, tokens.topk_idx, tokens.topk_weights, layout=layout)
            y = mt.combine(buffer, received.recv_x, received.handle)
        plain = buffer.dispatch(tokens.x, tokens.topk_idx, tokens.topk_weights, layout=layout)
        assert not received.recv_x.requires_grad
        assert not y.requires_grad
        assert torch.equal(received.recv_x, plain.recv_x)
        assert torch.equal(received.recv_topk_weights, plain.recv_topk_weights)
        assert received.num_recv_tokens_per_expert == plain.num_recv_tokens_per_expert
        assert torch.equal(y, buffer.combine(plain.recv_x, plain.handle))

    run_ranks(2, job)


def test_gradient_without_tokens_anywhere_is_empty() -> None:
    def job(buffer: Any) -> Any:
        tokens = make_tokens(buffer.rank, 2, 0)
        x, weights = require_gradients(tokens.x, tokens.topk_weights)
        recv_x, handle = mt.dispatch(buffer, x, tokens.topk_idx, weights)
        mt.combine(buffer, recv_x, handle).sum().backward()
        return x.grad, weights.grad

    for grad_x, grad_weights in run_ranks(2, job):
        assert grad_x.shape == (0, WIDTH)
        assert grad_weights.shape == (0, 4)


def test_inputs_that_are_not_contiguous_are_accepted() -> None:
    def job(buffer: Any) -> Any:
        tokens = make_tokens(buffer.rank, 2, 7)
        x = tokens.x.repeat_interleave(2, dim=0).requires_grad_()
        received = mt.dispatch(buffer, x[::2], tokens.topk_idx.T.contiguous().T)
        y = mt.combine(buffer, received.recv_x[:, :].T.contiguous().T, received.handle)
        y.sum().backward()  # an expanded gradient
        return y.detach(), tokens.x * x.grad[::2], x.grad[1::2]

    for y, expected, untouched in run_ranks(2, job):
        torch.testing.assert_close(y, expected)
        assert not untouched.any()


def test_half_precision_weights_get_half_precision_gradients() -> None:
    def job(buffer: Any) -> Any:
        tokens = make_tokens(buffer.rank, 2, 7)
        weights = tokens.topk_weights.bfloat16().requires_grad_()
        received = mt.dispatch(buffer, tokens.x.bfloat16(), tokens.topk_idx, weights)
        assert received.recv_topk_weights.dtype == torch.float32
        received.recv_topk_weights.sum().backward()
        return tokens.topk_idx, weights.grad

    for topk_idx, gradient in run_ranks(2, job):
        assert torch.equal(gradient, (topk_idx >= 0).bfloat16())


def test_second_derivative_flows_through_both_exchanges() -> None:
    def job(buffer: Any) -> Any:
        tokens = make_tokens(buffer.rank, 2, 6)
        (x,) = require_gradients(tokens.x)
        received = mt.dispatch(buffer, x, tokens.topk_idx)
        y = mt.combine(buffer, received.recv_x**3, received.handle)
        (gradient,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        gradient.sum().backward()
        copies = buffer.combine(torch.ones_like(received.recv_x), received.handle)
        return x.grad, 6 * tokens.x * copies

    for second, expected in run_ranks(2, job):
        torch.testing.assert_close(second, expected)


@pytest.mark.parametrize("x", [torch.ones(2, 16, dtype=torch.int32), None, (1, 2)])
def test_dispatch_refuses_rows_that_have_no_gradient(x: Any) -> None:
    with pytest.raises(TypeError, match="expected a float32, bfloat16 or float16 tensor"):
        mt.dispatch(None, x, torch.zeros(2, 1, dtype=torch.int64))


def test_dispatch_refuses_options_that_autograd_cannot_honour() -> None:
    with pytest.raises(TypeError, match="num_worst_tokens"):
        mt.dispatch(None, torch.ones(2, 16), None, num_worst_tokens=8)
