"""RouteTable and Registrations: what comes in, what goes, and when; no sockets, no clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shmq.base.errors import Unavailable
from shmq.model.data_version import DataVersion
from shmq.model.topic_config import TopicConfig
from shmq.naming.registrations import EXPIRY_MS, Registration, Registrations
from shmq.naming.route_table import RouteTable

TOPICS = {name: TopicConfig(name, 4, 4) for name in ("orders", "bills")}
MASTER = Registration(
    cluster="C1",
    broker_name="broker-a",
    broker_id=0,
    address="10.0.0.1:10911",
    ha_address="10.0.0.1:10912",
    topics=TOPICS,
    data_version=DataVersion(0, 1, 1000),
    unix_socket="/run/shmq/broker-a.sock",
)
SLAVE = replace(
    MASTER, broker_id=1, address="10.0.0.2:10911", ha_address="10.0.0.2:10912", unix_socket="/elsewhere"
)


@pytest.fixture
def registrations() -> Registrations:
    return Registrations(RouteTable())


def test_a_registration_makes_its_topics_routable(registrations: Registrations) -> None:
    registrations.register(MASTER, 1, 0)
    route = registrations.table.route("orders")
    assert route is not None
    assert [(q.broker_name, q.read_queue_nums, q.perm) for q in route.queue_datas] == [("broker-a", 4, 6)]
    assert route.broker_datas[0].broker_addrs == {0: "10.0.0.1:10911"}
    assert route.broker_datas[0].unix_socket == "/run/shmq/broker-a.sock"
    assert registrations.table.route("unknown") is None


def test_a_first_registration_of_one_topic_is_refused_but_none_or_many_are_accepted(
    registrations: Registrations,
) -> None:
    with pytest.raises(Unavailable, match="whole topic table"):
        registrations.register(replace(MASTER, topics={"orders": TOPICS["orders"]}), 1, 0)
    assert registrations.table.groups == {}
    registrations.register(replace(MASTER, topics={}), 1, 0)
    one_more = replace(MASTER, topics={"x": TopicConfig("x")}, data_version=DataVersion(0, 2, 2000))
    registrations.register(one_more, 1, 0)
    assert registrations.table.all_topics() == ["x"]


def test_topics_are_applied_only_when_the_version_changed(registrations: Registrations) -> None:
    registrations.register(MASTER, 1, 0)
    registrations.table.set_write_permission("broker-a", allowed=False)
    registrations.register(MASTER, 1, 0)
    assert registrations.table.topics["orders"]["broker-a"].perm == 4
    registrations.register(replace(MASTER, data_version=DataVersion(0, 2, 2000)), 1, 0)
    assert registrations.table.topics["orders"]["broker-a"].perm == 6


def test_a_topic_missing_from_a_newer_table_stays_unless_configured(registrations: Registrations) -> None:
    fewer = replace(
        MASTER,
        topics={"bills": TOPICS["bills"], "new": TopicConfig("new")},
        data_version=DataVersion(0, 2, 2000),
    )
    registrations.register(MASTER, 1, 0)
    registrations.register(fewer, 1, 0)
    assert registrations.table.all_topics() == ["bills", "new", "orders"]
    registrations.remove_missing_topics = True
    registrations.register(replace(fewer, data_version=DataVersion(0, 3, 3000)), 1, 0)
    assert registrations.table.all_topics() == ["bills", "new"]


def test_a_slave_is_told_its_master_and_adds_no_topics(registrations: Registrations) -> None:
    assert registrations.register(MASTER, 1, 0).master_addr is None
    accepted = registrations.register(replace(SLAVE, topics={}), 2, 0)
    assert (accepted.master_addr, accepted.ha_server_addr) == ("10.0.0.1:10911", "10.0.0.1:10912")
    assert registrations.table.groups["broker-a"].addresses == {0: "10.0.0.1:10911", 1: "10.0.0.2:10911"}
    assert registrations.table.groups["broker-a"].unix_socket == "/run/shmq/broker-a.sock"


def test_an_address_under_another_id_replaces_its_old_id(registrations: Registrations) -> None:
    registrations.register(MASTER, 1, 0)
    registrations.register(SLAVE, 2, 0)
    registrations.register(replace(SLAVE, broker_id=0), 2, 0)
    assert registrations.table.groups["broker-a"].addresses == {0: "10.0.0.2:10911"}


def test_a_newcomer_is_ignored_when_the_id_is_held_with_a_higher_state_version(
    registrations: Registrations,
) -> None:
    registrations.register(replace(MASTER, data_version=DataVersion(5, 1, 1)), 1, 0)
    registrations.register(replace(MASTER, address="10.0.0.9:10911"), 2, 0)
    assert registrations.table.groups["broker-a"].addresses == {0: "10.0.0.1:10911"}


def test_a_closed_connection_removes_its_brokers_at_once(registrations: Registrations) -> None:
    registrations.register(MASTER, 1, 0)
    registrations.register(replace(MASTER, broker_name="broker-b", address="10.0.0.3:1"), 2, 0)
    registrations.connection_closed(1)
    assert set(registrations.table.groups) == {"broker-b"}
    route = registrations.table.route("orders")
    assert route is not None and [q.broker_name for q in route.queue_datas] == ["broker-b"]


def test_a_broker_that_came_back_on_another_connection_survives_the_end_of_the_old_one(
    registrations: Registrations,
) -> None:
    registrations.register(MASTER, 1, 0)
    registrations.register(MASTER, 2, 0)
    registrations.connection_closed(1)
    assert set(registrations.table.groups) == {"broker-a"}


def test_the_kept_broker_outlives_its_connection_but_not_silence(registrations: Registrations) -> None:
    registrations.kept = (MASTER.cluster, MASTER.address)
    registrations.register(MASTER, 1, 0)
    registrations.register(replace(MASTER, broker_name="broker-b", address="10.0.0.3:1"), 1, 0)
    version = registrations.table.version
    registrations.connection_closed(1)
    assert set(registrations.table.groups) == {"broker-a"} and registrations.table.version > version
    later = replace(MASTER, topics={**TOPICS, "made": TopicConfig("made")})
    registrations.register(later, 2, 100)
    assert "made" in registrations.table.topics, "topics of the same version that were never told"
    registrations.connection_closed(2)
    registrations.expire(EXPIRY_MS + 101)
    assert registrations.table.groups == {}
    registrations.register(MASTER, 3, 0)
    registrations.unregister(MASTER.cluster, MASTER.broker_name, MASTER.address, 0)
    assert registrations.table.groups == {}


def test_silence_removes_a_broker_after_its_own_limit_else_two_minutes(registrations: Registrations) -> None:
    registrations.register(MASTER, 1, 0)
    registrations.register(replace(MASTER, broker_name="broker-b", address="10.0.0.3:1", expiry_ms=500), 2, 0)
    registrations.expire(500)
    assert set(registrations.table.groups) == {"broker-a", "broker-b"}
    registrations.expire(501)
    assert set(registrations.table.groups) == {"broker-a"}
    registrations.heard("C1", "10.0.0.1:10911", 1000)
    registrations.expire(EXPIRY_MS + 1000)
    assert set(registrations.table.groups) == {"broker-a"}
    registrations.expire(EXPIRY_MS + 1001)
    assert registrations.table.groups == {}
    assert registrations.table.topics == {}
    assert registrations.table.clusters == {}


def test_unregister_removes_exactly_that_address(registrations: Registrations) -> None:
    registrations.register(MASTER, 1, 0)
    registrations.register(SLAVE, 2, 0)
    registrations.unregister("C1", "broker-a", "10.0.0.1:10911", 0)
    assert registrations.table.groups["broker-a"].addresses == {1: "10.0.0.2:10911"}
    assert registrations.table.route("orders") is not None
    registrations.unregister("C1", "broker-a", "10.0.0.1:10911", 0)
    registrations.unregister("C1", "broker-a", "10.0.0.2:10911", 1)
    assert registrations.table.route("orders") is None


def test_write_permission_is_taken_and_given_back(registrations: Registrations) -> None:
    registrations.register(MASTER, 1, 0)
    assert registrations.table.set_write_permission("broker-a", allowed=False) == 2
    assert registrations.table.topics["orders"]["broker-a"].perm == 4
    assert registrations.table.set_write_permission("broker-a", allowed=True) == 2
    assert registrations.table.topics["orders"]["broker-a"].perm == 6
    assert registrations.table.set_write_permission("nobody", allowed=True) == 0


def test_a_topic_can_be_removed_from_one_cluster_only(registrations: Registrations) -> None:
    registrations.register(MASTER, 1, 0)
    registrations.register(replace(MASTER, cluster="C2", broker_name="broker-z", address="10.0.0.4:1"), 2, 0)
    registrations.table.remove_topic("orders", "C2")
    assert set(registrations.table.topics["orders"]) == {"broker-a"}
    registrations.table.remove_topic("orders")
    assert "orders" not in registrations.table.topics
    assert registrations.table.topics_of_cluster("C2") == ["bills"]


def test_every_change_raises_the_version_and_repetition_does_not(registrations: Registrations) -> None:
    registrations.register(MASTER, 1, 0)
    version = registrations.table.version
    registrations.register(replace(MASTER, data_version=DataVersion(0, 2, 2000)), 1, 0)
    assert registrations.table.version == version
    registrations.connection_closed(1)
    assert registrations.table.version > version
