"""ptxas' report is read right, and kernels that lose time to memory or do not fit are found."""

import pytest
from lint.kernel_report import (
    KernelUse,
    LaunchBounds,
    find_faults,
    parse_launch_bounds,
    parse_log,
    readable,
    table,
)

LOG = """\
[3/9] Building CUDA object a.cu.o
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z4moveP1A' for 'sm_80'
ptxas info    : Function properties for _Z4moveP1A
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 91 registers, used 1 barriers, 512 bytes smem, 1200 bytes cmem[0]
ptxas info    : Compile time = 40.275 ms
ptxas info    : Compiling entry function '_Z4moveP1A' for 'sm_90a'
ptxas info    : Function properties for _Z4moveP1A
    24 bytes stack frame, 16 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 32 registers, used 0 barriers
ptxas info    : Function properties for _Z4addsP1A
    40 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
"""

PTX = b"""\x7fELF\x00\xff\x00.version 9.0
.visible .entry _Z4moveP1A(
\t.param .align 8 .b8 _Z4moveP1A_param_0[624]
)
.maxntid 512, 2, 1
.minnctapersm 2
{
\t.reg .b32 %r<11>;
.entry bare(
\t.param .u64 bare_param_0
)
{
.entry one() .reqntid 64, 1, 1 {
"""

MOVE = "_Z4moveP1A"
BOUNDS = {MOVE: LaunchBounds(512)}


def faults(*uses: KernelUse, architectures: str = "sm_90a") -> list[str]:
    return list(find_faults(list(uses), BOUNDS, set(architectures.split())))


def test_log_tells_what_each_kernel_uses_on_each_architecture():
    assert parse_log(LOG) == [
        KernelUse(MOVE, "sm_80", registers=91, shared_bytes=512),
        KernelUse(MOVE, "sm_90a", registers=32, local_bytes=24, spill_bytes=28),
        KernelUse("_Z4addsP1A", "sm_90a", local_bytes=40),
    ]


def test_local_memory_on_the_line_of_registers_counts():
    line = "ptxas info : Compiling entry function 'a' for 'sm_80'\nUsed 8 registers, 64 bytes lmem"
    assert parse_log(line) == [KernelUse("a", "sm_80", registers=8, local_bytes=64)]


def test_launch_bounds_are_found_between_the_bytes_of_an_object():
    expected = {MOVE: LaunchBounds(1024, 2), "one": LaunchBounds(64)}
    assert parse_launch_bounds([b"", PTX]) == expected


@pytest.mark.parametrize(
    ("threads", "blocks", "registers"),
    [(128, 1, 255), (512, 1, 128), (512, 2, 64), (1024, 1, 64), (544, 1, 96), (576, 1, 96)],
)
def test_warps_of_a_quarter_of_a_multiprocessor_share_its_registers(threads, blocks, registers):
    assert LaunchBounds(threads, blocks).max_registers() == registers


def test_a_kernel_that_fits_and_stays_in_registers_is_accepted():
    assert faults(KernelUse(MOVE, "sm_90a", registers=128)) == []


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (KernelUse(MOVE, "sm_90a", 32, local_bytes=24, spill_bytes=28), "spills registers: 28"),
        (KernelUse(MOVE, "sm_90a", 32, local_bytes=24), "keeps 24 bytes in local memory"),
        (KernelUse(MOVE, "sm_90a", 129), "has 129 registers, its launch bounds leave it 128"),
        (KernelUse("other", "sm_90a", 8), "other has no launch bounds"),
        (KernelUse(MOVE, "sm_80", 8), "was not compiled for sm_90a"),
    ],
)
def test_a_kernel_that_does_not_is_named(use, words):
    found = faults(use)
    assert len(found) == 1
    assert words in found[0]


def test_a_called_function_in_local_memory_is_named_beside_its_kernel():
    found = faults(KernelUse(MOVE, "sm_90a", 32), KernelUse("called", "sm_90a", local_bytes=8))
    assert found == ["called for sm_90a keeps 8 bytes in local memory"]


def test_a_log_without_kernels_is_a_fault():
    assert faults() == ["the log tells of no kernel"]


def test_names_lose_namespaces_and_parameters():
    mangled = "_ZN7moelink7kernels12_GLOBAL__N_114combine_kernelINS_6device4CodeELb1EEEvPS3_"
    assert readable([mangled])[mangled] == "combine_kernel<Code, true>"


def test_table_has_a_row_per_kernel_and_architecture():
    lines = table(parse_log(LOG), BOUNDS).splitlines()
    assert lines[0].split() == [
        "kernel", "arch", "threads", "blocks", "registers", "of", "local", "shared",
    ]  # fmt: skip
    assert [line.split()[1:] for line in lines[1:]] == [
        ["sm_90a", "-", "-", "-", "-", "40", "0"],
        ["sm_80", "512", "1", "91", "128", "0", "512"],
        ["sm_90a", "512", "1", "32", "128", "24", "0"],
    ]
