"""Allocation strategies against the worked examples of RocketMQ's own documentation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmq.base.errors import ClientFault
from shmq.model.allocation import (
    STRATEGIES,
    averagely,
    averagely_by_circle,
    configured,
    consistent_hash,
    machine_room,
    machine_room_nearby,
)
from shmq.model.message_queue import MessageQueue

EIGHT = [MessageQueue("T", "broker-a", i) for i in range(8)]
THREE = ["C1", "C2", "C3"]
ROOMS = [MessageQueue("T", "idc1@broker-a", i) for i in range(4)]
ROOMS += [MessageQueue("T", "idc2@broker-b", i) for i in range(4)]


def shares(strategy, queues, clients):
    return [[queue.queue_id for queue in strategy(client, queues, clients)] for client in clients]


def room_shares(strategy, clients=THREE):
    names = {"idc1@broker-a": "a", "idc2@broker-b": "b"}
    return [
        " ".join(f"{names[queue.broker_name]}{queue.queue_id}" for queue in strategy(client, ROOMS, clients))
        for client in clients
    ]


def nearby(clients):
    return machine_room_nearby(
        lambda queue: {"idc1": "I1", "idc2": "I2"}[queue.broker_name.partition("@")[0]], clients.get
    )


def test_averagely_gives_runs():
    assert shares(averagely, EIGHT, THREE) == [[0, 1, 2], [3, 4, 5], [6, 7]]


def test_averagely_with_more_consumers_than_queues_leaves_the_last_without():
    clients = [f"C{i:02}" for i in range(10)]
    assert shares(averagely, EIGHT, clients) == [[i] for i in range(8)] + [[], []]


def test_averagely_with_one_and_with_four_consumers():
    assert shares(averagely, EIGHT, ["C1"]) == [list(range(8))]
    assert shares(averagely, EIGHT, ["A", "B", "C", "D"]) == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_by_circle_deals_out():
    assert shares(averagely_by_circle, EIGHT, THREE) == [[0, 3, 6], [1, 4, 7], [2, 5]]


def test_configured_gives_its_list_whatever_the_inputs():
    assert configured(EIGHT)("nobody", [], []) == EIGHT
    assert configured([])("C1", EIGHT, THREE) == []


def test_machine_room_shares_only_allowed_rooms():
    assert room_shares(machine_room({"idc1", "idc2"})) == ["a0 a1 b2", "a2 a3 b3", "b0 b1"]
    assert room_shares(machine_room({"idc1"})) == ["a0 a3", "a1", "a2"]
    assert room_shares(machine_room({"elsewhere"})) == ["", "", ""]


@pytest.mark.parametrize(
    "rooms,expected",
    [
        ({"C1": "I1", "C2": "I1", "C3": "I2"}, ["a0 a1", "a2 a3", "b0 b1 b2 b3"]),
        ({"C1": "I1", "C2": "I1", "C3": "I1"}, ["a0 a1 b0 b1", "a2 b2", "a3 b3"]),
        ({"C1": "I1", "C2": "I3", "C3": "I3"}, ["a0 a1 a2 a3 b0 b1", "b2", "b3"]),
    ],
)
def test_nearby_prefers_the_own_room_and_shares_orphan_rooms(rooms, expected):
    assert room_shares(nearby(rooms)) == expected


def test_nearby_refuses_a_consumer_without_a_room():
    with pytest.raises(ClientFault, match="C3"):
        nearby({"C1": "I1", "C2": "I1"})("C1", ROOMS, THREE)


def test_consistent_hash_equals_rocketmqs_ring():
    assert shares(consistent_hash(), EIGHT, THREE) == [[3, 4, 5], [0, 1, 2, 6], [7]]
    clients = ["192.168.0.1@c1", "192.168.0.2@c2", "192.168.0.3@c3"]
    assert shares(consistent_hash(), EIGHT, clients) == [[0, 2, 5], [1, 3, 6], [4, 7]]


ALL = {
    **STRATEGIES,
    "MACHINE_ROOM": machine_room({"room"}),
    "NEARBY": machine_room_nearby(lambda q: "r", lambda c: "r"),
}


@pytest.mark.parametrize("name", sorted(ALL))
@given(queue_nums=st.integers(0, 40), client_nums=st.integers(1, 12))
def test_every_queue_has_exactly_one_owner(name, queue_nums, client_nums):
    queues = [MessageQueue("T", "room@b", i) for i in range(queue_nums)]
    clients = [f"c{i}" for i in range(client_nums)]
    taken = [queue for client in clients for queue in ALL[name](client, queues, clients)]
    assert sorted(taken) == queues


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_consumer_that_is_not_in_the_list_takes_nothing(name):
    assert ALL[name]("stranger", ROOMS, THREE) == []
