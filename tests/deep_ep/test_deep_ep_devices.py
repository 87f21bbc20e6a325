"""Which device a deep_ep.Buffer is for."""

import deep_ep
import moelink
import pytest
import torch
from deep_ep.device import buffer_device, symmetric_bytes


def test_the_variable_names_the_device(monkeypatch: pytest.MonkeyPatch):
    for name in ("cpu", "cuda:0", "cuda:5"):
        monkeypatch.setenv("MOELINK_DEVICE", name)
        assert buffer_device() == torch.device(name)
    monkeypatch.setenv("MOELINK_DEVICE", "toaster")
    with pytest.raises(ValueError, match="MOELINK_DEVICE is 'toaster', expected cpu, cuda"):
        buffer_device()


def test_the_device_is_the_current_gpu_or_else_the_cpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MOELINK_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert buffer_device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert buffer_device() == torch.device("cuda", 3)


@pytest.mark.skipif(moelink.has_cuda_backend(), reason="this build has the CUDA backend")
def test_a_build_without_cuda_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MOELINK_DEVICE", "cuda:0")
    with pytest.raises(moelink.Error, match="no CUDA backend"):
        deep_ep.Buffer(moelink.Group.threads(1)[0])


def test_small_hints_are_raised_to_a_gibibyte_on_a_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MOELINK_MAX_SYMMETRIC_BYTES", raising=False)
    gpu = torch.device("cuda", 0)
    assert symmetric_bytes(gpu, 0) == 1 << 30
    assert symmetric_bytes(gpu, 1 << 32) == 1 << 32
    assert symmetric_bytes(torch.device("cpu"), 1 << 32) == 0
    monkeypatch.setenv("MOELINK_MAX_SYMMETRIC_BYTES", "2000000000")
    assert symmetric_bytes(gpu, 1 << 32) == 0
