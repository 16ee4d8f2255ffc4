"""The broker itself for operators: 25, 26 settings; 28 runtime info; 315 one statistic; 321 queue units.

Coordinator's handlers.
"""

from __future__ import annotations

import orjson

from shmq.base.errors import ClientFault, InvalidParameter
from shmq.broker.item_stats import DAY, HOUR, MINUTE
from shmq.broker.runtime_info import runtime_info
from shmq.handlers.coordinator_context import Call, CoordinatorContext
from shmq.handlers.routes import Place, Route
from shmq.protocol.bodies.tables import decode_properties_text, encode_kv_table, encode_properties_text
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.admin import BrokerConfigResponseHeader, ViewBrokerStatsHeader
from shmq.protocol.headers.query import QueryConsumeQueueHeader
from shmq.store.queue_times import store_time_of
from shmq.store.scrub_progress import damage_facts

UNITS_MAX = 1024
"""Units one answer to 321 holds at most."""


async def update_config(ctx: CoordinatorContext, _call: Call, command: Command, _header: None) -> Command:
    """25: change settings of the allow-list, all or none, until the next start."""
    changed = ctx.settings.change(decode_properties_text(command.body_bytes()), ctx.clock.now_ms())
    ctx.topics.set_auto_create(ctx.settings.now.auto_create_topic_enable)
    ctx.groups.set_auto_create(ctx.settings.now.auto_create_subscription_group)
    for key, value in changed.items():
        await ctx.announce.setting_changed(key, value)
    return command.response(ResponseCode.SUCCESS)


async def get_config(ctx: CoordinatorContext, _call: Call, command: Command, _header: None) -> Command:
    """26: every setting with its present value."""
    version = orjson.dumps(ctx.settings.version.to_json()).decode()
    return command.response(
        ResponseCode.SUCCESS,
        header=BrokerConfigResponseHeader(version),
        body=encode_properties_text(ctx.settings.as_text()),
    )


async def runtime(ctx: CoordinatorContext, _call: Call, command: Command, _header: None) -> Command:
    """28: rates, totals, positions, disk: texts by RocketMQ's keys."""
    facts = ctx.store.facts()
    oldest = ctx.store.record_at(facts.min_offset)
    waiting = ctx.store.record_at(facts.indexed_position)
    now_ms = ctx.clock.now_ms()
    table = runtime_info(
        ctx.stats,
        facts,
        ctx.settings.now,
        ctx.store.layout.root,
        store_time_of(oldest) if oldest is not None else -1,
        now_ms,
        now_ms - store_time_of(waiting) if waiting is not None else 0,
        damage_facts(ctx.store.layout),
    )
    table["halfMessages"] = str(ctx.transactions.open_count)  # a key of our own
    table |= {key: str(value) for key, value in ctx.timers.figures().items()}
    return command.response(ResponseCode.SUCCESS, body=encode_kv_table(table))


async def view_stats(
    ctx: CoordinatorContext, _call: Call, command: Command, header: ViewBrokerStatsHeader
) -> Command:
    """315: one named item over the last minute, hour and day; 1 when nothing was counted under it."""
    item = ctx.stats.items.get(header.stats_name, header.stats_key)
    if item is None:
        raise ClientFault(f"no statistic {header.stats_name} of [{header.stats_key}] yet")
    now_ms = ctx.clock.now_ms()
    windows = (("statsDay", DAY), ("statsHour", HOUR), ("statsMinute", MINUTE))
    body = orjson.dumps({name: item.over(window, now_ms).to_json() for name, window in windows})
    return command.response(ResponseCode.SUCCESS, body=body)


async def query_consume_queue(
    ctx: CoordinatorContext, _call: Call, command: Command, header: QueryConsumeQueueHeader
) -> Command:
    """321: the raw units of a queue from `index` on, at most `UNITS_MAX`."""
    ref = ctx.queues.ref(header.topic, header.queue_id)
    if ref is None:
        raise ClientFault(f"topic [{header.topic}] has no queue {header.queue_id}")
    low, high = ctx.store.min(ref), ctx.store.max(ref)
    if not low <= header.index <= high or header.count < 0:
        raise InvalidParameter(f"index {header.index}: the queue has {low} to {high}")
    end = min(high, header.index + min(header.count, UNITS_MAX))
    units = [ctx.store.queues.unit(ref, offset) for offset in range(header.index, end)]
    body = orjson.dumps(
        {
            "maxQueueIndex": high,
            "minQueueIndex": low,
            "queueData": [
                {
                    "eval": False,
                    "physicOffset": unit.physical_offset,
                    "physicSize": unit.size,
                    "tagsCode": unit.tags_code,
                }
                for unit in units
            ],
        }
    )
    return command.response(ResponseCode.SUCCESS, body=body)


ROUTES: dict[int, Route] = {
    RequestCode.UPDATE_BROKER_CONFIG: Route(None, update_config, Place.COORDINATOR),
    RequestCode.GET_BROKER_CONFIG: Route(None, get_config, Place.COORDINATOR),
    RequestCode.GET_BROKER_RUNTIME_INFO: Route(None, runtime, Place.COORDINATOR),
    RequestCode.VIEW_BROKER_STATS_DATA: Route(ViewBrokerStatsHeader, view_stats, Place.COORDINATOR),
    RequestCode.QUERY_CONSUME_QUEUE: Route(QueryConsumeQueueHeader, query_consume_queue, Place.COORDINATOR),
}
"""Served by the coordinator."""
