"""Checks of `moelink doctor` that look at the hardware and the operating system."""

from __future__ import annotations

import array
import mmap
import os
import resource
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

from moelink.cli import machine
from moelink.cli.doctor_check import LIMITED, NO, OK, Check, size_text

_MIN_MEMORY_BYTES = 1 << 30
_MIN_NUM_FILES = 1024
_NUM_RANKS_TO_EXPECT = 4


def checks() -> list[Check]:
    functions: tuple[Callable[[], Check], ...] = (
        check_cpu,
        check_simd,
        check_memory,
        check_limits,
        check_shared_memory,
        check_fd_passing,
        check_numa,
        check_huge_pages,
    )
    return [function() for function in functions]


def check_cpu() -> Check:
    usable, total = machine.num_usable_cores(), os.cpu_count() or 1
    finding = f"{machine.cpu_model()}, {usable} of {total} cores usable"
    quota = cpu_quota()
    if quota is not None and quota < usable:
        finding += f", container limited to {quota:g} cores"
        return Check("CPU", LIMITED, finding, "raise the container's CPU limit")
    if usable < 2:
        return Check("CPU", LIMITED, finding, "ranks share one core: works, but takes turns")
    return Check("CPU", OK, finding)


def cpu_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Cores that the control group allows; None without a limit."""
    text = machine.read_text(str(root / "cpu.max"))
    if text is not None:  # version 2: "max 100000" or "150000 100000"
        quota, _, period = text.partition(" ")
        return None if quota == "max" else int(quota) / int(period or 100_000)
    quota_us = machine.read_text(str(root / "cpu" / "cpu.cfs_quota_us"))
    period_us = machine.read_text(str(root / "cpu" / "cpu.cfs_period_us"))
    if quota_us is None or period_us is None or int(quota_us) <= 0:
        return None
    return int(quota_us) / int(period_us)


def check_simd() -> Check:
    target = machine.simd_target()
    if target is None:
        return Check("SIMD", LIMITED, "the compiled part does not say which target it uses")
    allowed = os.environ.get("MOELINK_SIMD")
    if allowed:
        return Check(
            "SIMD",
            LIMITED,
            f"{target}, held back by MOELINK_SIMD={allowed}",
            "unset MOELINK_SIMD for the CPU's best",
        )
    if target.upper() in ("SCALAR", "EMU128"):
        return Check("SIMD", LIMITED, f"{target}: no vector instructions, results are the same")
    return Check("SIMD", OK, target)


def memory_limit_bytes(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Memory that the control group allows; None without a limit."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        text = machine.read_text(str(root / name))
        if text is not None and text.isdigit() and int(text) < machine.total_memory_bytes():
            return int(text)
    return None


def check_memory() -> Check:
    total, available = machine.total_memory_bytes(), machine.available_memory_bytes()
    finding = f"{size_text(available)} of {size_text(total)} free"
    limit = memory_limit_bytes()
    if limit is not None:
        finding += f", container limited to {size_text(limit)}"
        available = min(available, limit)
    else:
        finding += ", no container limit"
    if available < _MIN_MEMORY_BYTES:
        return Check("memory", LIMITED, finding, "free some memory, or use fewer tokens per call")
    return Check("memory", OK, finding)


def check_limits() -> Check:
    """A rank reserves as much memory as the machine has, and maps that of its peers."""
    reserved = machine.total_memory_bytes()
    smaller = "or set MOELINK_MAX_SYMMETRIC_BYTES"
    limits = {
        "address space": (
            resource.RLIMIT_AS,
            reserved * _NUM_RANKS_TO_EXPECT,
            f"ulimit -v unlimited {smaller}",
        ),
        "file size": (resource.RLIMIT_FSIZE, reserved, f"ulimit -f unlimited {smaller}"),
        "open files": (resource.RLIMIT_NOFILE, _MIN_NUM_FILES, f"ulimit -n {_MIN_NUM_FILES}"),
    }
    findings, advice = [], []
    for name, (kind, minimum, remedy) in limits.items():
        soft, _ = resource.getrlimit(kind)
        unlimited = soft == resource.RLIM_INFINITY
        text = "unlimited" if unlimited else (f"{soft:,}" if "files" in name else size_text(soft))
        findings.append(f"{name} {text}")
        if not unlimited and soft < minimum:
            advice.append(remedy)
    status = LIMITED if advice else OK
    return Check("process limits", status, ", ".join(findings), "; ".join(advice))


def check_shared_memory() -> Check:
    """Creates a shared memory file, writes through one mapping and reads through another."""
    num_bytes = 1 << 20
    try:
        descriptor = os.memfd_create("moelink-doctor", os.MFD_CLOEXEC)
        try:
            os.ftruncate(descriptor, num_bytes)
            writer, reader = mmap.mmap(descriptor, num_bytes), mmap.mmap(descriptor, num_bytes)
            with writer, reader:
                writer[-1:] = b"\x5a"
                seen = reader[-1:]
        finally:
            os.close(descriptor)
    except OSError as error:
        return Check(
            "shared memory",
            NO,
            f"memfd: {error.strerror}",
            "needed between processes; ranks as threads (Group.threads) work without it",
            required=True,
        )
    if seen != b"\x5a":
        return Check("shared memory", NO, "memfd: two mappings differ", required=True)
    return Check("shared memory", OK, "memfd (leaves nothing in /dev/shm)", required=True)


def check_fd_passing() -> Check:
    """Sends a descriptor over a Unix socket and uses what arrives."""
    name = "passing of files"
    try:
        left, right = socket.socketpair(socket.AF_UNIX)
        with left, right:
            source = os.memfd_create("moelink-doctor", os.MFD_CLOEXEC)
            try:
                rights = array.array("i", [source])
                left.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
                _, received, _, _ = socket.recv_fds(right, 1, 1)
                same = os.fstat(received[0]).st_ino == os.fstat(source).st_ino
                os.close(received[0])
            finally:
                os.close(source)
    except (OSError, IndexError) as error:
        return Check(name, NO, f"Unix sockets: {error}", "use ranks as threads", required=True)
    status = OK if same else NO
    return Check(name, status, "over Unix sockets", required=True)


def check_numa(root: Path = Path("/sys/devices/system/node")) -> Check:
    nodes = sorted(root.glob("node[0-9]*"))
    tool = "lstopo" if shutil.which("lstopo") or shutil.which("lstopo-no-graphics") else "no lstopo"
    if not nodes:
        return Check("NUMA", OK, f"one memory node assumed ({root} is missing, {tool})")
    cores = {node.name: machine.read_text(str(node / "cpulist")) or "none" for node in nodes}
    if len(nodes) == 1:
        return Check("NUMA", OK, f"one memory node, cores {cores[nodes[0].name]} ({tool})")
    finding = ", ".join(f"{name}: cores {listed}" for name, listed in cores.items())
    return Check(
        "NUMA",
        LIMITED,
        f"{finding} ({tool})",
        "ranks are not bound by Moelink: bind them with numactl or the launcher",
    )


def check_huge_pages(
    path: str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled",
) -> Check:
    name = "huge pages"
    text = machine.read_text(path)
    if text is None:
        return Check(name, LIMITED, "the kernel has no transparent huge pages for shared memory")
    chosen = text.partition("[")[2].partition("]")[0] or text
    if chosen in ("always", "within_size", "advise", "force"):
        return Check(name, OK, f"shared memory: {chosen}")
    return Check(
        name,
        LIMITED,
        f"shared memory: {chosen} (4 KiB pages; large transfers are somewhat slower)",
        f"as root: echo advise > {path}",
    )
