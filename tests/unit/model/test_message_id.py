"""Message ids: offset ids, and unique keys across threads and forks."""

import os
import threading

import pytest

from shmq.base.errors import InvalidParameter
from shmq.model.host import host_text, pack_host, unpack_host
from shmq.model.message_id import UniqueKeys, offset_message_id, parse_offset_message_id, unique_key


def test_the_offset_id_is_the_vector_of_rocketmq():
    assert offset_message_id(pack_host("127.0.0.1", 10911), 0) == "7F00000100002A9F0000000000000000"
    assert offset_message_id(pack_host("10.0.0.2", 10911), 1024) == "0A00000200002A9F0000000000000400"


@pytest.mark.parametrize("address", ["10.0.0.2", "fe80::1"])
def test_an_offset_id_is_parsed_back(address):
    host = pack_host(address, 10911)
    text = offset_message_id(host, 1 << 40)
    assert len(text) == (56 if ":" in address else 32)
    assert parse_offset_message_id(text) == (host, 1 << 40)


@pytest.mark.parametrize("text", ["", "7F", "G" * 32, "7F00000100002A9F 000000000000000", "A" * 57])
def test_anything_else_is_no_offset_id(text):
    with pytest.raises(InvalidParameter, match="hex digits"):
        parse_offset_message_id(text)


def test_hosts_are_packed_and_shown():
    assert host_text(pack_host("10.0.0.1", 5)) == "10.0.0.1:5"
    assert host_text(pack_host("::1", 5)) == "[::1]:5"
    assert unpack_host(pack_host("10.0.0.1", 70000)) == ("10.0.0.1", 70000)
    for address in ("localhost", "", "1.2.3"):
        with pytest.raises(ValueError, match="not a numeric"):
            pack_host(address, 1)
    with pytest.raises(ValueError, match="8 or 20"):
        unpack_host(b"1234")


def test_a_unique_key_has_32_upper_case_hex_digits():
    key = unique_key()
    assert len(key) == 32 and set(key) <= set("0123456789ABCDEF")
    assert int(key[8:12], 16) == os.getpid() & 0xFFFF


def test_keys_of_many_threads_are_all_different():
    keys = UniqueKeys()
    found = []

    def make():
        found.append([keys.next() for _ in range(5000)])

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({key for part in found for key in part}) == 20000


def test_a_forked_child_makes_other_keys():
    unique_key()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, unique_key().encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        child_key = pipe.read()
    assert len(child_key) == 32
    assert child_key[:20] != unique_key()[:20]


def test_a_new_month_starts_a_new_salt(monkeypatch):
    keys = UniqueKeys()
    before = keys.next()
    keys._limit_ms = 0
    keys._current = (0, "")
    after = keys.next()
    assert before[12:20] != after[12:20]
