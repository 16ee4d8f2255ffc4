"""ProducerBase: what every producer of a group is: its life, its hooks, the topics it sends to.

`producer.py` adds the sends, `producer_queries.py` the questions. Started and shut down in the program's own
threads; the client instance calls `publish_topics`, `check_transaction` and `after_fork`.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from shmq.base import log
from shmq.base.errors import InvalidParameter
from shmq.client.async_sender import AsyncSender
from shmq.client.errors import ClientStateError
from shmq.client.instance import ClientInstance
from shmq.client.links import BrokerLink
from shmq.client.producer_config import ProducerConfig, configured
from shmq.client.send_hooks import CheckForbiddenHook, SendHooks, SendMessageHook
from shmq.client.send_path import SendPath
from shmq.client.service import Service
from shmq.client.service_state import ServiceState
from shmq.model.message_ext import MessageExt
from shmq.model.names import CLIENT_INNER_PRODUCER_GROUP, RESERVED_GROUPS, check_group, with_namespace
from shmq.protocol.command import Command

if TYPE_CHECKING:
    from shmq.client.trace import Tracer

_LOG = log.get(__name__)

DRAIN_LIMIT_S = 10.0
"""How long `shutdown` waits for answers of async sends."""


class ProducerBase(Service):
    """One producer of a group, as the client instance and the brokers know it."""

    def __init__(self, producer_group: str, config: ProducerConfig | None = None, **settings: Any) -> None:
        """`settings` are fields of ProducerConfig, such as `namesrv_addr="127.0.0.1:9876"`."""
        self.config = configured(ProducerConfig, config, settings)
        self.producer_group = with_namespace(self.config.namespace, producer_group)
        self.hooks = SendHooks()
        self._state = ServiceState.CREATE_JUST
        self._state_lock = threading.Lock()
        self._topics: set[str] = set()
        self._tracer: Tracer | None = None
        self._instance: ClientInstance
        self._path: SendPath
        self._asynchronous: AsyncSender

    @property
    def state(self) -> ServiceState:
        """Return where in its life this producer is."""
        return self._state

    @property
    def client_id(self) -> str:
        """Return the id brokers know this client by; a forked child has another one."""
        return self._instance.client_id

    def start(self) -> None:
        """Check the group and join the client instance; connections follow when needed."""
        with self._state_lock:
            if self._state is not ServiceState.CREATE_JUST:
                raise ClientStateError(
                    f"this producer is {self._state.value}: a producer is started once; make a new one"
                )
            self._state = ServiceState.START_FAILED
            check_group(self.producer_group)
            if self.producer_group in RESERVED_GROUPS | {CLIENT_INNER_PRODUCER_GROUP}:
                raise InvalidParameter(f"group name {self.producer_group!r} is reserved: choose another")
            self._instance = ClientInstance.acquire(self.config, self.config.client_id())
            try:
                self._instance.add_producer(self.producer_group, self)
            except BaseException:
                self._instance.release()
                raise
            self._begin()
            if self.config.enable_msg_trace:
                from shmq.client.trace import Tracer

                self._tracer = Tracer(self.config, self.producer_group, "PRODUCE")
                self._tracer.start()
                self._trace(self._tracer)
            self._state = ServiceState.RUNNING

    def _begin(self) -> None:
        """Set up what sends go through: at start, and again in a forked child."""
        self._path = SendPath(self.producer_group, self.config, self._instance, self.hooks)
        self._asynchronous = AsyncSender(self.config, self._path, self.hooks)

    def _trace(self, tracer: Tracer) -> None:
        """Have a tracer told of what is done. At start."""
        from shmq.client.trace import SendTrace

        self.hooks.seeing.append(SendTrace(tracer))

    def shutdown(self) -> None:
        """Wait for async sends under way (at most 10 s), then leave the group. Again is harmless."""
        with self._state_lock:
            if self._state is not ServiceState.RUNNING:
                return
            self._state = ServiceState.SHUTDOWN_ALREADY
        self._asynchronous.close(DRAIN_LIMIT_S)
        self._instance.remove_producer(self.producer_group)
        self._instance.release()
        if self._tracer is not None:
            self._tracer.close()

    def publish_topics(self) -> set[str]:
        """Return the topics this producer has sent to (their routes are kept fresh)."""
        return set(self._topics)

    def check_transaction(self, link: BrokerLink, command: Command, message: MessageExt) -> None:
        """A broker asks about a transaction: a producer without listener cannot tell. Called by the
        instance."""
        del command
        log.event(
            _LOG,
            logging.WARNING,
            "check_without_listener",
            group=self.producer_group,
            transaction=message.transaction_id,
            broker=link,
        )

    def after_fork(self) -> None:
        """In a forked child: start with nothing under way. Called by the instance."""
        self._state_lock = threading.Lock()
        self._topics = set()
        self._begin()

    def register_send_message_hook(self, hook: SendMessageHook) -> None:
        """Have a hook see every attempt."""
        self.hooks.seeing.append(hook)

    def register_check_forbidden_hook(self, hook: CheckForbiddenHook) -> None:
        """Have a hook that may veto every attempt."""
        self.hooks.forbidding.append(hook)

    def check_running(self) -> None:
        """Raise ClientStateError unless this producer is RUNNING."""
        if self._state is not ServiceState.RUNNING:
            raise ClientStateError(
                f"this producer is {self._state.value}, not RUNNING: start it (or use a with block) before "
                "sending"
            )

    def _use(self, topic: str) -> None:
        """Note that a topic is sent to, whose route is kept fresh from now on."""
        if topic not in self._topics or self._state is not ServiceState.RUNNING:
            self.check_running()
            self._topics.add(topic)
            self._instance.periodic.start()  # runs already, but for a forked child's first send

    def _timeout_ms(self, timeout_ms: int | None) -> int:
        return timeout_ms if timeout_ms is not None else self.config.send_msg_timeout_ms
