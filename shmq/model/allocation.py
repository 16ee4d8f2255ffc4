"""Allocation: which queues of a topic each consumer of a group takes.

Every member computes this for itself from the same sorted lists, so the strategies are pure functions of
(own client id, queues, client ids) and all members must use the same one (Apache RocketMQ 5.3,
rebalance/AllocateMessageQueue*). A consumer whose id is not in the list takes nothing.

    averagely          consecutive runs                     machine_room          only queues of named rooms
    averagely_circle   every C-th queue                     machine_room_nearby   own room first, orphan
    rooms shared configured         a fixed list                         consistent_hash       a ring of
    virtual nodes
"""

import bisect
import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar

from shmq.base.errors import ClientFault
from shmq.model.message_queue import MessageQueue

Member = TypeVar("Member")

Strategy = Callable[[str, Sequence[MessageQueue], Sequence[str]], list[MessageQueue]]
"""``(own client id, sorted queues, sorted client ids) -> own queues``"""


def averagely(
    client_id: str, queues: Sequence[MessageQueue], client_ids: Sequence[str]
) -> list[MessageQueue]:
    """Give each consumer a run of consecutive queues; the first ``Q mod C`` consumers get one more. The
    default."""
    if client_id not in client_ids:
        return []
    index, (share, rest) = client_ids.index(client_id), divmod(len(queues), len(client_ids))
    start = index * share + min(index, rest)
    return list(queues[start : start + share + (index < rest)])


def averagely_by_circle(
    client_id: str, queues: Sequence[MessageQueue], client_ids: Sequence[str]
) -> list[MessageQueue]:
    """Deal the queues out one by one, round and round."""
    if client_id not in client_ids:
        return []
    return list(queues[client_ids.index(client_id) :: len(client_ids)])


def configured(own_queues: Iterable[MessageQueue]) -> Strategy:
    """Return the strategy that always gives ``own_queues``, whatever the group looks like."""
    fixed = list(own_queues)

    def strategy(
        client_id: str, queues: Sequence[MessageQueue], client_ids: Sequence[str]
    ) -> list[MessageQueue]:
        return list(fixed)

    return strategy


def machine_room(rooms: Collection[str]) -> Strategy:
    """Return the strategy that shares only queues whose broker name is ``room@name`` with a room of
    ``rooms``."""

    def strategy(
        client_id: str, queues: Sequence[MessageQueue], client_ids: Sequence[str]
    ) -> list[MessageQueue]:
        if client_id not in client_ids:
            return []
        in_rooms = [queue for queue in queues if _room_in_name(queue.broker_name) in rooms]
        index, (share, rest) = client_ids.index(client_id), divmod(len(in_rooms), len(client_ids))
        extra = index + share * len(client_ids)
        return in_rooms[share * index : share * (index + 1)] + (
            in_rooms[extra : extra + 1] if rest > index else []
        )

    return strategy


def _room_in_name(broker_name: str) -> str | None:
    room, separator, name = broker_name.partition("@")
    return room if separator and "@" not in name else None


def machine_room_nearby(
    queue_room: Callable[[MessageQueue], str | None],
    client_room: Callable[[str], str | None],
    inner: Strategy = averagely,
) -> Strategy:
    """Return the strategy that shares a room's queues among the room's consumers by ``inner``.

    Queues of rooms without consumers are shared among all. A queue or consumer without a room is a
    ``ClientFault``.
    """

    def strategy(
        client_id: str, queues: Sequence[MessageQueue], client_ids: Sequence[str]
    ) -> list[MessageQueue]:
        if client_id not in client_ids:
            return []
        queues_by_room = _by_room(queues, queue_room)
        clients_by_room = _by_room(client_ids, client_room)
        own_room = next(room for room, members in clients_by_room.items() if client_id in members)
        taken = inner(client_id, queues_by_room.get(own_room, []), clients_by_room[own_room])
        for room in sorted(queues_by_room):
            if room not in clients_by_room:
                taken += inner(client_id, queues_by_room[room], client_ids)
        return taken

    return strategy


def _by_room(members: Sequence[Member], room_of: Callable[[Member], str | None]) -> dict[str, list[Member]]:
    rooms: dict[str, list[Member]] = {}
    for member in members:
        room = room_of(member)
        if not room:
            raise ClientFault(f"the room resolver knows no room for {member}; it must know one for each")
        rooms.setdefault(room, []).append(member)
    return rooms


def md5_hash(key: str) -> int:
    """Return the first four bytes of a key's MD5 as an unsigned number: the ring's default hash."""
    return int.from_bytes(hashlib.md5(key.encode(), usedforsecurity=False).digest()[:4], "big")


def consistent_hash(virtual_nodes: int = 10, hash_of: Callable[[str], int] = md5_hash) -> Strategy:
    """Return the strategy that puts consumers (as nodes ``id-0``, ``id-1`` ...) and queues on one ring.

    A queue belongs to the first node at or behind its hash; its key is its printed form. A member that
    joins or leaves moves few queues.
    """

    def strategy(
        client_id: str, queues: Sequence[MessageQueue], client_ids: Sequence[str]
    ) -> list[MessageQueue]:
        if client_id not in client_ids:
            return []
        ring = {hash_of(f"{member}-{k}"): member for member in client_ids for k in range(virtual_nodes)}
        points = sorted(ring)
        return [
            queue
            for queue in queues
            if ring[points[bisect.bisect_left(points, hash_of(str(queue))) % len(points)]] == client_id
        ]

    return strategy


STRATEGIES: dict[str, Strategy] = {
    "AVG": averagely,
    "AVG_BY_CIRCLE": averagely_by_circle,
    "CONSISTENT_HASH": consistent_hash(),
}
"""The strategies that need no arguments, by RocketMQ's names."""
