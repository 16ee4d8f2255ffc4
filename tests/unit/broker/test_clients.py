"""Membership: who joins, who leaves, and which groups have to be told."""

from __future__ import annotations

import pytest

from shmq.base.errors import InvalidParameter
from shmq.broker.client_key import Client, ClientKey
from shmq.broker.clients import ClientTable
from shmq.broker.consumer_members import Consumption
from shmq.model.consumer_group import ConsumeFromWhere, ConsumeType, MessageModel
from shmq.model.subscription import SubscriptionData, build_subscription

HOW = Consumption()


def client(conn_id: int, client_id: str = "", slot: int = 2) -> Client:
    return Client(ClientKey(slot, conn_id), client_id or f"c{conn_id}", 3, 479, f"10.0.0.1:{conn_id}")


def subs(*topics: str, version: int = 1, expression: str = "*") -> list[SubscriptionData]:
    return [build_subscription(topic, expression, version) for topic in topics]


@pytest.fixture
def clients() -> ClientTable:
    return ClientTable()


def test_joining_changes_the_group_once(clients: ClientTable) -> None:
    assert clients.beat_consumer(client(1), "g", HOW, subs("t"), 0)
    assert not clients.beat_consumer(client(1), "g", HOW, subs("t"), 5)
    assert clients.beat_consumer(client(2), "g", HOW, subs("t"), 5)
    members = clients.consumer_group("g")
    assert members is not None and members.client_ids == ["c1", "c2"]


@pytest.mark.parametrize(
    ("before", "now", "changed"),
    [
        (("t",), ("t",), False),
        (("t",), ("t", "u"), True),
        (("t", "u"), ("t",), True),
        (("t",), ("u",), True),
    ],
)
def test_other_topics_change_the_group(
    clients: ClientTable, before: tuple[str, ...], now: tuple[str, ...], changed: bool
) -> None:
    clients.beat_consumer(client(1), "g", HOW, subs(*before), 0)
    assert clients.beat_consumer(client(1), "g", HOW, subs(*now, version=2), 1) is changed
    members = clients.consumer_group("g")
    assert members is not None and sorted(members.subscriptions) == sorted(now)


def test_a_new_version_replaces_a_subscription_without_telling_anybody(clients: ClientTable) -> None:
    clients.beat_consumer(client(1), "g", HOW, subs("t", version=5), 0)
    assert not clients.beat_consumer(client(1), "g", HOW, subs("t", version=6, expression="A"), 0)
    assert not clients.beat_consumer(client(1), "g", HOW, subs("t", version=4, expression="B"), 0)
    members = clients.consumer_group("g")
    assert members is not None and members.subscriptions["t"].sub_string == "A"


def test_the_latest_heartbeat_decides_how_a_group_consumes(clients: ClientTable) -> None:
    clients.beat_consumer(client(1), "g", HOW, subs("t"), 0)
    other = Consumption(
        ConsumeType.CONSUME_ACTIVELY, MessageModel.BROADCASTING, ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET
    )
    clients.beat_consumer(client(1), "g", other, subs("t"), 0)
    members = clients.consumer_group("g")
    assert members is not None and members.consumption == other and not members.told_of_changes


def test_another_client_id_on_the_same_connection_is_a_change(clients: ClientTable) -> None:
    clients.beat_consumer(client(1, "old"), "g", HOW, subs("t"), 0)
    assert clients.beat_consumer(client(1, "new"), "g", HOW, subs("t"), 0)
    members = clients.consumer_group("g")
    assert members is not None and members.client_ids == ["new"]


def test_a_closed_connection_leaves_all_its_groups(clients: ClientTable) -> None:
    key = client(1).key
    clients.opened(key, "10.0.0.1:1")
    clients.beat_consumer(client(1), "g", HOW, subs("t"), 0)
    clients.beat_consumer(client(1), "h", HOW, subs("t"), 0)
    clients.beat_producer(client(1), "p", 0)
    clients.beat_consumer(client(2), "g", HOW, subs("t"), 0)
    assert clients.closed(key) == {"g", "h"}
    assert clients.consumer_groups() == ["g"] and clients.producer_groups() == {}
    assert clients.closed(key) == set() and not clients.connected(key)


def test_unregistering_leaves_one_group(clients: ClientTable) -> None:
    clients.beat_consumer(client(1), "g", HOW, subs("t"), 0)
    clients.beat_producer(client(1), "p", 0)
    assert clients.leave_consumer(client(1).key, "g")
    assert not clients.leave_consumer(client(1).key, "g")
    clients.leave_producer(client(1).key, "p")
    assert clients.groups_of(client(1).key) == []


def test_silent_clients_expire_and_others_stay(clients: ClientTable) -> None:
    clients.beat_consumer(client(1), "g", HOW, subs("t"), 0)
    clients.beat_consumer(client(2), "g", HOW, subs("t"), 100)
    clients.beat_producer(client(1), "p", 0)
    assert clients.expire(120_050, 120_000) == {"g"}
    members = clients.consumer_group("g")
    assert members is not None and members.client_ids == ["c2"]
    assert clients.producer_groups() == {}
    assert clients.expire(120_050, 120_000) == set()


def test_who_is_silent_is_found_at_the_first_look_after_its_time(clients: ClientTable) -> None:
    """A look that cannot find anybody is skipped; beats, newcomers and a shorter limit must not fool it."""
    clients.beat_consumer(client(1), "g", HOW, subs("t"), 0)
    clients.beat_producer(client(2), "p", 5_000)
    assert clients.expire(10_000, 120_000) == set()
    clients.beat_again(client(1).key, 60_000)
    clients.beat_consumer(client(3), "h", HOW, subs("t"), 60_000)
    assert clients.expire(124_999, 120_000) == set() and clients.producer_groups()
    assert clients.expire(125_001, 120_000) == set() and not clients.producer_groups()
    clients.beat_again(client(3).key, 126_000)
    assert clients.expire(130_000, 10_000) == {"g"}, "the limit was shortened"
    assert clients.expire(136_000, 10_000) == set()
    assert clients.expire(136_001, 10_000) == {"h"}
    assert clients.expire(200_000, 10_000) == set()
    clients.beat_consumer(client(4), "i", HOW, subs("t"), 200_000)
    assert clients.expire(210_001, 10_000) == {"i"}


def test_a_dead_worker_takes_its_clients_along(clients: ClientTable) -> None:
    for slot, conn_id in ((2, 1), (2, 2), (3, 1)):
        clients.opened(ClientKey(slot, conn_id), "x")
        clients.beat_consumer(client(conn_id, f"{slot}-{conn_id}", slot), "g", HOW, subs("t"), 0)
    assert clients.worker_lost(2) == {"g"}
    members = clients.consumer_group("g")
    assert members is not None and members.client_ids == ["3-1"] and clients.connection_count == 1
    assert clients.worker_lost(2) == set()


def test_of_two_connections_of_a_client_the_later_is_found(clients: ClientTable) -> None:
    clients.beat_consumer(client(1, "same"), "g", HOW, subs("t"), 0)
    clients.beat_consumer(client(2, "same"), "g", HOW, subs("t"), 0)
    members = clients.consumer_group("g")
    assert members is not None and members.client_ids == ["same"]
    found = members.find("same")
    assert found is not None and found.key.conn_id == 2 and members.find("nobody") is None


def test_groups_are_found_by_topic(clients: ClientTable) -> None:
    clients.beat_consumer(client(1), "g", HOW, subs("t", "u"), 0)
    clients.beat_consumer(client(2), "h", HOW, subs("u"), 0)
    assert clients.groups_subscribed_to("u") == ["g", "h"]
    assert clients.groups_subscribed_to("t") == ["g"]
    clients.drop_consumer_group("h")
    assert clients.groups_subscribed_to("u") == ["g"] and clients.members("h") == []


def test_a_member_that_would_consume_in_another_mode_is_refused(clients: ClientTable) -> None:
    clients.beat_consumer(client(1), "g", HOW, subs("t"), 0)
    clients.beat_consumer(client(2), "g", HOW, subs("t"), 0)
    everything = Consumption(message_model=MessageModel.BROADCASTING)
    with pytest.raises(
        InvalidParameter, match=r"CLUSTERING \(members: c1, c2\), client c3 wants BROADCASTING"
    ):
        clients.beat_consumer(client(3), "g", everything, subs("t"), 0)
    with pytest.raises(InvalidParameter, match="client c2 wants BROADCASTING"):
        clients.beat_consumer(client(2), "g", everything, subs("t"), 0)
    members = clients.consumer_group("g")
    assert members is not None and members.client_ids == ["c1", "c2"] and members.consumption == HOW
    clients.closed(client(2).key)
    assert clients.beat_consumer(client(1), "g", everything, subs("u"), 0), "alone it may change its mind"


def test_members_that_differ_are_named_once(clients: ClientTable, caplog: pytest.LogCaptureFixture) -> None:
    """Checklist 163."""
    clients.beat_consumer(client(1), "g", HOW, subs("t", "u"), 0)
    clients.beat_consumer(client(2), "g", HOW, subs("t", "u"), 0)
    members = clients.consumer_group("g")
    assert members is not None and members.differences() == [] and not caplog.text
    pulls = Consumption(ConsumeType.CONSUME_ACTIVELY)
    for _ in range(3):
        clients.beat_consumer(client(2), "g", pulls, subs("t", expression="A"), 0)
        clients.beat_consumer(client(1), "g", HOW, subs("t", "u"), 0)
    assert members.differences() == [
        "consumeType: CONSUME_ACTIVELY, CONSUME_PASSIVELY",
        "topic t: *, A",
        "topic u: *, not subscribed",
    ]
    assert caplog.text.count("members_differ") == 1
    clients.closed(client(2).key)
    assert members.differences() == []
