"""`moelink doctor --peers`: what the network between ranks can do, and who cannot be reached."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from moelink.cli import doctor_network, doctor_peers_report, exit_codes, launchers, ranks, tables

_JOB = "moelink.cli.doctor_peers_rank:run_rank"
DEFAULT_NUM_RANKS = 4
DEFAULT_TIMEOUT_S = 60.0
# Errors that some ranks alone may see, so that all tell them and not rank 0 alone.
_OWN_ERRORS = ("TIMEOUT", "PEER_LOST")


def run(arguments: argparse.Namespace) -> int:
    arguments.nodes = arguments.nodes or 1
    arguments.timeout = arguments.timeout or DEFAULT_TIMEOUT_S
    launcher = launchers.detect_launcher() if arguments.ranks is None else None
    if launcher is not None:
        return _run_joined(arguments)
    arguments.ranks = arguments.ranks or DEFAULT_NUM_RANKS
    if arguments.ranks % arguments.nodes:
        arguments.usage_error(
            f"{arguments.ranks} ranks do not split evenly into --nodes {arguments.nodes}"
        )
    return _run_local(arguments)


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"pairs": arguments.pairs or "hosts", "timeout": arguments.timeout}


def _run_local(arguments: argparse.Namespace) -> int:
    print(
        f"moelink doctor: {arguments.ranks} local ranks as processes; for the network between "
        "hosts start it under torchrun, mpirun or srun",
        file=sys.stderr,
    )
    job = ranks.LocalJob(
        target=_JOB,
        arguments=_settings(arguments),
        num_ranks=arguments.ranks,
        num_nodes=arguments.nodes,
        timeout_s=arguments.timeout,
    )
    try:
        results = ranks.run_processes(job)
    except ranks.RanksFailedError as error:
        return report(arguments, _failed(error.code, str(error)))
    # The rank whose error is its own explains more than one that lost it.
    results.sort(key=lambda result: result["error"] is None)
    return report(arguments, results[0])


def _run_joined(arguments: argparse.Namespace) -> int:
    """This process is one of a launcher's ranks; rank 0 reports."""
    import moelink
    from moelink.cli import doctor_peers_rank

    try:
        group = moelink.Group.from_environment(timeout=arguments.timeout, num_nodes=arguments.nodes)
    except moelink.Error as error:
        result = _failed(error.code.name, str(error))
        launcher = launchers.detect_launcher()
        if launcher is not None and launcher.rank != 0:
            return _fail(result)
        return report(arguments, result)
    result = doctor_peers_rank.run_rank(group, _settings(arguments), lambda text: None)
    if group.rank == 0:
        return report(arguments, result)
    if result["error"] is not None and result["error"]["code"] in _OWN_ERRORS:
        return _fail(result)
    return exit_code(doctor_peers_report.make_document(result, ""), result["error"])


def _failed(code: str | None, message: str) -> dict[str, Any]:
    return {"facts": [], "report": None, "error": {"code": code, "message": message}}


def _fail(result: Mapping[str, Any]) -> int:
    document = doctor_peers_report.make_document(result, "")
    print("\n".join(f"moelink doctor: {text}" for text in document["verdict"]), file=sys.stderr)
    return exit_code(document, result["error"])


def report(arguments: argparse.Namespace, result: Mapping[str, Any]) -> int:
    """Prints the JSON, or the tables and the verdict, and returns the exit code."""
    command = shlex.join(["moelink", *sys.argv[1:]])
    document = doctor_peers_report.make_document(result, command, arguments.nodes)
    code = exit_code(document, result["error"])
    if arguments.json:
        print(json.dumps(document, indent=2))
        return code
    if document["ranks"]:
        tables.print_table(doctor_peers_report.make_rank_table(document))
    pairs = doctor_peers_report.make_pair_table(document)
    if pairs is not None:
        print()
        tables.print_table(pairs)
    if document["ranks"]:
        print(f"\n{doctor_network.not_run_on_hardware()}.\n", flush=True)
    stream = sys.stdout if result["error"] is None else sys.stderr
    print("\n".join(document["verdict"]), file=stream)
    return code


def exit_code(document: Mapping[str, Any], error: Mapping[str, Any] | None) -> int:
    if error is not None:
        return exit_codes.CANNOT if error["code"] == "UNSUPPORTED" else exit_codes.RUNTIME
    if not document["verified"]:
        return exit_codes.VERIFICATION_FAILED
    return exit_codes.OK if document["reached"] else exit_codes.RUNTIME
