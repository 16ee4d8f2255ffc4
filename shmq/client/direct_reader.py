"""DirectReader: pulls without a socket, from read-only maps of a local broker's page, queues and log.

`pull` returns the same PullResult as a socket pull, or None: "use the socket this time". That is the answer
to everything unusual (another layout version, no grant, a retired page, a changed policy, an offset outside
the queue, a file that is not there, a body whose CRC is wrong), so the broker's own rules decide such cases.

Per batch, in this order, so that no half-made change is believed:

    page state and page_id | policy epoch | slot generation | visible position | min | max | units | records
    | generation, min and page state again

The first pull of each queue, and the first after each change of the policy epoch, goes through the socket:
the broker checks group, topic, subscription and resets there (`note_socket_pull`). numpy is imported by the
first direct read, not before. Safe for several threads; each queue is read by one at a time.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from shmq.base import log
from shmq.base.errors import ShmqError
from shmq.client.links import BrokerLink
from shmq.client.pull import PullResult
from shmq.model.message_queue import MessageQueue
from shmq.model.subscription import SubscriptionData

if TYPE_CHECKING:
    from shmq.client.grant import ReaderGrant

RETRY_GRANT_S = 10.0
"""A refused or lost grant is asked for again after this long."""

_LOG = log.get(__name__)


class DirectReader:
    """Direct pulls from one local broker."""

    def __init__(self, link: BrokerLink, group: str, broker_user: str | None) -> None:
        """Ask for nothing yet; the first `pull` does."""
        self._link = link
        self._group = group
        self._broker_user = broker_user
        self._lock = threading.Lock()
        self._grant: ReaderGrant | None = None
        self._next_try_s = 0.0
        self._epochs: dict[MessageQueue, int] = {}
        """Policy epoch under which the broker last accepted a socket pull of the queue."""

    def policy_epoch(self) -> int | None:
        """Return the page's epoch, to be loaded before a socket pull; None without a grant."""
        grant = self._usable_grant()
        return None if grant is None else grant.policy_epoch

    def note_socket_pull(self, queue: MessageQueue, epoch: int | None, *, accepted: bool) -> None:
        """Tell how a socket pull ended that began when the page showed `epoch`: accepted opens the direct
        way."""
        if accepted and epoch is not None:
            self._epochs[queue] = epoch
        else:
            self._epochs.pop(queue, None)

    def pull(
        self, queue: MessageQueue, offset: int, max_count: int, max_bytes: int, subscription: SubscriptionData
    ) -> PullResult | None:
        """Read one batch, or return None when the socket must be asked. Never blocks on a broker but for a
        new file. An SQL-92 subscription always asks: the broker evaluates it."""
        if not subscription.is_by_tags:
            return None
        grant = self._usable_grant()
        if grant is None:
            return None
        epoch = self._epochs.get(queue)
        if epoch is None or epoch != grant.policy_epoch:
            return None
        try:
            ref = grant.queue(queue)
            if ref is None:
                return None
            from shmq.client.direct_batch import read_batch

            return read_batch(grant, queue, ref, offset, max_count, max_bytes, subscription)
        except (ShmqError, OSError) as error:
            log.event(_LOG, logging.INFO, "direct_pull_fell_back", queue=queue, reason=error)
            if not grant.alive:
                self._lose(grant)
            return None

    def let_go(self) -> None:
        """Let go of files that the broker has deleted, and of all when the grant has ended. Now and then."""
        grant = self._grant
        if grant is not None and grant.alive:
            grant.drop_deleted()
        elif grant is not None:
            self._lose(grant)

    def _usable_grant(self) -> ReaderGrant | None:
        """Return the grant, asking for one when there is none and it is time."""
        grant = self._grant
        if grant is not None:
            if grant.usable:
                grant.drop_deleted()
                return grant
            self._lose(grant)
        if time.monotonic() < self._next_try_s:
            return None
        with self._lock:
            if self._grant is None and time.monotonic() >= self._next_try_s:
                self._next_try_s = time.monotonic() + RETRY_GRANT_S
                self._grant = self._ask_for_grant()
            return self._grant

    def _ask_for_grant(self) -> ReaderGrant | None:
        from shmq.client.grant import ReaderGrant

        if not self._link.is_local:
            return None
        try:
            grant = ReaderGrant(
                self._link.endpoint.host, self._link.broker_name, self._group, self._broker_user
            )
        except (ShmqError, OSError) as error:
            log.event(
                _LOG, logging.INFO, "direct_pull_not_granted", broker=self._link.broker_name, reason=error
            )
            return None
        return grant

    def _lose(self, grant: ReaderGrant) -> None:
        """Let a dead grant go; pulls use the socket until the next one."""
        with self._lock:
            if self._grant is grant:
                self._grant = None
                self._epochs.clear()
        grant.close()

    def close(self) -> None:
        """End the grant."""
        if self._grant is not None:
            self._lose(self._grant)
        self._next_try_s = float("inf")
