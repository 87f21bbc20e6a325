"""deep_ep.utils: casts, comparison, hashes, and time."""

import moelink
import pytest
import torch
from deep_ep.utils import math, testing


def test_fp8_cast_is_that_of_the_buffer():
    x = torch.randn(200, 256, generator=torch.Generator().manual_seed(2)).bfloat16()
    values, scales = math.per_token_cast_to_fp8(x)
    expected_values, expected_scales = moelink.quantize_fp8(x)
    torch.testing.assert_close(scales, expected_scales, rtol=1e-6, atol=0)  # division, not product
    assert torch.equal(values.view(torch.uint8), expected_values.view(torch.uint8))


@pytest.mark.parametrize("num_columns", [128, 200, 512])
def test_fp8_cast_and_back_is_close(num_columns: int):
    x = torch.randn(5, num_columns).bfloat16()
    values, scales = math.per_token_cast_to_fp8(x)
    assert values.shape == x.shape
    by_column = scales.T.contiguous().T
    assert math.calc_diff(math.per_token_cast_back(values, by_column), x) < 1e-3


def test_packed_exponents_are_unpacked_low_byte_first():
    values, packed = moelink.quantize_fp8(torch.randn(3, 512).bfloat16(), "ue8m0")
    plain = moelink.dequantize_fp8(values, packed, torch.bfloat16)
    assert torch.equal(math.per_token_cast_back(values, packed), plain)


def test_casting_back_nothing_gives_nothing():
    values = torch.empty((0, 128), dtype=torch.float8_e4m3fn)
    back = math.per_token_cast_back(values, torch.empty((0, 1)))
    assert back.shape == (0, 128) and back.dtype is torch.bfloat16


def test_unique_keeps_each_value_once():
    x = torch.tensor([[3, 3, 1, -1], [-1, -1, -1, -1], [0, 1, 2, 3]])
    math.inplace_unique(x, 4)
    rows = [sorted(row) for row in x.tolist()]
    assert rows == [[-1, -1, 1, 3], [-1, -1, -1, -1], [0, 1, 2, 3]]


def test_grouped_scores_are_zero_outside_the_groups():
    scores = math.create_grouped_scores(torch.ones(2, 6), torch.tensor([[0], [2]]), 3)
    assert scores.tolist() == [[1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1]]


def test_hash_does_not_depend_on_the_order_but_on_the_values():
    x = torch.arange(8, dtype=torch.int32)
    assert math.hash_tensor(x) == math.hash_tensor(x.flip(0))
    assert math.hash_tensor(x) != math.hash_tensor(x + 1)
    assert math.hash_tensors(x, x) == 0


def test_bytes_are_counted_over_nested_tuples():
    x = torch.zeros(3, dtype=torch.int32)
    assert math.count_bytes(x, (x, None, (x,))) == 36


def test_bench_drops_the_first_sample_and_counts_calls():
    calls = []
    average, least, most = testing.bench(lambda: calls.append(1), 2, 5)
    assert len(calls) == 7
    assert least <= average <= most
    assert testing.bench_kineto(lambda: None, ("dispatch", "combine"), 2)[0] > 0


def test_division_is_safe_only_for_zero_by_zero():
    assert math.safe_div(0, 0) == 0
    assert (math.ceil_div(7, 4), math.align(7, 4)) == (2, 8)
    with pytest.raises(ZeroDivisionError):
        math.safe_div(1, 0)
