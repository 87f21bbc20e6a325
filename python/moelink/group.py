"""Groups of ranks: who takes part in the exchange."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from moelink import _core
from moelink.errors import Error, ErrorCode, invalid_argument, make_error

__all__ = ["Group"]


class Group:
    """The ranks that exchange tokens, and a slow, safe way for them to exchange small blobs.

    Make one with :meth:`from_environment`, :meth:`connect`, :meth:`threads`, :meth:`from_callback`,
    :meth:`from_process_group` or :meth:`from_mpi`. All of them are collective and take

    * ``timeout``: longest wait for the other ranks in each collective, in seconds. None: 100 s.
    * ``num_nodes``: nodes of equal size, between which traffic takes the network: so many, also
      where hosts are fewer (emulated nodes). 0: ``MOELINK_NODES`` if it is set, else a node for
      each host; ranks must be numbered host by host.

    They raise :class:`moelink.Error` with code ``TIMEOUT`` when ranks are missing (it names them),
    ``PEER_LOST`` when a rank died or was refused, and ``INVALID_ARGUMENT`` for wrong arguments.
    """

    __slots__ = ("_core",)

    def __init__(self, core: _core.Group) -> None:
        """Used by the class methods; ``core`` is the C++ group."""
        if not isinstance(core, _core.Group):
            raise TypeError("make a group with Group.from_environment(), Group.threads(), ...")
        self._core = core

    @classmethod
    def from_environment(cls, timeout: float | None = None, num_nodes: int = 0) -> Group:
        """Reads the variables of torchrun, mpirun or Slurm, and ``MOELINK_SECRET``."""
        return cls(_core.Group.from_environment(_options(timeout, num_nodes)))

    @classmethod
    def connect(
        cls, rank: int, num_ranks: int, host: str, port: int, secret: str, **options: Any
    ) -> Group:
        """Rank 0 listens at ``host:port``, the others connect and prove that they know ``secret``.

        ``options``: ``timeout`` and ``num_nodes``, see the class.
        """
        config = _core.RendezvousConfig()
        if not 0 < port < 65536:
            raise invalid_argument(f"Group.connect (rank {rank}): port {port}, expected 1 to 65535")
        config.rank = rank
        config.num_ranks = num_ranks
        config.host = host
        config.port = port
        config.secret = secret
        return cls(_core.Group.connect(config, _options(**options)))

    @classmethod
    def threads(
        cls, num_ranks: int, timeout: float | None = None, num_nodes: int = 0
    ) -> list[Group]:
        """One group per thread of this process; element i belongs to rank i. Not collective."""
        groups = _core.Group.of_threads(num_ranks, _options(timeout, num_nodes))
        return [cls(group) for group in groups]

    @classmethod
    def from_callback(
        cls,
        rank: int,
        num_ranks: int,
        all_gather: Callable[[bytes], Sequence[bytes]],
        timeout: float | None = None,
        num_nodes: int = 0,
    ) -> Group:
        """Over any all-gather: it gets this rank's blob and returns those of all ranks in order.

        The callback is trusted to end: its waits cannot be interrupted from here.
        """
        options = _options(timeout, num_nodes)
        return cls(_core.Group.from_callback(rank, num_ranks, all_gather, options))

    @classmethod
    def from_process_group(cls, process_group: Any, **options: Any) -> Group:
        """Over a ``torch.distributed`` process group of any backend that can all-gather objects.

        ``options``: ``timeout`` and ``num_nodes``, see the class. The process group's own timeout
        bounds its waits.
        """
        import torch.distributed as dist

        rank = dist.get_rank(process_group)
        num_ranks = dist.get_world_size(process_group)
        if rank < 0:
            raise invalid_argument("Group: this process is no member of the process group")

        def all_gather(blob: bytes) -> list[bytes]:
            blobs: list[Any] = [None] * num_ranks
            try:
                dist.all_gather_object(blobs, blob, group=process_group)
            except Exception as error:
                raise _peer_lost(rank, "the process group's all_gather_object", error) from error
            return blobs

        return cls.from_callback(rank, num_ranks, all_gather, **options)

    @classmethod
    def from_mpi(cls, communicator: Any, **options: Any) -> Group:
        """Over an mpi4py communicator: it has ``Get_rank``, ``Get_size`` and ``allgather``.

        ``options``: ``timeout`` and ``num_nodes``, see the class.
        """
        rank = communicator.Get_rank()

        def all_gather(blob: bytes) -> list[bytes]:
            try:
                return list(communicator.allgather(blob))
            except Exception as error:
                raise _peer_lost(rank, "the communicator's allgather", error) from error

        return cls.from_callback(rank, communicator.Get_size(), all_gather, **options)

    @classmethod
    def of(cls, group: Any, timeout: float | None = None, num_nodes: int = 0) -> Group:
        """The group meant by ``group``: a Group, a process group, a communicator, or None.

        None reads the environment. A Group is returned as it is; ``num_nodes`` is then 0 or its.
        """
        if isinstance(group, Group):
            if num_nodes not in (0, group.num_nodes):
                raise invalid_argument(
                    f"Buffer (rank {group.rank}): num_nodes {num_nodes}, expected the group's "
                    f"{group.num_nodes} (pass num_nodes where the group is made)"
                )
            return group
        if group is None:
            return cls.from_environment(timeout, num_nodes)
        if _is_process_group(group):
            return cls.from_process_group(group, timeout=timeout, num_nodes=num_nodes)
        if all(hasattr(group, name) for name in ("Get_rank", "Get_size", "allgather")):
            return cls.from_mpi(group, timeout=timeout, num_nodes=num_nodes)
        raise invalid_argument(
            f"Buffer: group is a {type(group).__name__}, expected a moelink.Group, a "
            "torch.distributed process group, an mpi4py communicator or None"
        )

    @property
    def rank(self) -> int:
        """This rank's number, 0 to ``num_ranks - 1``."""
        return self._core.rank

    @property
    def num_ranks(self) -> int:
        """Number of ranks in the group."""
        return self._core.num_ranks

    @property
    def num_nodes(self) -> int:
        """Number of (possibly emulated) nodes; each is a block of consecutive ranks."""
        return self._core.num_nodes

    @property
    def timeout(self) -> float:
        """Longest wait for the other ranks in each collective, in seconds."""
        return self._core.timeout_ms / 1000

    def all_gather(self, blob: bytes) -> list[bytes]:
        """Collective: the blobs of all ranks in rank order. They may be empty or differ in size."""
        return self._core.all_gather(blob)

    def barrier(self) -> None:
        """Collective: returns when all ranks have called it."""
        self._core.barrier()

    def __repr__(self) -> str:
        return f"<moelink.Group rank {self.rank} of {self.num_ranks}, {self.num_nodes} node(s)>"


def _options(timeout: float | None = None, num_nodes: int = 0) -> _core.GroupOptions:
    options = _core.GroupOptions()
    if timeout is not None:
        options.timeout_ms = milliseconds(timeout, "Group")
    options.num_nodes = num_nodes
    return options


def milliseconds(timeout: float, where: str) -> int:
    """A time limit in seconds as whole milliseconds, at least one."""
    if not 0 < timeout < 10**9:
        raise invalid_argument(f"{where}: timeout {timeout} s, expected more than 0 and under 1e9")
    return max(1, round(timeout * 1000))


def _peer_lost(rank: int, what: str, error: Exception) -> Error:
    return make_error(ErrorCode.PEER_LOST, f"bootstrap (rank {rank}): {what} failed: {error}")


def _is_process_group(group: Any) -> bool:
    dist = sys.modules.get("torch.distributed")
    process_group = getattr(dist, "ProcessGroup", None)
    return process_group is not None and isinstance(group, process_group)
