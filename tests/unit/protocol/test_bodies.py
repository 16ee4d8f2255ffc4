"""JSON bodies: the exact dialect that is written, everything that must be read, and what is refused."""

import struct
import zlib

import pytest

from shmq.base.errors import MessageIllegal, RemoteFault
from shmq.model.route import BrokerData, TopicRoute
from shmq.model.subscription import build_subscription
from shmq.model.topic_config import TopicConfig
from shmq.protocol.bodies import batch, groups, heartbeat, offsets, registration, route, tables, topics
from shmq.protocol.codes import LanguageCode
from tests.unit.protocol.body_corpus import (
    CLIENT,
    CLUSTER,
    HEARTBEAT,
    QUEUE,
    QUEUE_NAME,
    ROUND_TRIPS,
    ROUTE,
    STATS,
    TOPIC_STATS,
    VERSION,
)


@pytest.mark.parametrize("encode,decode,value", ROUND_TRIPS.values(), ids=ROUND_TRIPS.keys())
def test_a_body_is_read_as_it_was_written(encode, decode, value):
    body = encode(value)
    assert b'": ' not in body and b", " not in body
    for form in (body, bytearray(body), memoryview(body)):
        assert decode(form) == value


DECODERS = {name: decode for name, (_, decode, _) in ROUND_TRIPS.items() if name != "settings"}


@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS.keys())
@pytest.mark.parametrize("body", [b"[1]", b"5", b'"x"', b"{", b"\xff", b"[" * 3000, b'{"a":'])
def test_a_body_of_another_kind_is_a_remote_fault(decode, body):
    with pytest.raises(RemoteFault):
        decode(body)


@pytest.mark.parametrize(
    "decode,body",
    [
        (heartbeat.decode_heartbeat, b"{}"),
        (heartbeat.decode_heartbeat, b'{"clientID":"c","consumerDataSet":5}'),
        (
            heartbeat.decode_heartbeat,
            b'{"clientID":"c","consumerDataSet":[{"groupName":"g","consumeType":"NO"}]}',
        ),
        (heartbeat.decode_heartbeat, b'{"clientID":"c","producerDataSet":["g"]}'),
        (route.decode_route, b'{"brokerDatas":[{"brokerName":"b","brokerAddrs":{"x":"h:1"}}]}'),
        (topics.decode_topic_table, b'{"topicConfigTable":{"t":{"readQueueNums":"many"}}}'),
        (topics.decode_topic_stats, b'{"offsetTable":{"not a queue":{}}}'),
        (offsets.decode_queue_locks, b'{"clientId":"c","consumerGroup":"g","mqSet":[{}]}'),
        (offsets.decode_reset_offsets, b'{"offsetTable":[[1,2]]}'),
        (offsets.decode_consume_stats, b'{"offsetTable":[1]}'),
        (groups.decode_group_config, b'{"retryMaxTimes":[]}'),
    ],
)
def test_a_member_of_the_wrong_kind_is_a_remote_fault(decode, body):
    with pytest.raises(RemoteFault, match=r"missing or of the wrong kind|JSON"):
        decode(body)


def test_a_heartbeat_has_rocketmqs_members():
    assert heartbeat.encode_heartbeat(HEARTBEAT) == (
        b'{"clientID":"10.0.0.9@4711#1","consumerDataSet":[{"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET",'
        b'"consumeType":"CONSUME_PASSIVELY","groupName":"g1","messageModel":"CLUSTERING","subscriptionDataSet":'
        b'[{"classFilterMode":false,"codeSet":[2598919],"expressionType":"TAG","subString":"TagA",'
        b'"subVersion":1700000000000,"tagsSet":["TagA"],"topic":"orders"},'
        b'{"classFilterMode":false,"codeSet":[],"expressionType":"TAG","subString":"*","subVersion":1,"tagsSet":[],'
        b'"topic":"%RETRY%g1"}],"unitMode":false}],"heartbeatFingerprint":0,'
        b'"producerDataSet":[{"groupName":"CLIENT_INNER_PRODUCER"}],"withoutSub":false}'
    )


def test_a_heartbeat_of_an_old_client_lacks_the_last_members():
    body = b'{"clientID":"c","consumerDataSet":[],"producerDataSet":[{"groupName":"g"}]}'
    assert heartbeat.decode_heartbeat(body) == heartbeat.HeartbeatData("c", ["g"])


def test_broker_ids_are_quoted_for_new_clients_and_bare_for_old_ones():
    assert b'"brokerAddrs":{"0":"10.0.0.1:10911","1":"10.0.0.2:10911"}' in route.encode_route(ROUTE)
    assert b'"brokerAddrs":{0:"10.0.0.1:10911",1:"10.0.0.2:10911"}' in route.encode_route(
        ROUTE, standard_json=False
    )
    assert route.wants_standard_json(401) and route.wants_standard_json(317, True)
    assert not route.wants_standard_json(400)
    assert b"{0:" in route.encode_cluster_info(CLUSTER)


def test_a_route_has_rocketmqs_members_and_our_socket_only_where_known():
    assert route.encode_route(ROUTE) == (
        b'{"brokerDatas":[{"brokerAddrs":{"0":"10.0.0.1:10911","1":"10.0.0.2:10911"},"brokerName":"broker-a",'
        b'"cluster":"C1","enableActingMaster":false}],"filterServerTable":{},'
        b'"queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":4,"topicSysFlag":0,"writeQueueNums":4}]}'
    )
    local = TopicRoute(
        ROUTE.queue_datas, [BrokerData("C1", "broker-a", {0: "h:1"}, unix_socket="/run/shmq/ä.sock")]
    )
    body = route.encode_route(local)
    assert body.isascii() and route.decode_route(body) == local


def test_cluster_masters_come_in_the_order_of_broker_names():
    info = route.ClusterInfo(
        {
            "b": BrokerData("C", "b", {0: "h:2"}),
            "a": BrokerData("C", "a", {0: "h:1"}),
            "s": BrokerData("C", "s", {1: "x"}),
        },
        {"C": ["b", "s", "a", "gone"]},
    )
    assert info.masters_of("C") == ["h:1", "h:2"] and info.masters_of("other") == []


def test_offset_tables_use_objects_as_names():
    assert offsets.encode_reset_offsets({QUEUE: 42}) == b'{"offsetTable":{' + QUEUE_NAME + b":42}}"
    assert topics.encode_topic_stats(TOPIC_STATS) == (
        b'{"offsetTable":{'
        + QUEUE_NAME
        + b':{"lastUpdateTimestamp":0,"maxOffset":5,"minOffset":0}},"topicPutTps":0.0}'
    )
    assert offsets.encode_consume_stats(STATS) == (
        b'{"consumeTps":0.0,"offsetTable":{' + QUEUE_NAME + b':{"brokerOffset":5,"consumerOffset":3,'
        b'"lastTimestamp":1700000000000,"pullOffset":4}}}'
    )


def test_a_cpp_client_gets_reset_offsets_as_a_list():
    body = offsets.encode_reset_offsets({QUEUE: 42}, LanguageCode.CPP)
    assert body == b'{"offsetTable":[{"brokerName":"b","queueId":0,"topic":"t","offset":42}]}'
    assert offsets.decode_reset_offsets(body) == {QUEUE: 42}


def test_queue_names_written_as_text_are_read_too():
    quoted = b'{"offsetTable":{"{\\"brokerName\\":\\"b\\",\\"queueId\\":0,\\"topic\\":\\"t\\"}":42}}'
    assert offsets.decode_reset_offsets(quoted) == {QUEUE: 42}


def test_tables_keyed_by_numbers_have_bare_names():
    assert offsets.encode_correction_offsets({0: 5}) == b'{"correctionOffsets":{0:5}}'
    all_offsets = offsets.encode_all_consumer_offsets({"t@g": {0: 5}}, VERSION)
    assert b'"offsetTable":{"t@g":{0:5}}' in all_offsets
    assert b'"offsetTable":{1:5}' in offsets.encode_all_delay_offsets({1: 5}, VERSION)


def test_other_answers_have_rocketmqs_shape():
    assert offsets.encode_consumer_status_table({"c": {QUEUE: 1}}) == (
        b'{"consumerTable":{"c":{' + QUEUE_NAME + b":1}}}"
    )
    assert groups.encode_topic_subscription("g", "t", build_subscription("t", "*")).startswith(
        b'{"group":"g","sub'
    )
    assert groups.encode_all_producers({"pg": [(CLIENT, 17)]}) == (
        b'{"data":{"pg":[{"clientId":"c1","language":"JAVA","lastUpdateTimestamp":17,'
        b'"remoteIP":"/10.0.0.9:4321","version":479}]}}'
    )
    assert route.encode_broker_member_group("C", "b", {0: "h:1"}) == (
        b'{"brokerMemberGroup":{"brokerAddrs":{0:"h:1"},"brokerName":"b","cluster":"C"}}'
    )
    stats = offsets.encode_broker_consume_stats("h:1", [{"g": [STATS]}], 2, 1)
    assert stats.startswith(b'{"brokerAddr":"h:1","consumeStatsList":[{"g":[{"consumeTps":0.0,')
    assert topics.encode_topic_list(["a"], "h:1") == b'{"brokerAddr":"h:1","topicList":["a"]}'


def test_an_unknown_language_of_a_connection_is_shown_as_other():
    body = b'{"connectionSet":[{"clientId":"c","clientAddr":"a","language":"KLINGON","version":1}]}'
    assert groups.decode_producer_connections(body)[0].language == LanguageCode.OTHER
    assert b'"OTHER"' in groups.encode_producer_connections([groups.ClientConnection("c", "a", 99, 1)])


def piece(raw):
    return struct.pack(">i", len(raw)) + raw


def compressed_registration(topic_lines, servers=b'["h:1"]', mappings=b""):
    plain = piece(b'{"counter":3,"stateVersion":0,"timestamp":1700000000000}') + struct.pack(
        ">i", len(topic_lines)
    )
    return zlib.compress(plain + b"".join(map(piece, topic_lines)) + piece(servers) + mappings)


def test_a_compressed_registration_of_both_generations_is_read():
    new = compressed_registration(
        [b'orders 4 8 6 SINGLE_TAG {"a":"b"}', b"%RETRY%g 1 1 6 SINGLE_TAG {}"], mappings=bytes(4)
    )
    found = registration.decode_compressed_register_broker(new)
    assert found.topic_table.topics["orders"] == TopicConfig("orders", 4, 8, attributes={"a": "b"})
    assert found.topic_table.topics["%RETRY%g"].read_queue_nums == 1
    assert found.topic_table.data_version == VERSION and found.filter_servers == ["h:1"]
    old = compressed_registration([b"orders 4 8 6 SINGLE_TAG"])
    assert registration.decode_compressed_register_broker(old).topic_table.topics["orders"].perm == 6


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"garbage",
        zlib.compress(b""),
        zlib.compress(piece(b"{}")),
        zlib.compress(piece(b"{}") + struct.pack(">i", 1)),
        zlib.compress(piece(b"{}") + struct.pack(">i", 2**31 - 1) + piece(b"t 1 1 6 SINGLE_TAG")),
        zlib.compress(struct.pack(">i", -1)),
        zlib.compress(struct.pack(">i", 2**31 - 1) + b"{}"),
        compressed_registration([b"too few words"]),
        compressed_registration([b"t 4 8 6 SINGLE_TAG"])[:-3],
    ],
)
def test_a_damaged_compressed_registration_is_a_remote_fault(body):
    with pytest.raises(RemoteFault):
        registration.decode_compressed_register_broker(body)


def test_a_registration_that_unpacks_to_too_much_is_refused(monkeypatch):
    monkeypatch.setattr(registration, "DECOMPRESSED_BYTES_MAX", 1000)
    with pytest.raises(RemoteFault, match="over 1000"):
        registration.decode_compressed_register_broker(zlib.compress(bytes(2000)))


def test_a_registration_without_body_has_no_topics():
    assert registration.decode_register_broker(None) == registration.RegisterBrokerBody()


def test_settings_text_skips_comments_and_names_what_it_cannot_read():
    assert tables.decode_properties_text(b"# c\n\n! d\n a = b \n") == {"a": "b"}
    for broken in (b"no separator", b"\xff=1"):
        with pytest.raises(RemoteFault):
            tables.decode_properties_text(broken)


ELEMENT = bytes.fromhex(
    "00000035 00000000 00000000 00000000 00000002 6869"
    "001D 750176024B455953016B31025741495401747275650254414753014102"
)
PROPERTIES = b"u\x01v\x02KEYS\x01k1\x02WAIT\x01true\x02TAGS\x01A\x02"


def test_a_batch_element_is_the_vector_of_rocketmq():
    assert batch.encode_batch_elements([batch.BatchElement(b"hi", PROPERTIES)]) == ELEMENT
    assert list(batch.iter_batch_elements(ELEMENT * 2)) == [(b"hi", PROPERTIES, 0)] * 2
    assert list(batch.iter_batch_elements(b"")) == []


def test_every_truncation_of_a_batch_is_refused():
    for end in range(1, len(ELEMENT)):
        with pytest.raises(MessageIllegal):
            list(batch.iter_batch_elements(ELEMENT[:end]))
    with pytest.raises(MessageIllegal):
        list(batch.iter_batch_elements(ELEMENT + b"x"))


@pytest.mark.parametrize("position", [0, 16])
@pytest.mark.parametrize("value", [-1, 0, 1, 2**31 - 1, -(2**31)])
def test_a_wrong_length_in_a_batch_is_refused(position, value):
    damaged = bytearray(ELEMENT)
    struct.pack_into(">i", damaged, position, value)
    with pytest.raises(MessageIllegal):
        list(batch.iter_batch_elements(damaged))


def test_a_negative_properties_length_in_a_batch_is_refused():
    damaged = bytearray(ELEMENT)
    struct.pack_into(">h", damaged, 22, -1)
    with pytest.raises(MessageIllegal):
        list(batch.iter_batch_elements(damaged))


def test_an_element_that_does_not_fit_is_refused_when_written():
    with pytest.raises(MessageIllegal, match="32767"):
        batch.encode_batch_elements([batch.BatchElement(b"b", bytes(32768))])
