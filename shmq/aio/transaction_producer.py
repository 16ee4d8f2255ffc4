"""TransactionProducer for asyncio: both parts of the listener may be coroutines of the program's loop."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from shmq.aio.service import Service
from shmq.client.producer_config import ProducerConfig
from shmq.client.send_result import Durability
from shmq.client.transaction_producer import TransactionProducer as BlockingProducer
from shmq.client.transaction_producer import TransactionSendResult
from shmq.model.message import Message
from shmq.model.message_ext import MessageExt
from shmq.model.message_queue import MessageQueue
from shmq.model.transaction import LocalTransactionState


class TransactionListener(Protocol):
    """The two halves of a local transaction: functions or coroutines, run in the producer's loop."""

    def execute_local_transaction(self, message: Any, argument: Any) -> Any:
        """Run the local transaction and return (or await) its state."""

    def check_local_transaction(self, message: MessageExt) -> Any:
        """Return (or await) what became of the transaction `message.transaction_id`."""


class _InLoop:
    """The listener as the plain producer calls it, from its threads."""

    def __init__(self, listener: TransactionListener, loop: asyncio.AbstractEventLoop) -> None:
        self._listener = listener
        self._loop = loop

    def execute_local_transaction(self, message: Any, argument: Any) -> LocalTransactionState | None:
        return self._run(lambda: self._listener.execute_local_transaction(message, argument))

    def check_local_transaction(self, message: MessageExt) -> LocalTransactionState | None:
        return self._run(lambda: self._listener.check_local_transaction(message))

    def _run(self, call: Callable[[], Any]) -> LocalTransactionState | None:
        async def run() -> Any:
            found = call()
            return await found if inspect.isawaitable(found) else found

        state = asyncio.run_coroutine_threadsafe(run(), self._loop).result()
        return state if isinstance(state, LocalTransactionState) else None


class TransactionProducer(Service):
    """One transactional producer of a group, for one event loop."""

    def __init__(
        self,
        producer_group: str,
        transaction_listener: TransactionListener | None = None,
        config: ProducerConfig | None = None,
        **settings: Any,
    ) -> None:
        """Take the arguments of the plain producer."""
        self._listener = transaction_listener
        self._producer = BlockingProducer(producer_group, None, config, **settings)

    async def start(self) -> None:
        """Start in the running loop; ClientFault without a listener."""
        if self._listener is not None:
            self._producer.transaction_listener = _InLoop(self._listener, asyncio.get_running_loop())
        await asyncio.to_thread(self._producer.start)

    async def shutdown(self) -> None:
        """Leave the group; other live producers of it are asked about what is still open."""
        await asyncio.to_thread(self._producer.shutdown)

    async def send_message_in_transaction(
        self,
        message: Message | Sequence[Message],
        argument: Any = None,
        *,
        queue: MessageQueue | None = None,
        timeout_ms: int | None = None,
        wait_for: Durability | None = None,
    ) -> TransactionSendResult:
        """As the plain producer's: half message, local transaction, outcome. Each call uses a thread
        meanwhile."""
        return await asyncio.to_thread(
            self._producer.send_message_in_transaction,
            message,
            argument,
            queue=queue,
            timeout_ms=timeout_ms,
            wait_for=wait_for,
        )
