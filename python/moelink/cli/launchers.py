"""Recognises the launchers whose ranks `moelink` can join."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Launcher:
    name: str
    rank: int
    num_ranks: int


# Name, variable with this process's rank, variable with the number of ranks.
_VARIABLES = (
    ("torchrun", "RANK", "WORLD_SIZE"),
    ("mpirun (Open MPI)", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("mpirun (PMI)", "PMI_RANK", "PMI_SIZE"),
    ("srun (Slurm)", "SLURM_PROCID", "SLURM_NTASKS"),
)


def detect_launcher(environment: Mapping[str, str] | None = None) -> Launcher | None:
    """The launcher that started this process, from its variables; None when there is none."""
    environment = os.environ if environment is None else environment
    for name, rank_variable, size_variable in _VARIABLES:
        rank, size = environment.get(rank_variable, ""), environment.get(size_variable, "")
        if rank.isdigit() and size.isdigit():
            return Launcher(name, int(rank), int(size))
    return None
