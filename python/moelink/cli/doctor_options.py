"""Command line of `moelink doctor`."""

from __future__ import annotations

import argparse
from typing import Any

from moelink.cli import exit_codes

_EPILOG = (
    """examples:
  moelink doctor
  moelink doctor --json | python3 -m json.tool
  moelink doctor --no-self-test   only look, start no ranks

"""
    + exit_codes.HELP
    + "The exit code is 0 when the CPU backend works here, whatever else is missing.\n"
)


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "doctor",
        help="what this machine can do, and why not the rest",
        description="Checks what Moelink can use on this machine; each line that is not 'ok'\n"
        "says why and what to do.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--json", action="store_true", help="print the checks as JSON instead of a table"
    )
    parser.add_argument(
        "--no-self-test",
        dest="self_test",
        action="store_false",
        help="skip the live dispatch and combine between two rank processes",
    )
