"""A client's connection and identity, as the coordinator names them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class ClientKey(NamedTuple):
    """One client connection: the slot of the worker that holds it, and the id it has there."""

    slot: int
    conn_id: int


@dataclass(frozen=True, slots=True)
class Client:
    """Who sent a heartbeat: its connection, its client id, and what its frame said about it.

    `peer` is `ip:port` as operators see it; `language` RocketMQ's name of it; `version` RocketMQ's version
    number.
    """

    key: ClientKey
    client_id: str
    language: int
    version: int
    peer: str
