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


# Name, variable with this process's rank, variables with the number of ranks: the first that is
# set counts. The library reads the same ones in the same order (`src/bootstrap/launcher.hpp`).
_VARIABLES = (
    ("by hand", "MOELINK_RANK", ("MOELINK_NUM_RANKS",)),
    ("torchrun", "RANK", ("WORLD_SIZE",)),
    ("mpirun (Open MPI)", "OMPI_COMM_WORLD_RANK", ("OMPI_COMM_WORLD_SIZE",)),
    ("mpirun (PMI)", "PMI_RANK", ("PMI_SIZE",)),
    ("PMIx", "PMIX_RANK", ("OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")),
    ("srun (Slurm)", "SLURM_PROCID", ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")),
)

RANK_VARIABLES = tuple(rank for _, rank, _ in _VARIABLES)


def detect_launcher(environment: Mapping[str, str] | None = None) -> Launcher | None:
    """The launcher that started this process, from its variables; None when there is none."""
    environment = os.environ if environment is None else environment
    for name, rank_variable, size_variables in _VARIABLES:
        rank = environment.get(rank_variable, "")
        sizes = (environment.get(variable, "") for variable in size_variables)
        size = next((text for text in sizes if text), "")
        if rank.isdigit() and size.isdigit():
            return Launcher(name, int(rank), int(size))
    return None
