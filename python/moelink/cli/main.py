"""Entry point of the `moelink` command."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from moelink.cli import bench_options, doctor_options, exit_codes, machine

_EPILOG = (
    """examples:
  moelink doctor                what this machine can do, and why not the rest
  moelink doctor --peers        what the network between ranks can do
  moelink bench                 4 local ranks, results checked, a table
  moelink bench --ranks 8 --nodes 2 --dtype fp8 --json fp8.json
  torchrun --nproc-per-node 4 -m moelink.cli.main bench
  moelink demo                  train a small MoE model on 4 ranks

"""
    + exit_codes.HELP
)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="moelink",
        description="Expert-parallel dispatch and combine: try it, measure it, check a machine.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    commands.add_parser(
        "demo", help="train a small MoE model on local ranks and prove the result", add_help=False
    )
    bench_options.add_parser(commands)
    doctor_options.add_parser(commands)
    return parser


def version_text() -> str:
    core = importlib.import_module("moelink._core")
    protocol = getattr(core, "protocol_version", None)
    parts = ["backends: cpu", f"SIMD: {machine.simd_target() or 'unknown'}"]
    if protocol is not None:
        parts.insert(0, f"protocol {protocol() if callable(protocol) else protocol}")
    return f"moelink {machine.moelink_version()} ({', '.join(parts)})"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; usage errors leave by SystemExit(2)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        print("moelink: interrupted", file=sys.stderr)
        return exit_codes.INTERRUPTED
    except BrokenPipeError:
        return exit_codes.RUNTIME


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["demo"]:  # the demo has an argument parser of its own
        return _run_demo(arguments[1:])
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.version:
        print(version_text())
        return exit_codes.OK
    if options.command is None:
        parser.print_help()
        return exit_codes.USAGE
    if options.command == "bench":
        module = importlib.import_module("moelink.cli.bench")
    else:
        module = importlib.import_module("moelink.cli.doctor")
    return int(module.run(options))


def _run_demo(arguments: list[str]) -> int:
    try:
        demo = importlib.import_module("moelink.demo.main")
    except ModuleNotFoundError as error:
        print(
            f"moelink: the demo cannot start: no module named '{error.name}'\n"
            "         install what it needs: pip install 'moelink[demo]'",
            file=sys.stderr,
        )
        return exit_codes.CANNOT
    return int(demo.main(arguments) or exit_codes.OK)


if __name__ == "__main__":
    sys.exit(main())
