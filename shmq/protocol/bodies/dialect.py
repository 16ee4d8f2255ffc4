"""The JSON dialect of bodies: what fastjson writes beyond standard JSON, and how readers fail.

Maps keyed by integers are written ``{0:"a"}`` or ``{"0":"a"}``, maps keyed by a MessageQueue always
``{{"brokerName":"b","queueId":0,"topic":"t"}:1}``: Go clients cannot read anything else (Apache RocketMQ
5.3 with fastjson 1.2). Reading goes through orjson and, where that refuses, through ``fastjson``.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import orjson

from shmq.base.errors import RemoteFault, ShmqError
from shmq.model.message_queue import MessageQueue
from shmq.protocol import fastjson

Body = bytes | bytearray | memoryview
R = TypeVar("R")


def dumps(value: Any) -> bytes:
    """Return compact JSON; raw maps made by the two functions below may be anywhere inside."""
    return orjson.dumps(value)


def integer_keyed(members: Mapping[int, Any]) -> orjson.Fragment:
    """Return a map with bare integer names, to be put into a document."""
    return orjson.Fragment(
        b"{" + b",".join(b"%d:%b" % (name, dumps(v)) for name, v in members.items()) + b"}"
    )


def queue_keyed(members: Mapping[MessageQueue, Any]) -> orjson.Fragment:
    """Return a map whose names are MessageQueue objects, to be put into a document."""
    pairs = (b"%b:%b" % (dumps(queue_json(queue)), dumps(value)) for queue, value in members.items())
    return orjson.Fragment(b"{" + b",".join(pairs) + b"}")


def queue_json(queue: MessageQueue) -> dict[str, Any]:
    """Return the JSON object of a MessageQueue."""
    return {"brokerName": queue.broker_name, "queueId": queue.queue_id, "topic": queue.topic}


def queue_of(value: Any) -> MessageQueue:
    """Read a MessageQueue from an object, an object used as a name, or that object's text."""
    if isinstance(value, MessageQueue):
        return value
    if isinstance(value, str):
        value = fastjson.loads(value)
    if isinstance(value, tuple):
        value = dict(value)
    return MessageQueue(str(value["topic"]), str(value["brokerName"]), int(value["queueId"]))


def loads(body: Body | None) -> Any:
    """Return the value of a body; ``RemoteFault`` when it is empty or unreadable."""
    if not body:
        raise RemoteFault("the body is empty where JSON is expected")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            return fastjson.loads(body)
        except ValueError as fault:
            raise RemoteFault(f"the body is no JSON: {fault}") from fault


def reads(what: str) -> Callable[[Callable[[Body | None], R]], Callable[[Body | None], R]]:
    """Decorate a ``decode_*`` function: members of a wrong kind become one ``RemoteFault`` naming
    ``what``."""

    def decorate(decode: Callable[[Body | None], R]) -> Callable[[Body | None], R]:
        @functools.wraps(decode)
        def guarded(body: Body | None) -> R:
            try:
                return decode(body)
            except ShmqError:
                raise
            except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError) as fault:
                raise RemoteFault(f"{what}: a member is missing or of the wrong kind ({fault!r})") from fault

        return guarded

    return decorate
