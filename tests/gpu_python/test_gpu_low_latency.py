"""Low latency calls on GPU tensors agree bit for bit with the reference."""

import moelink
import numpy as np
import pytest
import torch
from gpu_ranks import RankPool
from low_latency_cases import (
    FORMATS,
    LAYOUTS,
    NUMERICS,
    ROUTINGS,
    Round,
    Shape,
    open_low_latency,
)

pytestmark = pytest.mark.any_device


def check_every_combine(buffer: moelink.Buffer, one: Round, what: str) -> None:
    result = one.dispatch(buffer)
    one.check_received(result, what)
    for numerics in NUMERICS:
        combined = one.combine(buffer, result, numerics=numerics)
        one.check_combined(combined, numerics, what)


def every_kind(group: moelink.Group, shape: Shape, formats: tuple[str | None, ...]) -> None:
    with open_low_latency(group) as buffer:
        for fp8 in formats:
            for layout in LAYOUTS:
                for salt in range(2):
                    one = Round(group, shape, salt, fp8=fp8, layout=layout)
                    check_every_combine(buffer, one, f"{fp8}, {layout}, round {salt}")


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("fp8", FORMATS)
def test_every_format_layout_and_numerics(pool: RankPool, fp8: str | None, num_ranks: int):
    pool.run(every_kind, Shape(), (fp8,), num_ranks=num_ranks)


@pytest.mark.parametrize("hidden", [128, 2048, 7168, 16384])
def test_every_hidden_size(pool: RankPool, hidden: int):
    formats = FORMATS if hidden % 512 == 0 else FORMATS[:-1]
    pool.run(every_kind, Shape(hidden, max_tokens=5), formats, num_ranks=4)


@pytest.mark.parametrize("num_topk", [1, 2, 8, 32])
def test_every_number_of_experts_per_token(pool: RankPool, num_topk: int):
    shape = Shape(256, num_topk=num_topk, local_experts=12, routing="distinct")
    pool.run(every_kind, shape, (None, "float32"), num_ranks=3)


@pytest.mark.parametrize("routing", ROUTINGS)
def test_every_routing(pool: RankPool, routing: str):
    shape = Shape(max_tokens=24, routing=routing, index_dtype="int32")
    pool.run(every_kind, shape, (None, "power_of_two"), num_ranks=4)


@pytest.mark.parametrize("num_ranks", [2, 8])
def test_many_tokens(pool: RankPool, num_ranks: int):
    shape = Shape(256, max_tokens=128, num_topk=8, local_experts=16, routing="distinct")
    pool.run(every_kind, shape, ("float32",), num_ranks=num_ranks)


def shape_of(seed: int) -> Shape:
    rng = np.random.default_rng((seed, 99))
    return Shape(
        hidden=512 * int(rng.integers(1, 5)),
        max_tokens=int(rng.integers(1, 40)),
        num_topk=int(rng.integers(1, 10)),
        local_experts=int(rng.integers(1, 9)),
        routing=ROUTINGS[seed % 4],
        index_dtype=("int64", "int32")[seed % 2],
    )


def shapes_in_turn(group: moelink.Group, seeds: range) -> None:
    with open_low_latency(group) as buffer:
        for seed in seeds:
            fp8, layout = FORMATS[seed % 4], LAYOUTS[seed // 2 % 2]
            one = Round(group, shape_of(seed), seed, fp8=fp8, layout=layout)
            check_every_combine(buffer, one, f"seed {seed}")
            buffer.clean_low_latency()


@pytest.mark.parametrize("num_ranks", [2, 3, 4])
def test_other_shapes_after_a_clean(pool: RankPool, num_ranks: int):
    pool.run(shapes_in_turn, range(12 * num_ranks, 12 * num_ranks + 12), num_ranks=num_ranks)


def bits_in_use(one: Round, result: object, combined: torch.Tensor) -> bytes:
    """Rows, scales and counts that a dispatch gave, and what the combine made of them."""
    recv_x = result.recv_x  # type: ignore[attr-defined]
    parts = list(recv_x) if isinstance(recv_x, tuple) else [recv_x]
    parts = [part[tuple(one.expected.rows().T)] for part in parts]
    parts += [result.recv_count, combined]  # type: ignore[attr-defined]
    return b"".join(part.contiguous().cpu().view(torch.uint8).numpy().tobytes() for part in parts)


def twenty_repeats(group: moelink.Group, fp8: str | None, numerics: str) -> None:
    one = Round(group, Shape(2048, max_tokens=32, num_topk=4), fp8=fp8)
    with open_low_latency(group) as buffer:
        seen = set()
        for _ in range(20):
            result = one.dispatch(buffer)
            rows = result.recv_x if fp8 is None else result.recv_x[0].bfloat16()
            combined = one.combine(buffer, result, x=rows, numerics=numerics)
            seen.add(bits_in_use(one, result, combined))
        assert len(seen) == 1


@pytest.mark.parametrize("numerics", NUMERICS)
@pytest.mark.parametrize("fp8", [None, "float32"])
def test_twenty_repeats_are_bitwise_equal(pool: RankPool, fp8: str | None, numerics: str):
    pool.run(twenty_repeats, fp8, numerics, num_ranks=4)


def hundreds_of_operations(group: moelink.Group) -> None:
    """Nothing waits for the host between them."""
    rounds = [Round(group, Shape(256), salt, fp8="float32") for salt in range(3)]
    with open_low_latency(group) as buffer:
        pending = []
        for i in range(150):
            one = rounds[i % 3]
            result = one.dispatch(buffer)
            pending.append((one, one.combine(buffer, result)))
        for one, combined in pending:
            one.check_combined(combined)


@pytest.mark.parametrize("num_ranks", [1, 4, 8])
def test_hundreds_of_operations_in_a_row(pool: RankPool, num_ranks: int):
    pool.run(hundreds_of_operations, num_ranks=num_ranks)


def alternating_modes(group: moelink.Group) -> None:
    one = Round(group, Shape(routing="distinct"))
    with open_low_latency(group, num_experts=one.call.num_experts) as buffer:
        first = None
        for _ in range(3):
            one.check_round_trip(buffer)
            recv_x, handle = buffer.dispatch(one.x, one.topk_idx)
            combined = buffer.combine(recv_x, handle)
            assert first is None or torch.equal(combined, first)
            first = combined


@pytest.mark.parametrize("num_ranks", [1, 3])
def test_low_latency_and_high_throughput_calls_alternate(pool: RankPool, num_ranks: int):
    pool.run(alternating_modes, num_ranks=num_ranks)
