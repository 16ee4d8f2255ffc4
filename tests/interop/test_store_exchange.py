"""One store directory, taken over in turn by Apache RocketMQ and by shmq: nothing is lost on either side."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from shmq import Message, MessageQueue, Producer, PullConsumer, PullStatus
from shmq.base.errors import ConfigFault
from shmq.model.message_ext import MessageExt
from shmq.store.check import check_store
from tests.helpers import java
from tests.helpers.store import OpenStore, small_settings
from tests.unit.store.reading import read_all

pytestmark = [pytest.mark.interop, pytest.mark.long, pytest.mark.timeout(240)]

TOPIC = "Exchanged"
SIZES = {
    "mapped_file_size_commit_log": 16 << 20,
    "mapped_file_size_consume_queue": 20 * 4096,
    "max_index_num": 4096,
    "max_hash_slot_num": 1024,
}


def pull_all(apache: java.ApacheBroker) -> dict[int, list[bytes]]:
    """Every body an Apache broker gives out, by queue id."""
    found: dict[int, list[bytes]] = {}
    with PullConsumer("Puller", namesrv_addr=apache.namesrv_addr) as consumer:
        for queue in sorted(consumer.fetch_subscribe_message_queues(TOPIC), key=lambda q: q.queue_id):
            found[queue.queue_id] = bodies = []
            offset = 0
            while (result := consumer.pull(queue, "*", offset, 32)).status is PullStatus.FOUND:
                bodies += [bytes(message.body) for message in result.messages]
                offset = result.next_begin_offset
    return {queue_id: bodies for queue_id, bodies in found.items() if bodies}


def send_some(apache: java.ApacheBroker, first: int, count: int) -> None:
    with Producer("Sender", namesrv_addr=apache.namesrv_addr) as producer:
        producer.send(Message(TOPIC, b"%d" % first, tags="TagA", keys=f"key{first}"))
        queues = producer.fetch_publish_message_queues(TOPIC)
        for n in range(first + 1, first + count):
            message = Message(TOPIC, b"%d" % n, tags="TagA", keys=f"key{n}")
            producer.send(message, queue=MessageQueue(TOPIC, queues[0].broker_name, n % 4))


def test_a_store_goes_from_apache_to_shmq_and_back(tmp_path: Path) -> None:
    folder = tmp_path / "apache"
    settings = small_settings(**SIZES)
    with java.apache_broker(folder) as apache:
        send_some(apache, 0, 200)
        by_apache = pull_all(apache)
    assert sum(map(len, by_apache.values())) == 200

    with pytest.raises(ConfigFault, match="--adopt"):
        OpenStore(folder / "store", settings)
    with OpenStore(folder / "store", settings, adopt=True) as store:
        own = {queue_id: bodies for (topic, queue_id), bodies in read_all(store).items() if topic == TOPIC}
        assert own == by_apache
        assert store.report.damaged == []
        store.index_all()
        (found,) = store.store.lookup_key(TOPIC, "key77", 5, 0, 2**60)
        assert bytes(MessageExt(store.store.record_at(found)).body) == b"77"
        for n in range(300):
            store.send(TOPIC, b"own %d" % n, n % 4, TAGS="TagB", KEYS=f"own{n}", UNIQ_KEY=f"{n:032X}")
        store.index_all()
        both = {queue_id: bodies for (topic, queue_id), bodies in read_all(store).items() if topic == TOPIC}
        assert list(check_store(store.root, store.page)) == []
        store.close_cleanly()

        with java.apache_broker(folder) as apache:
            assert pull_all(apache) == both
            send_some(apache, 500, 100)
            again = pull_all(apache)
        assert sum(map(len, again.values())) == 600
        store._open(adopt=True)
        assert {q: b for (topic, q), b in read_all(store).items() if topic == TOPIC} == again


def test_apache_recovers_what_a_killed_shmq_left(tmp_path: Path) -> None:
    folder = tmp_path / "apache"
    with OpenStore(folder / "store", small_settings(**SIZES)) as store:
        topics = (
            '{"topicConfigTable":{"%s":{"topicName":"%s","readQueueNums":4,"writeQueueNums":4,"perm":6}}}'
        )
        (store.root / "config" / "topics.json").write_text(topics % (TOPIC, TOPIC))
        for n in range(300):
            store.send(TOPIC, b"own %d" % n, n % 4, TAGS="TagB")
        own = {queue_id: bodies for (_, queue_id), bodies in read_all(store).items()}
    with java.apache_broker(folder) as apache:
        assert pull_all(apache) == own


def test_apache_reads_past_the_substitute_of_a_damaged_record(tmp_path: Path) -> None:
    folder = tmp_path / "apache"
    with OpenStore(folder / "store", small_settings(**SIZES)) as store:
        topics = (
            '{"topicConfigTable":{"%s":{"topicName":"%s","readQueueNums":4,"writeQueueNums":4,"perm":6}}}'
        )
        (store.root / "config" / "topics.json").write_text(topics % (TOPIC, TOPIC))
        places = [store.send(TOPIC, b"own %d" % n, n % 4, TAGS="TagB").physical_offset for n in range(300)]
        store.flusher.flush()
        store.checksums.complete(places[-1])
        own = {queue_id: bodies for (_, queue_id), bodies in read_all(store).items()}
        for n in (101, 202):  # the second one's queue is not known any more: nobody's stretch
            segment = store.layout.segment_path(0)
            with segment.open("r+b") as file:
                file.seek(places[n])
                file.write(bytes(60))
        shutil.rmtree(store.layout.queue_folder(TOPIC, 202 % 4))
        assert len(store.crash().damaged) == 2
        left = {queue_id: bodies for (_, queue_id), bodies in read_all(store).items()}
        assert left == {q: [b for b in own[q] if b not in (b"own 101", b"own 202")] for q in own}
        store.flush()
        store.close_cleanly()
        with java.apache_broker(folder) as apache:
            by_apache = pull_all(apache)
            assert by_apache[0] == own[0] and by_apache[3] == own[3]
            assert [body for body in by_apache[1] if body.strip(b"\0")] == left[1]
            assert len(by_apache[1]) == len(own[1]), "it has the substitute in its place"
            assert by_apache[2][-1] == own[2][-1], "it goes on behind the gap"
            send_some(apache, 500, 40)
            assert sum(map(len, pull_all(apache).values())) >= 338
        store._open(adopt=True)
        assert list(check_store(store.root, store.page)) == []
