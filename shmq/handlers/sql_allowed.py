"""Whether this broker filters by SQL-92 at all. Asked at each pull and when a consumer starts."""

from __future__ import annotations

from shmq.base.errors import ShmqError
from shmq.model.broker_settings import BrokerSettings


class FilterNotSupported(ShmqError):
    """An SQL-92 expression at a broker with ``enablePropertyFilter=false``: answered with SYSTEM_ERROR."""


def check_sql_allowed(settings: BrokerSettings) -> None:
    """Refuse SQL-92 where the broker is set not to filter by properties."""
    if not settings.enable_property_filter:
        raise FilterNotSupported(
            f"broker {settings.broker_name} does not filter by SQL92 (enablePropertyFilter=false): set it to "
            "true, or subscribe by tags"
        )
