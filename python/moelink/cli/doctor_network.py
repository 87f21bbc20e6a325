"""Checks of `moelink doctor` that look at networks between hosts."""

from __future__ import annotations

import importlib
from typing import Any

from moelink.cli.doctor_check import LIMITED, NO, Check

# Providers that Moelink's own tests run over; the others need hardware.
_TESTED = ("tcp", "shm")
_FOR_HARDWARE = ("efa", "cxi", "verbs")

_NOT_USED = "buffers do not use networks in this version"
_ADVICE = "emulate nodes on one machine: --nodes M"


def checks() -> list[Check]:
    report = _fabric_report()
    return [check_network(report), check_network_hardware(report)]


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
    providers = [] if report is None else report.providers
    found = [provider for provider in providers if provider.name in _FOR_HARDWARE]
    not_run = (
        f"Moelink's transport has run over {' and '.join(_TESTED)} only: "
        f"{', '.join(_FOR_HARDWARE)} and puts from a GPU's memory have not run on hardware"
    )
    if not found:
        return Check(name, NO, f"none found; {not_run}")
    cards = "; ".join(f"{provider.name}: {', '.join(provider.nics)}" for provider in found)
    return Check(name, LIMITED, f"{cards}; {not_run}")


def _fabric_report() -> Any:
    try:
        core = importlib.import_module("moelink._core")
    except ImportError:
        return None
    report = getattr(core, "fabric_report", None)
    return None if report is None else report()
