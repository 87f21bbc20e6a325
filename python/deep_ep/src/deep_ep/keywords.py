"""Keyword arguments of other versions of DeepEP: accepted where results do not depend on them."""

from __future__ import annotations

from typing import Any

__all__ = ["check_keywords"]

_ANY = object()
"""A hint: every value gives the same results."""
_OFF = (None, False, 0)

_NVFP4 = {"use_nvfp4": _OFF, "x_global_scale": (None,)}
_OVERLAP = {
    "overlap": _OFF,
    "src_signals": (None,),
    "src_signal_expect_value": _ANY,  # read only with src_signals
    "comp_signal": (None,),
    "packed_recv_count": _ANY,  # the handle has it
    "block_m": _ANY,
    "threshold": _ANY,
}

_KNOWN: dict[str, dict[str, Any]] = {
    "Buffer": {"use_fabric": _ANY, "use_default_stream_as_comm_stream": _ANY},
    "dispatch": {"num_sms": _ANY, **_NVFP4},
    "combine": {"num_sms": _ANY},
    "low_latency_dispatch": {"num_sms": _ANY, **_NVFP4},
    "low_latency_combine": {"num_sms": _ANY, **_OVERLAP},
}


def check_keywords(method: str, keywords: dict[str, Any], rank: int, is_internode: bool) -> None:
    """Raises for unknown names (TypeError) and for values that would change the result."""
    known = _KNOWN[method]
    for name, value in keywords.items():
        if name == "is_intranode":
            _check_is_intranode(method, value, rank, is_internode)
            continue
        if name not in known:
            raise TypeError(f"{method}() got an unexpected keyword argument {name!r}")
        allowed = known[name]
        if allowed is not _ANY and not _is_one_of(value, allowed):
            raise NotImplementedError(
                f"{method} (rank {rank}): {name} is {_describe(value)}, expected "
                f"{' or '.join(repr(choice) for choice in allowed)} (not supported)"
            )


def _check_is_intranode(method: str, value: Any, rank: int, is_internode: bool) -> None:
    if value is not None and bool(value) is is_internode:
        raise ValueError(
            f"{method} (rank {rank}): is_intranode is {value}, expected {not is_internode} as the "
            "group is split"
        )


def _is_one_of(value: Any, allowed: tuple[Any, ...]) -> bool:
    """Tensors equal nothing here."""
    return any(value is choice for choice in allowed) or (type(value) is int and value in allowed)


def _describe(value: Any) -> str:
    is_plain = isinstance(value, (bool, int, float, str))
    return repr(value) if is_plain else f"a {type(value).__name__}"
