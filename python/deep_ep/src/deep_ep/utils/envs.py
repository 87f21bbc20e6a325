"""Start of a test process, and facts about the machine. Works with and without GPUs."""

from __future__ import annotations

import functools
import os
import random
import re
import subprocess
import warnings
from typing import Any

import torch
import torch.distributed as dist

from deep_ep.topology import get_logical_domain_size, get_physical_domain_size

__all__ = [
    "check_fast_rdma_atomic_support",
    "check_nvlink_connections",
    "check_torch_deterministic",
    "dist_print",
    "get_global_seed",
    "get_local_seed",
    "get_logical_domain_size",
    "get_nvlink_gbs",
    "get_physical_domain_size",
    "get_rdma_gbs",
    "init_dist",
    "init_seed",
]

_FALLBACK_RDMA_GBS = 50.0
_state = {"global_seed": 0, "local_seed": 0, "local_rank": 0}


def init_dist(local_rank: int, num_local_ranks: int, seed: int = 0) -> tuple[int, int, Any]:
    """Joins the default process group; returns (rank, number of ranks, a group of all ranks).

    ``MASTER_ADDR`` and ``MASTER_PORT`` say where, ``WORLD_SIZE`` and ``RANK`` count nodes.
    """
    address = os.environ.get("MASTER_ADDR", "127.0.0.1")
    port = int(os.environ.get("MASTER_PORT", "8361"))
    num_nodes = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0")) * num_local_ranks + local_rank
    num_ranks = num_nodes * num_local_ranks
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(local_rank)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        init_method=f"tcp://{address}:{port}",
        world_size=num_ranks,
        rank=rank,
    )
    torch.set_default_dtype(torch.bfloat16)
    torch.set_default_device("cuda" if on_gpu else "cpu")
    _state["local_rank"] = local_rank
    init_seed(seed)
    return rank, num_ranks, dist.new_group(list(range(num_ranks)))


def init_seed(seed: int) -> None:
    """Seeds torch and random with ``seed`` + rank."""
    rank = dist.get_rank() if dist.is_initialized() else 0
    _state["global_seed"] = seed
    _state["local_seed"] = seed + rank
    torch.manual_seed(seed + rank)
    random.seed(seed + rank)


def get_global_seed() -> int:
    """What ``init_seed`` was called with."""
    return _state["global_seed"]


def get_local_seed() -> int:
    """The seed of this rank."""
    return _state["local_seed"]


def dist_print(s: str = "", once_in_node: bool = False) -> None:
    """Prints on every rank, or on local rank 0. Collective: ends with a barrier."""
    if not once_in_node or _state["local_rank"] == 0:
        print(s, flush=True)
    dist.barrier()


def _output_of(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


@functools.cache
def get_rdma_gbs(nic: str | None = None) -> float:
    """GB/s of the network card; a fallback, with a warning, where it cannot be asked."""
    name = nic or os.environ.get("EP_NIC_NAME", "mlx5_0")
    rate = re.search(r"Rate:\s*(\d+)", _output_of("ibstat", name))
    if rate is None:
        warnings.warn(
            f"ibstat tells no rate of {name}, {_FALLBACK_RDMA_GBS} GB/s assumed", stacklevel=2
        )
        return _FALLBACK_RDMA_GBS
    return int(rate.group(1)) / 8


@functools.cache
def get_nvlink_gbs(factor: float = 0.9) -> float:
    """GB/s over all NVLink links of the first GPU, times ``factor``; 0 where there are none."""
    first_gpu = _output_of("nvidia-smi", "nvlink", "-s").split("GPU 1:")[0]
    return sum(float(rate) for rate in re.findall(r"([\d.]+) GB/s", first_gpu)) * factor


def check_fast_rdma_atomic_support(nic: str | None = None) -> bool:
    """Whether the network card is of the type with fast atomics."""
    name = nic or os.environ.get("EP_NIC_NAME", "mlx5_0")
    return re.search(r"CA type:\s*MT4131\b", _output_of("ibstat", name)) is not None


def check_nvlink_connections(group: Any) -> None:
    """Raises where PCIe GPUs are more than two or have no direct access to one another."""
    if not torch.cuda.is_available() or "PCIE" not in torch.cuda.get_device_name():
        return
    num_ranks = group.size()
    if num_ranks > 2:
        raise RuntimeError(f"check_nvlink_connections: {num_ranks} PCIe GPUs, expected at most 2")
    if num_ranks == 2 and not torch.cuda.can_device_access_peer(0, 1):
        raise RuntimeError("check_nvlink_connections: GPUs 0 and 1 have no peer access")


def check_torch_deterministic() -> None:
    """Raises if torch would overwrite fresh tensors while messages arrive in them."""
    fills = getattr(torch.utils.deterministic, "fill_uninitialized_memory")  # noqa: B009
    if torch.are_deterministic_algorithms_enabled() and fills:
        raise RuntimeError(
            "torch.utils.deterministic.fill_uninitialized_memory is on with deterministic "
            "algorithms, expected it off"
        )
