"""Tensors of NumPy, PyTorch and other libraries go in, and come back as what they were."""

import gc
import subprocess
import sys

import ml_dtypes
import moelink
import numpy as np
import pytest
import torch
from thread_ranks import run_threads

NUMPY_DTYPES = (
    np.uint8,
    np.int8,
    np.int16,
    np.int32,
    np.int64,
    np.bool_,
    np.float16,
    np.float32,
    np.float64,
    ml_dtypes.bfloat16,
    ml_dtypes.float8_e4m3fn,
    ml_dtypes.float8_e5m2,
    ml_dtypes.float8_e8m0fnu,
)
TORCH_DTYPES = (
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.bool,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
)


class ForeignTensor:
    """A tensor of a library that Moelink has never heard of."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def alone(body):
    """Result of ``body(buffer)`` on a group of one rank."""

    def with_buffer(group: moelink.Group):
        with moelink.Buffer(group) as buffer:
            return body(buffer)

    return run_threads(1, with_buffer)[0]


def random_bits(shape, dtype: np.dtype) -> np.ndarray:
    num_bytes = shape[-1] * dtype.itemsize
    high = 2 if dtype == np.bool_ else 256
    bits = np.random.default_rng(1).integers(0, high, (*shape[:-1], num_bytes), np.uint8)
    return bits.view(dtype).reshape(shape)


@pytest.mark.parametrize("num_tokens", [0, 5])
@pytest.mark.parametrize("dtype", NUMPY_DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_numpy_payload_of_any_dtype_comes_back(dtype, num_tokens: int):
    x = random_bits((num_tokens, 32), np.dtype(dtype))
    topk_idx = np.zeros((num_tokens, 1), np.int64)
    recv_x, _ = alone(lambda buffer: buffer.dispatch(x, topk_idx))
    assert type(recv_x) is np.ndarray
    assert recv_x.dtype == x.dtype
    assert recv_x.tobytes() == x.tobytes()
    assert recv_x.shape == x.shape
    assert recv_x.flags.writeable


@pytest.mark.parametrize("num_tokens", [0, 5])
@pytest.mark.parametrize("dtype", TORCH_DTYPES, ids=str)
def test_torch_payload_of_any_dtype_comes_back(dtype, num_tokens: int):
    bits = torch.from_numpy(random_bits((5, 32 * dtype.itemsize), np.dtype(np.bool_)))
    x = bits.view(torch.uint8).view(dtype)[:num_tokens]
    topk_idx = torch.zeros(num_tokens, 1, dtype=torch.int64)
    recv_x, _ = alone(lambda buffer: buffer.dispatch(x, topk_idx))
    assert recv_x.dtype is dtype
    assert recv_x.shape == x.shape
    assert bytes(recv_x.untyped_storage()) == bytes(x.clone().untyped_storage())


def test_foreign_tensors_pass_through_dlpack():
    x = random_bits((3, 8), np.dtype(np.float32))
    topk_idx = ForeignTensor(np.zeros((3, 1), np.int64))
    received = alone(lambda buffer: buffer.dispatch(ForeignTensor(x), topk_idx))
    assert received.recv_x.tobytes() == x.tobytes()


def test_results_are_of_the_library_of_x():
    x = torch.ones(4, 32, dtype=torch.bfloat16)
    topk_idx = torch.zeros(4, 2, dtype=torch.int32)
    scales = torch.ones(2, 4).t()  # not contiguous

    def body(buffer: moelink.Buffer):
        layout = buffer.query_layout(topk_idx)
        received = buffer.dispatch((x, scales), topk_idx, torch.ones(4, 2))
        combined = buffer.combine(received.recv_x[0], received.handle, received.recv_topk_weights)
        return layout, received, combined

    layout, received, combined = alone(body)
    assert layout.is_token_in_rank.dtype is torch.bool
    assert received.recv_x[0].dtype is torch.bfloat16
    assert torch.equal(received.recv_x[1], scales)
    assert received.recv_topk_idx.dtype is torch.int32
    assert received.handle.recv_src_token.tolist() == [0, 1, 2, 3]
    assert combined.combined_x.dtype is torch.bfloat16
    assert combined.combined_topk_weights.dtype is torch.float32


def test_result_unpacks_into_tensor_and_handle():
    x = np.ones((2, 4), np.float32)
    recv_x, handle = alone(lambda buffer: buffer.dispatch(x, np.zeros((2, 1), np.int64)))
    assert isinstance(handle, moelink.Routing)
    assert handle.layout == "compact"
    assert (recv_x == x).all()


@pytest.mark.parametrize("like", ["numpy", "torch"])
def test_receive_tensors_are_combined_in_place(like: str):
    shape = (512, 1024)
    x = np.ones(shape, np.float32) if like == "numpy" else torch.ones(shape)
    topk_idx = np.zeros((512, 1), np.int64)
    topk_idx = topk_idx if like == "numpy" else torch.from_numpy(topk_idx)

    def body(buffer: moelink.Buffer):
        recv_x, handle = buffer.dispatch(x, topk_idx)
        recv_x += 1
        combined = buffer.combine(recv_x, handle)
        in_place = buffer.memory_statistics().num_staged_combines
        buffer.combine(x * 1, handle)
        return combined, in_place, buffer.memory_statistics().num_staged_combines

    combined, num_staged, num_staged_later = alone(body)
    assert (combined == 2).all()
    assert (num_staged, num_staged_later) == (0, 1)


@pytest.mark.parametrize(
    ("dtype", "made"),
    [
        ("bfloat16", np.dtype(ml_dtypes.bfloat16)),
        (np.float32, np.dtype(np.float32)),
        (np.dtype(ml_dtypes.float8_e4m3fn), np.dtype(ml_dtypes.float8_e4m3fn)),
        (torch.bfloat16, torch.bfloat16),
    ],
    ids=str,
)
def test_empty_makes_a_tensor_of_the_library_of_its_dtype(dtype, made):
    tensor = alone(lambda buffer: buffer.empty((3, 32), dtype))
    assert isinstance(tensor, np.ndarray if isinstance(made, np.dtype) else torch.Tensor)
    assert tuple(tensor.shape) == (3, 32)
    assert tensor.dtype == made


def test_empty_makes_a_tensor_like_another():
    like = torch.zeros(1)
    assert alone(lambda buffer: buffer.empty(8, "int64", like)).dtype is torch.int64


@pytest.mark.parametrize("like", ["numpy", "torch"])
def test_tensors_outlive_their_buffer(like: str):
    x = np.arange(4096, dtype=np.float32).reshape(64, 64)
    topk_idx = np.zeros((64, 1), np.int64)
    arguments = (
        (x, topk_idx) if like == "numpy" else (torch.from_numpy(x), torch.from_numpy(topk_idx))
    )

    def body(group: moelink.Group):
        buffer = moelink.Buffer(group)
        recv_x, handle = buffer.dispatch(*arguments)
        source = handle.recv_src_token
        buffer.close()
        return recv_x, source

    recv_x, source = run_threads(1, body)[0]
    gc.collect()
    assert np.asarray(recv_x).tobytes() == x.tobytes()
    recv_x[:] = 3
    assert (recv_x == 3).all()
    assert np.asarray(source).tolist() == list(range(64))


def test_dropped_tensors_give_their_memory_back():
    x = np.ones((256, 1024), np.float32)
    topk_idx = np.zeros((256, 1), np.int64)

    def body(buffer: moelink.Buffer):
        held = [buffer.dispatch(x, topk_idx).recv_x for _ in range(3)]
        while_held = buffer.memory_statistics().live_bytes
        del held
        gc.collect()
        return while_held, buffer.memory_statistics().live_bytes

    while_held, afterwards = alone(body)
    assert while_held >= 3 * x.nbytes
    assert afterwards < x.nbytes


def test_importing_moelink_does_not_import_torch():
    code = "import sys, moelink; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
