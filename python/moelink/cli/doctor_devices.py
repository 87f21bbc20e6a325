"""The GPUs of this host, and which one a rank would take, without PyTorch or CUDA."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# Set by torchrun, Open MPI, MPICH and Slurm.
_LOCAL_RANK_VARIABLES = (
    "LOCAL_RANK",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "MPI_LOCALRANKID",
    "SLURM_LOCALID",
)


@dataclass(frozen=True)
class Gpu:
    name: str
    pci: str  # "0000:1b:00.0"


def list_gpus(environment: Mapping[str, str] | None = None) -> list[Gpu]:
    """As the driver lists them, of those that CUDA_VISIBLE_DEVICES leaves if it has numbers."""
    environment = os.environ if environment is None else environment
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = (tool, "--query-gpu=name,pci.bus_id", "--format=csv,noheader")
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return visible_gpus(parse_gpus(done.stdout), environment.get("CUDA_VISIBLE_DEVICES"))


def parse_gpus(text: str) -> list[Gpu]:
    gpus = []
    for line in text.splitlines():
        name, separator, address = line.rpartition(",")
        if separator:
            gpus.append(Gpu(name.strip(), address.strip().lower()[-len("0000:00:00.0") :]))
    return gpus


def visible_gpus(gpus: Sequence[Gpu], wish: str | None) -> list[Gpu]:
    if wish == "":
        return []
    numbers = [] if wish is None else wish.split(",")
    if wish is None or not all(number.strip().isdigit() for number in numbers):
        return list(gpus)
    return [gpus[int(number)] for number in numbers if int(number) < len(gpus)]


def gpu_of_rank(
    gpus: Sequence[Gpu], rank: int, environment: Mapping[str, str] | None = None
) -> Gpu | None:
    """The ranks of a host take its GPUs in turn."""
    environment = os.environ if environment is None else environment
    if not gpus:
        return None
    for variable in _LOCAL_RANK_VARIABLES:
        value = environment.get(variable, "")
        if value.isdigit():
            return gpus[int(value) % len(gpus)]
    return gpus[rank % len(gpus)]


def address_in_system(gpu: Gpu | None, folder: Path = Path("/sys/bus/pci/devices")) -> str:
    """The GPU's address if the kernel shows the device here, as containers may not; else empty."""
    return gpu.pci if gpu is not None and (folder / gpu.pci).exists() else ""
