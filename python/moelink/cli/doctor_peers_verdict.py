"""What the measured links say: who is lost, wrong, slow or lopsided, and what to do about it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Link = Mapping[str, Any]
Ranks = Sequence[Mapping[str, Any]]

# Links are compared with others of their kind, if there are a few.
_MIN_LINKS_TO_COMPARE = 6
_SLOW_SHARE = 0.5  # of the median rate
_SLOW_TIMES = 2.0  # the median latency, and
_SLOW_EXTRA_US = 5.0  # so much more
_LOPSIDED = 2.0  # between the rates of both directions
_MAX_NAMED = 5  # of a kind

_TO_DO_LOST = {
    "tcp": "look at firewalls between the hosts (FI_TCP_PORT_LOW_RANGE and FI_TCP_PORT_HIGH_RANGE "
    "limit the ports of puts) and whether its card is the right one (FI_TCP_IFACE)",
    "verbs": "look at the card's port (ibv_devinfo), the subnet manager, on RoCE the VLAN and GID",
    "efa": "look at the security group: it must allow all traffic to and from itself",
    "cxi": "look at the job's VNI (srun --network) and FI_CXI_ENABLE_WRITEDATA=1",
}
_TO_DO_GROUP = {
    "TIMEOUT": "start the missing ranks, and see that they know host and port of rank 0 "
    "(MOELINK_HOST, MOELINK_PORT, or MASTER_ADDR) and that no firewall is between",
    "PEER_LOST": "look at what that rank printed last; all ranks need the same MOELINK_SECRET",
    "UNSUPPORTED": "run moelink doctor on the host of that rank",
    "INVALID_ARGUMENT": "mend the variable or option that it names, at all ranks alike",
    "SYSTEM": "raise the limit that it names, such as: ulimit -l unlimited",
}


def name_ranks(ranks: Sequence[int]) -> str:
    text = ", ".join(map(str, ranks))
    return f"rank {text}" if len(ranks) == 1 else f"ranks {text}"


def lost(links: Sequence[Link]) -> list[Link]:
    return [link for link in links if link["problem"]]


def wrong(links: Sequence[Link]) -> list[Link]:
    return [link for link in links if link["num_wrong_bytes"]]


def sentences(ranks: Ranks, links: Sequence[Link], error: Mapping[str, Any] | None) -> list[str]:
    """The worst first; the last one sums up."""
    if error is not None:
        advice = _TO_DO_GROUP.get(error["code"])
        return [error["message"] + (f" → {advice}" if advice else "")]
    found = [
        *_about_lost(ranks, links),
        *_about_wrong(links),
        *_about_slow(ranks, links),
        *_about_lopsided(links),
    ]
    return [*found, *_about_one_host(ranks, links), _summary(links)]


def _about_lost(ranks: Ranks, links: Sequence[Link]) -> list[str]:
    """Ranks that no peer reached, then the other links that failed, each with the reason."""
    failed = lost(links)
    unreached = _ranks_without_a_link(links, failed)
    if len(unreached) == len({link["source"] for link in links}):
        unreached = []  # then no single rank is to blame
    found = []
    for rank in unreached:
        mine = [link for link in failed if rank in (link["source"], link["target"])]
        peers = sorted({link["source"] for link in mine} - {rank})
        found.append(
            f"NOT REACHED: rank {rank} on {ranks[rank]['host_name']} ({ranks[rank]['transport']}), "
            f"by {name_ranks(peers)}: {mine[0]['problem']} → {_to_do(ranks[rank])}"
        )
    others = [
        link
        for link in failed
        if link["source"] < link["target"] and not {link["source"], link["target"]} & {*unreached}
    ]
    for link in others[:_MAX_NAMED]:
        found.append(
            f"NOT REACHED: rank {link['target']} from rank {link['source']} or back: "
            f"{link['problem']} → {_to_do(ranks[link['target']])}"
        )
    return found + _and_more(others)


def _ranks_without_a_link(links: Sequence[Link], failed: Sequence[Link]) -> list[int]:
    measured = {link["source"] for link in links if not link["problem"]}
    return sorted({link["source"] for link in failed} - measured)


def _to_do(rank: Mapping[str, Any]) -> str:
    provider = (rank["transport"] or "").removeprefix("libfabric ").split(";")[0].split(" ")[0]
    return _TO_DO_LOST.get(provider, "see that the rank runs and that its host has a network")


def _about_wrong(links: Sequence[Link]) -> list[str]:
    found = [
        f"WRONG: {link['num_wrong_bytes']} bytes from rank {link['source']} differ at rank "
        f"{link['target']} → do not use this network; try another MOELINK_FABRIC_PROVIDER"
        for link in wrong(links)
    ]
    return found[:_MAX_NAMED] + _and_more(found)


def _about_slow(ranks: Ranks, links: Sequence[Link]) -> list[str]:
    found = []
    for same_host in (False, True):
        kind = [
            link
            for link in links
            if not link["problem"]
            and (ranks[link["source"]]["host"] == ranks[link["target"]]["host"]) == same_host
        ]
        if len(kind) >= _MIN_LINKS_TO_COMPARE:
            found += _slow_among(kind)
    return found[:_MAX_NAMED] + _and_more(found)


def _slow_among(links: Sequence[Link]) -> list[str]:
    rate = statistics.median(link["gb_per_s"] for link in links)
    time = statistics.median(link["small_put_us"] for link in links)
    found = []
    for link in links:
        ends = f"rank {link['source']} to rank {link['target']}"
        if link["gb_per_s"] < _SLOW_SHARE * rate:
            found.append(
                f"slow: {ends}: {link['gb_per_s']:.2f} GB/s, the median of all is {rate:.2f}"
            )
        # A latency is that of both directions.
        is_late = link["small_put_us"] > _SLOW_TIMES * time + _SLOW_EXTRA_US
        if is_late and link["source"] < link["target"]:
            found.append(
                f"slow: {ends}: {link['small_put_us']:.1f} µs for 8 bytes, the median of all is "
                f"{time:.1f}"
            )
    return found


def _about_lopsided(links: Sequence[Link]) -> list[str]:
    rates = {(link["source"], link["target"]): link["gb_per_s"] for link in links}
    found = []
    for (source, target), rate in rates.items():
        back = rates[target, source]
        if rate > _LOPSIDED * back > 0:
            found.append(
                f"asymmetric: {rate:.2f} GB/s from rank {source} to rank {target}, but "
                f"{back:.2f} GB/s back"
            )
    return found[:_MAX_NAMED] + _and_more(found)


def _about_one_host(ranks: Ranks, links: Sequence[Link]) -> list[str]:
    if not links or len({rank["host"] for rank in ranks}) > 1:
        return []
    return ["all ranks are on one host: its cores and its loopback were measured, no network"]


def _and_more(found: Sequence[Any]) -> list[str]:
    left = len(found) - _MAX_NAMED
    return [f"... and {left} more of this kind"] if left > 0 else []


def _summary(links: Sequence[Link]) -> str:
    num_pairs = len(links) // 2
    if num_pairs == 0:
        return "There is one rank only: nothing to measure."
    measured = [link for link in links if not link["problem"]]
    num_reached = len(measured) // 2
    if not measured:
        return f"None of {num_pairs} pairs reached each other."
    checked = "bytes are WRONG" if wrong(links) else "every byte is right"
    rate = statistics.median(link["gb_per_s"] for link in measured)
    time = statistics.median(link["small_put_us"] for link in measured)
    reached = f"all {num_pairs}" if num_reached == num_pairs else f"{num_reached} of {num_pairs}"
    return f"{reached} pairs reached each other, {checked}; median {time:.1f} µs, {rate:.2f} GB/s"
