"""What is refused, tensors on the wrong device, and what memory tensors have."""

from collections.abc import Callable
from typing import Any

import moelink
import numpy as np
import torch
from gpu_cases import open_buffer
from gpu_ranks import RankPool


def text_of(call: Callable[[], Any]) -> str:
    try:
        call()
    except moelink.Error as error:
        return f"{error.code.name}: {error}"
    return "no error"


def wrong_places(group: moelink.Group) -> None:
    here = f"cuda:{torch.cuda.current_device()}"
    host = torch.zeros(4, 64)
    gpu = host.to(here)
    ids = torch.zeros(4, 1, dtype=torch.int64)
    with open_buffer(group) as buffer:
        assert buffer.device == here
        seen = {
            "x: a torch.strided tensor on cpu": lambda: buffer.dispatch(host, ids.to(here)),
            "topk_idx: a torch.strided tensor on cpu": lambda: buffer.dispatch(gpu, ids),
            "x: a NumPy array": lambda: buffer.dispatch(np.zeros((4, 64)), ids.to(here)),
            "scales: a torch.strided tensor on cpu": lambda: buffer.dispatch(
                (gpu, host), ids.to(here)
            ),
        }
        for expected, call in seen.items():
            text = text_of(call)
            assert expected in text and here in text, text
        handle = buffer.dispatch(gpu, ids.to(here)).handle  # the buffer is still good
        text = text_of(lambda: buffer.combine(host, handle))
        assert "x: a torch.strided tensor on cpu" in text and here in text, text
    with open_buffer(group, "cpu") as buffer:
        text = text_of(lambda: buffer.dispatch(gpu, ids))
        assert f"x: a torch.strided tensor on {here}, expected torch.strided on cpu" in text, text


def test_tensors_on_another_device_are_refused(ranks: RankPool):
    ranks.run(wrong_places)


def memory_of_tensors(group: moelink.Group) -> None:
    with open_buffer(group) as buffer:
        tensor = buffer.empty((8, 16), torch.bfloat16)
        assert tensor.is_cuda and tensor.dtype is torch.bfloat16 and tensor.shape == (8, 16)
        assert buffer.empty(8, "float32").is_cuda
        before = buffer.memory_statistics().live_bytes
        del tensor
        assert buffer.memory_statistics().live_bytes < before
        kept = buffer.empty((4, 4), torch.float32).fill_(3)
    assert kept.sum().item() == 48  # memory outlives the buffer


def test_tensors_own_their_memory(ranks: RankPool):
    ranks.run(memory_of_tensors)
