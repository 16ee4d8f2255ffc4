"""Transactions between the originals and shmq: Java producers here, Python producers there."""

from __future__ import annotations

from pathlib import Path

import pytest

from shmq import (
    ClientFault,
    LocalTransactionState,
    Message,
    MessageExt,
    PullConsumer,
    PullStatus,
    TransactionProducer,
)
from shmq.embedded import Broker
from tests.helpers import java
from tests.helpers.waiting import wait_until

pytestmark = [pytest.mark.interop, pytest.mark.long, pytest.mark.timeout(180)]

COMMIT, ROLLBACK = LocalTransactionState.COMMIT_MESSAGE, LocalTransactionState.ROLLBACK_MESSAGE


@pytest.mark.parametrize("client", ["client-5.3.3", "client-4.9.7"])
def test_a_java_producer_commits_rolls_back_and_is_checked(java_home: Path, client: str) -> None:
    with Broker(transactionTimeOut="500", transactionCheckInterval="200") as broker:
        lines = java.run_probe(
            client,
            "transact",
            broker.namesrv_tcp_addr,
            "JavaTx",
            "JavaTxGroup",
            "40",
            home=java_home,
            limit_s=120,
        )
    sent = {line["body"]: line for line in lines if line["event"] == "sent"}
    assert [(line["status"], line["state"]) for line in sent.values()] == [
        ("SEND_OK", "COMMIT_MESSAGE"),
        ("SEND_OK", "ROLLBACK_MESSAGE"),
        ("SEND_OK", "UNKNOW"),
    ]
    checked = [line for line in lines if line["event"] == "checked"]
    assert {(line["body"], line["topic"]) for line in checked} == {("unknown", "JavaTx")}
    assert checked[0]["transactionId"] == sent["unknown"]["transactionId"]
    received = [line for line in lines if line["event"] == "message"]
    assert sorted(line["body"] for line in received) == ["commit", "unknown"]
    assert {line["msgId"] for line in received} == {
        sent[body]["transactionId"] for body in ("commit", "unknown")
    }


class AsTold:
    """A listener that does what the argument says."""

    def execute_local_transaction(
        self, message: object, argument: LocalTransactionState
    ) -> LocalTransactionState:
        return argument

    def check_local_transaction(self, message: MessageExt) -> LocalTransactionState:
        return COMMIT


def test_a_python_producer_at_an_apache_broker(apache: java.ApacheBroker) -> None:
    """The same program; a delay is dropped there, as by RocketMQ's own client, and a batch is refused."""
    with TransactionProducer("PythonTx", AsTold(), namesrv_addr=apache.namesrv_addr) as producer:
        delayed = Message("PythonTx", b"delayed", delay_level=18)
        result = producer.send_message_in_transaction(Message("PythonTx", b"commit"), COMMIT)
        producer.send_message_in_transaction(Message("PythonTx", b"rollback"), ROLLBACK)
        producer.send_message_in_transaction(delayed, COMMIT)
        with pytest.raises(ClientFault, match="no batches in transactions"):
            producer.send_message_in_transaction(
                [Message("PythonTx", b"1"), Message("PythonTx", b"2")], COMMIT
            )

        def found() -> list[MessageExt]:
            messages: list[MessageExt] = []
            with PullConsumer("PythonTxReader", namesrv_addr=apache.namesrv_addr) as reader:
                for queue in reader.fetch_subscribe_message_queues("PythonTx"):
                    pulled = reader.pull(queue, "*", 0, 32)
                    messages += pulled.messages if pulled.status is PullStatus.FOUND else []
            return messages

        wait_until(lambda: len(found()) == 2, 30, "both are committed")
        assert {message.body for message in found()} == {b"commit", b"delayed"}
        assert result.transaction_id in {message.transaction_id for message in found()}
