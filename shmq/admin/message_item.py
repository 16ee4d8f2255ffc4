"""A received message as a JSON object, in all commands that show messages."""

from __future__ import annotations

import base64

from shmq.admin.output import Item, rfc3339
from shmq.model.message_ext import MessageExt


def message_item(message: MessageExt) -> Item:
    """A message as a JSON object; a body that is no UTF-8 text is given in base64."""
    body = message.body
    try:
        shown = {"bodyText": body.decode()}
    except UnicodeDecodeError:
        shown = {"bodyBase64": base64.b64encode(body).decode()}
    return {
        "msgId": message.msg_id,
        "offsetMsgId": message.offset_msg_id,
        "topic": message.topic,
        "tags": message.tags,
        "keys": message.keys,
        "queueId": message.queue_id,
        "queueOffset": message.queue_offset,
        "commitLogOffset": message.physical_offset,
        "reconsumeTimes": message.reconsume_times,
        "bornTimestamp": rfc3339(message.born_timestamp),
        "bornTimestampMs": message.born_timestamp,
        "storeTimestamp": rfc3339(message.store_timestamp),
        "storeTimestampMs": message.store_timestamp,
        "bornHost": message.born_host,
        "storeHost": message.store_host,
        "sysFlag": message.sys_flag,
        "properties": dict(message.properties),
        **shown,
    }
