"""The durability classes. Systems are compared only within a class, each set up for it as its documents
say."""

from __future__ import annotations

from enum import Enum


class Durability(Enum):
    """What an acknowledgement promises."""

    PAGE_CACHE = "page-cache"
    TIMED = "timed"
    SYNCED = "synced"
    REPLICATED = "replicated"

    @property
    def promise(self) -> str:
        """The class in words."""
        return PROMISES[self]


PROMISES = {
    Durability.PAGE_CACHE: "in the page cache: survives kill -9, not a power cut; synced rarely or never",
    Durability.TIMED: "in the page cache, synced by the clock: a power cut takes a second or less",
    Durability.SYNCED: "fdatasync before the acknowledgement; senders may share one",
    Durability.REPLICATED: "on another host before the acknowledgement",
}
NOT_THERE_YET = {Durability.REPLICATED: "needs a peer host (SYNC_MASTER); not measured by this version"}
"""Classes every report names although nothing is measured in them."""
MEASURED = tuple(kind for kind in Durability if kind not in NOT_THERE_YET)
