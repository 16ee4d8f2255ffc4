"""KvConfig: kept over a restart, restored from its backup, never silently empty."""

from __future__ import annotations

from pathlib import Path

import pytest

from shmq.base.errors import StoreDamaged
from shmq.naming.kv_config import KvConfig


def test_values_are_kept_over_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "kvConfig.json"
    first = KvConfig(path)
    first.put("ORDER_TOPIC_CONFIG", "orders", "broker-a:4")
    first.put("ORDER_TOPIC_CONFIG", "bills", "broker-a:2")
    first.delete("ORDER_TOPIC_CONFIG", "bills")
    again = KvConfig(path)
    assert again.table("ORDER_TOPIC_CONFIG") == {"orders": "broker-a:4"}
    assert again.get("ORDER_TOPIC_CONFIG", "bills") is None
    assert again.table("nothing") == {}


def test_a_damaged_file_is_replaced_by_its_backup(tmp_path: Path) -> None:
    path = tmp_path / "kvConfig.json"
    first = KvConfig(path)
    first.put("n", "a", "1")
    first.put("n", "b", "2")
    path.write_text("{")
    assert KvConfig(path).table("n") == {"a": "1"}


def test_a_damaged_file_without_backup_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "kvConfig.json"
    path.write_text('{"configTable": 3}')
    with pytest.raises(StoreDamaged, match="kvConfig"):
        KvConfig(path)
