"""Routes: which brokers hold a topic, with how many queues, and where they listen.

``BrokerData.unix_socket`` is shmq's own addition: the path of the broker's Unix front, used by clients of
the same host (Apache RocketMQ 5.3: TopicRouteData.java, QueueData.java, BrokerData.java).
"""

from dataclasses import dataclass, field

from shmq.model.message_queue import MessageQueue
from shmq.model.topic_config import PERM_READ, PERM_WRITE

MASTER_ID = 0


@dataclass(slots=True)
class QueueData:
    """How many queues one broker has of a topic."""

    broker_name: str
    read_queue_nums: int
    write_queue_nums: int
    perm: int
    topic_sys_flag: int = 0


@dataclass(slots=True)
class BrokerData:
    """One broker group: addresses by broker id (0 is the master)."""

    cluster: str
    broker_name: str
    broker_addrs: dict[int, str] = field(default_factory=dict)
    enable_acting_master: bool = False
    zone_name: str | None = None
    unix_socket: str | None = None

    @property
    def master_addr(self) -> str | None:
        """Return the master's ``ip:port``, or ``None`` when only slaves are known."""
        return self.broker_addrs.get(MASTER_ID)


@dataclass(slots=True)
class TopicRoute:
    """Everything a client needs to know about one topic."""

    queue_datas: list[QueueData] = field(default_factory=list)
    broker_datas: list[BrokerData] = field(default_factory=list)
    order_topic_conf: str | None = None
    filter_server_table: dict[str, list[str]] = field(default_factory=dict)

    def broker(self, broker_name: str) -> BrokerData | None:
        """Return the broker group of that name."""
        return next((data for data in self.broker_datas if data.broker_name == broker_name), None)

    def write_queues(self, topic: str) -> list[MessageQueue]:
        """Return the queues producers may choose from, in order of broker name and queue id.

        An order configuration (``broker-a:4;broker-b:4``) replaces the computed list, dead brokers
        included; without one a queue needs the write permission and a broker group with a master.
        """
        if self.order_topic_conf:
            return [
                MessageQueue(topic, name, queue_id)
                for name, _, count in (
                    part.partition(":") for part in self.order_topic_conf.split(";") if part
                )
                for queue_id in range(int(count))
            ]
        masters = {data.broker_name for data in self.broker_datas if MASTER_ID in data.broker_addrs}
        return [
            MessageQueue(topic, data.broker_name, queue_id)
            for data in sorted(self.queue_datas, key=lambda data: data.broker_name)
            if data.perm & PERM_WRITE and data.broker_name in masters
            for queue_id in range(data.write_queue_nums)
        ]

    def read_queues(self, topic: str) -> list[MessageQueue]:
        """Return the queues consumers share among themselves; brokers with only slaves count."""
        return [
            MessageQueue(topic, data.broker_name, queue_id)
            for data in sorted(self.queue_datas, key=lambda data: data.broker_name)
            if data.perm & PERM_READ
            for queue_id in range(data.read_queue_nums)
        ]
