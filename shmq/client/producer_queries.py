"""ProducerQueries: what a producer can ask brokers, and take back: waiting messages, queues, stored messages.

Everything runs in the calling thread. Topics are those of the producer's namespace.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from shmq.base.errors import QueryNotFound, ShmqError
from shmq.client import timer_calls
from shmq.client.broker_calls import LAST_MS
from shmq.client.links import BrokerLink
from shmq.client.producer_base import ProducerBase
from shmq.model.message_ext import MessageExt
from shmq.model.message_queue import MessageQueue
from shmq.model.names import with_namespace

if TYPE_CHECKING:
    from shmq.client.admin_client import AdminClient


class ProducerQueries(ProducerBase):
    """The questions of one producer."""

    def recall_message(self, topic: str, recall_handle: str, timeout_ms: int | None = None) -> str:
        """Take a message back that still waits for its moment; `recall_handle` is its SendResult's.

        Returns its unique key when that is as durable as a send; again does no harm. IllegalOperation when it
        was delivered: nothing was changed.
        """
        topic = with_namespace(self.config.namespace, topic)
        link = self._link_of(topic, recall_handle)
        limit_s = self._timeout_ms(timeout_ms) / 1000
        return timer_calls.recall(link, self.producer_group, topic, recall_handle, limit_s)

    def reschedule_message(
        self, topic: str, recall_handle: str, deliver_at: datetime, timeout_ms: int | None = None
    ) -> str:
        """Put a message off that still waits, later or earlier; in the past: it is delivered at once.

        Returns the handle that takes it back from now on, "" when it was delivered. IllegalOperation when it
        does not wait any more; only shmq's brokers can do it.
        """
        topic = with_namespace(self.config.namespace, topic)
        link = self._link_of(topic, recall_handle)
        return timer_calls.reschedule(
            link, topic, recall_handle, deliver_at, self._timeout_ms(timeout_ms) / 1000
        )

    def _link_of(self, topic: str, recall_handle: str) -> BrokerLink:
        """The link to the broker that keeps a waiting message."""
        queue = timer_calls.queue_of(topic, recall_handle)
        self._use(topic)
        return self._path.link(queue)

    def fetch_publish_message_queues(self, topic: str) -> list[MessageQueue]:
        """Return the queues of a topic that may be sent to."""
        topic = with_namespace(self.config.namespace, topic)
        self._use(topic)
        return list(self._path.publish_info(topic).queues)

    def max_offset(self, queue: MessageQueue) -> int:
        """Return the next offset to be written."""
        return self._instance.calls.max_offset(queue)

    def min_offset(self, queue: MessageQueue) -> int:
        """Return the oldest offset that can be read."""
        return self._instance.calls.min_offset(queue)

    def search_offset(self, queue: MessageQueue, timestamp_ms: int) -> int:
        """Return the first offset stored at or after a time."""
        return self._instance.calls.search_offset(queue, timestamp_ms)

    def earliest_msg_store_time(self, queue: MessageQueue) -> int:
        """Return when the queue's oldest message was stored (ms), -1 for an empty queue."""
        return self._instance.calls.earliest_store_time(queue)

    def _admin(self) -> AdminClient:
        from shmq.client.admin_client import AdminClient  # few producers ask; the others start quicker

        return AdminClient(config=self.config)

    def view_message(self, topic: str, msg_id: str) -> MessageExt:
        """Return a stored message by its offset id, else by its unique id; QueryNotFound when neither leads
        to one."""
        with self._admin() as admin:
            try:
                return admin.view_message(msg_id)
            except (
                ShmqError
            ):  # a unique id looks like an offset id; its bytes then name no broker that answers
                found = admin.query_by_unique_key(with_namespace(self.config.namespace, topic), msg_id)
        if not found:
            raise QueryNotFound(f"no message of topic {topic!r} has the id {msg_id}")
        return found[0]

    def query_message(
        self, topic: str, key: str, max_count: int = 64, begin_ms: int = 0, end_ms: int = LAST_MS
    ) -> list[MessageExt]:
        """Return messages of a topic that carry a key, oldest first."""
        with self._admin() as admin:
            topic = with_namespace(self.config.namespace, topic)
            return admin.query_message(topic, key, max_count, begin_ms, end_ms)

    def create_topic(self, topic: str, queue_nums: int = 4) -> None:
        """Create a topic on every master, unless it is known already."""
        with self._admin() as admin:
            admin.ensure_topic(with_namespace(self.config.namespace, topic), queue_nums)
