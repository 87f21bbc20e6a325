"""Buffers for devices that are not there, and tensors on devices that a buffer is not for."""

from types import SimpleNamespace

import moelink
import pytest
import torch
from moelink import _core, _places
from moelink._places import place_of
from moelink._tensors import library_of, view_like

without_cuda = pytest.mark.skipif(
    moelink.has_cuda_backend(), reason="this build has the CUDA backend"
)


def buffer_on(device: object) -> moelink.Buffer:
    return moelink.Buffer(moelink.Group.threads(1)[0], device=device)


def test_buffers_are_for_the_cpu_by_default():
    with moelink.Buffer(moelink.Group.threads(1)[0]) as buffer:
        assert buffer.device == "cpu"
    with buffer_on(torch.device("cpu")) as buffer:
        assert buffer.device == "cpu"


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cpu:0", "mps", None, 0])
def test_unknown_devices_are_refused(device: object):
    with pytest.raises(moelink.Error, match=r"device '.+', expected 'cpu', 'cuda' or 'cuda:N'"):
        buffer_on(device)


@without_cuda
def test_a_build_without_cuda_says_so():
    for device in ("cuda", "cuda:3", torch.device("cuda", 3)):
        with pytest.raises(moelink.Error, match="no CUDA backend") as caught:
            buffer_on(device)
        assert caught.value.code is moelink.ErrorCode.UNSUPPORTED
    with pytest.raises(moelink.Error, match="no CUDA backend"):
        moelink.Event.record(0, 0)
    with pytest.raises(moelink.Error, match="no CUDA backend"):
        _core.cuda_memory_kind(0)
    with pytest.raises(moelink.Error, match="no CUDA backend"):
        _core.cuda_line_format(0, 0)


def test_events_of_the_cpu_can_be_waited_for_as_if_on_a_stream():
    moelink.Event().wait_on(0)
    with moelink.Buffer(moelink.Group.threads(1)[0], num_experts=1) as buffer:
        x = torch.ones(3, 16)
        result = buffer.dispatch(x, torch.zeros(3, 1, dtype=torch.int64), async_finish=True)
        result.event.wait_on(0)
        assert not result.event.pending
        assert torch.equal(result.recv_x, x)


def test_tensors_of_other_devices_are_refused_with_both_devices_named():
    x = torch.ones(3, 16)
    on_gpu = library_of(x, "x", "cuda:1")
    with pytest.raises(moelink.Error, match=r"^.*x: a torch.strided tensor on cpu, .*on cuda:1"):
        on_gpu.view(x, "x")
    with pytest.raises(moelink.Error, match=r"scales: a torch.strided tensor on cpu, .*on cuda:1"):
        view_like(on_gpu, x, "scales")
    with pytest.raises(moelink.Error, match=r"a NumPy array, expected a torch tensor on cuda:1"):
        library_of(x.numpy(), "x", "cuda:1")
    on_cpu = library_of(x, "x")
    with pytest.raises(moelink.Error, match=r"x: a torch.strided tensor on meta, .*on cpu"):
        on_cpu.view(x.to("meta"), "x")


def test_places_name_their_device():
    place = place_of("cuda:2", "here")
    assert place.name == "cuda:2"
    assert place.device.kind is _core.DeviceKind.CUDA
    assert place.device.index == 2
    assert place.current_stream() == 0  # CUDA is not in use here
    assert place_of("cuda", "here").name == "cuda:0"


def test_results_for_a_gpu_are_exported_as_of_that_gpu():
    with moelink.Buffer(moelink.Group.threads(1)[0]) as buffer:
        tensor = buffer._core.empty(_core.DType.FLOAT32, (4,))
        capsule = tensor.dlpack_on(_core.Device(_core.DeviceKind.CPU, 0))
        assert torch.utils.dlpack.from_dlpack(capsule).shape == (4,)
        on_gpu = tensor.dlpack_on(_core.Device(_core.DeviceKind.CUDA, 1))
        assert "dltensor" in repr(on_gpu)


def test_inputs_on_a_gpu_are_kept_without_asking_events_during_a_capture(
    monkeypatch: pytest.MonkeyPatch,
):
    class Event:
        is_running = True

        @property
        def pending(self) -> bool:
            assert not is_capturing
            return self.is_running

    event = Event()
    is_capturing = False
    monkeypatch.setattr(_places, "_is_capturing", lambda: is_capturing)
    place = _places._Gpu(0)

    def call(inputs: str, is_async: bool) -> None:
        place.run(lambda config, kept: SimpleNamespace(event=event), None, inputs, is_async)

    call("first", True)
    is_capturing = True
    call("second", True)
    call("third", False)
    assert [inputs for _, inputs in place._in_flight] == ["first"]
    assert place._captured_inputs == ["second"]
    is_capturing, event.is_running = False, False
    call("fourth", False)
    assert not place._in_flight
    assert not place._captured_inputs
