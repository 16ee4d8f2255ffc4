"""The one table of commands: the name mqadmin users know, its modern spelling, and the module that has it.

Both spellings run the same function. The table alone answers `shmq-admin --help`: a module is imported when
one of its commands runs, because start-up is what an operator's loop pays for.
"""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """One command. `grouped` is "group verb"; `module` stands in shmq.admin; `help` is the short line."""

    name: str
    grouped: str
    module: str
    function: str
    help: str

    @property
    def group(self) -> str:
        """The noun of the modern spelling."""
        return self.grouped.partition(" ")[0]

    @property
    def verb(self) -> str:
        """The verb of the modern spelling."""
        return self.grouped.partition(" ")[2]


ENTRIES = (
    Entry(
        "clusterList", "cluster list", "cluster", "cluster_list", "Brokers with version, load and disk use"
    ),
    Entry("topicList", "topic list", "topic", "topic_list", "Names of all topics"),
    Entry("topicRoute", "topic get", "topic", "topic_route", "Which brokers and queues serve a topic"),
    Entry("topicStatus", "topic stats", "topic", "topic_status", "Offsets of every queue of a topic"),
    Entry("updateTopic", "topic update", "topic", "update_topic", "Create or change a topic"),
    Entry("deleteTopic", "topic delete", "topic", "delete_topic", "Remove a topic with its messages"),
    Entry("consumerProgress", "group list", "consumer", "consumer_progress", "How far groups are behind"),
    Entry("updateSubGroup", "group update", "group", "update_group", "Create or change a consumer group"),
    Entry("deleteSubGroup", "group delete", "group", "delete_group", "Forget a consumer group"),
    Entry("getConsumerConfig", "group config", "group", "group_config", "A group's settings"),
    Entry(
        "consumerConnection",
        "group get",
        "group",
        "consumer_connection",
        "A group's members and subscriptions",
    ),
    Entry("consumerStatus", "group status", "group", "consumer_status", "What a group's members are doing"),
    Entry(
        "producerConnection",
        "producer list",
        "group",
        "producer_connection",
        "Connected producers of a group",
    ),
    Entry(
        "resetOffsetByTime",
        "offset reset",
        "offset",
        "reset_offset_by_time",
        "Move a group by time or to an offset",
    ),
    Entry(
        "skipAccumulatedMessage",
        "offset skip",
        "offset",
        "skip_accumulated_message",
        "Jump over a group's backlog",
    ),
    Entry("cloneGroupOffset", "offset clone", "offset", "clone_group_offset", "Copy offsets between groups"),
    Entry("sendMessage", "msg send", "message", "send_message", "Send one message"),
    Entry("consumeMessage", "msg consume", "message", "consume_message", "Pull messages and print them"),
    Entry("queryMsgById", "msg get", "query", "query_by_id", "A message by offset id or unique id"),
    Entry("queryMsgByKey", "msg by-key", "query", "query_by_key", "Messages that carry a key"),
    Entry("queryMsgByOffset", "msg by-offset", "query", "query_by_offset", "The message at a queue's offset"),
    Entry("dlqList", "dlq list", "dead_letters", "dlq_list", "Dead letters and the errors they died of"),
    Entry("dlqResend", "dlq resend", "dead_letters", "dlq_resend", "Deliver dead letters again"),
    Entry("dlqPurge", "dlq purge", "dead_letters", "dlq_purge", "Throw a group's dead letters away"),
    Entry(
        "resumeCheckHalfMessage",
        "transaction resume",
        "transaction",
        "resume_check_half_message",
        "Check a transaction again that was given up",
    ),
    Entry("installFilter", "filter install", "filters", "install_filter", "Install a filter function"),
    Entry("removeFilter", "filter remove", "filters", "remove_filter", "Forget a filter function"),
    Entry("filterList", "filter list", "filters", "list_filters", "The installed filter functions"),
    Entry("timerList", "timer list", "timers", "timer_list", "Messages that wait for their moment"),
    Entry("timerCancel", "timer cancel", "timers", "timer_cancel", "Take waiting messages back"),
    Entry("timerReschedule", "timer reschedule", "timers", "timer_reschedule", "Put waiting messages off"),
    Entry("brokerStatus", "broker status", "broker", "broker_status", "A broker's runtime figures"),
    Entry("cleanExpiredCQ", "broker clean-cq", "cleaning", "clean_expired_cq", "Remove old queue files"),
    Entry(
        "cleanUnusedTopic",
        "broker clean-topics",
        "cleaning",
        "clean_unused_topic",
        "Remove queues of unknown topics",
    ),
    Entry(
        "deleteExpiredCommitLog",
        "broker clean-log",
        "cleaning",
        "delete_expired_commit_log",
        "Delete expired segments now",
    ),
    Entry(
        "storeCheck", "store check", "store", "store_check", "Prove that a store is whole (broker up or down)"
    ),
    Entry(
        "storeRepair",
        "store repair",
        "store",
        "store_repair",
        "Mend a stopped store, show first what is done",
    ),
    Entry(
        "storeScrub",
        "store scrub",
        "store",
        "store_scrub",
        "Damage that was found, and the scrub's progress",
    ),
    Entry("prove", "store prove", "prove", "prove", "Cut the power of a copy of a store, see what is left"),
    Entry("ps", "broker ps", "processes", "ps", "Processes of this host, their roles and positions"),
)

GROUPS = {
    "cluster": "Clusters",
    "topic": "Topics",
    "broker": "Brokers and their processes",
    "msg": "Messages",
    "group": "Consumer groups",
    "offset": "Offsets of consumer groups",
    "dlq": "Dead letters of consumer groups",
    "filter": "Filter functions that consumers subscribe with",
    "timer": "Messages that wait for their moment",
    "producer": "Producers",
    "transaction": "Transactions that nobody decided",
    "store": "Stores on this host",
}

ALIASES = {"progress": "list", "create": "update", "route": "get", "status": "stats"}
"""Second words for verbs of the modern spelling, where the group has no verb of that name."""


def by_name(name: str) -> Entry | None:
    """The command of that mqadmin name, whatever its letter case."""
    lowered = name.lower()
    return next((entry for entry in ENTRIES if entry.name.lower() == lowered), None)


def by_verb(group: str, verb: str) -> Entry | None:
    """The command of that modern spelling, also by a verb's alias."""
    verbs = {entry.verb: entry for entry in ENTRIES if entry.group == group}
    return verbs.get(verb) or verbs.get(ALIASES.get(verb, ""))
