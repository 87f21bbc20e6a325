"""Ranks that are processes: rendezvous, launchers' variables, secrets, and torch process groups."""

import moelink
import process_jobs
import pytest
from process_ranks import SECRET, free_port, run_processes, values_of


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_round_trip_over_the_tcp_rendezvous(num_ranks: int):
    outcomes = run_processes(num_ranks, process_jobs.round_trip, free_port())
    assert values_of(outcomes) == [True] * num_ranks


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "{rank}", "WORLD_SIZE": "2", "LOCAL_RANK": "{rank}"},
        {"OMPI_COMM_WORLD_RANK": "{rank}", "OMPI_COMM_WORLD_SIZE": "2"},
        {"SLURM_PROCID": "{rank}", "SLURM_NTASKS": "2"},
    ],
    ids=["torchrun", "open_mpi", "slurm"],
)
def test_round_trip_over_the_variables_of_a_launcher(variables: dict[str, str]):
    variables = {
        **variables,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "MOELINK_SECRET": SECRET,
    }
    outcomes = run_processes(2, process_jobs.round_trip_from_environment, variables)
    assert values_of(outcomes) == [True, True]


def test_wrong_secret_is_refused_on_both_sides():
    secrets = [SECRET, "another secret"]
    outcomes = run_processes(2, process_jobs.join_with_secret, free_port(), secrets)
    for outcome in outcomes:
        assert isinstance(outcome.error, moelink.Error)
    assert outcomes[0].error.code is moelink.ErrorCode.TIMEOUT
    assert "rank 1" in str(outcomes[0].error)
    assert outcomes[1].error.code is moelink.ErrorCode.PEER_LOST
    assert "secret" in str(outcomes[1].error)


def test_simple_form_works_over_a_gloo_process_group(tmp_path):
    outcomes = run_processes(2, process_jobs.use_process_group, str(tmp_path / "store"))
    for rank, column in enumerate(values_of(outcomes)):
        value = 2.0 * (rank + 1)
        assert column == [2 * value, value, value, 0]
