"""NameServer over real sockets: every code of the table, in the wire's own shape."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shmq.model.settings import NamesrvSettings
from shmq.naming.name_server import NameServer
from shmq.naming.probe import is_name_server
from shmq.net.listener import bind_tcp, bind_unix
from shmq.protocol.bodies.route import decode_cluster_info, decode_route
from shmq.protocol.bodies.tables import decode_kv_table
from shmq.protocol.bodies.topics import decode_topic_list
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command, Serialization, decode_frame, encode_command
from shmq.protocol.frame import FrameDecoder
from tests.helpers.waiting import wait_until


class Running:
    """A name server in a thread, and a client's socket to it."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.unix_path = folder / "namesrv.sock"
        self.tcp = bind_tcp("127.0.0.1", 0)
        self.port: int = self.tcp.getsockname()[1]
        self._sockets = [self.tcp, bind_unix(self.unix_path)]
        settings = NamesrvSettings(kv_config_path=str(folder / "kv.json"), **changes)
        self.loop = asyncio.new_event_loop()
        self.server = NameServer(settings)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._clients: list[socket.socket] = []

    def _run(self) -> None:
        self.server.start(self.loop, self._sockets)
        self.loop.run_forever()
        self.server.stop()
        self.loop.run_until_complete(asyncio.sleep(0.01))
        self.loop.close()

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        for listening in self._sockets:
            listening.close()

    def connect(self, unix: bool = False) -> socket.socket:
        if unix:
            client = socket.socket(socket.AF_UNIX)
            client.connect(str(self.unix_path))
        else:
            client = socket.create_connection(("127.0.0.1", self.port))
        client.settimeout(5)
        self._clients.append(client)
        return client


def ask(
    client: socket.socket,
    code: int,
    ext: dict[str, str] | None = None,
    body: bytes | None = None,
    **parts: Any,
) -> Command:
    request = Command(
        code,
        opaque=7,
        ext=ext,
        body=body,
        serialization=parts.pop("serialization", Serialization.JSON),
        **parts,
    )
    client.sendall(b"".join(encode_command(request)))
    decoder = FrameDecoder()
    while data := client.recv(65536):
        for frame in decoder.feed(data):
            answer = decode_frame(bytes(frame))
            assert answer.opaque == 7
            assert answer.is_response
            return answer
    raise AssertionError("connection closed instead of an answer")


def register(
    client: socket.socket, name: str = "broker-a", address: str = "10.0.0.1:10911", **ext: str
) -> Command:
    topics = {
        topic: {"topicName": topic, "readQueueNums": 4, "writeQueueNums": 4, "perm": 6, "topicSysFlag": flag}
        for topic, flag in (("orders", 0), ("bills", 1))
    }
    body = {
        "filterServerList": [],
        "topicConfigSerializeWrapper": {
            "dataVersion": {"counter": 3, "stateVersion": 0, "timestamp": 1700},
            "topicConfigTable": topics,
        },
    }
    header = {
        "brokerName": name,
        "brokerAddr": address,
        "clusterName": "C1",
        "haServerAddr": "10.0.0.1:10912",
        "brokerId": "0",
        "unixSocket": "/run/shmq/x.sock",
        **ext,
    }
    return ask(client, RequestCode.REGISTER_BROKER, header, json.dumps(body).encode())


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    server = Running(tmp_path)
    yield server
    server.close()


@pytest.mark.parametrize("unix", [False, True])
@pytest.mark.parametrize("serialization", list(Serialization))
def test_a_registered_topic_has_a_route_over_every_front_and_codec(
    running: Running, unix: bool, serialization: Serialization
) -> None:
    registrant = running.connect()
    assert register(registrant).code == ResponseCode.SUCCESS
    client = running.connect(unix)
    fields = [1, "orders", False] if serialization is Serialization.CBOR else None
    ext = None if fields else {"topic": "orders"}
    answer = ask(client, RequestCode.GET_ROUTEINFO_BY_TOPIC, ext, fields=fields, serialization=serialization)
    assert answer.code == ResponseCode.SUCCESS
    route = decode_route(answer.body)
    assert route.broker_datas[0].broker_addrs == {0: "10.0.0.1:10911"}
    assert route.broker_datas[0].unix_socket == "/run/shmq/x.sock"
    assert route.queue_datas[0].write_queue_nums == 4


def test_an_unknown_topic_is_answered_17_with_a_sentence_and_no_body(running: Running) -> None:
    answer = ask(running.connect(), RequestCode.GET_ROUTEINFO_BY_TOPIC, {"topic": "nope"})
    assert (answer.code, answer.body) == (ResponseCode.TOPIC_NOT_EXIST, None)
    assert "nope" in (answer.remark or "")


@pytest.mark.parametrize(
    ("version", "accept", "quoted"), [(479, "", True), (401, "", True), (400, "", False), (0, "true", True)]
)
def test_route_keys_are_quoted_by_the_requesters_version(
    running: Running, version: int, accept: str, quoted: bool
) -> None:
    client = running.connect()
    register(client)
    ext = {"topic": "orders", "acceptStandardJsonOnly": accept or "false"}
    answer = ask(client, RequestCode.GET_ROUTEINFO_BY_TOPIC, ext, version=version)
    assert (b'{"0":"10.0.0.1:10911"}' in answer.body_bytes()) is quoted
    assert (b'{0:"10.0.0.1:10911"}' in answer.body_bytes()) is not quoted


def test_a_kept_route_answer_changes_with_the_table(running: Running) -> None:
    client = running.connect()
    register(client)
    for _ in range(2):
        assert ask(client, RequestCode.GET_ROUTEINFO_BY_TOPIC, {"topic": "orders"}).code == 0
    assert ask(client, RequestCode.WIPE_WRITE_PERM_OF_BROKER, {"brokerName": "broker-a"}).ext == {
        "wipeTopicCount": "2"
    }
    route = decode_route(ask(client, RequestCode.GET_ROUTEINFO_BY_TOPIC, {"topic": "orders"}).body)
    assert route.queue_datas[0].perm == 4
    assert ask(client, RequestCode.ADD_WRITE_PERM_OF_BROKER, {"brokerName": "broker-a"}).ext == {
        "addTopicCount": "2"
    }
    assert ask(client, RequestCode.DELETE_TOPIC_IN_NAMESRV, {"topic": "orders"}).code == 0
    assert ask(client, RequestCode.GET_ROUTEINFO_BY_TOPIC, {"topic": "orders"}).code == 17


def test_closing_the_registrants_connection_removes_the_broker_at_once(running: Running) -> None:
    registrant, client = running.connect(), running.connect()
    register(registrant)
    registrant.close()
    wait_until(
        lambda: ask(client, RequestCode.GET_ROUTEINFO_BY_TOPIC, {"topic": "orders"}).code == 17, limit_s=5
    )


def test_a_broker_takes_its_leave(running: Running) -> None:
    client = running.connect()
    register(client)
    identity = {
        "brokerName": "broker-a",
        "brokerAddr": "10.0.0.1:10911",
        "clusterName": "C1",
        "brokerId": "0",
    }
    assert ask(client, RequestCode.UNREGISTER_BROKER, identity).code == 0
    assert ask(client, RequestCode.GET_ROUTEINFO_BY_TOPIC, {"topic": "orders"}).code == 17


def test_cluster_info_has_bare_integer_keys(running: Running) -> None:
    client = running.connect()
    register(client)
    answer = ask(client, RequestCode.GET_BROKER_CLUSTER_INFO)
    assert b'"brokerAddrs":{0:"10.0.0.1:10911"}' in answer.body_bytes()
    assert decode_cluster_info(answer.body).cluster_addr_table == {"C1": ["broker-a"]}


def test_topic_lists(running: Running) -> None:
    client = running.connect()
    register(client)

    def topics(code: int, ext: dict[str, str] | None = None) -> list[str]:
        return decode_topic_list(ask(client, code, ext).body)

    assert topics(RequestCode.GET_ALL_TOPIC_LIST_FROM_NAMESERVER) == ["bills", "orders"]
    assert topics(RequestCode.GET_TOPICS_BY_CLUSTER, {"cluster": "C1"}) == ["bills", "orders"]
    assert topics(RequestCode.GET_TOPICS_BY_CLUSTER, {"cluster": "C9"}) == []
    assert topics(RequestCode.GET_SYSTEM_TOPIC_LIST_FROM_NS) == ["C1", "broker-a"]
    assert topics(RequestCode.GET_UNIT_TOPIC_LIST) == ["bills"]
    assert topics(RequestCode.GET_HAS_UNIT_SUB_TOPIC_LIST) == []
    assert topics(RequestCode.GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST) == []


def test_kv_configuration_and_order_topics(running: Running) -> None:
    client = running.connect()
    register(client)
    entry = {"namespace": "ORDER_TOPIC_CONFIG", "key": "orders", "value": "broker-a:4"}
    assert ask(client, RequestCode.GET_KV_CONFIG, entry).code == ResponseCode.QUERY_NOT_FOUND
    assert ask(client, RequestCode.GET_KVLIST_BY_NAMESPACE, entry).code == ResponseCode.QUERY_NOT_FOUND
    assert ask(client, RequestCode.PUT_KV_CONFIG, entry).code == 0
    assert ask(client, RequestCode.GET_KV_CONFIG, entry).ext == {"value": "broker-a:4"}
    table = decode_kv_table(ask(client, RequestCode.GET_KVLIST_BY_NAMESPACE, entry).body)
    assert table == {"orders": "broker-a:4"}
    route = decode_route(ask(client, RequestCode.GET_ROUTEINFO_BY_TOPIC, {"topic": "orders"}).body)
    assert route.order_topic_conf == "broker-a:4"
    assert decode_kv_table(register(client).body) == {"orders": "broker-a:4"}
    assert ask(client, RequestCode.DELETE_KV_CONFIG, entry).code == 0
    assert ask(client, RequestCode.DELETE_KV_CONFIG, entry).code == 0
    assert register(client).body is None
    assert ask(client, RequestCode.PUT_KV_CONFIG, {**entry, "key": ""}).code == ResponseCode.SYSTEM_ERROR


def test_registration_checks_its_checksum_and_reads_compressed_bodies(running: Running) -> None:
    client = running.connect()
    refused = register(client, bodyCrc32="1")
    assert refused.code == ResponseCode.SYSTEM_ERROR
    pieces = [
        b'{"counter":1,"stateVersion":0,"timestamp":5}',
        b"zipped 2 3 6 SINGLE_TAG {}",
        b"other 1 1 6 SINGLE_TAG {}",
    ]
    plain = _piece(pieces[0]) + (2).to_bytes(4, "big") + _piece(pieces[1]) + _piece(pieces[2]) + _piece(b"[]")
    header = {
        "brokerName": "broker-c",
        "brokerAddr": "10.0.0.5:10911",
        "clusterName": "C1",
        "haServerAddr": "10.0.0.5:10912",
        "brokerId": "0",
        "compressed": "true",
    }
    assert ask(client, RequestCode.REGISTER_BROKER, header, zlib.compress(plain)).code == 0
    route = decode_route(ask(client, RequestCode.GET_ROUTEINFO_BY_TOPIC, {"topic": "zipped"}).body)
    assert route.queue_datas[0].write_queue_nums == 3
    assert ask(client, RequestCode.REGISTER_BROKER, header, b"rubbish").code != ResponseCode.SUCCESS


def _piece(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def test_data_version_question_tells_whether_to_register_again(running: Running) -> None:
    client = running.connect()
    identity = {
        "brokerName": "broker-a",
        "brokerAddr": "10.0.0.1:10911",
        "clusterName": "C1",
        "brokerId": "0",
    }
    same = b'{"counter":3,"stateVersion":0,"timestamp":1700}'
    unknown = ask(client, RequestCode.QUERY_DATA_VERSION, identity, same)
    assert (unknown.ext, unknown.body) == ({"changed": "true"}, None)
    register(client)
    known = ask(client, RequestCode.QUERY_DATA_VERSION, identity, same)
    assert known.ext == {"changed": "false"}
    assert json.loads(known.body_bytes()) == {"counter": 3, "stateVersion": 0, "timestamp": 1700}
    newer = ask(client, RequestCode.QUERY_DATA_VERSION, identity, same.replace(b"3", b"4"))
    assert newer.ext == {"changed": "true"}


def test_heartbeat_and_member_group(running: Running) -> None:
    client = running.connect()
    register(client)
    ext = {"clusterName": "C1", "brokerName": "broker-a", "brokerAddr": "10.0.0.1:10911"}
    assert ask(client, RequestCode.BROKER_HEARTBEAT, ext).code == 0
    body = ask(client, RequestCode.GET_BROKER_MEMBER_GROUP, ext).body_bytes()
    assert b'"brokerAddrs":{0:"10.0.0.1:10911"}' in body
    assert b'"cluster":"C1"' in body


def test_a_topic_registered_by_hand_is_merged_for_known_brokers_only(running: Running) -> None:
    client = running.connect()
    register(client)
    route = {
        "queueDatas": [
            {"brokerName": name, "perm": 6, "readQueueNums": 2, "writeQueueNums": 2, "topicSysFlag": 0}
            for name in ("broker-a", "stranger")
        ],
        "brokerDatas": [],
    }
    answer = ask(
        client, RequestCode.REGISTER_TOPIC_IN_NAMESRV, {"topic": "byhand"}, json.dumps(route).encode()
    )
    assert answer.code == 0
    found = decode_route(ask(client, RequestCode.GET_ROUTEINFO_BY_TOPIC, {"topic": "byhand"}).body)
    assert [queues.broker_name for queues in found.queue_datas] == ["broker-a"]


def test_settings_are_read_and_only_harmless_ones_changed(running: Running) -> None:
    client = running.connect()
    assert b"orderMessageEnable=true" in ask(client, RequestCode.GET_NAMESRV_CONFIG).body_bytes()
    assert ask(client, RequestCode.UPDATE_NAMESRV_CONFIG, None, b"orderMessageEnable=false\n").code == 0
    assert b"orderMessageEnable=false" in ask(client, RequestCode.GET_NAMESRV_CONFIG).body_bytes()
    for refused in (b"kvConfigPath=/etc/passwd", b"configStorePath=/x", b"listenPort=1", b"runtimeDir=/x"):
        assert (
            ask(client, RequestCode.UPDATE_NAMESRV_CONFIG, None, refused).code == ResponseCode.NO_PERMISSION
        )
    assert ask(client, RequestCode.UPDATE_NAMESRV_CONFIG, None, b"orderMessageEnable=maybe").code == 1


def test_zones_leave_out_masters_of_other_zones(running: Running) -> None:
    client = running.connect()
    register(client, __ZONE_NAME="east")
    register(client, name="broker-b", address="10.0.0.2:10911", __ZONE_NAME="west")
    ext = {"topic": "orders", "__ZONE_MODE": "true", "__ZONE_NAME": "EAST"}
    route = decode_route(ask(client, RequestCode.GET_ROUTEINFO_BY_TOPIC, ext).body)
    assert [queues.broker_name for queues in route.queue_datas] == ["broker-a"]
    assert [group.broker_name for group in route.broker_datas] == ["broker-a"]


def test_unknown_codes_and_missing_fields_are_answered_not_dropped(running: Running) -> None:
    client = running.connect()
    assert ask(client, 9999).code == ResponseCode.REQUEST_CODE_NOT_SUPPORTED
    missing = ask(client, RequestCode.GET_ROUTEINFO_BY_TOPIC, {})
    assert missing.code != 0
    assert "topic" in (missing.remark or "")


def test_lists_can_be_switched_off(tmp_path: Path) -> None:
    server = Running(tmp_path, enable_all_topic_list=False)
    try:
        answer = ask(server.connect(), RequestCode.GET_ALL_TOPIC_LIST_FROM_NAMESERVER)
        assert answer.code == ResponseCode.SYSTEM_ERROR
    finally:
        server.close()


def test_the_probe_knows_our_name_server_from_anything_else(running: Running) -> None:
    assert is_name_server(("127.0.0.1", running.port))
    assert is_name_server(str(running.unix_path))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
    assert not is_name_server(("127.0.0.1", port))


def test_a_bad_frame_closes_its_own_connection_only(running: Running) -> None:
    bad, good = running.connect(), running.connect()
    bad.sendall(b"\x7f\xff\xff\xff" + b"\x00" * 64)
    assert bad.recv(1) == b""
    assert ask(good, RequestCode.GET_BROKER_CLUSTER_INFO).code == 0
