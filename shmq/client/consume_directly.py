"""Direct consumption: a consumer takes one message because an operator asked for it (309).

The listener runs as it does for a pulled message, but nothing else happens: the message is not taken out of a
queue, no offset moves, a failed one is not sent back (Apache RocketMQ 5.3,
ConsumeMessageConcurrentlyService.java, consumeMessageDirectly). Runs on a thread of its own: a listener may
take its time.
"""

from __future__ import annotations

import time

from shmq.base import log
from shmq.client.consume_service import (
    ConcurrentListener,
    ConsumeConcurrentlyContext,
    ConsumeConcurrentlyStatus,
)
from shmq.model.message_ext import MessageExt
from shmq.model.message_queue import MessageQueue
from shmq.model.names import retry_topic
from shmq.model.properties import RETRY_TOPIC
from shmq.protocol.bodies.direct_result import DirectOutcome, DirectResult

_LOG = log.get(__name__)

_OUTCOMES: dict[ConsumeConcurrentlyStatus | None, DirectOutcome] = {
    ConsumeConcurrentlyStatus.CONSUME_SUCCESS: DirectOutcome.CR_SUCCESS,
    ConsumeConcurrentlyStatus.RECONSUME_LATER: DirectOutcome.CR_LATER,
    None: DirectOutcome.CR_RETURN_NULL,
}


def consume_directly(listener: ConcurrentListener, group: str, message: MessageExt) -> DirectResult:
    """Call the listener with this one message and say what it made of it."""
    queue = MessageQueue(message.topic, message.broker_name, message.queue_id)
    original = message.properties.get(RETRY_TOPIC)
    if original and message.topic == retry_topic(group):
        message.topic = original
    began = time.monotonic()
    try:
        status = listener([message], ConsumeConcurrentlyContext(queue))
        outcome, remark = _OUTCOMES[status], None
    except Exception as error:  # the listener is the user's: the operator who asked is told
        _LOG.exception("the listener of group %s raised in a direct consumption", group)
        outcome, remark = DirectOutcome.CR_THROW_EXCEPTION, f"{type(error).__name__}: {error}"
    return DirectResult(outcome, remark, round((time.monotonic() - began) * 1000))
