"""Headers of broker administration: topics, groups, offsets, statistics."""

from shmq.protocol.header_class import header
from shmq.protocol.header_table import I32, I64


@header
class CreateTopicHeader:
    """17: create or change a topic. ``attributes`` is ``+name=value,-name``; None from 4.x tools."""

    topic: str
    default_topic: str
    read_queue_nums: I32
    write_queue_nums: I32
    perm: I32
    topic_filter_type: str = "SINGLE_TAG"
    topic_sys_flag: I32 | None = None
    order: bool = False
    attributes: str | None = None
    force: bool | None = None


@header
class FilterHeader:
    """30020 install, 30021 remove a filter function."""

    name: str


@header
class TopicHeader:
    """202 topic stats, 215 delete topic, 217 register topic, 300 who consumes it."""

    topic: str


@header
class GetTopicConfigHeader:
    """351: one topic's settings; ``lo`` is "logical only", of no meaning here."""

    topic: str
    lo: bool | None = None


@header
class GetAllTopicConfigHeader:
    """21 from 5.x tools; 4.x sends no header."""

    topic_seq: I32 | None = None
    max_topic_num: I32 | None = None
    data_version: str | None = None


@header
class GetAllTopicConfigResponseHeader:
    """Answer to 21."""

    total_topic_num: I32


@header
class GetAllGroupConfigHeader:
    """201 from 5.x tools; 4.x sends no header."""

    group_seq: I32 | None = None
    max_group_num: I32 | None = None
    data_version: str | None = None


@header
class GetAllGroupConfigResponseHeader:
    """Answer to 201."""

    total_group_num: I32


@header
class GroupHeader:
    """352 one group's settings, 343 its topics."""

    group: str


@header
class DeleteGroupHeader:
    """207: forget a consumer group, its offsets too when asked."""

    group_name: str
    clean_offset: bool = False


@header
class BrokerConfigResponseHeader:
    """Answer to 26: the settings' DataVersion as JSON text."""

    version: str


@header
class GetConsumeStatsHeader:
    """208: how far a group is; ``topic_list`` is ``;``-joined."""

    consumer_group: str
    topic: str | None = None
    topic_list: str | None = None


@header
class ResetOffsetHeader:
    """222: move a group; queue -1 means all, a negative time the newest end, an offset counts with a queue
    only."""

    group: str
    topic: str
    timestamp: I64
    is_force: bool
    queue_id: I32 = -1
    offset: I64 = -1


@header
class TopicGroupHeader:
    """303 consume time span, 345 subscription of a group to a topic."""

    topic: str
    group: str


@header
class QueryCorrectionOffsetHeader:
    """308: offsets of a group against others (``filter_groups`` is comma-joined)."""

    compare_group: str
    topic: str
    filter_groups: str | None = None


@header
class CloneGroupOffsetHeader:
    """314: copy the offsets of one group to another."""

    src_group: str
    dest_group: str
    topic: str | None = None
    offline: bool = False


@header
class ViewBrokerStatsHeader:
    """315: one statistic, e.g. TOPIC_PUT_NUMS of a topic."""

    stats_name: str
    stats_key: str


@header
class BrokerConsumeStatsHeader:
    """317: how far all groups are."""

    is_order: bool = False


@header
class GroupForbiddenHeader:
    """353: allow or forbid a group to read a topic; None only asks."""

    group: str
    topic: str
    readable: bool | None = None
