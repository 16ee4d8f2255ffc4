"""Every request the coordinator serves: the families of its handlers put together."""

from __future__ import annotations

from shmq.handlers import (
    admin_client,
    admin_group,
    admin_offset,
    admin_runtime,
    admin_topic,
    heartbeat,
    queue_lock,
)
from shmq.handlers.routes import Route

FAMILIES = (
    heartbeat.ROUTES,
    queue_lock.ROUTES,
    admin_topic.ROUTES,
    admin_group.ROUTES,
    admin_client.ROUTES,
    admin_offset.ROUTES,
    admin_runtime.ROUTES,
)

COORDINATOR_ROUTES: dict[int, Route] = {
    int(code): route for family in FAMILIES for code, route in family.items()
}
"""By request code; `handlers/table.py` has the same rows, for the workers to know what to pass on."""

assert len(COORDINATOR_ROUTES) == sum(map(len, FAMILIES)), "a request code has two rows"
