"""`moelink doctor`: what this machine can do, and why not the rest."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from moelink.cli import (
    doctor_machine,
    doctor_options,
    doctor_peers,
    doctor_software,
    exit_codes,
    machine,
    self_test,
    tables,
)
from moelink.cli.doctor_check import LIMITED, NO, OK, Check

_STYLES = {OK: "green", LIMITED: "yellow", NO: "red"}


def run(arguments: argparse.Namespace) -> int:
    problem = doctor_options.usage_problem(arguments)
    if problem is not None:
        arguments.usage_error(problem)
    problem = doctor_software.environment_problem()
    if problem is not None:
        print(f"moelink doctor: {problem}", file=sys.stderr)
        return exit_codes.CANNOT
    if arguments.peers:
        return doctor_peers.run(arguments)
    checks = [*doctor_machine.checks(), *doctor_software.checks()]
    if arguments.self_test:
        checks.append(self_test.check())
    works = cpu_backend_works(checks)
    if arguments.json:
        print(json.dumps(make_document(checks), indent=2))
    else:
        tables.print_table(make_table(checks))
        print(verdict(works, tested=arguments.self_test))
    return exit_codes.OK if works else exit_codes.CANNOT


def cpu_backend_works(checks: Sequence[Check]) -> bool:
    return all(check.status != NO for check in checks if check.required)


def make_document(checks: Sequence[Check]) -> dict[str, Any]:
    return {
        "schema": 1,
        "cpu_backend_works": cpu_backend_works(checks),
        "machine": machine.machine_facts(),
        "checks": [asdict(check) for check in checks],
    }


def make_table(checks: Sequence[Check]) -> tables.Table:
    columns = (
        tables.Column("check"),
        tables.Column("state"),
        tables.Column("what was found → what to do", wraps=True),
    )
    rows = tuple(
        (
            check.name,
            check.status,
            check.finding + (f"\n→ {check.advice}" if check.advice else ""),
        )
        for check in checks
    )
    return tables.Table("", columns, rows, _STYLES)


def verdict(works: bool, tested: bool) -> str:
    if not works:
        return "The CPU backend does not work here: see the lines marked 'no'."
    proof = "" if tested else " (not tried: --no-self-test)"
    return f"The CPU backend works here{proof}. Try: moelink bench"
