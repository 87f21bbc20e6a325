"""Bad arguments raise errors that name the argument, its value, what is expected, and the rank."""

import re

import moelink
import numpy as np
import pytest
import torch
from thread_ranks import errors_of, run_threads

X = np.ones((4, 8), np.float32)
IDX = np.zeros((4, 2), np.int64)
WEIGHTS = np.ones((4, 2), np.float32)


def unaligned(shape, dtype) -> np.ndarray:
    """An array whose address is no multiple of 16."""
    num_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(num_bytes + 32, np.uint8)
    begin = (4 - memory.ctypes.data) % 16
    return memory[begin : begin + num_bytes].view(dtype).reshape(shape)


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def error_of(call) -> moelink.Error:
    """The error of ``call(buffer)`` on the only rank; the buffer must work afterwards."""

    def body(group: moelink.Group):
        with moelink.Buffer(group, hidden_bytes=64, num_experts=4, max_num_experts=16) as buffer:
            with pytest.raises(moelink.Error) as caught:
                call(buffer)
            recv_x, handle = buffer.dispatch(X, IDX)
            assert (buffer.combine(recv_x, handle) == X).all()
            return caught.value

    return run_threads(1, body)[0]


def check(call, pattern: str) -> None:
    error = error_of(call)
    assert error.code is moelink.ErrorCode.INVALID_ARGUMENT
    assert re.search(pattern, str(error)), str(error)
    assert "rank 0" in str(error)


BAD_DISPATCHES = {
    "x is a list of numbers": ({"x": [1.0, 2.0, 3.0]}, "x: 3 tensors, expected one or"),
    "x is no tensor": ({"x": "tokens"}, "x: a str, expected a NumPy array"),
    "x has one dimension": ({"x": X[0]}, r"x is float32 \[8\], expected shape \[any, any\]"),
    "x has five dimensions": ({"x": np.ones((1,) * 5)}, "5 dimensions"),
    "x is not contiguous": ({"x": np.ones((4, 16), np.float32)[:, ::2]}, "x .*strides.*contig"),
    "x has odd rows": ({"x": X[:, :5].copy()}, "x .*20 bytes, expected a multiple of 16"),
    "x is unaligned": ({"x": unaligned((4, 8), np.float32)}, "x starts at address .* 16"),
    "x is too wide": ({"x": np.ones((4, 20), np.float32)}, "80 bytes.*hidden_bytes=64"),
    "x holds objects": ({"x": np.full((4, 8), None)}, "x: dtype object"),
    "topk_idx is absent": ({"topk_idx": None}, "topk_idx: absent"),
    "topk_idx is float": ({"topk_idx": WEIGHTS}, "topk_idx .*float32.*expected dtype int64"),
    "topk_idx is int16": ({"topk_idx": IDX.astype(np.int16)}, "topk_idx: dtype int16, expected"),
    "topk_idx has other tokens": ({"topk_idx": IDX[:3]}, r"topk_idx .*\[3, 2\].*expected.*\[4"),
    "topk_idx is not contiguous": ({"topk_idx": IDX[:, ::-1]}, "topk_idx .*strides"),
    "topk_idx has 200 choices": ({"topk_idx": np.zeros((4, 200), np.int64)}, "top-k from 1 to"),
    "topk_idx is a torch tensor": ({"topk_idx": torch.zeros(4, 2)}, "torch.*expected a NumPy"),
    "an id equals num_experts": ({"topk_idx": IDX + 4}, r"topk_idx\[0, 0\] is 4"),
    "an id is below -1": ({"topk_idx": IDX - 2}, r"topk_idx\[0, 0\] is -2"),
    "weights have another type": ({"topk_weights": IDX}, "topk_weights .*int64.*float32"),
    "weights have another shape": ({"topk_weights": WEIGHTS[:, :1].copy()}, "topk_weights .*, 1"),
    "there are no experts": ({"num_experts": 0}, "num_experts is 0"),
    "there are too many experts": ({"num_experts": 17}, "num_experts is 17.*max_num_experts=16"),
    "the layout is unknown": ({"layout": "sparse"}, "layout: 'sparse', expected 'compact' or"),
    "the padding is unknown": ({"padding": None}, "padding: None, expected 'zero' or 'leave'"),
    "the alignment is zero": ({"expert_alignment": 0}, "expert_alignment is 0, expected 1"),
    "worst tokens are negative": ({"num_worst_tokens": -1}, "num_worst_tokens is -1"),
    "worst tokens are too few": ({"num_worst_tokens": 3}, "num_worst_tokens=3 .*4 rows are needed"),
    "scales have other tokens": ({"x": (X, np.ones((3, 2), np.float32))}, r"scales .*\[3, 2\]"),
    "scales are int64": ({"x": (X, IDX)}, "scales .*int64.*expected dtype"),
    "the mask has another shape": (
        {"is_token_in_rank": np.ones((4, 2), bool)},
        r"is_token_in_rank .*\[4, 2\]",
    ),
    "the mask needs compact rows": (
        {"is_token_in_rank": np.ones((4, 1), bool), "layout": "expert_major"},
        "is_token_in_rank",
    ),
    "the statistics are short": ({"recv_stats": np.zeros(3, np.int32)}, r"recv_stats .*\[4\]"),
    "the statistics are read-only": (
        {"recv_stats": read_only(np.zeros(4, np.int32))},
        "recv_stats: a read-only array",
    ),
    "the event is none": ({"previous_event": "now"}, "previous_event: a str"),
    "the handle is none": ({"handle": (1, 2)}, "handle: a tuple"),
}


@pytest.mark.parametrize("name", BAD_DISPATCHES)
def test_dispatch_refuses(name: str):
    changes, pattern = BAD_DISPATCHES[name]
    arguments = {"x": X, "topk_idx": IDX, **changes}
    check(lambda buffer: buffer.dispatch(**arguments), pattern)


BAD_COMBINES = {
    "x of other rows": ({"x": X[:3]}, r"x is float32 \[3, 8\], expected 4 rows"),
    "x of integers": ({"x": X.astype(np.int32)}, "x .*int32.*bfloat16"),
    "x of a type that is no type": ({"x": X.astype(np.float64)}, "x: dtype float64"),
    "x that is not contiguous": ({"x": np.ones((8, 4), np.float32).T}, "x .*strides"),
    "weights of another shape": ({"topk_weights": WEIGHTS[:2]}, r"topk_weights .*\[4, 2\]"),
    "three biases": ({"bias": (X, X, X)}, "bias: 3 tensors, expected at most 2"),
    "a bias of another type": ({"bias": X.astype(np.float16)}, "bias_0 .*float16.*float32"),
    "a bias of another shape": ({"bias": (None, X[:2])}, r"bias_1 .*\[2, 8\]"),
    "a bias of another library": ({"bias": torch.ones(4, 8)}, "bias 0: a torch tensor"),
    "an out of another shape": ({"out": X[:, :4].copy()}, r"out .*\[4, 4\]"),
    "a read-only out": ({"out": read_only(X.copy())}, "out: a read-only array"),
    "no handle": ({"handle": None}, "handle: a NoneType, expected the handle"),
}


@pytest.mark.parametrize("name", BAD_COMBINES)
def test_combine_refuses(name: str):
    changes, pattern = BAD_COMBINES[name]

    def call(buffer: moelink.Buffer):
        recv_x, handle = buffer.dispatch(X, IDX)
        buffer.combine(**{"x": recv_x, "handle": handle, **changes})

    check(call, pattern)


BAD_CACHED_DISPATCHES = {
    "other tokens": ({"x": X[:2]}, r"x is float32 \[2, 8\].*4 tokens"),
    "a top-k list": ({"topk_idx": IDX}, "topk_idx: given together with handle"),
    "another layout": ({"layout": "expert_major"}, "layout: 'expert_major'.*'compact'"),
    "weights of another shape": ({"topk_weights": WEIGHTS[:2]}, "topk_weights"),
}


@pytest.mark.parametrize("name", BAD_CACHED_DISPATCHES)
def test_cached_dispatch_refuses(name: str):
    changes, pattern = BAD_CACHED_DISPATCHES[name]

    def call(buffer: moelink.Buffer):
        handle = buffer.dispatch(X, IDX).handle
        buffer.dispatch(**{"x": X, "handle": handle, **changes})

    check(call, pattern)


def test_all_violations_are_reported_at_once():
    error = error_of(lambda buffer: buffer.dispatch(X[:, :5].copy(), IDX[:3], expert_alignment=-1))
    for argument in ("x is", "topk_idx is", "expert_alignment is -1"):
        assert argument in str(error)


def test_handle_of_another_buffer_is_refused():
    def body(group: moelink.Group):
        with moelink.Buffer(group) as other, moelink.Buffer(group) as buffer:
            recv_x, handle = other.dispatch(X, IDX)
            with pytest.raises(moelink.Error, match=r"combine \(rank 0\).*another buffer"):
                buffer.combine(recv_x, handle)
            with pytest.raises(moelink.Error, match=r"dispatch \(rank 0\).*another buffer"):
                buffer.dispatch(X, handle=handle)

    run_threads(1, body)


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        (lambda rank: {"x": np.ones((4, 8 + 8 * (rank == 1)), np.float32)}, "rank 1.*rank 0"),
        (lambda rank: {"x": X.astype(np.float32 if rank else np.int32)}, "float32.*int32"),
        (lambda rank: {"num_experts": 3 + 3 * (rank == 2)}, "num_experts is 6 on rank 2 but 3"),
        (lambda rank: {"expert_alignment": 1 + rank // 2}, "alignment is 2 on rank 2 but 1"),
        (
            lambda rank: {"layout": "expert_major" if rank == 1 else "compact"},
            "expert_major.*rank 1",
        ),
        (lambda rank: {"topk_weights": WEIGHTS if rank != 1 else None}, "rank 1"),
    ],
)
def test_ranks_that_call_differently_are_told_who_differs_in_what(changes, pattern: str):
    def body(group: moelink.Group):
        with moelink.Buffer(group) as buffer:
            buffer.dispatch(**{"x": X, "topk_idx": IDX, **changes(group.rank)})

    errors = errors_of(3, body)
    for rank, error in enumerate(errors):
        assert error is not None, rank
        assert error.code is moelink.ErrorCode.INVALID_ARGUMENT
        assert re.search(pattern, str(error)), str(error)


def test_dispatch_and_combine_at_once_are_told_apart():
    def body(group: moelink.Group):
        with moelink.Buffer(group) as buffer:
            recv_x, handle = buffer.dispatch(X, IDX)
            if group.rank == 0:
                buffer.combine(recv_x, handle)
            else:
                buffer.dispatch(X, IDX)

    for error in errors_of(2, body):
        assert error is not None
        assert re.search("combine.*dispatch|dispatch.*combine", str(error)), str(error)


def test_too_small_memory_says_how_much_is_needed():
    def body(group: moelink.Group):
        with moelink.Buffer(group, max_symmetric_bytes=1 << 20) as buffer:
            buffer.dispatch(np.ones((1024, 1024), np.float32), np.zeros((1024, 1), np.int64))

    (error,) = errors_of(1, body)
    assert error is not None
    assert error.code is moelink.ErrorCode.INVALID_ARGUMENT
    needed = int(re.search(r"needs (\d+) bytes", str(error)).group(1))
    assert 4 << 20 <= needed < 5 << 20
    assert "max_symmetric_bytes" in str(error)


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"max_symmetric_bytes": 4096}, "max_symmetric_bytes=4096 is too small.*needs"),
        ({"hidden_bytes": -1}, "hidden_bytes -1, expected >= 0"),
        ({"num_workers": -2}, "num_workers -2"),
        ({"timeout": 0}, "timeout 0 s, expected more than 0"),
        ({"num_nodes": 3}, "num_nodes 3, expected the group's 1"),
    ],
)
def test_buffer_refuses(options, pattern: str):
    (error,) = errors_of(1, lambda group: moelink.Buffer(group, **options))
    assert error is not None
    assert re.search(pattern, str(error)), str(error)


def test_closed_buffer_refuses_operations():
    def body(group: moelink.Group):
        buffer = moelink.Buffer(group)
        buffer.close()
        buffer.close()
        with pytest.raises(moelink.Error, match=r"dispatch \(rank 0\): the buffer is closed"):
            buffer.dispatch(X, IDX)
        with pytest.raises(moelink.Error, match=r"barrier \(rank 0\): the buffer is closed"):
            buffer.barrier()
        assert "closed" in repr(buffer)

    run_threads(1, body)


def test_error_survives_pickling():
    import pickle

    error = error_of(lambda buffer: buffer.dispatch(X, IDX, expert_alignment=0))
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is moelink.Error
    assert (str(copy), copy.code) == (str(error), error.code)
