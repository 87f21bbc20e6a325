"""Checks of `moelink doctor` that look at what Moelink can do with GPUs; work without any."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from moelink.cli.doctor_check import LIMITED, NO, OK, Check, size_text

_ON_CPU = "everything runs on the CPU backend"


def checks() -> list[Check]:
    functions: tuple[Callable[[], Check], ...] = (
        check_backend,
        check_torch,
        check_peer_access,
        check_symmetric_memory,
        check_lines,
    )
    return [function() for function in functions]


def check_backend() -> Check:
    name = "CUDA backend"
    if _has_backend():
        return Check(name, OK, "in this build")
    return Check(
        name, NO, f"not in this build: {_ON_CPU}", "for GPUs: build it with -DMOELINK_CUDA=ON"
    )


def check_torch() -> Check:
    name = "GPUs in PyTorch"
    torch = _import_torch()
    if torch is None:
        return Check(name, NO, "no GPU: PyTorch is not installed")
    if not torch.cuda.is_available():
        version = getattr(torch.version, "cuda", None)
        reason = f"built for CUDA {version}" if version else "built without CUDA"
        return Check(name, NO, f"no GPU: PyTorch {torch.__version__} sees none ({reason})")
    names = [torch.cuda.get_device_name(gpu) for gpu in range(torch.cuda.device_count())]
    listed = "; ".join(f"{gpu}: {name}" for gpu, name in enumerate(names))
    return Check(name, OK, f"{len(names)}, {listed}")


def check_peer_access() -> Check:
    name = "GPU to GPU"
    torch = _torch_with_gpu()
    if torch is None:
        return Check(name, NO, "no GPU")
    num_gpus = torch.cuda.device_count()
    if num_gpus == 1:
        return Check(name, OK, "one GPU: ranks that share it reach all its memory")
    apart = [
        f"{gpu} and {peer}"
        for gpu in range(num_gpus)
        for peer in range(gpu + 1, num_gpus)
        if not torch.cuda.can_device_access_peer(gpu, peer)
    ]
    if not apart:
        return Check(name, OK, f"all {num_gpus} reach each other's memory")
    return Check(
        name,
        LIMITED,
        f"no access between {', '.join(apart)}",
        "ranks on them share memory of the CPU, which is slower",
    )


def check_symmetric_memory() -> Check:
    """What ranks that are processes would choose, with all GPUs taking part."""
    name = "GPU memory kind"
    torch = _torch_with_gpu()
    if torch is None or not _has_backend():
        return Check(name, NO, "no GPU" if torch is None else "no CUDA backend")
    core = importlib.import_module("moelink._core")
    moelink = importlib.import_module("moelink")
    try:
        kinds = {str(core.cuda_memory_kind(gpu)) for gpu in range(torch.cuda.device_count())}
        free = min(torch.cuda.mem_get_info(gpu)[0] for gpu in range(torch.cuda.device_count()))
    except (moelink.Error, RuntimeError) as error:
        return Check(name, NO, str(error), "run nvidia-smi to see whether the GPUs are well")
    # One that cannot do the better kind decides for all, as does one that others cannot reach.
    kind = next(kind for kind in ("pinned", "ipc", "fabric", "vmm") if kind in kinds)
    if check_peer_access().status == LIMITED:
        kind = "pinned"
    finding = f"cuda_{kind}, {size_text(free)} free"
    if kind in ("vmm", "fabric"):
        return Check(name, OK, finding)
    advice = "see MOELINK_CUDA_MEMORY in docs/architecture.md"
    return Check(name, LIMITED, finding, advice)


def check_lines() -> Check:
    """How low latency messages would travel, with all GPUs taking part."""
    name = "low latency lines"
    torch = _torch_with_gpu()
    if torch is None or not _has_backend():
        return Check(name, NO, "no GPU" if torch is None else "no CUDA backend")
    core = importlib.import_module("moelink._core")
    moelink = importlib.import_module("moelink")
    gpus = range(torch.cuda.device_count())
    try:
        apart = [
            f"{gpu} and {peer}"
            for gpu in gpus
            for peer in gpus
            if core.cuda_line_format(gpu, peer) == "split"
        ]
    except (moelink.Error, RuntimeError) as error:
        return Check(name, NO, str(error), "run nvidia-smi to see whether the GPUs are well")
    if not apart:
        return Check(name, OK, "whole: 120 of 128 bytes are data")
    advice = "NVLink keeps lines whole; see MOELINK_LINES in docs/architecture.md"
    return Check(
        name, LIMITED, f"split, because of GPUs {apart[0]}: half of a line is data", advice
    )


def _has_backend() -> bool:
    try:
        return bool(importlib.import_module("moelink").has_cuda_backend())
    except ImportError:
        return False


def _import_torch() -> Any:
    try:
        return importlib.import_module("torch")
    except (ImportError, OSError):
        return None


def _torch_with_gpu() -> Any:
    torch = _import_torch()
    return torch if torch is not None and torch.cuda.is_available() else None
