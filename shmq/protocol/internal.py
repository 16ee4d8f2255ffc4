"""The internal protocol between a worker and the coordinator: request codes, typed headers, bodies.

Workers connect to `<broker>.internal.sock` (mode 0600, same user) and speak ordinary frames with CBOR
headers, both directions on one connection. Nobody outside the broker's own process tree uses these codes.

```text
code   name             direction  header                body                            answer
30100  WORKER_HELLO     w -> c     WorkerHelloHeader     -                               Snapshot
30101  CLIENT_OPENED    w -> c !   ClientOpenedHeader    -
30102  CLIENT_CLOSED    w -> c !   ClientClosedHeader    -
30103  FORWARD          w -> c     ForwardHeader         the client's whole frame        see below
30104  PUSH             c -> w !   ClientHeader          whole frame for that client
30105  CLIENT_RESPONSE  w -> c !   ClientHeader          the client's answer to a push
30106  TOPIC_CHANGED    c -> w     TopicChangedHeader    TopicConfig JSON (empty: gone)  code 0
30107  GROUP_CHANGED    c -> w     GroupChangedHeader    GroupState (empty: gone)        code 0
30108  RESOLVE_TOPIC    w -> c     ResolveTopicHeader    -                               TopicConfig JSON
30109  RESOLVE_GROUP    w -> c     ResolveGroupHeader    -                               GroupState
30110  OFFSET_SLOTS     w -> c     OffsetSlotsHeader     -                               code 0
30111  STATS            w -> c !   -                     StatsReport
30112  RESET_TAKEN      w -> c !   ResetTakenHeader      -
30113  KEPT             w -> c !   KeptHeader            content of one kept note
30114  REPLAY_DONE      w -> c !   -                     -
30115  SETTLED          c -> w !   -                     Snapshot
30116  SETTING_CHANGED  c -> w     SettingChangedHeader  -                               code 0
30117  PRODUCER_ROW     w -> c     ProducerRowHeader     -                               code 0
30118  BEATS            w -> c !   -                     JSON list of connection ids
```
`!` = oneway. A frame carried in a body is complete: the 4-byte length, the header, the body, exactly as it
stood or will stand on the client's connection. FORWARD is answered with code 0, ForwardAnswerHeader and, as
body, the complete answer frame for the client (same opaque and serialization), or no body when nothing is
to be sent (a oneway request, or an answer that follows later as a PUSH).

**Life of a link.** The worker connects, says WORKER_HELLO and takes the snapshot. If it has served clients
before (the coordinator is the one that is new) it then sends CLIENT_OPENED for every connection it holds
and KEPT for every note it keeps. In both cases it ends with REPLAY_DONE. The coordinator answers nothing
about membership and grants no lock before every live worker has said REPLAY_DONE; while `Snapshot.settled`
is false the worker keeps the live subscriptions it already knows, and SETTLED replaces them.

**Beats.** A heartbeat that says word for word what the same connection's last accepted one said is answered
by the worker, which tells of it with BEATS. Any change of a group, of a topic's existence, or of coordinator
makes the worker forget what it knows: the next heartbeats are forwarded again.

**Kept notes.** What the coordinator must not forget when it dies it hands to the worker that holds the
client: `ForwardAnswerHeader.keep_key` names a note and `keep` is its content (opaque to the worker; None =
drop the note of that key). A note with `keep_until_ms` 0 is dropped when its connection closes; one with a
time (CLOCK_MONOTONIC in ms, the same in all processes) is kept until then, whatever happens to the
connection, unless the client's process is known to have ended. Heartbeats and queue locks are kept this way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import orjson

from shmq.protocol.header_class import header


class InternalCode(IntEnum):
    """Request codes 30100-30199: spoken on the internal socket only."""

    WORKER_HELLO = 30100
    CLIENT_OPENED = 30101
    CLIENT_CLOSED = 30102
    FORWARD = 30103
    PUSH = 30104
    CLIENT_RESPONSE = 30105
    TOPIC_CHANGED = 30106
    GROUP_CHANGED = 30107
    RESOLVE_TOPIC = 30108
    RESOLVE_GROUP = 30109
    OFFSET_SLOTS = 30110
    STATS = 30111
    RESET_TAKEN = 30112
    KEPT = 30113
    REPLAY_DONE = 30114
    SETTLED = 30115
    SETTING_CHANGED = 30116
    PRODUCER_ROW = 30117
    BEATS = 30118


# ---- headers; field order is the CBOR array's order ----


@header
class WorkerHelloHeader:
    """Who connects: the worker's slot on the control page and its pid."""

    slot: int
    pid: int


@header
class ClientOpenedHeader:
    """A client connected to this worker. `conn_id` is unique within the worker's life.

    `kind` is "unix" or "tcp"; `peer` the text shown to operators (`ip:port`, or `unix:pid`); pid, uid and
    gid are the peer credentials of a Unix connection, -1 on TCP.
    """

    conn_id: int
    kind: str
    peer: str
    pid: int
    uid: int
    gid: int


@header
class ClientHeader:
    """Names one client connection of the worker on this link."""

    conn_id: int


@header
class ClientClosedHeader:
    """A client connection ended. `process_ended`: so has its process, surely; it consumes nothing more."""

    conn_id: int
    process_ended: bool = False


@header
class ForwardHeader:
    """A client's request that only the coordinator may answer; the body is its frame."""

    conn_id: int


@header
class ForwardAnswerHeader:
    """Beside the answer frame: the note the worker has to keep for this client (see the module text)."""

    keep_key: str | None = None
    keep: bytes | None = None
    keep_until_ms: int = 0


@header
class TopicChangedHeader:
    """A topic was created, changed or deleted; directory and topics.json already say so."""

    topic: str
    deleted: bool


@header
class GroupChangedHeader:
    """Settings, live subscriptions, membership or pending offset resets of a group changed."""

    group: str
    deleted: bool


@header
class ResolveTopicHeader:
    """A worker met a topic it does not know.

    With `create` the topic is made by RocketMQ's auto-creation rules from `default_topic`, with at most
    `default_topic_queue_nums` queues. Errors: 17 unknown, 16 not inheritable, 29 illegal name. When it is
    answered with 0 the directory of the control page holds the topic's queues.
    """

    topic: str
    default_topic: str
    default_topic_queue_nums: int
    topic_sys_flag: int
    create: bool


@header
class ResolveGroupHeader:
    """A worker met a group it does not know: made if `autoCreateSubscriptionGroup` allows, else code 26."""

    group: str


@header
class OffsetSlotsHeader:
    """Asks for offset slots of (group, every queue of topic); after code 0 the directory holds them."""

    group: str
    topic: str


@header
class ProducerRowHeader:
    """Asks for a row of the producer table; after code 0 the page has it."""

    producer_id: int


@header
class ResetTakenHeader:
    """A pull was answered with 21 and the reset offset: the pending reset of this queue is done."""

    group: str
    topic: str
    queue_id: int
    offset: int


@header
class KeptHeader:
    """One kept note told again to a new coordinator; `conn_id` is -1 when its connection is gone."""

    conn_id: int
    key: str
    until_ms: int


@header
class SettingChangedHeader:
    """A setting of the allow-list was changed by an operator (RocketMQ's key, new value as text)."""

    key: str
    value: str


# ---- bodies ----

JsonObject = dict[str, Any]


@dataclass(slots=True)
class GroupState:
    """All a worker has to know of a consumer group to judge a pull.

    `config` is a SubscriptionGroupConfig and each value of `subscriptions` (topic -> ...) a
    SubscriptionData, both as the JSON objects of Apache RocketMQ 5.3. `members` counts live members,
    `client_ids` are theirs, each once.
    `message_model` is that of the live members (CLUSTERING or BROADCASTING), None without any. `resets`
    holds server-side offset resets not yet taken: topic -> queue id -> offset; the next pull of that queue
    is answered with 21 and that offset, and commits of the queue are ignored until then.
    """

    config: JsonObject
    members: int = 0
    client_ids: list[str] = field(default_factory=list)
    message_model: str | None = None
    subscriptions: dict[str, JsonObject] = field(default_factory=dict)
    resets: dict[str, dict[int, int]] = field(default_factory=dict)

    def to_object(self) -> JsonObject:
        """The JSON object that travels in GROUP_CHANGED and in the snapshot."""
        return {
            "config": self.config,
            "members": self.members,
            "clientIds": self.client_ids,
            "messageModel": self.message_model,
            "subscriptions": self.subscriptions,
            "resets": {
                topic: {str(q): o for q, o in by_queue.items()} for topic, by_queue in self.resets.items()
            },
        }

    @classmethod
    def from_object(cls, found: JsonObject) -> GroupState:
        """Reads what `to_object` wrote (same program, same version: no tolerance needed)."""
        return cls(
            config=found["config"],
            members=found["members"],
            client_ids=found["clientIds"],
            message_model=found["messageModel"],
            subscriptions=found["subscriptions"],
            resets={
                topic: {int(q): o for q, o in by_queue.items()} for topic, by_queue in found["resets"].items()
            },
        )

    def encode(self) -> bytes:
        """Body of GROUP_CHANGED and of the answer to RESOLVE_GROUP."""
        return orjson.dumps(self.to_object())

    @classmethod
    def decode(cls, body: bytes | memoryview) -> GroupState:
        """Reads the body of GROUP_CHANGED or of the answer to RESOLVE_GROUP."""
        return cls.from_object(orjson.loads(body))


@dataclass(slots=True)
class Snapshot:
    """Everything a worker starts from: topics (TopicConfig JSON objects by name) and groups.

    `settled` is false while the coordinator still hears the replays of other workers: members and
    subscriptions in `groups` are then not complete, and the worker keeps those it already knows until
    SETTLED. `client_expiry_ms`: clients that give no sign of life for so long are forgotten.
    """

    topics: dict[str, JsonObject]
    groups: dict[str, GroupState]
    settled: bool
    client_expiry_ms: int

    def encode(self) -> bytes:
        """Body of the answer to WORKER_HELLO and of SETTLED."""
        groups = {name: state.to_object() for name, state in self.groups.items()}
        return orjson.dumps(
            {
                "topics": self.topics,
                "groups": groups,
                "settled": self.settled,
                "clientExpiryMillis": self.client_expiry_ms,
            }
        )

    @classmethod
    def decode(cls, body: bytes | memoryview) -> Snapshot:
        """Reads the body of the answer to WORKER_HELLO or of SETTLED."""
        found = orjson.loads(body)
        groups = {name: GroupState.from_object(state) for name, state in found["groups"].items()}
        return cls(found["topics"], groups, found["settled"], found["clientExpiryMillis"])


@dataclass(slots=True)
class StatsReport:
    """What one worker did since its last report (about one second): all numbers are increments.

    `puts`: topic -> (messages, bytes). `gets`: (topic, group) -> (messages, bytes), direct pulls included,
    as their counts arrive with the commits. `found` and `missed` count pulls by outcome, `failed` refused
    or failed puts; the two maxima are the slowest put and get since the last report.
    """

    puts: dict[str, tuple[int, int]] = field(default_factory=dict)
    gets: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    found: int = 0
    missed: int = 0
    failed: int = 0
    put_time_max_ms: int = 0
    get_time_max_ms: int = 0

    def encode(self) -> bytes:
        """Body of STATS: lists, as a JSON object cannot have a pair as its key."""
        return orjson.dumps(
            {
                "puts": [[topic, n, size] for topic, (n, size) in self.puts.items()],
                "gets": [[topic, group, n, size] for (topic, group), (n, size) in self.gets.items()],
                "found": self.found,
                "missed": self.missed,
                "failed": self.failed,
                "putMax": self.put_time_max_ms,
                "getMax": self.get_time_max_ms,
            }
        )

    @classmethod
    def decode(cls, body: bytes | memoryview) -> StatsReport:
        """Reads the body of STATS."""
        found = orjson.loads(body)
        return cls(
            puts={topic: (n, size) for topic, n, size in found["puts"]},
            gets={(topic, group): (n, size) for topic, group, n, size in found["gets"]},
            found=found["found"],
            missed=found["missed"],
            failed=found["failed"],
            put_time_max_ms=found["putMax"],
            get_time_max_ms=found["getMax"],
        )
