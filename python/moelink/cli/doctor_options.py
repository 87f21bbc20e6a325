"""Command line of `moelink doctor`."""

from __future__ import annotations

import argparse
from typing import Any

from moelink.cli import exit_codes
from moelink.cli.bench_options import positive_number, positive_seconds

PAIRS = ("hosts", "rails", "all")
_OF_PEERS = ("ranks", "nodes", "pairs", "timeout")

_EPILOG = (
    """examples:
  moelink doctor
  moelink doctor --json | python3 -m json.tool
  moelink doctor --no-self-test   only look, start no ranks

  the network between hosts, as ranks of a launcher (leave --ranks out):
  export MOELINK_SECRET=$(openssl rand -hex 32)
  srun -n 16 --ntasks-per-node 8 moelink doctor --peers
  mpirun -n 16 -x MOELINK_SECRET moelink doctor --peers
  torchrun --nnodes 2 --nproc-per-node 8 ... -m moelink.cli.main doctor --peers

  the same between processes of this machine:
  moelink doctor --peers --ranks 4

"""
    + exit_codes.HELP
    + "The exit code is 0 when the CPU backend works here, whatever else is missing; with\n"
    "--peers when all pairs reached each other and every byte was right.\n"
)


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "doctor",
        help="what this machine can do, and why not the rest; --peers: the network between ranks",
        description="Checks what Moelink can use on this machine; each line that is not 'ok'\n"
        "says why and what to do. With --peers: what the network between ranks can do.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--json", action="store_true", help="print the findings as JSON instead of tables"
    )
    parser.add_argument(
        "--no-self-test",
        dest="self_test",
        action="store_false",
        help="skip the live dispatch and combine between two rank processes",
    )
    _add_peer_arguments(parser)
    parser.set_defaults(usage_error=parser.error)


def _add_peer_arguments(parser: argparse.ArgumentParser) -> None:
    peers = parser.add_argument_group("the network between ranks")
    peers.add_argument(
        "--peers",
        action="store_true",
        help="open the transport between all ranks, measure each pair, check every byte",
    )
    peers.add_argument(
        "--ranks",
        type=positive_number,
        metavar="N",
        help="start N ranks on this machine; left out: the ranks that torchrun, mpirun or srun "
        "started, else 4",
    )
    peers.add_argument(
        "--nodes",
        type=positive_number,
        metavar="M",
        help="split the ranks into M emulated nodes (default: 1)",
    )
    peers.add_argument(
        "--pairs",
        choices=PAIRS,
        help="hosts: ranks of different hosts, all if there is one host; rails: of these, the n-th "
        "rank of a host with the n-th of others (default: hosts)",
    )
    peers.add_argument(
        "--timeout",
        type=positive_seconds,
        metavar="S",
        help="longest wait for another rank, in seconds; a pair gets at most 10 s and half of it "
        "(default: 60)",
    )


def usage_problem(arguments: argparse.Namespace) -> str | None:
    """What does not fit together."""
    if arguments.peers:
        if not arguments.self_test:
            return "--no-self-test has no meaning with --peers"
        return None
    given = [f"--{name}" for name in _OF_PEERS if getattr(arguments, name) is not None]
    return f"{' and '.join(given)}: only with --peers" if given else None
