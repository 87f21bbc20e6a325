"""Helpers that users of deep_ep import."""

from deep_ep.config import Config
from deep_ep.utils.envs import check_nvlink_connections
from deep_ep.utils.event import EventHandle, EventOverlap

__all__ = ["Config", "EventHandle", "EventOverlap", "check_nvlink_connections"]
