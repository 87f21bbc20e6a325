"""What one rank does in `moelink doctor --peers`: tells what it has, then measures with others."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from moelink.cli import doctor_devices, doctor_network

_PAIR_SECONDS = 10.0


def run_rank(group: Any, arguments: dict[str, Any], progress: Callable[[str], None]) -> Any:
    """A job for `moelink.cli.ranks`. An error that ends the measurement is part of the result, so
    that what the ranks told before is reported too."""
    import moelink

    progress("what each rank has")
    mine = tell(group.rank)
    result: dict[str, Any] = {"facts": [], "report": None, "error": None}
    try:
        gathered = group.all_gather(json.dumps(mine).encode())
        result["facts"] = [json.loads(blob) for blob in gathered]
        progress("the network")
        report = moelink.measure_network(
            group,
            pairs=arguments["pairs"],
            near_pci=mine["near_pci"],
            timeout=min(_PAIR_SECONDS, arguments["timeout"] / 2),
        )
        result["report"] = asdict(report)
    except moelink.Error as error:
        result["error"] = {"code": error.code.name, "message": str(error)}
    return result


def tell(rank: int) -> dict[str, Any]:
    """What the other ranks and the reader learn of this one, as JSON."""
    gpus = doctor_devices.list_gpus()
    gpu = doctor_devices.gpu_of_rank(gpus, rank)
    report = doctor_network.fabric_report()
    checks = [
        doctor_network.check_network(report),
        doctor_network.check_network_path(report),
        doctor_network.check_network_hardware(report),
        doctor_network.check_locked_memory(report),
    ]
    return {
        "host_name": socket.gethostname(),
        "devices": [gpu.name for gpu in gpus],
        "device": None if gpu is None else gpu.name,
        "near_pci": doctor_devices.address_in_system(gpu),
        "libfabric": None if report is None or report.problem else report.version,
        "problem": "the compiled part cannot tell" if report is None else report.problem,
        "providers": [
            {"name": provider.name, "nics": list(provider.nics)}
            for provider in (() if report is None else report.providers)
        ],
        "wishes": {
            name: os.environ[name] for name in doctor_network.VARIABLES if os.environ.get(name)
        },
        "checks": [asdict(check) for check in checks],
    }
