"""Send messages that appear with a local transaction: one commits, one rolls back, one is checked later.

The local transactions are rows of a SQLite table, so that a check finds out what became of them. A broker
asks first after `transactionTimeOut` (6 s), looking every `transactionCheckInterval` (30 s).
"""

from __future__ import annotations

import sqlite3
import threading

from shmq import LocalTransactionState, Message, MessageExt, TransactionProducer
from shmq.examples.options import PRODUCER_GROUP, parser
from shmq.examples.say import say

OUTCOMES = {
    "TagA": LocalTransactionState.COMMIT_MESSAGE,
    "TagB": LocalTransactionState.ROLLBACK_MESSAGE,
    "TagC": LocalTransactionState.UNKNOW,
}


class Orders:
    """The application's own transactions."""

    def __init__(self) -> None:
        """Keep them in memory; a real program has its database."""
        self._rows = sqlite3.connect(":memory:", check_same_thread=False)
        self._rows.execute("CREATE TABLE orders (transaction_id TEXT PRIMARY KEY, tag TEXT)")
        self.checked = threading.Event()

    def execute_local_transaction(self, message: Message, _: object) -> LocalTransactionState:
        """Do the work; TagC's program "loses" the answer of its database."""
        outcome = OUTCOMES[str(message.tags)]
        with self._rows:
            if outcome is not LocalTransactionState.ROLLBACK_MESSAGE:
                self._rows.execute("INSERT INTO orders VALUES (?, ?)", (message.transaction_id, message.tags))
        return outcome

    def check_local_transaction(self, message: MessageExt) -> LocalTransactionState:
        """Look the transaction up."""
        query = "SELECT 1 FROM orders WHERE transaction_id = ?"
        found = self._rows.execute(query, (message.transaction_id,)).fetchone()
        state = LocalTransactionState.COMMIT_MESSAGE if found else LocalTransactionState.ROLLBACK_MESSAGE
        say(f"checked {message.tags}: {state.name}")
        self.checked.set()
        return state


def main(arguments: list[str] | None = None) -> None:
    """Run the example."""
    options_parser = parser("shmq.examples.transaction_producer", __doc__ or "", count=3)
    options_parser.add_argument("--wait", type=float, default=60, help="seconds to wait for the check")
    options = options_parser.parse_args(arguments)
    orders = Orders()
    with TransactionProducer(f"{PRODUCER_GROUP}_tx", orders, namesrv_addr=options.namesrv) as producer:
        for number in range(options.count):
            tag = list(OUTCOMES)[number % len(OUTCOMES)]
            message = Message(options.topic, f"Hello shmq {number}".encode(), tag, f"KEY{number}")
            result = producer.send_message_in_transaction(message)
            say(f"{result.send_status.name} {tag} {result.local_transaction_state.name}")
        if options.count >= len(OUTCOMES) and not orders.checked.wait(options.wait):
            print("no check came: is transactionCheckInterval longer than --wait?")


if __name__ == "__main__":
    main()
