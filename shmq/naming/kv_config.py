"""The name server's KV configuration: namespace -> key -> value, kept in one file.

The only thing a name server remembers over a restart; its use is ORDER_TOPIC_CONFIG (topic ->
`broker:queues;...`). The file is RocketMQ's kvConfig.json. Lives in the name server's loop thread; a change
is on disk before it is answered, so a slow disk delays name server requests for that long; changes are rare
and by hand.
"""

from __future__ import annotations

import logging
from pathlib import Path

import orjson

from shmq.base import log
from shmq.base.errors import StoreDamaged
from shmq.base.files import write_durably

ORDER_TOPIC_CONFIG = "ORDER_TOPIC_CONFIG"

_logger = log.get("shmq.naming")


class KvConfig:
    """The tables of all namespaces."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tables: dict[str, dict[str, str]] = _load(path)

    def get(self, namespace: str, key: str) -> str | None:
        """The value, or None."""
        return self._tables.get(namespace, {}).get(key)

    def table(self, namespace: str) -> dict[str, str]:
        """All keys of a namespace; empty for an unknown one."""
        return dict(self._tables.get(namespace, {}))

    def put(self, namespace: str, key: str, value: str) -> None:
        """Set a value and keep it."""
        self._tables.setdefault(namespace, {})[key] = value
        self._save()

    def delete(self, namespace: str, key: str) -> None:
        """Forget a key; one that is not there is no error."""
        if self._tables.get(namespace, {}).pop(key, None) is not None:
            self._save()

    def _save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS
        write_durably(self._path, orjson.dumps({"configTable": self._tables}, option=options))


def _load(path: Path) -> dict[str, dict[str, str]]:
    """The tables of the file, else of its backup; StoreDamaged when only unreadable ones are there."""
    broken: list[str] = []
    for candidate in (path, path.with_name(path.name + ".bak")):
        try:
            content = orjson.loads(candidate.read_bytes())
            tables = content["configTable"] or {}
            return {str(name): {str(k): str(v) for k, v in table.items()} for name, table in tables.items()}
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError, AttributeError) as fault:
            log.event(_logger, logging.ERROR, "kv_config_unreadable", file=candidate, reason=fault)
            broken.append(str(candidate))
    if broken:
        raise StoreDamaged(f"no readable KV configuration: {', '.join(broken)}; repair or remove it")
    return {}
