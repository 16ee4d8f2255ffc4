"""The one map from request code to handler: what this broker serves, with which header, and in which process.

A code that is not here is answered with REQUEST_CODE_NOT_SUPPORTED. Workers run the rows of place WORKER
and pass the frames of the others on to the coordinator, which looks its handlers up in the same table.
"""

from __future__ import annotations

from collections.abc import Mapping

from shmq.handlers import (
    admin_client,
    admin_filter,
    admin_group,
    admin_offset,
    admin_runtime,
    admin_store,
    admin_topic,
    end_transaction,
    heartbeat,
    offsets,
    pull,
    query,
    queue_lock,
    reply,
    send,
    send_back,
    send_batch,
    share_core,
    shared_wait,
    timers,
)
from shmq.handlers.routes import Place, Route

__all__ = ["HANDLERS", "Place", "Route"]

_FAMILIES: tuple[Mapping[int, Route], ...] = (
    send.ROUTES,
    send_batch.ROUTES,
    timers.ROUTES,
    send_back.ROUTES,
    reply.ROUTES,
    end_transaction.ROUTES,
    pull.ROUTES,
    share_core.ROUTES,
    shared_wait.ROUTES,
    offsets.ROUTES,
    query.ROUTES,
    heartbeat.ROUTES,
    queue_lock.ROUTES,
    admin_topic.ROUTES,
    admin_group.ROUTES,
    admin_offset.ROUTES,
    admin_client.ROUTES,
    admin_runtime.ROUTES,
    admin_store.ROUTES,
    admin_filter.ROUTES,
)


def _merge() -> dict[int, Route]:
    """Put the families together; a code may have one row only."""
    merged: dict[int, Route] = {}
    for family in _FAMILIES:
        for code, route in family.items():
            assert code not in merged, f"request code {code} has two rows"
            merged[int(code)] = route
    return merged


HANDLERS: dict[int, Route] = _merge()
