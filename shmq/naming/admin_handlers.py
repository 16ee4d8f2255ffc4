"""What operators change at a name server: KV configuration, write permissions, topics, settings.

Requests 100-102, 205, 216, 219, 318, 319, 327 (Apache RocketMQ 5.3, DefaultRequestProcessor.java). Loop
thread.
"""

from __future__ import annotations

import os
from pathlib import Path

from shmq.base.errors import ClientFault, ConfigFault, NoPermission, QueryNotFound
from shmq.base.files import write_durably
from shmq.model.settings import as_properties, changed
from shmq.model.settings_file import format_properties, parse_properties
from shmq.naming.state import NamingState
from shmq.net.connection import Connection
from shmq.protocol.bodies.tables import encode_kv_table
from shmq.protocol.codes import ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.naming import (
    AddWritePermResponseHeader,
    BrokerNameHeader,
    DeleteTopicInNamesrvHeader,
    KVConfigHeader,
    KVKeyHeader,
    KVNamespaceHeader,
    KVValueResponseHeader,
    WipeWritePermResponseHeader,
)

CHANGEABLE = frozenset(
    {
        "orderMessageEnable",
        "returnOrderTopicConfigToBroker",
        "deleteTopicWithBrokerRegistration",
        "enableAllTopicList",
        "enableTopicList",
        "scanNotActiveBrokerInterval",
        "needWaitForService",
        "waitSecondsForService",
    }
)
"""Settings a remote request may change; never addresses, paths or the black list itself."""


def put_kv(state: NamingState, _conn: Connection, command: Command, header: KVConfigHeader) -> Command:
    """100: set a value."""
    if not header.namespace or not header.key:
        raise ClientFault("namespace and key must not be empty")
    state.kv.put(header.namespace, header.key, header.value)
    state.table.touch()
    return command.response(ResponseCode.SUCCESS)


def get_kv(state: NamingState, _conn: Connection, command: Command, header: KVKeyHeader) -> Command:
    """101: read a value."""
    value = state.kv.get(header.namespace, header.key)
    if value is None:
        raise QueryNotFound(f"No config item, Namespace: {header.namespace} Key: {header.key}")
    return command.response(ResponseCode.SUCCESS, header=KVValueResponseHeader(value))


def delete_kv(state: NamingState, _conn: Connection, command: Command, header: KVKeyHeader) -> Command:
    """102: forget a key; also a success when it is not there."""
    state.kv.delete(header.namespace, header.key)
    state.table.touch()
    return command.response(ResponseCode.SUCCESS)


def kv_of_namespace(
    state: NamingState, _conn: Connection, command: Command, header: KVNamespaceHeader
) -> Command:
    """219: all keys of a namespace."""
    table = state.kv.table(header.namespace)
    if not table:
        raise QueryNotFound(f"No config item, Namespace: {header.namespace}")
    return command.response(ResponseCode.SUCCESS, body=encode_kv_table(table))


def wipe_write_permission(
    state: NamingState, _conn: Connection, command: Command, header: BrokerNameHeader
) -> Command:
    """205: producers shall leave this broker alone."""
    count = state.table.set_write_permission(header.broker_name, allowed=False)
    return command.response(ResponseCode.SUCCESS, header=WipeWritePermResponseHeader(count))


def add_write_permission(
    state: NamingState, _conn: Connection, command: Command, header: BrokerNameHeader
) -> Command:
    """327: producers may use this broker again."""
    count = state.table.set_write_permission(header.broker_name, allowed=True)
    return command.response(ResponseCode.SUCCESS, header=AddWritePermResponseHeader(count))


def delete_topic(
    state: NamingState, _conn: Connection, command: Command, header: DeleteTopicInNamesrvHeader
) -> Command:
    """216: forget a topic, or the part of it one cluster serves."""
    state.table.remove_topic(header.topic, header.cluster_name or None)
    return command.response(ResponseCode.SUCCESS)


def update_settings(state: NamingState, _conn: Connection, command: Command, _header: None) -> Command:
    """318: change settings while running; only those on the list, and none of the black list."""
    try:
        entries = {entry.key: entry.value for entry in parse_properties(command.body_bytes().decode())}
    except UnicodeDecodeError as fault:
        raise ClientFault(f"the body is not UTF-8 text: {fault}") from None
    black = set(state.settings.config_black_list.split(";"))
    for key in entries:
        if key in black or key not in CHANGEABLE:
            raise NoPermission(
                f"Can not update config in black list: {key}; allowed are {sorted(CHANGEABLE)}"
            )
    try:
        state.settings, _ = changed(state.settings, entries)
    except ConfigFault as fault:
        raise ClientFault(str(fault)) from None
    state.registrations.remove_missing_topics = state.settings.delete_topic_with_broker_registration
    state.table.touch()
    if state.settings.config_store_path:
        text = format_properties(as_properties(state.settings).items())
        write_durably(Path(os.path.expanduser(state.settings.config_store_path)), text.encode())
    return command.response(ResponseCode.SUCCESS)


def get_settings(state: NamingState, _conn: Connection, command: Command, _header: None) -> Command:
    """319: every setting as properties text."""
    return command.response(
        ResponseCode.SUCCESS, body=format_properties(as_properties(state.settings).items()).encode()
    )
