"""Facts about the machine and the software that a measurement depends on."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any


def read_text(path: str) -> str | None:
    """Content of a small file without surrounding blanks, or None if it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def cpu_model() -> str:
    text = read_text("/proc/cpuinfo") or ""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model", "Hardware"):
            return value.strip()
    return platform.processor() or platform.machine()


def num_usable_cores() -> int:
    """Cores that this process may run on (affinity, not the machine's total)."""
    return len(os.sched_getaffinity(0))


def package_version(name: str) -> str | None:
    """Version of an installed Python package without importing it."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def distribution_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "unknown")
    except OSError:
        return "unknown"


def simd_target() -> str | None:
    """SIMD target that the compiled part picked on this CPU; None if it does not say."""
    try:
        core = importlib.import_module("moelink._core")
    except ImportError:
        return None
    target = getattr(core, "simd_target", None)
    return str(target()) if target is not None else None


def moelink_version() -> str:
    return str(importlib.import_module("moelink").__version__)


def total_memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_memory_bytes() -> int:
    text = read_text("/proc/meminfo") or ""
    for line in text.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return total_memory_bytes()


def machine_facts() -> dict[str, Any]:
    """The `machine` entry of every JSON file that a benchmark writes."""
    return {
        "cpu": cpu_model(),
        "cores": num_usable_cores(),
        "simd": simd_target(),
        "memory_bytes": total_memory_bytes(),
        "system": distribution_name(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "versions": {
            "moelink": moelink_version(),
            **{name: package_version(name) for name in ("numpy", "ml_dtypes", "torch")},
        },
    }
