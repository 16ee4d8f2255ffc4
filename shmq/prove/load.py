"""The load of a proof: real producers and consumers in threads, and the ledger of what they were told.

    producers   sync sends, async sends that batch themselves, batches, and a new topic now and then
    topics      one by one made by request, sent to, deleted again, or kept
    consumers   one that reads the broker's files itself, one through the socket; a push consumer that commits
                offsets

What an error answers is not in the ledger, stored or not: nothing was promised. Bodies are random, of sizes
that leave records across pages and segments' ends.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from shmq.base.errors import ShmqError
from shmq.client.admin_client import AdminClient
from shmq.client.consume_service import ConsumeConcurrentlyContext, ConsumeConcurrentlyStatus
from shmq.client.producer import Producer
from shmq.client.pull_consumer import PullConsumer
from shmq.client.pulled_message import PulledMessage
from shmq.client.push_consumer import PushConsumer
from shmq.client.send_result import SendResult, SendStatus
from shmq.model.consumer_group import ConsumeFromWhere
from shmq.model.message import Message
from shmq.model.message_ext import MessageExt
from shmq.model.message_queue import MessageQueue
from shmq.model.topic_config import TopicConfig
from shmq.prove.ledger import Entry, Ledger, Place, body_crc, new_body

TOPICS_MAX = 12
MADE_TOPICS_MAX = 40
REFUSED_PAUSE_S = 0.02
BATCH = 20
ASYNC_WINDOW = 32
OFFSET_ID_DIGITS = 16
"""The last digits of an offset message id are the record's place in the log, in hex."""


class Load:
    """Producers and consumers of one broker. Use as a context manager."""

    def __init__(
        self, namesrv_addr: str, broker_addr: str, prefix: str, seed: int | str, pause_s: float = 0.002
    ) -> None:
        """`prefix` begins the names of its topics, `pause_s` lies between two requests of a producer."""
        self._broker_addr = broker_addr
        self.ledger = Ledger()
        self.refused = 0
        self._address = namesrv_addr
        self._settings: dict[str, Any] = {
            "namesrv_addr": namesrv_addr,
            "send_msg_timeout_ms": 10_000,
            "compress_msg_body_over_howmuch": 1 << 30,  # bodies are compared as they are stored
        }
        self._prefix = prefix
        self._seed = seed
        self._pause_s = pause_s
        self._stopping = threading.Event()
        self._going = threading.Event()
        self._topics = [f"{prefix}0"]
        self._numbers = itertools.count()
        bodies: list[Callable[[random.Random, Producer], None]] = [
            self._send,
            self._send,
            self._send_async,
            self._send_batch,
            self._topic_life,
        ]
        self._threads = [
            threading.Thread(target=self._produce, args=(n, body), name=f"load-{n}")
            for n, body in enumerate(bodies)
        ]
        self._threads += [
            threading.Thread(target=self._watch, args=(direct,), name="watch") for direct in (True, False)
        ]
        self._pusher: PushConsumer | None = None

    def __enter__(self) -> Self:
        """Make the first topic and get ready; nothing is sent before `go`."""
        with Producer(f"{self._prefix}-first", **self._settings) as producer:
            self._one(random.Random(self._seed), producer)
        self._pusher = PushConsumer(
            f"{self._prefix}-group",
            namesrv_addr=self._address,
            consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
        )
        self._pusher.subscribe(self._topics[0])
        self._pusher.register_message_listener(self._pushed)
        self._pusher.start()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it; what is under way is waited for."""
        self._stopping.set()
        self._going.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        if self._pusher is not None:
            self._pusher.shutdown()

    def go(self) -> None:
        """Begin, or go on."""
        self._going.set()

    def rest(self) -> None:
        """Begin nothing new until `go`; what is under way goes on."""
        self._going.clear()

    def _goes_on(self) -> bool:
        """Wait out a rest; False when the load ends."""
        self._going.wait()
        return not self._stopping.is_set()

    def _refused(self) -> None:
        """Count an error, and give a broker that is being started anew some time."""
        self.refused += 1
        self._stopping.wait(REFUSED_PAUSE_S)

    # ---- producers

    def _produce(self, number: int, send: Callable[[random.Random, Producer], None]) -> None:
        rng = random.Random(f"{self._seed}/{number}")
        group = f"{self._prefix}-{number}"
        with Producer(group, **self._settings) as producer:
            while self._goes_on():
                try:
                    send(rng, producer)
                except ShmqError:
                    self._refused()
                self._stopping.wait(self._pause_s)

    def _message(self, rng: random.Random, topic: str) -> Message:
        size = rng.choice((1, 10, 200, 1000, 3000, 5000))
        return Message(topic, new_body(rng, size), tags=rng.choice(("", "A", "B")))

    def _send(self, rng: random.Random, producer: Producer) -> None:
        """One message; now and then the first one of a topic."""
        if len(self._topics) < TOPICS_MAX and rng.random() < 0.02:
            self._topics.append(f"{self._prefix}{len(self._topics)}")
        self._one(rng, producer)

    def _one(self, rng: random.Random, producer: Producer) -> None:
        message = self._message(rng, rng.choice(self._topics))
        self._acked(producer.send(message), [message])

    def _send_batch(self, rng: random.Random, producer: Producer) -> None:
        topic = rng.choice(self._topics)
        batch = [self._message(rng, topic) for _ in range(rng.randint(2, BATCH))]
        self._acked(producer.send(batch), batch)

    def _send_async(self, rng: random.Random, producer: Producer) -> None:
        some = [self._message(rng, rng.choice(self._topics)) for _ in range(rng.randint(1, ASYNC_WINDOW))]
        for message, sent in [(message, producer.send_async(message)) for message in some]:
            self._acked(sent.result(), [message])

    def _topic_life(self, rng: random.Random, producer: Producer) -> None:
        """Make a topic by request, send to it, and delete every other one again."""
        made = self.ledger.made
        topic = f"{self._prefix}-{next(self._numbers)}"
        if len(made) >= MADE_TOPICS_MAX:
            self._stopping.wait(10 * self._pause_s)
            return
        with AdminClient(namesrv_addr=self._address) as admin:
            admin.create_topic(self._broker_addr, TopicConfig(topic, 2, 2))
            made[topic] = True
            for _ in range(rng.randint(0, 3)):
                producer.send(self._message(rng, topic))
            if rng.random() < 0.5:
                del made[topic]
                admin.delete_topic_in_broker(self._broker_addr, topic)
                made[topic] = False

    def _acked(self, result: SendResult, messages: Sequence[Message]) -> None:
        """Note what was promised: only SEND_OK is the whole promise."""
        if result.send_status is not SendStatus.SEND_OK:
            self.refused += 1
            return
        queue, ids = result.message_queue, result.offset_msg_id.split(",")
        for n, message in enumerate(messages):
            crc = body_crc(message.body)
            assert crc is not None, "made by new_body"
            place = Place(queue.topic, queue.queue_id, result.queue_offset + n)
            self.ledger.acked.append(Entry(place, crc, int(ids[n][-OFFSET_ID_DIGITS:], 16)))

    # ---- consumers

    def _watch(self, direct: bool) -> None:
        """Read every queue of every topic as soon as something is visible there."""
        group = f"{self._prefix}-{'direct' if direct else 'socket'}"
        positions: defaultdict[MessageQueue, int] = defaultdict(int)
        with PullConsumer(group, namesrv_addr=self._address, direct_pull=direct) as consumer:
            while self._goes_on():
                for topic in list(self._topics):
                    try:
                        for queue in consumer.fetch_subscribe_message_queues(topic):
                            found = consumer.pull(queue, "*", positions[queue], 32)
                            self._saw(found.messages)
                            positions[queue] = found.next_begin_offset
                    except ShmqError:
                        self._refused()
                if direct and self._pusher is not None:
                    self._pusher.persist_offsets()
                self._stopping.wait(self._pause_s)

    def _pushed(
        self, messages: list[MessageExt], context: ConsumeConcurrentlyContext
    ) -> ConsumeConcurrentlyStatus:
        self._saw(messages)
        return ConsumeConcurrentlyStatus.CONSUME_SUCCESS

    def _saw(self, messages: Sequence[MessageExt | PulledMessage]) -> None:
        for message in messages:
            place = Place(message.topic, message.queue_id, message.queue_offset)
            crc = body_crc(message.body)
            self.ledger.seen.append(Entry(place, -1 if crc is None else crc, message.physical_offset))
