"""Message: what producers make, and MessageExt: what consumers read."""

import zlib

import pytest

from shmq.base.errors import ClientFault, MessageIllegal
from shmq.model import compression, sys_flag
from shmq.model.compression import compress, decompress
from shmq.model.host import pack_host
from shmq.model.message import Message, MessageExt
from shmq.model.message_ext import decode_messages
from shmq.model.properties import encode_properties
from shmq.model.record import encode_record, stamp_record


def received(body=b"hello", properties=None, **more):
    record = encode_record(
        topic=b"orders",
        body=body,
        properties=encode_properties(properties or {}),
        queue_id=3,
        born_timestamp=10,
        born_host=pack_host("10.0.0.1", 5),
        store_host=pack_host("10.0.0.2", 10911),
        **more,
    )
    stamp_record(record, 0, 7, 1024, 11)
    return record


def test_attributes_are_kept_in_the_properties_they_travel_in():
    message = Message("orders", b"x", "TagA", ["k1", "k2"], delay_level=3, wait_store_msg_ok=False, flag=9)
    assert message.properties == {"TAGS": "TagA", "KEYS": "k1 k2", "DELAY": "3", "WAIT": "false"}
    assert message.key_list == ["k1", "k2"] and message.delay_level == 3 and not message.wait_store_msg_ok
    message.tags, message.keys, message.delay_level, message.wait_store_msg_ok = None, None, 0, True
    assert message.properties == {} and message.wait_store_msg_ok and message.tags is None


def test_a_reserved_user_property_is_refused_and_leaves_the_message_unchanged():
    message = Message("orders", b"x", properties={"city": "Jena"})
    with pytest.raises(MessageIllegal):
        message.put_user_property("TAGS", "x")
    with pytest.raises(MessageIllegal):
        Message("orders", b"x", properties={"DELAY": "1"})
    assert message.properties == {"city": "Jena"} == message.user_properties
    assert message.get_property("city") == "Jena" and message.get_property("none", "d") == "d"


def test_a_separator_in_a_tag_or_key_is_refused():
    with pytest.raises(MessageIllegal):
        Message("orders", b"x", "Tag\x01A")
    with pytest.raises(MessageIllegal):
        Message("orders", b"x", keys="k\x02")


def test_messages_with_equal_content_are_equal():
    assert Message("t", b"x", "A") == Message("t", b"x", "A") != Message("t", b"x", "B")
    assert "orders" in repr(Message("orders", b"x"))


def test_a_received_message_shows_every_field():
    message = MessageExt(
        received(properties={"UNIQ_KEY": "ID", "KEYS": "a b", "TAGS": "T"}, flag=4, reconsume_times=2),
        "broker-a",
    )
    assert (message.topic, message.queue_id, message.queue_offset, message.physical_offset) == (
        "orders",
        3,
        7,
        1024,
    )
    assert (message.born_timestamp, message.store_timestamp) == (10, 11)
    assert (message.born_host, message.store_host) == ("10.0.0.1:5", "10.0.0.2:10911")
    assert (message.flag, message.sys_flag, message.reconsume_times) == (4, 0, 2)
    assert (message.tags, message.keys, message.key_list) == ("T", "a b", ["a", "b"])
    assert (message.msg_id, message.offset_msg_id) == ("ID", "0A00000200002A9F0000000000000400")
    assert message.body == b"hello" and message.body_crc_ok() and message.broker_name == "broker-a"
    assert message.prepared_transaction_offset == 0 and message.wait_store_msg_ok
    assert message.store_size == len(message.record)
    assert "ID" in repr(message)


def test_without_a_unique_key_the_message_id_is_the_offset_id():
    message = MessageExt(received())
    assert message.msg_id == message.offset_msg_id


def test_the_stored_body_is_a_view_and_the_body_bytes_of_its_own():
    record = received()
    message = MessageExt(record)
    assert message.stored_body.obj is record
    assert type(message.body) is bytes
    assert message.body is message.body


def test_the_topic_of_a_retried_message_can_be_put_back():
    message = MessageExt(received(properties={"RETRY_TOPIC": "original"}))
    message.topic = message.properties["RETRY_TOPIC"]
    assert message.topic == "original"


def test_a_damaged_body_is_seen_and_a_damaged_record_refused():
    record = received()
    record[88] ^= 1
    assert not MessageExt(record).body_crc_ok()
    with pytest.raises(MessageIllegal):
        MessageExt(record[:-1])


def test_a_pull_body_is_decoded_into_views():
    body = bytes(received(b"one")) + bytes(received(b"two"))
    assert [bytes(m.body) for m in decode_messages(body, "b")] == [b"one", b"two"]
    with pytest.raises(MessageIllegal):
        decode_messages(body + b"x")


@pytest.mark.parametrize("kind", sorted(compression.COMPRESSION_FLAGS))
def test_a_compressed_body_is_read_as_the_original(kind):
    pytest.importorskip({"ZLIB": "zlib", "LZ4": "lz4", "ZSTD": "zstandard"}[kind])
    flag = compression.COMPRESSION_FLAGS[kind]
    original = b"hello " * 1000
    packed = compress(original, flag)
    assert len(packed) < len(original)
    message = MessageExt(received(packed, sys_flag=flag | sys_flag.COMPRESSED))
    assert message.body == original and message.stored_body == packed and message.body_crc_ok()


def test_old_clients_compress_without_naming_the_type():
    assert decompress(zlib.compress(b"old"), sys_flag.COMPRESSED) == b"old"
    assert compress(b"x" * 5000)[:2] == bytes.fromhex("785e")


@pytest.mark.parametrize("kind", sorted(compression.COMPRESSION_FLAGS))
def test_a_damaged_cut_or_exploding_body_is_refused(kind):
    pytest.importorskip({"ZLIB": "zlib", "LZ4": "lz4", "ZSTD": "zstandard"}[kind])
    flag = compression.COMPRESSION_FLAGS[kind]
    packed = compress(bytes(100_000), flag)
    for broken in (b"garbage", packed[: len(packed) // 2], b""):
        with pytest.raises(MessageIllegal):
            decompress(broken, flag)
    with pytest.raises(MessageIllegal, match="longer than 1000"):
        decompress(packed, flag, limit=1000)
    assert decompress(packed, flag, limit=100_000) == bytes(100_000)


def test_a_zstandard_frame_without_content_size_is_read_and_bounded():
    zstandard = pytest.importorskip("zstandard")
    stream = zstandard.ZstdCompressor().compressobj()
    packed = stream.compress(bytes(5000)) + stream.flush()
    assert zstandard.frame_content_size(packed) == -1
    assert decompress(packed, sys_flag.COMPRESSION_ZSTD) == bytes(5000)
    for broken, limit in ((packed, 4999), (packed[:-1], 5000)):
        with pytest.raises(MessageIllegal):
            decompress(broken, sys_flag.COMPRESSION_ZSTD, limit=limit)


def test_an_unknown_compression_type_is_refused():
    with pytest.raises(MessageIllegal, match="unknown"):
        decompress(b"x", 0x400)
    with pytest.raises(ClientFault, match="unknown"):
        compress(b"x", 0x400)


def test_a_missing_codec_names_the_package_to_install(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(compression, "import_module", missing)
    for flag in (sys_flag.COMPRESSION_LZ4, sys_flag.COMPRESSION_ZSTD):
        with pytest.raises(ClientFault, match=r"pip install 'shmq\[compression\]'"):
            decompress(b"x", flag)


def test_properties_come_into_being_when_looked_at_and_take_over():
    message = Message("T", b"x", "A", ["k1", "k2"])
    assert message.is_plain and (message.tags, message.keys, message.unique_key) == ("A", "k1 k2", None)
    assert message.get_property("nobody") is None and message.user_properties == {}
    message.give_unique_key("U")
    message.tags = "B"
    assert message.is_plain and message.text_length() == len("TAGSBKEYSk1 k2UNIQ_KEYU")
    held = message.properties
    assert held == {"TAGS": "B", "KEYS": "k1 k2", "UNIQ_KEY": "U"} and not message.is_plain
    held["TAGS"] = "C"
    message.keys = None
    message.give_unique_key("V")
    assert (message.tags, message.keys, message.unique_key) == ("C", None, "V")
    assert message.properties is held and held == {"TAGS": "C", "UNIQ_KEY": "V"}
    assert message.text_length() == len("TAGSCUNIQ_KEYV")


@pytest.mark.parametrize("tags", [None, "", "A", "größe", "a\tb"])
@pytest.mark.parametrize("keys", [None, "", "k", ["k1", "k2"], "schlüssel"])
@pytest.mark.parametrize("unique", [None, "", "7F000001"])
def test_a_plain_message_is_written_without_its_properties_as_with_them(tags, keys, unique):
    message = Message("T", b"x", tags, keys)
    if unique is not None:
        message.give_unique_key(unique)
    written = message.encoded_properties()
    assert message.is_plain
    assert written == encode_properties(message.properties) == message.encoded_properties()
    message.put_user_property("user", "value")
    assert message.encoded_properties() == encode_properties(message.properties)


def test_too_many_bytes_of_plain_properties_are_refused_as_ever():
    with pytest.raises(MessageIllegal, match="at most 32767"):
        Message("T", b"x", None, "ü" * 16_400).encoded_properties()
    fitting = Message("T", b"x", None, "k" * (32_767 - len("KEYS\x01\x02")))
    assert len(fitting.encoded_properties()) == 32_767


@pytest.mark.parametrize("bad", ["a\x01b", "a\x02b"])
def test_a_separator_is_refused_whenever_it_is_set(bad):
    for make in (lambda: Message("T", b"x", bad), lambda: Message("T", b"x", None, [bad])):
        with pytest.raises(MessageIllegal):
            make()
    message = Message("T", b"x", "A", "k")
    for attribute in ("tags", "keys"):
        with pytest.raises(MessageIllegal):
            setattr(message, attribute, bad)
    assert (message.tags, message.keys) == ("A", "k")


def test_what_cannot_be_printed_but_is_no_separator_is_allowed():
    assert Message("T", b"x", "a\tb", "k\n").tags == "a\tb"
