"""What the command line says about GPUs, with and without them."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import moelink
import numpy as np
import pytest
import torch
from moelink.cli import bench, doctor_cuda, main
from moelink.cli.bench_device import Gpu, Host, device_of, put_inputs, to_array
from moelink.cli.bench_inputs import make_inputs
from moelink.cli.bench_low_latency import low_latency_bytes, recv_bytes
from moelink.cli.bench_options import BenchOptions
from moelink.cli.doctor_check import LIMITED, NO, OK


def fake_torch(names: list[str], apart: tuple[tuple[int, int], ...] = ()) -> Any:
    """A PyTorch that sees these GPUs; pairs in `apart` do not reach each other."""
    cuda = SimpleNamespace(
        is_available=lambda: bool(names),
        device_count=lambda: len(names),
        get_device_name=lambda gpu: names[gpu],
        can_device_access_peer=lambda gpu, peer: (gpu, peer) not in apart,
        mem_get_info=lambda gpu: (8 << 30, 16 << 30),
    )
    version = SimpleNamespace(cuda="13.0" if names else None)
    return SimpleNamespace(cuda=cuda, version=version, __version__="2.99")


@pytest.fixture
def use_torch(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda fake: monkeypatch.setattr(doctor_cuda, "_import_torch", lambda: fake)


def test_doctor_without_a_gpu_says_so(use_torch: Any) -> None:
    for fake in (None, fake_torch([])):
        use_torch(fake)
        for check in (doctor_cuda.check_torch, doctor_cuda.check_peer_access):
            assert check().status == NO
            assert check().finding.startswith("no GPU")
        assert doctor_cuda.check_symmetric_memory().finding == "no GPU"
        assert doctor_cuda.check_lines().finding == "no GPU"


def test_doctor_lists_gpus_and_those_that_are_apart(use_torch: Any) -> None:
    use_torch(fake_torch(["A", "A"]))
    assert doctor_cuda.check_torch().finding == "2, 0: A; 1: A"
    assert doctor_cuda.check_peer_access().status == OK
    use_torch(fake_torch(["A", "B", "C"], apart=((0, 2),)))
    check = doctor_cuda.check_peer_access()
    assert check.status == LIMITED
    assert check.finding == "no access between 0 and 2"


@pytest.mark.parametrize(
    ("kinds", "apart", "expected"),
    [
        (["vmm", "vmm"], (), "cuda_vmm"),
        (["vmm", "ipc"], (), "cuda_ipc"),
        (["fabric", "fabric"], (), "cuda_fabric"),
        (["vmm", "vmm"], ((0, 1),), "cuda_pinned"),
    ],
)
def test_doctor_names_the_kind_of_memory_that_would_be_chosen(
    use_torch: Any, monkeypatch: pytest.MonkeyPatch, kinds: list[str], apart: Any, expected: str
) -> None:
    use_torch(fake_torch(["A", "B"], apart))
    monkeypatch.setattr(moelink, "has_cuda_backend", lambda: True)
    monkeypatch.setattr(moelink._core, "cuda_memory_kind", lambda gpu: kinds[gpu])
    check = doctor_cuda.check_symmetric_memory()
    assert check.finding == f"{expected}, 8 GiB free"
    assert check.status == (OK if expected in ("cuda_vmm", "cuda_fabric") else LIMITED)


@pytest.mark.parametrize(
    ("linked", "status", "finding"),
    [
        ({(0, 1), (1, 0)}, OK, "whole: 120 of 128 bytes are data"),
        ({(1, 0)}, LIMITED, "split, because of GPUs 0 and 1: half of a line is data"),
    ],
)
def test_doctor_names_the_lines_that_would_carry_low_latency_messages(
    use_torch: Any, monkeypatch: pytest.MonkeyPatch, linked: Any, status: str, finding: str
) -> None:
    def line_format(gpu: int, peer: int) -> str:
        return "whole" if gpu == peer or (gpu, peer) in linked else "split"

    use_torch(fake_torch(["A", "B"]))
    monkeypatch.setattr(moelink, "has_cuda_backend", lambda: True)
    monkeypatch.setattr(moelink._core, "cuda_line_format", line_format)
    check = doctor_cuda.check_lines()
    assert (check.status, check.finding) == (status, finding)


def test_bench_refuses_what_gpus_cannot_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main.main(["bench", "--backend", "cuda", "--threads"])
    assert "--threads with --backend cuda" in capsys.readouterr().err
    monkeypatch.setattr(moelink, "has_cuda_backend", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "sees no GPU" in str(bench._cuda_refusal())


@pytest.mark.parametrize(
    ("arguments", "is_allowed"),
    [
        (["--mode", "ll", "--backend", "cuda"], True),
        (["--mode", "ll"], False),
        (["--backend", "cuda"], False),
    ],
)
def test_bench_captures_low_latency_calls_on_gpus_only(
    arguments: list[str], is_allowed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.suppress(SystemExit):
        main.main(["bench", "--graph", "--ranks", "2", *arguments])
    assert ("--graph needs" in capsys.readouterr().err) is not is_allowed


def test_graphs_take_memory_of_their_own() -> None:
    shape = {"mode": "ll", "tokens": 128, "hidden": 7168, "experts": 288, "layout": "per-expert"}
    plain, with_graphs = BenchOptions(**shape), BenchOptions(**shape, graph=True)
    more = low_latency_bytes(with_graphs, 8) - low_latency_bytes(plain, 8)
    assert recv_bytes(plain, 8) * 4 <= more <= recv_bytes(plain, 8) * 20


def test_results_in_torch_tensors_become_arrays_of_the_same_bits() -> None:
    for name in ("bfloat16", "float8_e4m3fn", "float32", "bool", "int64"):
        dtype = np.dtype(getattr(ml_dtypes, name, name))
        array = np.arange(6).reshape(2, 3).astype(dtype)
        stand_in = torch.from_numpy(array.view(np.uint8)).view(getattr(torch, name))
        assert to_array(stand_in).dtype == dtype
        assert to_array(stand_in).tobytes() == array.tobytes()
        empty = to_array(stand_in[:0])
        assert (empty.shape, empty.dtype) == ((0, 3), dtype)


@pytest.mark.parametrize("num_tokens", [0, 5])
@pytest.mark.parametrize("dtype", ["bf16", "fp8", "int8", "fp32"])
def test_inputs_keep_their_bits_on_a_gpu(dtype: str, num_tokens: int) -> None:
    options = BenchOptions(dtype=dtype, tokens=num_tokens, hidden=128, ranks=1)
    inputs = make_inputs(options, 0)
    gpu = Gpu.__new__(Gpu)
    gpu._torch, gpu.name = torch, "cpu"  # put() is the same for every device of torch
    placed = put_inputs(gpu, inputs)
    for name, array in vars(inputs).items():
        if array is not None:
            assert isinstance(getattr(placed, name), torch.Tensor)
            assert to_array(getattr(placed, name)).tobytes() == array.tobytes()


def test_ranks_use_the_cpu_by_default() -> None:
    assert isinstance(device_of(BenchOptions(), 0, 4), Host)
