"""What a sender waits for before it is answered: properties WAIT (RocketMQ's) and SHMQ_WAIT_FOR.

    neither                       what the broker's mode promises
    WAIT=false                    nothing: stored in the page cache is enough
    SHMQ_WAIT_FOR=PAGE_CACHE      the same
    SHMQ_WAIT_FOR=FLUSHED         on the broker's disk, also where the mode promises less
    SHMQ_WAIT_FOR=FLUSHED/2       and on so many replicas

SHMQ_WAIT_FOR wins over WAIT. Other brokers store it like any property and do not know it. Pure; the client
writes it, a worker reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from shmq.base.errors import MessageIllegal
from shmq.model.properties import SHMQ_WAIT_FOR, WAIT

PAGE_CACHE = "PAGE_CACHE"
FLUSHED = "FLUSHED"
REPLICAS_MAX = 16

_LOCAL = {"MEMORY": False, PAGE_CACHE: False, FLUSHED: True}


class Wait(NamedTuple):
    """What has to be reached. `disk` None: as the broker's mode says."""

    disk: bool | None
    replicas: int = 0


AS_CONFIGURED = Wait(None)
NOTHING = Wait(False)


def wait_of(properties: Mapping[str, str]) -> Wait:
    """Read what a message's properties ask for; MessageIllegal for what is not in the table above."""
    asked = properties.get(SHMQ_WAIT_FOR)
    if asked is None:
        return NOTHING if properties.get(WAIT) == "false" else AS_CONFIGURED
    local, _, replicas = asked.partition("/")
    count = int(replicas) if replicas.isdecimal() else 0 if asked == local else -1
    if local not in _LOCAL or not 0 <= count <= REPLICAS_MAX:
        raise MessageIllegal(
            f"property {SHMQ_WAIT_FOR}={asked!r} is not {PAGE_CACHE} or {FLUSHED}, or one of them with "
            f"/replicas up to {REPLICAS_MAX}"
        )
    return Wait(_LOCAL[local], count)


def wait_text(local: str, replicas: int = 0) -> str:
    """The value of SHMQ_WAIT_FOR that asks for `local` and so many replicas."""
    return f"{local}/{replicas}" if replicas else local
