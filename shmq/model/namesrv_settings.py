"""The name server's settings, under RocketMQ's names.

Used by `shmq-namesrv` (from its file and arguments) and by a broker's own name server (made from the broker's
settings). Facts: Apache RocketMQ 5.3, NamesrvConfig.java, NettyServerConfig.java.
"""

from __future__ import annotations

from dataclasses import dataclass

from shmq.model.setting import number, switch, text


@dataclass(frozen=True, slots=True)
class NamesrvSettings:
    """All settings of one name server, checked and frozen."""

    bind_address: str = text("127.0.0.1", "address the TCP front binds to", important=True)
    listen_port: int = number(9876, "TCP front; 0: any free port", 0, 65535, important=True)
    runtime_dir: str = text(
        "", "folder of namesrv.sock; empty: /run/shmq, $XDG_RUNTIME_DIR/shmq or a private one", own=True
    )
    socket_group: str = text("", "group that may use the Unix front; empty: the server's own", own=True)
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
    kv_config_path: str = text(
        "", "file of the KV configuration; empty: ~/.local/share/shmq/namesrv/kvConfig.json", important=True
    )
    config_store_path: str = text(
        "", "file that keeps settings changed while running; empty: they are not kept"
    )
    order_message_enable: bool = switch(True, "routes carry the topic's entry of ORDER_TOPIC_CONFIG")
    return_order_topic_config_to_broker: bool = switch(
        True, "a registration is answered with ORDER_TOPIC_CONFIG"
    )
    delete_topic_with_broker_registration: bool = switch(
        False, "a topic missing from a newer full registration is removed"
    )
    enable_all_topic_list: bool = switch(True, "the list of all topics may be asked for")
    enable_topic_list: bool = switch(True, "the list of a cluster's topics may be asked for")
    scan_not_active_broker_interval: int = number(
        5000, "look for silent brokers so often", 10, 3_600_000, "ms"
    )
    need_wait_for_service: bool = switch(False, "refuse routes while brokers are still registering")
    wait_seconds_for_service: int = number(45, "for so long after the start", 0, 3600, "s")
    server_channel_max_idle_time_seconds: int = number(
        120, "a silent TCP connection is closed after", 1, 86_400, "s"
    )
    config_black_list: str = text(
        "configBlackList;configStorePath;kvConfigPath", "keys that may not be changed while running"
    )
    max_frame_size: int = number(
        16 << 20, "largest frame taken from a connection", 64 << 10, 1 << 30, "bytes", own=True
    )
