"""What a worker keeps of a client's registrations, so that a new coordinator knows them without a heartbeat.

JSON, written and read by coordinators only: the groups of one connection, each consumer group with how it
consumes and its subscriptions. Notes are restored before the coordinator is settled, so nothing is
announced meanwhile.
"""

from __future__ import annotations

from typing import Any

import orjson

from shmq.base.errors import InvalidParameter
from shmq.broker.client_key import Client, ClientKey
from shmq.broker.clients import ClientTable
from shmq.broker.consumer_members import Consumption
from shmq.model.consumer_group import ConsumeFromWhere, ConsumeType, MessageModel
from shmq.protocol.bodies.heartbeat import subscription_json, subscription_of

CLIENT_NOTE = "client"
"""The key of the note: one per connection."""


def client_note(clients: ClientTable, key: ClientKey) -> bytes | None:
    """The note of a connection; None when it is in no group."""
    rows = [
        _consumer_row(clients, key, group) if is_consumer else _producer_row(clients, key, group)
        for is_consumer, group in clients.groups_of(key)
    ]
    found = [row for row in rows if row is not None]
    return orjson.dumps(found) if found else None


def _producer_row(clients: ClientTable, key: ClientKey, group: str) -> dict[str, Any] | None:
    client = clients.producer(group, key)
    return None if client is None else {"group": group, **_identity(client)}


def _consumer_row(clients: ClientTable, key: ClientKey, group: str) -> dict[str, Any] | None:
    members = clients.consumer_group(group)
    client = members.member(key) if members is not None else None
    if members is None or client is None:
        return None
    how = members.consumption
    return {
        "group": group,
        **_identity(client),
        "how": [how.consume_type, how.message_model, how.consume_from_where],
        "subscriptions": [subscription_json(data) for data in members.subscriptions.values()],
    }


def _identity(client: Client) -> dict[str, Any]:
    return {"client": client.client_id, "language": client.language, "version": client.version}


def restore_client(clients: ClientTable, key: ClientKey, content: bytes, now_ms: int) -> set[str]:
    """Register again what a note says, as if its heartbeat came now; returns the consumer groups."""
    groups = set()
    for row in orjson.loads(content):
        client = Client(key, row["client"], row["language"], row["version"], clients.peer_of(key))
        if "how" not in row:
            clients.beat_producer(client, row["group"], now_ms)
            continue
        consume_type, message_model, from_where = row["how"]
        consumption = Consumption(
            ConsumeType(consume_type), MessageModel(message_model), ConsumeFromWhere(from_where)
        )
        wanted = [subscription_of(members) for members in row["subscriptions"]]
        try:
            clients.beat_consumer(client, row["group"], consumption, wanted, now_ms)
        except InvalidParameter:  # it will hear so with its next heartbeat
            continue
        groups.add(row["group"])
    return groups
