"""What the name server's handlers work on, in one object. Lives in its loop thread; no locks."""

from __future__ import annotations

from dataclasses import dataclass, field

from shmq.model.settings import NamesrvSettings
from shmq.naming.kv_config import ORDER_TOPIC_CONFIG, KvConfig
from shmq.naming.registrations import Registrations
from shmq.naming.route_table import RouteTable

ANSWERS_KEPT_MAX = 4096


@dataclass
class NamingState:
    """Settings, tables and kept answers of one name server."""

    settings: NamesrvSettings
    kv: KvConfig
    table: RouteTable
    registrations: Registrations
    started_ms: int
    _answers: dict[tuple[str, bool], bytes] = field(default_factory=dict)
    _answers_version: int = -1

    def kept_answers(self) -> dict[tuple[str, bool], bytes]:
        """Encoded routes by (topic, quoted keys); emptied whenever anything changed, and before it grows too
        large."""
        if self._answers_version != self.table.version or len(self._answers) >= ANSWERS_KEPT_MAX:
            self._answers.clear()
            self._answers_version = self.table.version
        return self._answers

    def order_config(self, topic: str) -> str | None:
        """The topic's entry of ORDER_TOPIC_CONFIG, when routes shall carry it."""
        return self.kv.get(ORDER_TOPIC_CONFIG, topic) if self.settings.order_message_enable else None
