"""torch tensors in the low latency calls, which take a quicker way than other libraries' do."""

import gc
from typing import Any

import ml_dtypes
import moelink
import numpy as np
import pytest
from cases import assert_same_bits
from test_low_latency import HIDDEN, MAX_TOKENS, NUM_RANKS, expected_combined, run, sent_by

torch = pytest.importorskip("torch")


class Odd:
    """An object that is no tensor."""


def torch_inputs(rank: int) -> dict[str, Any]:
    sent = sent_by(rank)
    return {
        "x": torch.from_numpy(sent.x.view(np.int16)).view(torch.bfloat16),
        "topk_idx": torch.from_numpy(sent.topk_idx),
        "num_max_tokens_per_rank": MAX_TOKENS,
        "topk_weights": torch.from_numpy(sent.topk_weights),
    }


def test_torch_tensors_stay_torch_tensors():
    def body(buffer: moelink.Buffer) -> np.ndarray:
        inputs = torch_inputs(buffer.rank)
        recv_x, recv_count, handle = buffer.low_latency_dispatch(**inputs)
        assert (recv_x.dtype, recv_count.dtype) == (torch.bfloat16, torch.int32)
        combined = buffer.low_latency_combine(
            recv_x, inputs["topk_idx"], inputs["topk_weights"], handle
        )
        return combined.view(torch.int16).numpy().view(ml_dtypes.bfloat16)

    for rank, combined in enumerate(run(body)):
        assert_same_bits(combined, expected_combined()[rank], "combined_x")


def test_torch_parameters_and_views_are_taken_as_they_are():
    def body(buffer: moelink.Buffer) -> Any:
        inputs = torch_inputs(buffer.rank)
        plain = buffer.low_latency_dispatch(**inputs)
        inputs["x"] = torch.nn.Parameter(torch.cat([inputs["x"], inputs["x"]])[len(inputs["x"]) :])
        other = buffer.low_latency_dispatch(**inputs)
        used = int(plain.recv_count[0])
        assert torch.equal(plain.recv_x[0, :used], other.recv_x[0, :used])

    run(body)


def test_wrong_torch_tensors_are_named():
    changes = {
        "x: a torch.sparse_coo tensor on cpu": {"x": torch.zeros(2, HIDDEN).to_sparse()},
        "x: a torch.strided tensor on meta": {"x": torch.zeros(2, HIDDEN, device="meta")},
        "x: dtype torch.complex64": {"x": torch.zeros(2, HIDDEN, dtype=torch.complex64)},
        "topk_idx: a NumPy array": {"topk_idx": np.zeros((2, 2), np.int64)},
        "topk_weights: a Odd": {"topk_weights": Odd()},
    }

    def body(buffer: moelink.Buffer) -> None:
        for complaint, change in changes.items():
            arguments = {**torch_inputs(buffer.rank), **change}
            with pytest.raises(moelink.Error) as caught:
                buffer.low_latency_dispatch(**arguments)
            assert f"(rank {buffer.rank}): {complaint}" in str(caught.value)

    run(body)


def test_what_a_dispatch_returns_outlives_its_result_and_the_buffer():
    def body(buffer: moelink.Buffer) -> Any:
        result = buffer.low_latency_dispatch(**torch_inputs(buffer.rank), layout="per_rank")
        result.recv_topk_idx[0, 0, 0] = 77  # every reading is of the same memory
        return result.recv_topk_idx, result.recv_count, result.handle.src_info

    for topk_idx, count, src_info in run(body):
        gc.collect()
        assert topk_idx[0, 0, 0] == 77
        assert topk_idx.shape == (NUM_RANKS, MAX_TOKENS, 4)
        assert (count >= 0).all()
        assert (src_info[0, : int(count[0])] < MAX_TOKENS).all()
        unused = topk_idx[1, int(count[1]) :]
        assert torch.equal(unused, torch.full_like(unused, -1))


def test_the_quick_way_is_for_tensors_on_the_device_of_the_buffer():
    core = moelink._core
    config = core.LowLatencyDispatchConfig(MAX_TOKENS, 6, core.LowLatencyLayout.PER_EXPERT)
    inputs = torch_inputs(0)
    tensors = (inputs["x"], inputs["topk_idx"], inputs["topk_weights"], None, None)
    has_quick_way = hasattr(torch.Tensor, "__dlpack_c_exchange_api__")
    assert config.set_tensors(tensors, core.Device(core.DeviceKind.CPU, 0)) is has_quick_way
    assert not config.set_tensors(tensors, core.Device(core.DeviceKind.CUDA, 0))
    elsewhere = (inputs["x"].to("meta"), *tensors[1:])
    assert not config.set_tensors(elsewhere, core.Device(core.DeviceKind.CPU, 0))
