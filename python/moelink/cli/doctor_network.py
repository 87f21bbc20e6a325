"""Checks of `moelink doctor` that look at networks between hosts."""

from __future__ import annotations

import importlib
import os
import resource
from collections.abc import Callable, Mapping
from typing import Any

from moelink.cli.doctor_check import LIMITED, NO, OK, Check, size_text

# What ranks must be told alike about networks.
VARIABLES = (
    "MOELINK_NETWORK",
    "MOELINK_NETWORK_MODE",
    "MOELINK_FABRIC_PROVIDER",
    "MOELINK_NICS",
)

# Providers that Moelink's own tests run over; the others need hardware.
_TESTED = ("tcp", "shm")
_FOR_HARDWARE = ("efa", "cxi", "verbs")

_ADVICE = "try it: moelink bench --nodes 2; between hosts: moelink doctor --peers"
_WITHOUT = "ranks of several nodes need libfabric 1.17 or newer (Debian: libfabric1)"
_ON_GPUS = "buffers on GPUs pass through the host between hosts"

_MIN_LOCKED_BYTES = 1 << 30


def checks() -> list[Check]:
    report = fabric_report()
    return [
        check_network(report),
        check_network_path(report),
        check_network_hardware(report),
        check_locked_memory(report),
    ]


def check_network(report: Any) -> Check:
    """`report` is a FabricReport, or None without the compiled part."""
    name = "network"
    if report is None:
        return Check(name, NO, "the compiled part cannot tell", _ADVICE)
    if report.problem:
        return Check(name, NO, report.problem, _WITHOUT)
    providers = [f"{provider.name} ({', '.join(provider.nics)})" for provider in report.providers]
    found = "; ".join(providers) or "no provider that Moelink can use"
    finding = f"libfabric {report.version}: {found}; {_ON_GPUS}"
    return Check(name, LIMITED if providers else NO, finding, _ADVICE if providers else _WITHOUT)


def check_network_path(
    report: Any,
    environment: Mapping[str, str] | None = None,
    choose: Callable[[str], str] | None = None,
) -> Check:
    """How a buffer's tokens would pass between nodes. `choose`: the path by survival."""
    environment = os.environ if environment is None else environment
    name = "network path"
    try:
        paths = {survival: (choose or chosen_path)(survival) for survival in ("raise", "mask")}
    except Exception as error:  # a variable that does not parse, or no compiled part
        return Check(name, NO, str(error))
    wish = environment.get("MOELINK_NETWORK") or "auto"
    if wish == "memory":
        return Check(
            name,
            LIMITED,
            "none (MOELINK_NETWORK=memory): emulated nodes share memory, several hosts cannot",
            "for a network between nodes: unset MOELINK_NETWORK",
        )
    has_providers = report is not None and bool(report.providers)
    if wish != "loopback" and not has_providers:
        return Check(
            name,
            LIMITED,
            "none between processes: libfabric offers no provider here; ranks that are threads of "
            "one process use loopback",
            "install libfabric1, or share memory between emulated nodes: MOELINK_NETWORK=memory",
        )
    return Check(name, OK, f"{_nodes_text(environment)}, {_paths_text(environment, paths)}")


def _nodes_text(environment: Mapping[str, str]) -> str:
    nodes = environment.get("MOELINK_NODES")
    if nodes:
        return f"between {nodes} nodes (MOELINK_NODES)"
    return "none within a host; between hosts, or nodes that are asked for"


def _paths_text(environment: Mapping[str, str], paths: Mapping[str, str]) -> str:
    mode = environment.get("MOELINK_NETWORK_MODE") or "auto"
    if mode != "auto":
        return f"{paths['raise']} (MOELINK_NETWORK_MODE)"
    return (
        f"{paths['raise']}: a token crosses once per node, and that rank forwards it; with "
        f"survival='mask' {paths['mask']}: once per rank, so that no rank depends on another one"
    )


def chosen_path(survival: str) -> str:
    """What the library itself chooses."""
    core = importlib.import_module("moelink._core")
    config = core.BufferConfig()
    config.survival = getattr(core.Survival, survival.upper())
    return str(core.choose_network_path(config).name).lower()


def check_network_hardware(report: Any) -> Check:
    name = "network hardware"
    cards = "; ".join(
        f"{provider.name}: {', '.join(provider.nics)}" for provider in _hardware_of(report)
    )
    if not cards:
        return Check(name, NO, f"none found; {not_run_on_hardware()}")
    return Check(
        name,
        LIMITED,
        f"{cards}; {not_run_on_hardware()}",
        "before relying on it: moelink doctor --peers, which checks every byte",
    )


def not_run_on_hardware() -> str:
    return (
        f"Moelink's transport has run over {' and '.join(_TESTED)} only: "
        f"{', '.join(_FOR_HARDWARE)}, several cards, and puts from a GPU's memory (dmabuf) "
        "have not run on hardware"
    )


def check_locked_memory(report: Any, limit: int | None = None) -> Check:
    """Cards that read memory by themselves need it locked, which a limit may forbid."""
    name = "locked memory"
    soft = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] if limit is None else limit
    unlimited = soft == resource.RLIM_INFINITY
    finding = "unlimited" if unlimited else f"at most {size_text(soft)}"
    if unlimited or soft >= _MIN_LOCKED_BYTES:
        return Check(name, OK, finding)
    if not _hardware_of(report):
        return Check(name, OK, f"{finding}; no card here needs more")
    return Check(
        name,
        LIMITED,
        f"{finding}: cards cannot register larger regions",
        "ulimit -l unlimited, also for the launcher's daemons (docs/clusters.md)",
    )


def fabric_report() -> Any:
    try:
        core = importlib.import_module("moelink._core")
    except ImportError:
        return None
    report = getattr(core, "fabric_report", None)
    return None if report is None else report()


def _hardware_of(report: Any) -> list[Any]:
    providers = [] if report is None else report.providers
    return [provider for provider in providers if provider.name in _FOR_HARDWARE]
