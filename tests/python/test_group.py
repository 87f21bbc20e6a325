"""Groups from threads, callbacks, communicators and the TCP rendezvous, and their errors."""

import threading

import moelink
import numpy as np
import pytest
from thread_ranks import errors_of, outcomes_of, run_threads


class Communicator:
    """As much of an mpi4py communicator as Moelink uses, over threads."""

    def __init__(self, rank: int, board: list, barrier: threading.Barrier) -> None:
        self._rank = rank
        self._board = board
        self._barrier = barrier

    def Get_rank(self) -> int:  # noqa: N802
        return self._rank

    def Get_size(self) -> int:  # noqa: N802
        return len(self._board)

    def allgather(self, blob: bytes) -> list[bytes]:
        self._board[self._rank] = blob
        self._barrier.wait(30)
        blobs = list(self._board)
        self._barrier.wait(30)
        return blobs


def communicators(num_ranks: int) -> list[Communicator]:
    board: list = [None] * num_ranks
    barrier = threading.Barrier(num_ranks)
    return [Communicator(rank, board, barrier) for rank in range(num_ranks)]


def test_thread_groups_gather_blobs_in_rank_order():
    def body(group: moelink.Group):
        group.barrier()
        return group.all_gather(b"\0" * group.rank)

    assert run_threads(3, body) == [[b"", b"\0", b"\0\0"]] * 3


def test_group_describes_itself():
    groups = moelink.Group.threads(4, timeout=2.5, num_nodes=2)
    assert [group.rank for group in groups] == [0, 1, 2, 3]
    assert {(g.num_ranks, g.num_nodes, g.timeout) for g in groups} == {(4, 2, 2.5)}
    assert repr(groups[1]) == "<moelink.Group rank 1 of 4, 2 node(s)>"


def test_buffer_takes_a_communicator():
    comms = communicators(2)

    def body(group: moelink.Group):
        with moelink.Buffer(comms[group.rank], num_nodes=2) as buffer:
            assert (buffer.rank, buffer.num_ranks, buffer.group.num_nodes) == (group.rank, 2, 2)
            recv_x, _ = buffer.dispatch(np.full((1, 4), group.rank, np.int32), np.array([[0]]))
            return recv_x[:, 0].tolist()

    assert run_threads(2, body) == [[0, 1], []]


def test_error_of_a_communicator_names_the_rank_and_keeps_its_cause():
    class Broken(Communicator):
        def allgather(self, blob: bytes) -> list[bytes]:
            raise OSError("the wire is cut")

    with pytest.raises(moelink.Error, match=r"rank 0.*allgather failed: the wire is cut") as caught:
        moelink.Buffer(Broken(0, [None], threading.Barrier(1)))
    assert caught.value.code is moelink.ErrorCode.PEER_LOST


def test_callback_may_raise_anything():
    def all_gather(blob: bytes) -> list[bytes]:
        raise KeyError("secret sauce")

    with pytest.raises((KeyError, moelink.Error), match="secret sauce"):
        moelink.Buffer(moelink.Group.from_callback(0, 2, all_gather))


@pytest.mark.parametrize("result", [[], [b"x"], [b"x", "y"], None, 3])
def test_callback_with_a_wrong_result_is_refused(result):
    with pytest.raises((moelink.Error, TypeError)):
        moelink.Buffer(moelink.Group.from_callback(0, 2, lambda blob: result))


def test_group_may_not_be_made_by_hand():
    with pytest.raises(TypeError, match=r"Group\.from_environment"):
        moelink.Group(object())


def test_environment_without_a_launcher_says_what_is_missing(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(moelink.Error, match="RANK"):
        moelink.Group.from_environment()


def test_buffer_refuses_what_is_no_group():
    with pytest.raises(moelink.Error, match=r"group is a str, expected a moelink\.Group"):
        moelink.Buffer("localhost")


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"timeout": 0}, "timeout 0 s"),
        ({"timeout": -1.5}, "timeout -1.5 s"),
        ({"num_nodes": 3}, "nodes.*3"),
    ],
)
def test_bad_options_are_refused(options, pattern: str):
    with pytest.raises(moelink.Error, match=pattern):
        moelink.Group.threads(4, **options)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_bad_port_is_refused(port: int):
    with pytest.raises(moelink.Error, match=f"port {port}, expected 1 to 65535"):
        moelink.Group.connect(0, 2, "127.0.0.1", port, "secret")


def test_late_rank_is_named():
    groups = moelink.Group.threads(3, timeout=0.2)

    def body(group: moelink.Group):
        if group.rank != 1:
            group.barrier()

    outcomes = outcomes_of(groups, body)
    for rank in (0, 2):
        error = outcomes[rank].error
        assert isinstance(error, moelink.Error)
        assert error.code is moelink.ErrorCode.TIMEOUT
        assert "rank 1" in str(error)


def test_block_that_raises_does_not_wait_for_its_peers():
    def body(group: moelink.Group):
        with moelink.Buffer(group) as buffer:
            if group.rank == 1:
                raise ZeroDivisionError
            buffer.barrier()

    with pytest.raises(ZeroDivisionError):
        errors_of(2, body)
