"""Command line of `moelink bench` and the checks that need no machine."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from moelink.cli import exit_codes

DTYPES = ("bf16", "fp16", "fp32", "fp8", "int8")
# By mode; the first ones are the defaults.
LAYOUTS = {"ht": ("compact", "expert-major"), "ll": ("per-expert", "per-rank")}
DEFAULT_NUM_TOKENS = {"ht": 512, "ll": 16}
MODES = ("ht", "ll")
BACKENDS = ("cpu", "cuda")
NETWORK_PATHS = ("auto", "hierarchical", "direct")
DEFAULT_NUM_RANKS = 4

ELEMENT_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4, "fp8": 1, "int8": 1}
MAX_LOW_LATENCY_TOKENS = 4096
SCALE_BLOCK = 128  # channels that share one scale in fp8 and int8

_EPILOG = (
    """examples:
  moelink bench                                  4 local ranks, BF16, compact
  moelink bench --ranks 2 --tokens 16 --stages   where a small exchange spends
  moelink bench --dtype fp8 --layout expert-major --alignment 128
  moelink bench --ranks 8 --nodes 2 --json out.json     over a network between them
  moelink bench --mode ll --dtype fp8            low latency, quantised on send
  moelink bench --mode ll --backend cuda --graph --experts 288 --hidden 7168
  moelink bench --backend cuda                   on GPUs, which the ranks take in turn

  ranks of a launcher (leave --ranks out):
  export MOELINK_SECRET=$(openssl rand -hex 32)
  torchrun --nproc-per-node 4 -m moelink.cli.main bench
  mpirun -n 4 -x MOELINK_SECRET moelink bench

Times are those of the slowest rank. "floor" is the time in which all ranks at
once copy the same number of bytes with memcpy, measured in the same run. On GPUs
both are measured by CUDA events. Ranks that share a GPU should run under MPS
(nvidia-cuda-mps-control -d): without it they take turns.

"""
    + exit_codes.HELP
)


@dataclass(frozen=True)
class BenchOptions:
    """What one run measures; travels to the ranks as JSON."""

    mode: str = "ht"
    backend: str = "cpu"
    ranks: int | None = None  # None: the launcher's, or DEFAULT_NUM_RANKS
    nodes: int | None = None  # None: MOELINK_NODES, else one for each host
    network_path: str = "auto"
    tokens: int = DEFAULT_NUM_TOKENS["ht"]
    hidden: int = 2048
    topk: int = 8
    experts: int = 64
    dtype: str = "bf16"
    layout: str = "compact"
    alignment: int = 1
    workers: int = 0
    iters: int = 20
    warmup: int = 3
    threads: bool = False
    seed: int = 1
    stages: bool = False
    graph: bool = False
    timeout: float = 60.0
    json: str | None = None

    @property
    def row_bytes(self) -> int:
        return self.hidden * ELEMENT_BYTES[self.dtype]


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "bench",
        help="measure and check dispatch and combine",
        description="Measures the operations of a buffer and checks their results bit for\n"
        "bit against the plain NumPy reference.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_job_arguments(parser)
    _add_shape_arguments(parser)
    _add_run_arguments(parser)
    parser.set_defaults(usage_error=parser.error)


def _add_job_arguments(parser: argparse.ArgumentParser) -> None:
    job = parser.add_argument_group("who")
    job.add_argument(
        "--mode", choices=MODES, default="ht", help="high throughput or low latency (default: ht)"
    )
    job.add_argument(
        "--backend",
        choices=BACKENDS,
        default="cpu",
        help="where tensors are; cuda: in torch tensors on the GPUs (default: cpu)",
    )
    job.add_argument(
        "--ranks",
        type=positive_number,
        metavar="N",
        help="start N ranks on this machine; left out: the ranks that torchrun, mpirun or srun "
        f"started, else {DEFAULT_NUM_RANKS}",
    )
    job.add_argument(
        "--nodes",
        type=positive_number,
        metavar="M",
        help="split the ranks into M nodes, also of one host; with --backend cpu "
        "a network carries what passes between them (default: a node for each host)",
    )
    job.add_argument(
        "--network-path",
        choices=NETWORK_PATHS,
        default="auto",
        help="how tokens of --mode ht cross it: hierarchical: once per node; direct: once per rank "
        "(default: auto, as MOELINK_NETWORK_MODE says, else hierarchical)",
    )
    job.add_argument(
        "--threads", action="store_true", help="ranks are threads of one process, not processes"
    )
    job.add_argument(
        "--workers",
        type=_natural,
        metavar="W",
        default=0,
        help="threads per operation and rank, on GPUs multiprocessors; 0: the cores that a rank "
        "can call its own, on GPUs 24 (default: 0)",
    )


def _add_shape_arguments(parser: argparse.ArgumentParser) -> None:
    shape = parser.add_argument_group("what")
    shape.add_argument(
        "--tokens",
        type=_natural,
        metavar="T",
        help="per rank (default: {ht}, with --mode ll {ll})".format(**DEFAULT_NUM_TOKENS),
    )
    shape.add_argument(
        "--hidden", type=positive_number, metavar="H", default=2048, help="channels (default: 2048)"
    )
    shape.add_argument(
        "--topk",
        type=positive_number,
        metavar="K",
        default=8,
        help="experts per token (default: 8)",
    )
    shape.add_argument(
        "--experts",
        type=positive_number,
        metavar="E",
        default=64,
        help="over all ranks (default: 64)",
    )
    shape.add_argument(
        "--dtype",
        choices=DTYPES,
        default="bf16",
        help="of the dispatched rows; fp8 and int8 carry a scale per 128 channels and are combined "
        "in bf16; with --mode ll bf16 or fp8 (default: bf16)",
    )
    shape.add_argument(
        "--layout",
        choices=[name for names in LAYOUTS.values() for name in names],
        help="compact or expert-major; with --mode ll per-expert or per-rank "
        "(default: the first of them)",
    )
    shape.add_argument(
        "--alignment",
        type=positive_number,
        metavar="A",
        default=1,
        help="rows of an expert are rounded up to a multiple of A (default: 1)",
    )
    shape.add_argument(
        "--seed", type=_natural, metavar="S", default=1, help="of inputs and routing (default: 1)"
    )


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    run = parser.add_argument_group("how")
    run.add_argument(
        "--iters",
        type=positive_number,
        metavar="I",
        default=20,
        help="measured calls (default: 20)",
    )
    run.add_argument(
        "--warmup", type=_natural, metavar="I", default=3, help="calls before them (default: 3)"
    )
    run.add_argument(
        "--stages", action="store_true", help="also time each stage (extra calls, with a hook)"
    )
    run.add_argument(
        "--graph",
        action="store_true",
        help="also time calls in CUDA graphs, without the host's part; with --mode ll on GPUs",
    )
    run.add_argument(
        "--timeout",
        type=positive_seconds,
        metavar="S",
        default=60.0,
        help="longest wait for another rank, in seconds (default: 60)",
    )
    run.add_argument("--json", metavar="FILE", help="also write the results to FILE ('-': stdout)")


def from_arguments(arguments: argparse.Namespace) -> BenchOptions:
    """Options that are possible by themselves; leaves by SystemExit(2) with all that is wrong."""
    names = BenchOptions.__dataclass_fields__
    values = {name: getattr(arguments, name) for name in names}
    if values["tokens"] is None:
        values["tokens"] = DEFAULT_NUM_TOKENS[values["mode"]]
    if values["layout"] is None:
        values["layout"] = LAYOUTS[values["mode"]][0]
    options = BenchOptions(**values)
    problems = shape_problems(options, options.ranks)
    if problems:
        arguments.usage_error("; ".join(problems))
    return options


def shape_problems(options: BenchOptions, num_ranks: int | None) -> list[str]:
    """What does not fit together; without a rank count only what does not depend on it."""
    problems = []
    if options.topk > options.experts:
        problems.append(f"--topk {options.topk} is more than --experts {options.experts}")
    if options.row_bytes % 16:
        problems.append(
            f"--hidden {options.hidden} with --dtype {options.dtype} makes rows of "
            f"{options.row_bytes} bytes; they must be a multiple of 16"
        )
    has_scales = options.mode == "ht" and options.dtype in ("fp8", "int8")
    if has_scales and options.hidden % SCALE_BLOCK:
        problems.append(
            f"--hidden {options.hidden} must be a multiple of {SCALE_BLOCK} for {options.dtype}"
        )
    problems += _mode_problems(options)
    if options.network_path != "auto" and (options.backend, options.mode) != ("cpu", "ht"):
        problems.append(f"--network-path {options.network_path} needs --backend cpu and --mode ht")
    if options.backend == "cuda" and options.threads:
        problems.append("--threads with --backend cuda: ranks on GPUs must be processes")
    if options.graph and (options.backend, options.mode) != ("cuda", "ll"):
        problems.append("--graph needs --backend cuda and --mode ll")
    if num_ranks is None:
        return problems
    if options.experts % num_ranks:
        problems.append(f"--experts {options.experts} is not a multiple of {num_ranks} ranks")
    if num_ranks % (options.nodes or 1):
        problems.append(f"{num_ranks} ranks do not split evenly into --nodes {options.nodes}")
    return problems


def _mode_problems(options: BenchOptions) -> list[str]:
    problems = []
    layouts = LAYOUTS[options.mode]
    if options.layout not in layouts:
        problems.append(
            f"--layout {options.layout} with --mode {options.mode}: use {' or '.join(layouts)}"
        )
    if options.mode != "ll":
        return problems
    if options.dtype not in ("bf16", "fp8"):
        problems.append(f"--dtype {options.dtype} with --mode ll: use bf16 or fp8")
    if options.hidden % SCALE_BLOCK:
        problems.append(
            f"--hidden {options.hidden} must be a multiple of {SCALE_BLOCK} with --mode ll"
        )
    if options.tokens > MAX_LOW_LATENCY_TOKENS:
        problems.append(
            f"--tokens {options.tokens} is more than the {MAX_LOW_LATENCY_TOKENS} of --mode ll"
        )
    if options.alignment != 1:
        problems.append("--alignment has no meaning with --mode ll")
    return problems


def positive_number(text: str) -> int:
    value = _natural(text)
    if value == 0:
        raise argparse.ArgumentTypeError("must be at least 1, not 0")
    return value


def _natural(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}") from None
    if value < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, not {value}")
    return value


def positive_seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number of seconds, not {text!r}") from None
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError(f"must be more than 0 and at most 86400, not {text}")
    return value
