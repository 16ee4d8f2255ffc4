"""The broker's settings: every key shmq honours, with RocketMQ's name, default, unit and range.

Attribute = the key in snake_case (`flushDiskType` -> `flush_disk_type`, `brokerIP1` -> `broker_ip1`).
Read once at the start by the supervisor and handed frozen to every child. Facts: Apache RocketMQ 5.3,
BrokerConfig.java, MessageStoreConfig.java, NettyServerConfig.java. Keys marked `own` exist only in shmq.
`conf/broker.conf` shows them all.
"""

from __future__ import annotations

from dataclasses import dataclass

from shmq.model.setting import BrokerRole, FlushDiskType, choice, number, switch, text

_NAME = r"[a-zA-Z0-9_-][a-zA-Z0-9_.-]{0,79}"
_NAME_ALLOWED = "1 to 80 letters, digits, '_', '-' or '.', not beginning with '.'"
_HOUR = 3_600_000
_INT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """All settings of one broker, checked and frozen."""

    # who this broker is
    broker_cluster_name: str = text(
        "DefaultCluster",
        "cluster the broker belongs to",
        pattern=_NAME,
        allowed=_NAME_ALLOWED,
        important=True,
    )
    broker_name: str = text(
        "broker-a",
        "name of the broker, and of its sockets and store folder",
        pattern=_NAME,
        allowed=_NAME_ALLOWED,
        important=True,
    )
    broker_id: int = number(0, "0 = master of its broker group", 0, _INT, important=True)
    broker_role: BrokerRole = choice(  # noqa: RUF009
        BrokerRole.ASYNC_MASTER, "SYNC_MASTER waits for a slave, SLAVE follows a master", important=True
    )
    broker_permission: int = number(6, "what clients may do here: 2 write + 4 read", 0, 7)

    # where it listens
    namesrv_addr: str = text(
        "", "name servers 'host:port;host:port' to register with; empty: the one of this host", important=True
    )
    bind_address: str = text("127.0.0.1", "address the TCP fronts bind to", important=True, own=True)
    listen_port: int = number(
        10911, "TCP front; listenPort - 2 serves old clients; 0: any free port", 0, 65535, important=True
    )
    broker_ip1: str = text(
        "", "address told to clients; empty: bindAddress, or this host's", key="brokerIP1", important=True
    )
    broker_ip2: str = text("", "address told to slaves; empty: brokerIP1", key="brokerIP2")
    ha_listen_port: int = number(10912, "replication port; told to name servers, not open yet", 0, 65535)
    namesrv_port: int = number(
        9876, "TCP port of the broker's own name server; 0: any free port", 0, 65535, important=True, own=True
    )
    runtime_dir: str = text(
        "", "folder of the Unix sockets; empty: /run/shmq, $XDG_RUNTIME_DIR/shmq or a private one", own=True
    )
    socket_group: str = text("", "group that may use the Unix front; empty: the broker's own", own=True)
    reader_groups: str = text(
        "",
        "groups (comma-separated) allowed to read the store directly, beside the broker's own user",
        own=True,
    )
    broker_workers: int = number(
        0, "worker processes; 0: one per core, at least 2", 0, 29, important=True, own=True
    )
    log_dir: str = text(
        "", "folder of the log files; empty: ~/logs/shmqlogs (stderr under systemd)", own=True
    )
    log_level: str = text(
        "INFO",
        "least level that is logged",
        pattern="DEBUG|INFO|WARNING|ERROR",
        allowed="DEBUG, INFO, WARNING or ERROR",
        own=True,
    )

    # where the store is and how large its files are
    store_path_root_dir: str = text(
        "", "folder of the store; empty: ~/.local/share/shmq/<brokerName>", important=True
    )
    mapped_file_size_commit_log: int = number(
        1 << 30, "one CommitLog segment", 64 << 10, 1 << 40, "bytes", important=True
    )
    mapped_file_size_consume_queue: int = number(
        6_000_000,
        "one ConsumeQueue file, rounded up to whole units of 20",
        20,
        1 << 31,
        "bytes",
        important=True,
    )
    max_hash_slot_num: int = number(5_000_000, "hash slots of one index file", 1, 500_000_000)
    max_index_num: int = number(20_000_000, "entries of one index file", 2, 2_000_000_000)
    queue_slots: int = number(65_536, "queues the control page can hold", 1024, 1 << 22, own=True)
    offset_slots: int = number(
        65_536, "(group, queue) offsets the control page can hold", 1024, 1 << 22, own=True
    )
    producer_slots: int = number(
        1024, "idempotent producers whose last 1,024 sends are known, 8 KiB each", 0, 1 << 16, own=True
    )
    zero_ahead_bytes: int = number(
        128 << 20,
        "how far ahead of the log's end segments are zeroed; 0: not at all",
        0,
        1 << 40,
        "bytes",
        own=True,
    )

    # flushing
    flush_disk_type: FlushDiskType = choice(  # noqa: RUF009
        FlushDiskType.ASYNC_FLUSH, "SYNC_FLUSH answers a send when the disk has it", important=True
    )
    flush_interval_commit_log: int = number(500, "pause between two asynchronous flushes", 1, _HOUR, "ms")
    flush_commit_log_timed: bool = switch(True, "flush by the clock only, not earlier when much is waiting")
    flush_commit_log_least_pages: int = number(
        4, "do not flush fewer pages of 4 KiB than these", 0, _INT, "pages"
    )
    flush_commit_log_thorough_interval: int = number(
        10_000, "flush everything at least so often", 1, _HOUR, "ms"
    )
    flush_interval_consume_queue: int = number(1000, "pause between two ConsumeQueue flushes", 1, _HOUR, "ms")
    flush_consume_queue_least_pages: int = number(2, "the same for ConsumeQueue files", 0, _INT, "pages")
    flush_consume_queue_thorough_interval: int = number(
        60_000, "the same for ConsumeQueue files", 1, _HOUR, "ms"
    )
    sync_flush_timeout: int = number(5000, "a SYNC_FLUSH send waits so long for the disk", 1, _HOUR, "ms")
    slave_timeout: int = number(3000, "a SYNC_MASTER send waits so long for a slave", 1, _HOUR, "ms")
    in_sync_replicas: int = number(1, "copies a SYNC_MASTER send waits for", 1, 16)

    # retention
    delete_when: str = text(
        "04",
        "hours of the day in which expired files are deleted",
        pattern=r"([01]?\d|2[0-3])(;([01]?\d|2[0-3]))*",
        allowed="hours 00..23, separated by ';'",
    )
    file_reserved_time: int = number(
        72, "files older than this expire", 1, 1_000_000, "hours", important=True
    )
    disk_max_used_space_ratio: int = number(
        75, "above this, files are deleted at any hour", 10, 95, "percent"
    )
    disk_space_clean_forcibly_ratio: int = number(
        85, "above this, files that are still young go too", 10, 99, "percent"
    )
    disk_space_warning_level_ratio: int = number(90, "above this, sends are refused", 10, 99, "percent")
    clean_file_forcibly_enable: bool = switch(
        True, "may files that are still young be deleted on a full disk"
    )
    clean_resource_interval: int = number(
        10_000, "pause between two looks for expired files", 100, _HOUR, "ms"
    )
    delete_commit_log_files_interval: int = number(
        100, "pause between two CommitLog deletions", 0, _HOUR, "ms"
    )
    delete_consume_queue_files_interval: int = number(
        100, "pause between two ConsumeQueue deletions", 0, _HOUR, "ms"
    )
    destroy_maped_file_interval_forcibly: int = number(
        120_000, "readers that hold a deleted file longer lose their grant", 0, _HOUR, "ms"
    )
    redelete_hanged_file_interval: int = number(120_000, "say again who holds deleted files", 0, _HOUR, "ms")

    # damage
    scrub_bytes_per_second: int = number(
        4 << 20, "the log is read again and checked so fast; 0: never", 0, 1 << 40, "bytes/s", own=True
    )
    scrub_pass_interval: int = number(
        24 * _HOUR, "pause between two passes through the whole log", 0, 10_000 * _HOUR, "ms", own=True
    )

    # messages, reading
    max_message_size: int = number(
        4 << 20, "largest body of one message", 1, 15 << 20, "bytes", important=True
    )
    max_frame_size: int = number(
        16 << 20, "largest frame taken from a connection", 64 << 10, 1 << 30, "bytes", own=True
    )
    message_index_enable: bool = switch(True, "build the index by key")
    check_crc_on_recover: bool = switch(True, "check body checksums in recovery", key="checkCRCOnRecover")
    read_un_committed: bool = switch(False, "let consumers read beyond what is flushed or replicated")
    access_message_in_memory_max_ratio: int = number(
        40, "part of RAM taken as holding the log's end", 1, 100, "percent"
    )
    max_transfer_bytes_on_message_in_memory: int = number(256 << 10, "one pull from memory", 1, _INT, "bytes")
    max_transfer_count_on_message_in_memory: int = number(32, "one pull from memory", 1, 100_000, "messages")
    max_transfer_bytes_on_message_in_disk: int = number(64 << 10, "one pull from disk", 1, _INT, "bytes")
    max_transfer_count_on_message_in_disk: int = number(8, "one pull from disk", 1, 100_000, "messages")
    default_query_max_num: int = number(32, "messages a query by key returns at most", 1, 10_000)
    os_page_cache_busy_time_out_mills: int = number(
        1000, "an append that holds the lock longer means busy", 1, _HOUR, "ms"
    )
    enable_property_filter: bool = switch(True, "let consumers filter by SQL92 expressions over properties")
    filter_support_retry: bool = switch(False, "judge retried messages by the SQL92 expression again")
    filter_server_nums: int = number(
        0, "filter function processes of one worker; 0: filter functions are off", 0, 64, "processes"
    )
    filter_function_memory: int = number(
        256 << 20, "address space of a filter function's process", 64 << 20, 1 << 40, "bytes", own=True
    )
    filter_function_timeout: int = number(
        1000, "a filter function that takes longer for one pull is killed", 10, 60_000, "ms", own=True
    )
    long_polling_enable: bool = switch(True, "hold a pull that finds nothing until there is something")
    short_polling_time_mills: int = number(1000, "hold time when long polling is off", 1, _HOUR, "ms")
    direct_pull_enable: bool = switch(
        True, "grant local consumers read-only descriptors of the store", own=True
    )
    busy_poll_micros: int = number(
        200, "a worker polls so long after work before it sleeps; 0: never", 0, 10_000, "us", own=True
    )
    share_client_core: bool = switch(
        True, "a worker runs on its client's core while that one alone sends, one by one", own=True
    )
    message_delay_level: str = text(
        "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h",
        "delay of each level",
        pattern=r"\d+[smhd]( +\d+[smhd])*",
        allowed="numbers with s, m, h or d, separated by blanks",
    )

    timer_wheel_enable: bool = switch(True, "keep messages for any moment (delay=, deliver_at=)")
    timer_max_delay_sec: int = number(
        315_576_000, "a message may be for so long from now", 1, 3_155_760_000, "s"
    )
    timer_roll_window_slot: int = number(
        172_800, "timers later than that are placed in the wheel step by step", 2, 604_800, "s"
    )
    mapped_file_size_timer_log: int = number(100 << 20, "one timer log segment", 1024, 1 << 31, "bytes")
    recall_message_enable: bool = switch(True, "a message that waits for its moment may be taken back")

    # topics, groups, clients
    auto_create_topic_enable: bool = switch(
        True, "a send to an unknown topic creates it; off in production", important=True
    )
    default_topic_queue_nums: int = number(
        8, "queues of TBW102, the template of created topics", 1, 1024, important=True
    )
    auto_create_subscription_group: bool = switch(
        True, "an unknown group is created; off in production", important=True
    )
    cluster_topic_enable: bool = switch(True, "the topic named like the cluster may be used")
    broker_topic_enable: bool = switch(True, "the topic named like the broker may be used")
    trace_topic_enable: bool = switch(False, "register the trace topic")
    msg_trace_topic_name: str = text("RMQ_SYS_TRACE_TOPIC", "name of the trace topic")
    notify_consumer_ids_changed_enable: bool = switch(True, "tell members when a group changes")
    use_server_side_reset_offset: bool = switch(True, "a reset of offsets is done by the broker")
    flush_consumer_offset_interval: int = number(
        5000, "consumerOffset.json is written so often", 1, _HOUR, "ms"
    )
    flush_delay_offset_interval: int = number(10_000, "delayOffset.json is written so often", 1, _HOUR, "ms")
    server_channel_max_idle_time_seconds: int = number(
        120, "a silent TCP connection is closed after", 1, 86_400, "s"
    )
    channel_expired_timeout: int = number(
        120_000, "a client without heartbeat is forgotten after", 1000, _HOUR, "ms"
    )
    max_connections: int = number(65_536, "connections of one worker", 16, 1_000_000, own=True)
    reject_transaction_message: bool = switch(False, "refuse transactional messages")
    transaction_time_out: int = number(6000, "first check-back of a half message after", 1, 24 * _HOUR, "ms")
    transaction_check_max: int = number(15, "check-backs of one half message", 1, 1000)
    transaction_check_interval: int = number(
        30_000, "pause between two rounds of check-backs", 10, _HOUR, "ms"
    )
    transaction_pending_max: int = number(
        1_000_000,
        "half messages from the oldest open one on; more are refused with SYSTEM_BUSY",
        10,
        100_000_000,
        own=True,
    )
    transaction_check_listener: str = text(
        "",
        "decides about half messages nobody decides: package.module:Class; empty: they go to "
        "TRANS_CHECK_MAX_TIME_TOPIC",
        pattern=r"|[A-Za-z_][\w.]*:[A-Za-z_]\w*",
        allowed="package.module:Class",
        own=True,
    )
    start_accept_send_request_time_stamp: int = number(0, "refuse sends before this moment", 0, 2**62, "ms")

    # name servers
    register_name_server_period: int = number(
        30_000, "registration is repeated so often", 10_000, 60_000, "ms"
    )
    register_broker_timeout_mills: int = number(24_000, "one registration may take so long", 100, _HOUR, "ms")
    force_register: bool = switch(True, "always send the whole registration, not only when something changed")
    order_message_enable: bool = switch(True, "own name server: routes carry ORDER_TOPIC_CONFIG", own=True)
