"""What kernels use of a GPU, as ptxas has told: `python -m lint.kernel_report BUILD_FOLDER LOG`.

Needs a build with -Xptxas=-v (whose output is LOG) and --compress-mode=none. Fails if a kernel
spills registers or keeps anything in local memory, has no launch bounds, or has so many registers
that the blocks which these bounds promise do not fit a multiprocessor.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Alike on all architectures that the kernels are written for.
_REGISTERS_PER_SM = 65536
_WARP_SIZE = 32
_REGISTER_GRANULE = 8  # per thread
_WARP_GRANULE = 4  # a multiprocessor has four parts with equal numbers of warps

_ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
_PROPERTIES = re.compile(r"Function properties for (\w+)")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")
_LOCAL = re.compile(r"(\d+) bytes lmem")

_PTX_ENTRY = re.compile(rb"\.entry\s+(\w+)\s*\(([^{]*)\{")
_PTX_THREADS = re.compile(rb"\.(?:maxntid|reqntid)\s+([\d, ]+)")
_PTX_BLOCKS = re.compile(rb"\.minnctapersm\s+(\d+)")


@dataclass
class KernelUse:
    """Of a kernel, or of a function that kernels call: that one has no registers of its own."""

    name: str
    arch: str
    registers: int | None = None
    local_bytes: int = 0
    spill_bytes: int = 0
    shared_bytes: int = 0


@dataclass(frozen=True)
class LaunchBounds:
    threads: int
    blocks: int = 1

    def max_registers(self) -> int:
        num_warps = -(-self.threads // _WARP_SIZE) * self.blocks
        num_warps = -(-num_warps // _WARP_GRANULE) * _WARP_GRANULE
        registers = _REGISTERS_PER_SM // (num_warps * _WARP_SIZE)
        return min(255, registers // _REGISTER_GRANULE * _REGISTER_GRANULE)


def parse_log(log: str) -> list[KernelUse]:
    uses: dict[tuple[str, str], KernelUse] = {}
    kernel = function = KernelUse("", "")
    for line in log.splitlines():
        if match := _ENTRY.search(line):
            key = (match[1], match[2])
            kernel = function = uses.setdefault(key, KernelUse(*key))
        elif match := _PROPERTIES.search(line):
            key = (match[1], kernel.arch)
            function = uses.setdefault(key, KernelUse(*key))
        elif match := _STACK.search(line):
            function.local_bytes = max(function.local_bytes, int(match[1]))
            function.spill_bytes = max(function.spill_bytes, int(match[2]) + int(match[3]))
        elif match := _USED.search(line):
            kernel.registers = int(match[1])
            kernel.shared_bytes = _number(_SHARED, line)
            kernel.local_bytes = max(kernel.local_bytes, _number(_LOCAL, line))
    return list(uses.values())


def _number(pattern: re.Pattern[str], line: str) -> int:
    match = pattern.search(line)
    return int(match[1]) if match else 0


def parse_launch_bounds(objects: Iterable[bytes]) -> dict[str, LaunchBounds]:
    """From the PTX that object files hold; kernels without bounds are left out."""
    bounds = {}
    for data in objects:
        for name, directives in _PTX_ENTRY.findall(data):
            threads = _PTX_THREADS.search(directives)
            blocks = _PTX_BLOCKS.search(directives)
            if threads is None:
                continue
            count = 1
            for extent in threads[1].split(b","):
                count *= int(extent)
            bounds[name.decode()] = LaunchBounds(count, int(blocks[1]) if blocks else 1)
    return bounds


def find_faults(
    uses: list[KernelUse], bounds: dict[str, LaunchBounds], architectures: set[str]
) -> Iterator[str]:
    kernels = {use.name for use in uses if use.registers is not None}
    if not kernels:
        yield "the log tells of no kernel"
    for name in sorted(kernels):
        missing = architectures - {use.arch for use in uses if use.name == name}
        if missing:
            yield f"{name} was not compiled for {', '.join(sorted(missing))}"
        if name not in bounds:
            yield f"{name} has no launch bounds"
    for use in uses:
        where = f"{use.name} for {use.arch}"
        if use.spill_bytes > 0:
            yield f"{where} spills registers: {use.spill_bytes} bytes"
        elif use.local_bytes > 0:
            yield f"{where} keeps {use.local_bytes} bytes in local memory"
        if use.registers is None or use.name not in bounds:
            continue
        most = bounds[use.name].max_registers()
        if use.registers > most:
            yield f"{where} has {use.registers} registers, its launch bounds leave it {most}"


def readable(names: Iterable[str]) -> dict[str, str]:
    """Short names by mangled name: without namespaces and parameters."""
    mangled = sorted(set(names))
    tool = shutil.which("c++filt")
    if tool is None:
        return {name: name for name in mangled}
    text = "\n".join(mangled)
    run = subprocess.run([tool], input=text, capture_output=True, text=True, check=True)
    return dict(zip(mangled, map(_shortened, run.stdout.splitlines()), strict=True))


def _shortened(name: str) -> str:
    bare = re.sub(r"\(anonymous namespace\)::|\b\w+::", "", name).removeprefix("void ")
    return bare.split("(")[0]


def table(uses: list[KernelUse], bounds: dict[str, LaunchBounds]) -> str:
    names = readable(use.name for use in uses)
    rows = [("kernel", "arch", "threads", "blocks", "registers", "of", "local", "shared")]
    for use in sorted(uses, key=lambda use: (names[use.name], use.arch.rjust(8))):
        bound = bounds.get(use.name)
        rows.append(
            (
                names[use.name],
                use.arch,
                str(bound.threads) if bound else "-",
                str(bound.blocks) if bound else "-",
                str(use.registers) if use.registers is not None else "-",
                str(bound.max_registers()) if bound else "-",
                str(use.local_bytes),
                str(use.shared_bytes),
            )
        )
    width = max(len(row[0]) for row in rows)
    return "\n".join(
        f"{row[0]:{width}} {row[1]:9}" + "".join(f"{cell:>10}" for cell in row[2:]) for row in rows
    )


def read_build(folder: Path) -> tuple[list[bytes], set[str]]:
    """The objects of the kernels, and the architectures for which they are compiled."""
    commands = json.loads((folder / "compile_commands.json").read_text())
    objects, architectures = [], set()
    for command in commands:
        if not re.search(r"/(src/kernels|tests/gpu)/.*\.cu$", command["file"]):
            continue
        output = re.search(r" -o (\S+)", command["command"])
        if output is None:
            raise ValueError(f"no object in: {command['command']}")
        objects.append((Path(command["directory"]) / output[1]).read_bytes())
        architectures |= set(re.findall(r"\bsm_\w+", command["command"]))
    return objects, architectures


def main() -> int:
    folder, log = map(Path, sys.argv[1:3])
    objects, architectures = read_build(folder)
    uses, bounds = parse_log(log.read_text()), parse_launch_bounds(objects)
    print(table(uses, bounds))
    faults = list(find_faults(uses, bounds, architectures))
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
