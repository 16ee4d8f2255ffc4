"""Tells workers, name servers and clients what changed, in the order that keeps promises.

An administrator's change is answered after every worker has acknowledged it (at most `LIMIT_S`), a new
topic after the name servers know it as well. Requests to workers leave in the moment of the change, so two
changes can never arrive in another order than they happened. The policy epoch moves last: a direct reader
that sees it asks a worker that knows the change already. While the coordinator is not settled, group
changes wait for SETTLED, which carries them all. Implements `handlers.coordinator_context.Announcements`.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import orjson

from shmq.broker.clients import ClientTable
from shmq.broker.group_states import GroupStates
from shmq.broker.groups import GroupRegistry
from shmq.broker.live_settings import LiveSettings
from shmq.broker.policy_epoch import PolicyEpoch
from shmq.coordinator.client_calls import ClientCalls
from shmq.coordinator.settling import Settling
from shmq.coordinator.worker_links import WorkerLinks
from shmq.model.topic_config import TopicConfig
from shmq.protocol.codes import RequestCode
from shmq.protocol.command import Command
from shmq.protocol.headers.client import ConsumerGroupHeader
from shmq.protocol.internal import (
    GroupChangedHeader,
    InternalCode,
    SettingChangedHeader,
    TopicChangedHeader,
)

LIMIT_S = 1.0
"""How long a change waits for workers, and a new topic for name servers."""


class TopicRegistrar(Protocol):
    """Who tells the name servers (`coordinator/registration.py`)."""

    async def register_topic(self, config: TopicConfig, limit_s: float) -> None:
        """Register one new or changed topic everywhere, waiting at most `limit_s`."""


class Announcer:
    """See the module text. Coordinator's loop only."""

    def __init__(
        self,
        links: WorkerLinks,
        settling: Settling,
        states: GroupStates,
        groups: GroupRegistry,
        clients: ClientTable,
        calls: ClientCalls,
        registrar: TopicRegistrar,
        epoch: PolicyEpoch,
        settings: LiveSettings,
    ) -> None:
        """Name whom to tell, and where the present state stands."""
        self._links = links
        self._settling = settling
        self._states = states
        self._groups = groups
        self._clients = clients
        self._calls = calls
        self._registrar = registrar
        self._epoch = epoch
        self._settings = settings

    async def topic_changed(self, config: TopicConfig) -> None:
        """Tell workers and name servers of a new or changed topic."""
        header = TopicChangedHeader(config.topic_name, False)
        body = orjson.dumps(config.to_json())
        await asyncio.gather(
            self._links.tell_all(InternalCode.TOPIC_CHANGED, header, body, LIMIT_S),
            self._registrar.register_topic(config, LIMIT_S),
        )
        self._epoch.bump()

    async def topic_deleted(self, topic: str) -> None:
        """Tell workers that a topic is gone; name servers learn it from whoever asked (request 216)."""
        header = TopicChangedHeader(topic, True)
        await self._links.tell_all(InternalCode.TOPIC_CHANGED, header, None, LIMIT_S)
        self._epoch.bump()

    async def group_changed(self, group: str, *, members_only: bool = False) -> None:
        """Tell workers the present state of a group, or that it is gone.

        A change of members or of their subscriptions alone is nothing direct readers have to ask about: it
        comes with every rebalance.
        """
        if self._settling.settled:
            state = self._states.state(group)
            header = GroupChangedHeader(group, state is None)
            body = None if state is None else state.encode()
            await self._links.tell_all(InternalCode.GROUP_CHANGED, header, body, LIMIT_S)
        if not members_only:
            self._epoch.bump()

    async def membership_changed(self, group: str, *, members_only: bool = True) -> None:
        """Clients joined or left a group: tell the workers, then its members.

        In this order, as members ask for the list at once, and any worker may answer.
        """
        await self.group_changed(group, members_only=members_only)
        self.members_changed(group)

    def members_changed(self, group: str) -> None:
        """Push 40 to every member, unless they do not share queues or do not want to be told."""
        config = self._groups.get(group)
        members = self._clients.consumer_group(group)
        wanted = (
            config is not None
            and config.notify_consumer_ids_changed_enable
            and self._settings.now.notify_consumer_ids_changed_enable
        )
        if not wanted or members is None or not members.told_of_changes:
            return
        for client in members.clients:
            header = ConsumerGroupHeader(group)
            request = Command.request(RequestCode.NOTIFY_CONSUMER_IDS_CHANGED, header, oneway=True)
            self._calls.push(client.key, request)

    async def setting_changed(self, key: str, value: str) -> None:
        """Tell workers of a setting an operator changed."""
        header = SettingChangedHeader(key, value)
        await self._links.tell_all(InternalCode.SETTING_CHANGED, header, None, LIMIT_S)
