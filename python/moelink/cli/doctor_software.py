"""Checks of `moelink doctor` that look at software, devices and the environment."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping

from moelink.cli import doctor_cuda, doctor_network, launchers, machine
from moelink.cli.doctor_check import LIMITED, NO, OK, Check

# What `src/base/environment.hpp` reads, and deep_ep.
KNOWN_VARIABLES = (
    "MOELINK_LOG",
    "MOELINK_SECRET",
    "MOELINK_TIMEOUT_MS",
    "MOELINK_NODES",
    "MOELINK_WORKERS",
    "MOELINK_MAX_SYMMETRIC_BYTES",
    "MOELINK_SIMD",
    "MOELINK_CUDA_MEMORY",
    "MOELINK_LINES",
    "MOELINK_DEVICE",
    *doctor_network.VARIABLES,
    # What `src/bootstrap/launcher.hpp` reads.
    "MOELINK_RANK",
    "MOELINK_NUM_RANKS",
    "MOELINK_HOST",
    "MOELINK_PORT",
)


def checks() -> list[Check]:
    functions: tuple[Callable[[], Check], ...] = (
        check_core,
        check_packages,
        check_launcher,
        check_secret,
        check_variables,
        check_gpus,
    )
    own = [function() for function in functions]
    return [*own, *doctor_cuda.checks(), *doctor_network.checks()]


def environment_problem() -> str | None:
    """A variable whose value the library cannot read, which ends everything that uses it."""
    try:
        doctor_network.chosen_path("raise")
    except ImportError:  # said by check_core
        return None
    except Exception as error:
        return str(error)
    return None


def check_core() -> Check:
    name = "compiled part"
    try:
        importlib.import_module("moelink._core")
        version = machine.moelink_version()
    except ImportError as error:
        return Check(name, NO, str(error), "reinstall: pip install moelink", required=True)
    return Check(
        name, OK, f"moelink {version} for Python {platform.python_version()}", required=True
    )


def check_packages() -> Check:
    found, advice = [], []
    uses = {
        "numpy": "needed",
        "ml_dtypes": "bfloat16 and float8 for NumPy",
        "torch": "tensors, demo, moelink.torch",
        "rich": "tables in colour",
        "matplotlib": "pictures of the demo",
    }
    for package, use in uses.items():
        version = machine.package_version(package)
        found.append(f"{package} {version or '-'}")
        if version is None:
            advice.append(f"{package} ({use})")
    text = ", ".join(found)
    if not advice:
        return Check("packages", OK, text)
    return Check("packages", LIMITED, text, "to have all: pip install " + ", ".join(advice))


def check_launcher() -> Check:
    name = "launchers"
    installed = [tool for tool in ("torchrun", "mpirun", "srun") if shutil.which(tool)]
    text = f"installed: {', '.join(installed)}" if installed else "none installed"
    launcher = launchers.detect_launcher()
    if launcher is None:
        return Check(name, OK, f"{text}; not inside one: `moelink bench` starts its own ranks")
    return Check(
        name,
        OK,
        f"{text}; inside {launcher.name} as rank {launcher.rank} of {launcher.num_ranks}",
    )


def check_secret(environment: Mapping[str, str] | None = None) -> Check:
    environment = os.environ if environment is None else environment
    name = "job secret"
    length = len(environment.get("MOELINK_SECRET", ""))
    if length >= 16:
        return Check(name, OK, f"MOELINK_SECRET is set ({length} characters)")
    if length > 0:
        return Check(
            name,
            LIMITED,
            f"MOELINK_SECRET is set, but has only {length} characters",
            "use a longer one: export MOELINK_SECRET=$(openssl rand -hex 32)",
        )
    return Check(
        name,
        LIMITED,
        "MOELINK_SECRET is not set: only local ranks and torch groups can join",
        "to join torchrun, mpirun or Slurm ranks: export MOELINK_SECRET=$(openssl rand -hex 32)",
    )


def check_variables(environment: Mapping[str, str] | None = None) -> Check:
    environment = os.environ if environment is None else environment
    name = "variables"
    present = {
        key: value for key, value in sorted(environment.items()) if key.startswith("MOELINK_")
    }
    shown = [
        f"{key}={'(hidden)' if key == 'MOELINK_SECRET' else value}"
        for key, value in present.items()
    ]
    text = ", ".join(shown) or "no MOELINK_ variable is set"
    unknown = [key for key in present if key not in KNOWN_VARIABLES]
    if unknown:
        known = ", ".join(KNOWN_VARIABLES)
        return Check(name, LIMITED, text, f"no effect: {', '.join(unknown)}; known are {known}")
    return Check(name, OK, text)


def check_gpus() -> Check:
    name = "GPUs"
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Check(name, NO, "nvidia-smi is not installed: no NVIDIA driver here")
    listed = _output(tool, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
    if listed is None:
        return Check(name, NO, "nvidia-smi fails", "run nvidia-smi by itself to see why")
    gpus = [line.strip() for line in listed.splitlines() if line.strip()]
    if not gpus:
        return Check(name, NO, "the driver sees no GPU")
    links = _output(tool, "nvlink", "--status") or ""
    num_links = sum("GB/s" in line for line in links.splitlines())
    return Check(name, OK, f"{'; '.join(gpus)}; NVLinks: {num_links or 'none'}")


def _output(*command: str) -> str | None:
    """Standard output of a command that must end within 10 seconds; None if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
