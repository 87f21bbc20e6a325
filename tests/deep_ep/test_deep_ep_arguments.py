"""Constructor, attributes, configurations, events, and arguments that must be refused."""

import importlib
import subprocess
import sys

import deep_ep
import moelink
import pytest
import torch
from deep_ep_ranks import layout_arguments, routing_of, run


class OneRankCommunicator:
    """What Buffer needs of an mpi4py communicator."""

    def Get_rank(self) -> int:  # noqa: N802
        return 0

    def Get_size(self) -> int:  # noqa: N802
        return 1

    def allgather(self, blob: bytes) -> list[bytes]:
        return [blob]


@pytest.fixture
def buffer():
    made = deep_ep.Buffer(moelink.Group.threads(1)[0], 256, 128)
    yield made
    made.destroy()


def test_names_of_the_native_modules_are_the_same_objects():
    for name in ("deep_ep_cpp", "deep_ep._C"):
        native = importlib.import_module(name)
        assert native.Config is deep_ep.Config
        assert native.EventHandle is deep_ep.EventHandle
        assert native.topk_idx_t is deep_ep.topk_idx_t
        assert native.is_sm90_compiled()
    utils = importlib.import_module("deep_ep.utils")
    assert utils.EventOverlap is deep_ep.EventOverlap
    assert callable(utils.check_nvlink_connections)
    assert not hasattr(deep_ep, "HybridEPBuffer")


def test_topk_index_type_follows_the_environment():
    code = "import deep_ep, torch; assert deep_ep.topk_idx_t is torch.int32"
    environment = {"EP_NUM_TOPK_IDX_BITS": "32", "PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)


def test_attributes_are_the_arguments(buffer: deep_ep.Buffer):
    assert (buffer.rank, buffer.group_size) == (0, 1)
    assert (buffer.num_nvl_bytes, buffer.num_rdma_bytes) == (256, 128)
    assert not buffer.low_latency_mode
    assert buffer.runtime.is_available()
    assert buffer.runtime.get_num_rdma_ranks() == 1


def test_group_or_communicator_is_required():
    with pytest.raises(ValueError, match="group and comm are None"):
        deep_ep.Buffer(None, 0, 0)
    buffer = deep_ep.Buffer(None, comm=OneRankCommunicator())
    assert buffer.group_size == 1
    buffer.destroy()


def test_sizes_must_be_multiples_of_128():
    with pytest.raises(ValueError, match="num_nvl_bytes 100"):
        deep_ep.Buffer(moelink.Group.threads(1)[0], 100)


def test_destroy_is_idempotent_and_later_calls_are_refused(buffer: deep_ep.Buffer):
    buffer.destroy()
    buffer.destroy()
    assert not buffer.runtime.is_available()
    with pytest.raises(RuntimeError, match="destroyed"):
        buffer.dispatch(torch.zeros(1, 16), torch.zeros((1, 1), dtype=torch.int64))


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 7, 8, 20, 160, 1000])
def test_every_number_of_ranks_has_configurations(num_ranks: int):
    for config in (
        deep_ep.Buffer.get_dispatch_config(num_ranks),
        deep_ep.Buffer.get_combine_config(num_ranks),
    ):
        nvl = config.get_nvl_buffer_size_hint(14336, num_ranks)
        rdma = config.get_rdma_buffer_size_hint(14336, num_ranks)
        assert nvl > 0 and nvl % 128 == 0
        assert rdma % 128 == 0 and (rdma > 0) == (num_ranks > 8)


def test_config_refuses_chunks_that_do_not_fit():
    with pytest.raises(ValueError, match="NVLink"):
        deep_ep.Config(20, 256, 256)
    with pytest.raises(ValueError, match="RDMA"):
        deep_ep.Config(20, 6, 256, 100, 100)


def test_number_of_multiprocessors_must_be_even():
    before = deep_ep.Buffer.num_sms
    with pytest.raises(ValueError, match="even"):
        deep_ep.Buffer.set_num_sms(7)
    deep_ep.Buffer.set_num_sms(before)


def test_local_buffer_tensor_is_zero_and_clipped(buffer: deep_ep.Buffer):
    whole = buffer.get_local_buffer_tensor(torch.int32)
    assert whole.shape == (64,) and not whole.any()
    whole.fill_(7)
    tail = buffer.get_local_buffer_tensor(torch.int32, offset=192)
    assert tail.tolist() == [7] * 16
    assert buffer.get_local_buffer_tensor(torch.int8, torch.Size([2, 3])).shape == (2, 3)
    assert not buffer.get_local_buffer_tensor(torch.int8, use_rdma_buffer=True).any()
    with pytest.raises(ValueError, match="at most 32"):
        buffer.get_local_buffer_tensor(torch.int32, torch.Size([33]), use_rdma_buffer=True)


def test_event_overlap_waits_once_and_runs_its_hook():
    calls = []
    overlap = deep_ep.Buffer.capture()
    overlap.register_hook_after_wait(lambda: calls.append(1))
    with overlap(release_handle=True):
        assert calls == []
    assert calls == [1] and overlap.event is None
    with overlap:
        pass
    with pytest.raises(RuntimeError, match="event is None"):
        overlap.current_stream_wait()


@pytest.mark.parametrize("event", [deep_ep.EventHandle(), deep_ep.EventOverlap(), None])
def test_both_event_classes_are_accepted(buffer: deep_ep.Buffer, event: object):
    topk_idx = torch.zeros((1, 1), dtype=torch.int64)
    layout = buffer.get_dispatch_layout(topk_idx, 1, previous_event=event, async_finish=True)
    layout[4].current_stream_wait()
    assert layout[0].tolist() == [1]


def test_other_previous_events_are_refused(buffer: deep_ep.Buffer):
    with pytest.raises(ValueError, match="previous_event is a int"):
        buffer.dispatch(torch.zeros(1, 16), handle=(), previous_event=3)


def test_allocation_on_the_comm_stream_needs_an_event_and_async(buffer: deep_ep.Buffer):
    with pytest.raises(ValueError, match="allocate_on_comm_stream"):
        buffer.dispatch(torch.zeros(1, 16), handle=(), allocate_on_comm_stream=True)


def test_low_latency_calls_need_the_low_latency_mode(buffer: deep_ep.Buffer):
    with pytest.raises(RuntimeError, match="low_latency_mode is False"):
        buffer.clean_low_latency_buffer(16, 256, 4)
    with pytest.raises(RuntimeError, match="enable_shrink is False"):
        buffer.low_latency_clean_mask_buffer()


def test_wrong_dispatch_arguments_leave_the_buffer_usable():
    def body(buffer: deep_ep.Buffer):
        routing = routing_of(buffer.rank, 2)
        arguments = layout_arguments(buffer, routing.topk_idx)
        handle = buffer.dispatch(routing.x, **arguments)[4]
        with pytest.raises(ValueError, match="num_tokens_per_rank, num_tokens_per_expert absent"):
            buffer.dispatch(routing.x, is_token_in_rank=arguments["is_token_in_rank"])
        with pytest.raises(ValueError, match="with handle"):
            buffer.dispatch(routing.x, handle=handle, topk_idx=routing.topk_idx)
        with pytest.raises(ValueError, match="with num_worst_tokens"):
            buffer.dispatch(routing.x, **arguments, num_worst_tokens=96)
        with pytest.raises(ValueError, match="expected the handle of a dispatch"):
            buffer.combine(routing.x, (torch.zeros(1),) * 6)
        with pytest.raises(ValueError, match="one node"):
            buffer.internode_dispatch(routing.x, config=deep_ep.Config())
        buffer.dispatch(routing.x, handle=handle)

    run((2, 1), body)


@pytest.mark.parametrize(
    "keywords",
    [{"num_sms": 3}, {"use_nvfp4": False, "x_global_scale": None}, {"is_intranode": True}],
)
def test_harmless_keywords_of_forks_are_accepted(buffer: deep_ep.Buffer, keywords: dict):
    x = torch.ones(1, 16)
    topk_idx = torch.zeros((1, 1), dtype=torch.int64)
    recv_x, _ = buffer.dispatch(x, topk_idx, **keywords)
    assert torch.equal(recv_x, x)


def test_keywords_that_would_change_the_result_are_refused_by_name(buffer: deep_ep.Buffer):
    with pytest.raises(NotImplementedError, match="use_nvfp4 is True"):
        buffer.dispatch(torch.ones(1, 16), use_nvfp4=True)
    with pytest.raises(NotImplementedError, match="x_global_scale is a Tensor"):
        buffer.low_latency_dispatch(None, None, 1, 1, x_global_scale=torch.ones(1))
    for name, value in (("overlap", True), ("src_signals", torch.ones(1)), ("comp_signal", 1)):
        with pytest.raises(NotImplementedError, match=name):
            buffer.low_latency_combine(None, None, None, None, **{name: value})
    with pytest.raises(ValueError, match="is_intranode is False"):
        buffer.dispatch(torch.ones(1, 16), is_intranode=False)


def test_unknown_keywords_are_type_errors(buffer: deep_ep.Buffer):
    with pytest.raises(TypeError, match="colour"):
        buffer.combine(None, None, colour=1)
    with pytest.raises(TypeError, match="colour"):
        buffer.low_latency_dispatch(None, None, 1, 1, colour=1)
