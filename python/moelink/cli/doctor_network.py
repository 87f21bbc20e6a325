"""Checks of `moelink doctor` that look at networks between hosts."""

from __future__ import annotations

import importlib
import resource
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

_NOT_USED = "buffers do not use networks in this version"
_ADVICE = "emulate nodes on one machine: --nodes M; between hosts: moelink doctor --peers"

_MIN_LOCKED_BYTES = 1 << 30


def checks() -> list[Check]:
    report = fabric_report()
    return [check_network(report), check_network_hardware(report), check_locked_memory(report)]


def check_network(report: Any) -> Check:
    """`report` is a FabricReport, or None without the compiled part."""
    name = "network"
    if report is None:
        return Check(name, NO, "the compiled part cannot tell", _ADVICE)
    if report.problem:
        return Check(name, NO, report.problem, _ADVICE)
    providers = [f"{provider.name} ({', '.join(provider.nics)})" for provider in report.providers]
    found = "; ".join(providers) or "no provider that Moelink can use"
    finding = f"libfabric {report.version}: {found}; {_NOT_USED}"
    return Check(name, LIMITED if providers else NO, finding, _ADVICE)


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
