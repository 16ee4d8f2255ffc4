"""ConsumerRunningInfo: what a consumer says of itself when an operator asks (307), as far as it is shown.

Members as RocketMQ has them (Apache RocketMQ 5.3, ConsumerRunningInfo.java, ProcessQueueInfo.java):
properties, subscriptions, per owned queue what is in hand, and on request the stack of every thread.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterable, Mapping

from shmq.client.rebalancer import Owned
from shmq.model.message_queue import MessageQueue
from shmq.model.subscription import SubscriptionData
from shmq.protocol.bodies.dialect import Body, dumps, loads, queue_keyed, queue_of, reads
from shmq.protocol.bodies.heartbeat import subscription_json

MIB = 1 << 20


def encode_running_info(
    properties: Mapping[str, str],
    subscriptions: Iterable[SubscriptionData],
    owned: Mapping[MessageQueue, Owned],
    offsets: Mapping[MessageQueue, int],
    status_table: Mapping[str, Mapping[str, float]],
    stacks: str | None = None,
) -> bytes:
    """Return the body of the answer to 307; `status_table` has RocketMQ's ConsumeStatus of each topic,
    `stacks` is its member `jstack`."""
    return dumps(
        {
            **({} if stacks is None else {"jstack": stacks}),
            "mqTable": queue_keyed(
                {queue: _queue_info(held, offsets.get(queue, 0)) for queue, held in owned.items()}
            ),
            "properties": dict(properties),
            "statusTable": {topic: dict(status) for topic, status in status_table.items()},
            "subscriptionSet": [subscription_json(subscription) for subscription in subscriptions],
        }
    )


def thread_stacks() -> str:
    """Return the stack of every thread of this process: where a consumer that does nothing is stuck."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"{names.get(ident, 'unknown')} TID: {ident}\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sorted(sys._current_frames().items())
    )


def _queue_info(held: Owned, commit_offset: int) -> dict[str, object]:
    head = held.head(1)
    return {
        "cachedMsgCount": held.message_count,
        "cachedMsgMaxOffset": max(0, held.max_offset_seen),
        "cachedMsgMinOffset": head[0].queue_offset if head else 0,
        "cachedMsgSizeInMiB": held.message_bytes // MIB,
        "commitOffset": commit_offset,
        "droped": held.dropped,
        "lastConsumeTimestamp": held.last_consume_ms,
        "lastPullTimestamp": held.last_pull_ms,
        "locked": False,
    }


@reads("consumer running info")
def decode_running_properties(body: Body | None) -> dict[str, str]:
    """Return the properties in the answer to 307, such as PROP_CONSUME_TYPE."""
    return {str(name): str(value) for name, value in (loads(body).get("properties") or {}).items()}


@reads("consumer running info")
def decode_owned_queues(body: Body | None) -> list[MessageQueue]:
    """Return the queues named in the answer to 307."""
    return sorted(queue_of(queue) for queue in loads(body).get("mqTable") or {})
