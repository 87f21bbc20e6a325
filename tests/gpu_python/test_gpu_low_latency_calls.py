"""Hooks, events, zero copy, statistics and refusals of the low latency calls on GPU tensors."""

import time
from typing import Any

import moelink
import numpy as np
import pytest
import torch
from gpu_ranks import DEVICE, RankPool
from low_latency_cases import (
    Round,
    Shape,
    current_stream,
    delay,
    open_low_latency,
    refusal,
    same,
    synchronize,
)

pytestmark = pytest.mark.any_device


def hooked_round(buffer: moelink.Buffer, one: Round, numerics: str) -> None:
    result = one.dispatch(buffer, return_hook=True)
    assert result.hook is not None
    result.hook()
    one.check_received(result)
    combined = one.combine(buffer, result, numerics=numerics, return_hook=True)
    combined.hook()
    one.check_combined(combined.combined_x, numerics)


def hooks(group: moelink.Group, fp8: str | None) -> None:
    one = Round(group, fp8=fp8)
    with open_low_latency(group) as buffer:
        for numerics in ("exact", "pre_reduced", "exact"):
            hooked_round(buffer, one, numerics)


@pytest.mark.parametrize("fp8", [None, "float32"])
def test_hooks_receive(pool: RankPool, fp8: str | None):
    pool.run(hooks, fp8, num_ranks=3)


def two_outstanding(group: moelink.Group, is_reversed: bool) -> None:
    """A third is refused, and the two go on."""
    rounds = [Round(group, salt=salt) for salt in range(3)]
    with open_low_latency(group) as buffer:
        for _ in range(3):
            results = [one.dispatch(buffer, return_hook=True) for one in rounds[:2]]
            text = refusal(lambda: rounds[2].dispatch(buffer))
            assert "outstanding" in text, text
            receive(buffer, results, is_reversed)
            for one, result in zip(rounds, results, strict=False):
                one.check_received(result)
            combines = [
                one.combine(buffer, result, return_hook=True)
                for one, result in zip(rounds, results, strict=False)
            ]
            receive(buffer, combines, is_reversed)
            for one, result in zip(rounds, combines, strict=False):
                one.check_combined(result.combined_x)


def receive(buffer: moelink.Buffer, results: list[Any], is_reversed: bool) -> None:
    """Rank 0 in another order, with time for its peers to run ahead; or in order if refused."""
    if is_reversed and buffer.rank == 0:
        try:
            results[1].hook()
            results = results[:1]
        except moelink.Error as error:
            assert error.code is moelink.ErrorCode.INVALID_ARGUMENT, error
        time.sleep(0.05)
    for result in results:
        result.hook()


@pytest.mark.parametrize("order", ["in_order", "reversed"])
def test_two_operations_may_be_outstanding(pool: RankPool, order: str):
    pool.run(two_outstanding, order == "reversed", num_ranks=3)


def hook_called_twice(group: moelink.Group) -> None:
    one = Round(group)
    with open_low_latency(group) as buffer:
        result = one.dispatch(buffer, return_hook=True)
        result.hook()
        assert "called twice" in refusal(result.hook)
        combined = one.combine(buffer, result, return_hook=True)
        combined.hook()
        assert "called twice" in refusal(combined.hook)
        one.check_round_trip(buffer)
        last = one.dispatch(buffer, return_hook=True)
    assert "closed" in refusal(last.hook)


def test_a_hook_is_called_once(pool: RankPool):
    pool.run(hook_called_twice, num_ranks=2)


def late_inputs(group: moelink.Group) -> None:
    """Calls and hooks run in the order of the stream that was current at the call."""
    one = Round(group)
    stream = torch.cuda.Stream()
    with open_low_latency(group) as buffer:
        one.check_round_trip(buffer)  # the first call of a shape waits for the peers
        stream.wait_stream(torch.cuda.default_stream())
        with torch.cuda.stream(stream):
            x = torch.zeros_like(one.x)
            delay()
            good, one.x = one.x, x.copy_(one.x)
            result = one.dispatch(buffer, return_hook=True)
        del good
        result.hook()  # on the stream of the call, not on the one that is current here
        with torch.cuda.stream(stream):
            combined = one.combine(buffer, result)
            assert not stream.query(), "the host has waited"
            one.check_received(result)
            one.check_combined(combined)
        torch.cuda.current_stream().wait_stream(stream)


@pytest.mark.skipif(DEVICE == "cpu", reason="the CPU has no streams")
def test_calls_run_in_the_order_of_their_stream(pool: RankPool):
    pool.run(late_inputs, num_ranks=3)


def asynchronous_calls(group: moelink.Group) -> None:
    one = Round(group, fp8="float32")
    good = one.x
    with open_low_latency(group) as buffer:
        for _ in range(3):
            one.x = torch.zeros_like(good)
            delay()
            one.x.copy_(good)
            ready = moelink.Event()
            if DEVICE == "cuda":
                ready = moelink.Event.record(torch.cuda.current_device(), current_stream())
            delay()  # later work is no matter of the dispatch
            result = one.dispatch(buffer, previous_event=ready, async_finish=True)
            one.x = good
            combined = one.combine(buffer, result, previous_event=result.event, async_finish=True)
            assert result.hook is None and combined.hook is None
            combined.event.wait_on(current_stream())
            one.check_combined(combined.combined_x)
            result.event.wait()
            assert not result.event.pending
            one.check_received(result)


def test_asynchronous_calls_follow_their_events(pool: RankPool):
    pool.run(asynchronous_calls, num_ranks=3)


def zero_copy(group: moelink.Group, numerics: str) -> None:
    one, other = Round(group), Round(group, salt=5)
    with open_low_latency(group) as buffer:
        for num_before in (0, 1, 2):
            for _ in range(num_before):
                other.dispatch(buffer)
            result = one.dispatch(buffer)
            area = buffer.low_latency_combine_buffer(result.handle)
            assert (area.shape, area.dtype) == (one.rows.shape, torch.bfloat16)
            area.copy_(one.rows)
            combined = one.combine(buffer, result, x=area, zero_copy=True, numerics=numerics)
            one.check_combined(combined, numerics)
        assert "stale" in refusal(lambda: one.combine(buffer, result, zero_copy=True))
        one.check_round_trip(buffer)


@pytest.mark.parametrize("numerics", ["exact", "pre_reduced"])
def test_zero_copy_combines_send_the_combine_buffer(pool: RankPool, numerics: str):
    pool.run(zero_copy, numerics, num_ranks=3)


def outputs_of_the_caller(group: moelink.Group) -> None:
    one = Round(group)
    with open_low_latency(group) as buffer:
        for options in ({}, {"return_hook": True}, {"async_finish": True}):
            out = torch.full_like(one.x, float("nan"))
            combined = one.combine(buffer, one.dispatch(buffer), out=out, **options)
            if options:
                assert combined.combined_x is out
                if combined.hook is not None:
                    combined.hook()
                else:
                    combined.event.wait()
            else:
                assert combined is out
            one.check_combined(out)


def test_out_is_written_and_returned(pool: RankPool):
    pool.run(outputs_of_the_caller, num_ranks=3)


def statistics(group: moelink.Group, layout: str) -> None:
    one = Round(group, layout=layout)
    num_local = one.call.num_experts // group.num_ranks
    stats = torch.full((num_local,), 5, dtype=torch.int32, device=DEVICE)
    costs = [torch.zeros(group.num_ranks, dtype=torch.int64, device=DEVICE) for _ in range(2)]
    added = one.expected.count if layout == "per_expert" else np.zeros(num_local, np.int32)
    with open_low_latency(group) as buffer:
        one.check_round_trip(buffer)
        for i in range(1, 4):
            group.barrier()
            if group.rank == 0:
                time.sleep(0.05)
            result = one.dispatch(buffer, recv_stats=stats, wait_cost=costs[0])
            synchronize()
            group.barrier()
            if group.rank == 0:
                time.sleep(0.05)
            one.check_combined(one.combine(buffer, result, wait_cost=costs[1]))
            same(stats, 5 + i * added, f"recv_stats after {i}")
        for cost in costs:
            waited = cost.cpu()
            assert (waited >= 0).all() and (waited < 20_000_000_000).all(), waited
            if group.rank != 0:
                assert waited[0] > 3 * 20_000_000, f"waited {waited} ns for rank 0"


@pytest.mark.parametrize("layout", ["per_expert", "per_rank"])
def test_statistics_and_wait_costs_are_added_to(pool: RankPool, layout: str):
    pool.run(statistics, layout, num_ranks=3)


def wrong_calls(group: moelink.Group) -> None:
    one = Round(group)
    with open_low_latency(group) as buffer:
        result = one.dispatch(buffer)
        for complaint, options in {
            "exclude each other": {"return_hook": True, "async_finish": True},
            "wait_cost": {"wait_cost": torch.zeros(1, dtype=torch.int32, device=DEVICE)},
            "recv_stats": {"recv_stats": torch.zeros(99, dtype=torch.int32, device=DEVICE)},
            "topk_weights": {"topk_weights": one.topk_weights.double().float()[:, :1]},
            "'float32'": {"fp8": "fp4"},
        }.items():
            text = refusal(lambda: one.dispatch(buffer, **options))  # noqa: B023
            assert complaint in text and f"rank {group.rank}" in text, text
        for complaint, options in {
            "x is": {"x": one.rows[:, :-1]},
            "bfloat16": {"x": one.rows.float()},
            "out is": {"out": torch.zeros(99, 512, dtype=torch.bfloat16, device=DEVICE)},
        }.items():
            text = refusal(lambda: one.combine(buffer, result, **options))  # noqa: B023
            assert complaint in text, text
        one.check_round_trip(buffer)


def test_wrong_arguments_are_refused_and_the_buffer_stays_usable(pool: RankPool):
    pool.run(wrong_calls, num_ranks=2)


UNSUPPORTED = moelink.ErrorCode.UNSUPPORTED


def wrong_places(group: moelink.Group) -> None:
    one = Round(group)
    here = f"cuda:{torch.cuda.current_device()}"
    with open_low_latency(group) as buffer:
        result = one.dispatch(buffer)
        for name in ("recv_stats", "wait_cost"):
            host = torch.zeros(group.num_ranks, dtype=torch.int64)
            text = refusal(lambda: one.dispatch(buffer, **{name: host}), UNSUPPORTED)  # noqa: B023
            assert f"{name}: a torch.strided tensor on cpu" in text and here in text, text
        for name in ("x", "out"):
            host = torch.zeros_like(one.rows if name == "x" else one.x).cpu()
            text = refusal(lambda: one.combine(buffer, result, **{name: host}), UNSUPPORTED)  # noqa: B023
            assert f"{name}: a torch.strided tensor on cpu" in text, text
        one.check_round_trip(buffer)


@pytest.mark.skipif(DEVICE == "cpu", reason="needs tensors in two places")
def test_tensors_on_the_host_are_refused(pool: RankPool):
    pool.run(wrong_places, num_ranks=2)


def results_outlive_the_buffer(group: moelink.Group) -> None:
    one = Round(group, Shape(256), fp8="float32")
    with open_low_latency(group) as buffer:
        result = one.dispatch(buffer)
        combined = one.combine(buffer, result)
        for salt in range(1, 4):  # later calls leave them alone
            Round(group, Shape(256), salt, fp8="float32").check_round_trip(buffer)
    one.check_received(result)
    one.check_combined(combined)


def test_results_own_their_memory(pool: RankPool):
    pool.run(results_outlive_the_buffer, num_ranks=2)
