"""ServiceState: the life of a client object; each state is entered once."""

from __future__ import annotations

from enum import Enum


class ServiceState(Enum):
    """Where in its life a producer or consumer is."""

    CREATE_JUST = "CREATE_JUST"
    RUNNING = "RUNNING"
    SHUTDOWN_ALREADY = "SHUTDOWN_ALREADY"
    START_FAILED = "START_FAILED"
