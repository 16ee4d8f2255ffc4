"""The error tree: whose fault it is, and what the caller may do now.

Every error carries one sentence that says what happened and what is allowed instead. `protocol/codes.py` maps
each class to its ResponseCode, once; nothing else decides codes. Errors cross process borders as (code,
remark) only.

    ShmqError
      ClientFault      the request is wrong: change it, sending it again is useless
        MessageIllegal TopicNotExist NoPermission InvalidParameter GroupNotExist SubscriptionNotExist
        SubscriptionNotLatest SubscriptionParseFailed QueryNotFound RequestNotSupported IllegalOperation
        ConfigFault SequenceRefused
      RemoteFault      the other side broke the protocol: close that connection, go on with the others
        FrameFault
      Unavailable      not now: try again later, here or elsewhere
        ServiceNotAvailable SystemBusy ConsumerNotOnline QueueGone
      StoreDamaged     what is on disk is not what was written: stop writing, run storeCheck
      Bug              our own invariant is broken: end this process, keep what it left
      BrokerError      (clients) a broker answered with this response code
"""

from __future__ import annotations


class ShmqError(Exception):
    """Base of every error that shmq raises on purpose."""


class ClientFault(ShmqError):
    """The caller's request is wrong; repeating it unchanged gives the same answer."""


class MessageIllegal(ClientFault):
    """A message breaks a limit or a rule: size, topic name, properties, reserved words, batch layout."""


class TopicNotExist(ClientFault):
    """The topic (or that queue of it) is unknown here and may not be created by this request."""


class NoPermission(ClientFault):
    """Topic permission, socket permission or policy forbids this to this caller."""


class InvalidParameter(ClientFault):
    """A request field is missing, malformed or out of its range."""


class GroupNotExist(ClientFault):
    """The consumer group is unknown here and may not be created by this request."""


class SubscriptionNotExist(ClientFault):
    """The group has no subscription for the topic it asks about."""


class SubscriptionNotLatest(ClientFault):
    """The broker has not yet seen the subscription version that the client uses: heartbeat first."""


class SubscriptionParseFailed(ClientFault):
    """A filter expression cannot be understood."""


class QueryNotFound(ClientFault):
    """The thing asked for by id, key or offset is not there."""


class RequestNotSupported(ClientFault):
    """This broker does not serve that request code."""


class IllegalOperation(ClientFault):
    """The request is well formed, but what it asks for may not be done (any more)."""


class ConfigFault(ClientFault):
    """A setting is wrong. The text names key, value, allowed range and where it was read."""


class RemoteFault(ShmqError):
    """The other side broke the protocol; only its connection suffers."""


class FrameFault(RemoteFault):
    """A frame cannot be decoded: bad length, bad header, unknown serialization."""


class SequenceRefused(ClientFault):
    """An idempotent producer's sequence is one that nobody can judge; nothing was stored."""


class Unavailable(ShmqError):
    """Not possible now. The same request may succeed later or at another broker."""


class ServiceNotAvailable(Unavailable):
    """This service is starting, stopping, failed or read-only."""


class SystemBusy(Unavailable):
    """A bound was reached; back off and try again."""


class ConsumerNotOnline(Unavailable):
    """No consumer of that group is connected."""


class QueueGone(Unavailable):
    """Queues were deleted while sends to them were on their way.

    `slots` lists their queue table slots, so that a claim can go on without just these sends. Raised before
    anything of the claim was written.
    """

    def __init__(self, slots: list[int]) -> None:
        """Name the queue table `slots` whose generation is not the expected one."""
        super().__init__(f"queue table slots {slots} belong to deleted queues: fetch the route again")
        self.slots = slots


class StoreDamaged(ShmqError):
    """Stored bytes contradict each other. Nothing is written any more until somebody looked (storeCheck)."""


class Bug(ShmqError):
    """An invariant of our own code is broken. Never caught, except by the edge that ends the process."""


class BrokerError(ShmqError):
    """Client side: a broker answered with a response code other than SUCCESS.

    `code` is RocketMQ's ResponseCode as a number, `remark` the broker's sentence.
    """

    def __init__(self, code: int, remark: str) -> None:
        """Keep `code` and `remark` as the broker sent them."""
        super().__init__(code, remark)
        self.code = code
        self.remark = remark

    def __str__(self) -> str:
        """Print as RocketMQ's tools do: the code and the sentence."""
        return f"CODE: {self.code} DESC: {self.remark}"
