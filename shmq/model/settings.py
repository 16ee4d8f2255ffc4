"""Settings of broker and name server: read once at the start, checked, frozen.

`load_settings(BrokerSettings, file, arguments)` reads a RocketMQ properties file and `key=value` arguments
(which win), and returns the frozen settings with every warning and with the origin of every value. Wrong
values raise ConfigFault naming key, value, allowed range, file and line. Called by the supervisor,
`shmq-namesrv` and the embedded broker; the children get the finished object.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from shmq.base.errors import ConfigFault
from shmq.model.broker_settings import BrokerSettings
from shmq.model.foreign_keys import IGNORED, REFUSED, SPELLINGS
from shmq.model.namesrv_settings import NamesrvSettings
from shmq.model.setting import BrokerRole, FlushDiskType, Rule, fold, rules, value_text
from shmq.model.settings_file import parse_properties

__all__ = [
    "BrokerRole",
    "BrokerSettings",
    "FlushDiskType",
    "Loaded",
    "NamesrvSettings",
    "as_properties",
    "changed",
    "describe",
    "load_settings",
    "store_root",
]

_UNIT_BYTES = 20
_RECORD_OVERHEAD_MAX = 40 << 10
"""What a record holds beside its body at most: header, topic, 32,767 bytes of properties, the blank record
after it."""

Table = TypeVar("Table", BrokerSettings, NamesrvSettings)


class Loaded(NamedTuple, Generic[Table]):
    """The outcome of reading: settings, warning lines to log, attribute -> where its value came from."""

    settings: Table
    warnings: list[str]
    origins: dict[str, str]


class Given(NamedTuple):
    """One value somebody gave, and where: `broker.conf:12`, `argument` ..."""

    key: str
    value: str
    origin: str


def load_settings(
    table: type[Table], file: Path | None = None, arguments: Sequence[str] = ()
) -> Loaded[Table]:
    """Read `file` (or none) and `key=value` arguments into a frozen settings object.

    Raises ConfigFault for an unreadable file, an argument without '=', a wrong value, or settings that
    contradict.
    """
    given = _file_values(file) if file is not None else []
    given += _argument_values(arguments)
    warnings: list[str] = []
    values, origins = _accept(table, given, warnings)
    settings = _complete(table(**values), origins)
    _check_together(settings, origins)
    return Loaded(settings, warnings, {name: origins.get(name, "default") for name in rules(table)})


def changed(settings: Table, values: Mapping[str, str], origin: str = "request") -> tuple[Table, list[str]]:
    """The settings with some keys changed (requests 25 and 318), and warnings for keys without meaning."""
    warnings: list[str] = []
    given = [Given(key, value, origin) for key, value in values.items()]
    accepted, origins = _accept(type(settings), given, warnings)
    fresh = dataclasses.replace(settings, **accepted)
    _check_together(fresh, origins)
    return fresh, warnings


def as_properties(settings: Table) -> dict[str, str]:
    """Every key with its value as text, in the table's order (bodies of requests 26 and 319)."""
    return {rule.key: value_text(getattr(settings, name)) for name, rule in rules(type(settings)).items()}


def describe(loaded: Loaded[Any], important_only: bool = False) -> Iterable[str]:
    """Lines for `-p` (all settings) and `-m` (the important ones): `key=value` and the value's origin."""
    for name, rule in rules(type(loaded.settings)).items():
        if rule.important or not important_only:
            line = f"{rule.key}={value_text(getattr(loaded.settings, name))}"
            yield f"{line:<58} # {loaded.origins[name]}; {rule.range_text()}"


def store_root(settings: BrokerSettings) -> Path:
    """The store's folder: `storePathRootDir`, else ~/.local/share/shmq/<brokerName>."""
    if settings.store_path_root_dir:
        return Path(settings.store_path_root_dir).expanduser().absolute()
    return Path.home() / ".local" / "share" / "shmq" / settings.broker_name


def _file_values(file: Path) -> list[Given]:
    try:
        content = file.read_text(encoding="utf-8")
    except OSError as fault:
        raise ConfigFault(f"cannot read the configuration file {file}: {fault.strerror}") from fault
    except UnicodeDecodeError as fault:
        raise ConfigFault(f"the configuration file {file} is not UTF-8 text: {fault}") from fault
    return [Given(entry.key, entry.value, f"{file}:{entry.line}") for entry in parse_properties(content)]


def _argument_values(arguments: Sequence[str]) -> list[Given]:
    given = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not key.strip():
            raise ConfigFault(f"argument {argument!r} is not of the form key=value")
        given.append(Given(key.strip(), value.strip(), "argument"))
    return given


def _accept(
    table: type[Any], given: Iterable[Given], warnings: list[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Attribute -> parsed value and attribute -> origin; foreign keys become warnings or faults."""
    by_key: dict[str, tuple[str, Rule]] = {
        fold(rule.key): (name, rule) for name, rule in rules(table).items()
    }
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for key, value, origin in given:
        row = by_key.get(fold(SPELLINGS.get(key, key)))
        if row is None:
            warnings.append(_foreign(key, value, origin))
            continue
        name, rule = row
        try:
            values[name] = rule.parse(value)
        except ConfigFault as fault:
            raise ConfigFault(f"{origin}: {fault}") from None
        origins[name] = origin
    return values, origins


_IGNORED_FOLDED = {fold(key): reason for key, reason in IGNORED.items()}


def _foreign(key: str, value: str, origin: str) -> str:
    """The warning for a foreign key; ConfigFault when ignoring it would break a promise."""
    if key in REFUSED:
        if value.lower() != "false":
            raise ConfigFault(f"{origin}: {key}={value}: {REFUSED[key]}; allowed is false")
        return f"{origin}: {key}=false is the only value here; the key is not needed"
    reason = _IGNORED_FOLDED.get(fold(key))
    if reason is not None:
        return f"{origin}: {key} is ignored: {reason}"
    return f"{origin}: {key} is unknown and ignored"


def _complete(settings: Table, origins: dict[str, str]) -> Table:
    """Fill what depends on the machine or needs rounding."""
    if isinstance(settings, NamesrvSettings):
        return settings
    filled: dict[str, Any] = {}
    if settings.broker_workers == 0:
        filled["broker_workers"] = max(2, min(29, len(os.sched_getaffinity(0))))
        origins["broker_workers"] = "default, for this machine"
    units = -(-settings.mapped_file_size_consume_queue // _UNIT_BYTES)
    filled["mapped_file_size_consume_queue"] = units * _UNIT_BYTES
    body_bytes_max = settings.mapped_file_size_commit_log - _RECORD_OVERHEAD_MAX
    if "max_message_size" not in origins and settings.max_message_size > body_bytes_max:
        filled["max_message_size"] = body_bytes_max
        origins["max_message_size"] = "default, lowered to fit a segment"
    return dataclasses.replace(settings, **filled)


def _check_together(settings: BrokerSettings | NamesrvSettings, origins: Mapping[str, str]) -> None:
    """Rules over several keys."""
    if isinstance(settings, NamesrvSettings):
        return
    where = {name: origins.get(name, "default") for name in rules(BrokerSettings)}
    if settings.broker_role is BrokerRole.SLAVE:
        raise ConfigFault(
            f"{where['broker_role']}: brokerRole=SLAVE: replication is not built yet, so a slave would never "
            "receive a message; allowed is ASYNC_MASTER or SYNC_MASTER"
        )
    if settings.broker_id != 0:
        raise ConfigFault(
            f"{where['broker_id']}: brokerId={settings.broker_id}: a master has brokerId 0; allowed is 0"
        )
    if 0 < settings.listen_port < 3:
        raise ConfigFault(
            f"{where['listen_port']}: listenPort={settings.listen_port}: listenPort - 2 must be a port too; "
            "allowed is 0 or 3..65535"
        )
    if settings.mapped_file_size_commit_log < settings.max_message_size + _RECORD_OVERHEAD_MAX:
        origin = origins.get("mapped_file_size_commit_log", where["max_message_size"])
        raise ConfigFault(
            f"{origin}: mappedFileSizeCommitLog={settings.mapped_file_size_commit_log}: smaller than the "
            f"largest record; allowed is maxMessageSize + {_RECORD_OVERHEAD_MAX} or more"
        )
