"""Low latency calls that cannot be right: ranks that differ, bad ids, silent and dead ranks."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import moelink
import pytest
import torch
from gpu_ranks import DEVICE, RankPool
from low_latency_cases import Round, Shape, open_low_latency, same, synchronize

pytestmark = pytest.mark.any_device

TIMEOUT_S = 2.0
STAGE = re.compile("|".join(moelink.STAGES))


def fault_of(
    group: moelink.Group,
    step: Callable[[moelink.Buffer], Any],
    prepare: Callable[[moelink.Buffer], Any] | None = None,
) -> str:
    """How repeated steps end. On a GPU a later one, or a wait, tells what an earlier one met."""
    buffer = open_low_latency(group, timeout=TIMEOUT_S)
    text = "no error"
    try:
        if prepare is not None:
            prepare(buffer)
        group.barrier()
        for _ in range(3):
            step(buffer)
            synchronize()
    except moelink.Error as error:
        text = f"{error.code.name}: {error}"
        buffer.__exit__(type(error), error, None)
    group.barrier()
    return text


DIFFERENCES: dict[str, dict[str, Any]] = {
    "fp8": {"fp8": "float32"},
    "another fp8": {"fp8": "power_of_two"},
    "experts": {"num_experts": 24},
    "weights": {"topk_weights": None},
}


def differing_ranks(group: moelink.Group, name: str) -> str:
    one = Round(group, fp8="float32" if name == "another fp8" else None)
    odd = DIFFERENCES[name] if group.rank == 1 else {}
    return fault_of(
        group, lambda buffer: one.dispatch(buffer, **odd), lambda buffer: one.dispatch(buffer)
    )


@pytest.mark.parametrize("name", DIFFERENCES)
def test_ranks_that_differ_all_raise(pool: RankPool, name: str):
    for text in pool.run(differing_ranks, name, num_ranks=3):
        assert text.startswith("INVALID_ARGUMENT") and "differ" in text, text


def differing_shapes(group: moelink.Group) -> str:
    one = Round(group, Shape(max_tokens=8 + group.rank % 2))
    return fault_of(group, one.dispatch)


def test_ranks_whose_shapes_differ_all_raise(pool: RankPool):
    for text in pool.run(differing_shapes, num_ranks=3):
        assert text.startswith("INVALID_ARGUMENT") and "differ" in text, text


def bad_ids(group: moelink.Group, where: str) -> str:
    one = Round(group)
    bad = torch.full_like(one.topk_idx, one.call.num_experts)

    def step(buffer: moelink.Buffer) -> None:
        good = one.topk_idx
        if group.rank == 0 and where == "dispatch":
            one.topk_idx = bad
        result = one.dispatch(buffer)
        one.topk_idx = bad if group.rank == 0 and where == "combine" else good
        one.combine(buffer, result)
        one.topk_idx = good

    return fault_of(group, step, one.check_round_trip)


@pytest.mark.parametrize("where", ["dispatch", "combine"])
def test_ids_out_of_range_are_named_at_their_rank(pool: RankPool, where: str):
    text = pool.run(bad_ids, where, num_ranks=3)[0]
    assert text.startswith("INVALID_ARGUMENT") and "topk_idx" in text and "12" in text, text


def silent_rank(group: moelink.Group) -> str:
    """Rank 1 makes no call."""
    one = Round(group)
    if group.rank != 1:
        return fault_of(group, one.check_round_trip, one.check_round_trip)
    buffer = open_low_latency(group, timeout=TIMEOUT_S)
    one.check_round_trip(buffer)
    group.barrier()
    group.barrier()
    buffer.__exit__(TimeoutError, TimeoutError(), None)
    return ""


def test_a_silent_rank_is_named(pool: RankPool):
    texts = pool.run(silent_rank, num_ranks=3)
    for rank in (0, 2):
        text = texts[rank]
        assert text.startswith(("TIMEOUT", "PEER_LOST")), text
        assert STAGE.search(text), text
    assert any("TIMEOUT" in texts[rank] and "rank 1" in texts[rank] for rank in (0, 2)), texts


def without(group: moelink.Group, missing: int) -> Round:
    """What goes on among the others."""
    is_cut = torch.zeros(group.num_ranks, group.num_ranks, dtype=torch.bool).numpy()
    is_cut[missing, :] = is_cut[:, missing] = True
    return Round(group, is_cut=is_cut)


def masks_of(buffer: moelink.Buffer) -> list[bool]:
    return [buffer.is_masked(rank) for rank in range(buffer.num_ranks)]


def check_masked(buffer: moelink.Buffer, missing: int) -> None:
    assert masks_of(buffer) == [rank == missing for rank in range(buffer.num_ranks)]


def lose(buffer: moelink.Buffer, where: str, whole: Round, rest: Round, missing: int) -> None:
    """The calls in which the others notice that a rank has become silent."""
    if where == "dispatch":
        rest.check_received(rest.dispatch(buffer))
    elif where == "combine":
        result = whole.dispatch(buffer)
        synchronize()
        whole.check_received(result)
        buffer.group.barrier()
        expected = whole.combined(missing=missing)
        same(whole.combine(buffer, result), expected, "combined_x without the rank")
    else:
        buffer.clean_low_latency()
    check_masked(buffer, missing)


def masked_rank(group: moelink.Group, where: str, missing: int) -> None:
    """It is left out from the operation on in which it is late, until all take it back."""
    whole, rest = Round(group), without(group, missing)
    # On GPUs a rank that has missed an exchange of all counts differently from then on.
    is_left = where == "clean" and DEVICE == "cuda"
    with open_low_latency(group, timeout=TIMEOUT_S, survival="mask") as buffer:
        whole.check_round_trip(buffer)
        check_masked(buffer, -1)
        group.barrier()
        if group.rank != missing:
            lose(buffer, where, whole, rest, missing)
            begin = time.monotonic()
            for _ in range(3):
                rest.check_round_trip(buffer, "among the others")
            assert time.monotonic() - begin < TIMEOUT_S, "a masked rank was waited for"
            check_masked(buffer, missing)
            if is_left:
                group.barrier()
                return
            buffer.unmask_rank(missing)
        elif where == "combine":
            whole.check_received(whole.dispatch(buffer))
            group.barrier()
        elif is_left:
            group.barrier()  # to close its buffer earlier would be the exchange that it misses
            return
        group.barrier()
        buffer.clean_low_latency()
        for _ in range(3):
            whole.check_round_trip(buffer, "with all again")
        check_masked(buffer, -1)


@pytest.mark.parametrize("missing", [0, 2])
@pytest.mark.parametrize("where", ["dispatch", "combine", "clean"])
def test_a_silent_rank_is_masked_and_comes_back(pool: RankPool, where: str, missing: int):
    pool.run(masked_rank, where, missing, num_ranks=4)


def masks_by_hand(group: moelink.Group) -> None:
    """Ranks 0 and 1 leave each other out; nobody waits."""
    is_cut = torch.zeros(group.num_ranks, group.num_ranks, dtype=torch.bool).numpy()
    is_cut[0, 1] = is_cut[1, 0] = True
    whole = Round(group)
    for layout, fp8 in (("per_expert", None), ("per_rank", "float32")):
        one = Round(group, is_cut=is_cut, layout=layout, fp8=fp8)
        with open_low_latency(group, timeout=TIMEOUT_S) as buffer:
            whole.check_round_trip(buffer)
            if group.rank < 2:
                buffer.mask_rank(1 - group.rank)
                check_masked(buffer, 1 - group.rank)
            for numerics in ("exact", "pre_reduced"):
                result = one.dispatch(buffer)
                one.check_received(result)
                one.check_combined(one.combine(buffer, result, numerics=numerics), numerics)
            if group.rank < 2:
                buffer.unmask_rank(1 - group.rank)
            buffer.clean_low_latency()
            whole.check_round_trip(buffer, "after the masks")


def test_masks_by_hand_leave_a_pair_out(pool: RankPool):
    pool.run(masks_by_hand, num_ranks=3)


def masks_in_a_row(group: moelink.Group) -> None:
    """One after the other is left out by all, down to one rank."""
    num_ranks = group.num_ranks
    is_cut = torch.zeros(num_ranks, num_ranks, dtype=torch.bool).numpy()
    with open_low_latency(group, timeout=TIMEOUT_S, survival="mask") as buffer:
        Round(group).check_round_trip(buffer)
        for missing in range(num_ranks - 1):
            is_cut[missing, :] = is_cut[:, missing] = True
            if group.rank == missing:
                break
            buffer.mask_rank(missing)
            Round(group, salt=missing, is_cut=is_cut).check_round_trip(buffer)
        synchronize()
        group.barrier()
        for rank in range(num_ranks):
            if rank != group.rank:
                buffer.unmask_rank(rank)
        buffer.clean_low_latency()
        Round(group).check_round_trip(buffer)


def test_all_ranks_but_one_can_be_masked(pool: RankPool):
    pool.run(masks_in_a_row, num_ranks=4)


@pytest.fixture
def own_pool() -> Iterator[RankPool]:
    """For ranks that die."""
    own = RankPool(3)
    yield own
    own.end()


def killed_rank(group: moelink.Group, survival: str) -> str | None:
    """Rank 2 dies with nothing under way; the others mask it, or end with its name."""
    victim = 2
    whole, rest = Round(group), without(group, victim)
    buffer = open_low_latency(group, timeout=5.0, survival=survival)
    whole.check_round_trip(buffer)
    synchronize()
    group.barrier()
    if group.rank == victim:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.3)
    try:
        for _ in range(3):
            if survival == "mask":
                rest.check_round_trip(buffer)
            else:  # what a failed call leaves behind is nothing to look at
                rest.combine(buffer, rest.dispatch(buffer))
            synchronize()
        check_masked(buffer, victim)
        buffer.clean_low_latency()
        time.sleep(0.05 * group.rank)  # long enough to look after the dead rank
        rest.check_round_trip(buffer, "after the others have met")
        buffer.close()
    except moelink.Error as error:
        buffer.__exit__(type(error), error, None)
        return f"{error.code.name}: {error}"
    return None


@pytest.mark.parametrize("survival", ["raise", "mask"])
def test_survivors_of_a_killed_rank(own_pool: RankPool, survival: str):
    outcomes = own_pool.outcomes(killed_rank, survival)
    assert outcomes[2][1] == "the process died"
    for value, error in outcomes[:2]:
        assert error is None, error
        if survival == "mask":
            assert value is None, value
        else:
            assert value is not None and value.startswith(("PEER_LOST", "TIMEOUT")), value
            assert "rank 2" in value or "PEER_LOST" in value, value
