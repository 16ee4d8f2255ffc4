"""ConsumerRunningInfo: what a consumer says of itself when an operator asks (307), as far as it is shown.

Members as RocketMQ has them (Apache RocketMQ 5.3, ConsumerRunningInfo.java, ProcessQueueInfo.java):
properties, subscriptions, per owned queue what is in hand, and on request the stack of every thread.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from shmq.client.rebalancer import Owned
from shmq.model.message_queue import MessageQueue
from shmq.model.subscription import SubscriptionData
from shmq.protocol.bodies.dialect import Body, dumps, loads, queue_keyed, queue_of, reads
from shmq.protocol.bodies.heartbeat import subscription_json, subscription_of

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


@dataclass(frozen=True, slots=True)
class RunningInfo:
    """What operators use of the answer to 307."""

    properties: dict[str, str]
    """Such as PROP_CONSUME_TYPE."""
    queues: list[MessageQueue]
    """What the member owns."""
    subscriptions: dict[str, str]
    """Topic to expression."""
    status_table: dict[str, dict[str, float]]
    """Topic to the figures of RocketMQ's ConsumeStatus."""


@reads("consumer running info")
def decode_running_info(body: Body | None) -> RunningInfo:
    """Read the body of the answer to 307."""
    members = loads(body)
    subscriptions = [subscription_of(one) for one in members.get("subscriptionSet") or ()]
    return RunningInfo(
        {str(name): str(value) for name, value in (members.get("properties") or {}).items()},
        sorted(queue_of(queue) for queue in members.get("mqTable") or {}),
        {one.topic: one.sub_string for one in subscriptions},
        {
            str(topic): {str(name): float(value) for name, value in status.items()}
            for topic, status in (members.get("statusTable") or {}).items()
        },
    )
