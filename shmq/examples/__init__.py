"""Small programs that every RocketMQ user knows, one per file; run them as `python -m
shmq.examples.producer`.

Each takes `--namesrv` (default: the name server of this host) and the topic and group of the RocketMQ quick
start: topic `TopicTest`, groups `please_rename_unique_group_name`.
"""
