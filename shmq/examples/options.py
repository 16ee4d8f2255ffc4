"""The command line that the examples share."""

from __future__ import annotations

import argparse

TOPIC = "TopicTest"
PRODUCER_GROUP = "please_rename_unique_group_name"
CONSUMER_GROUP = "please_rename_unique_group_name_4"


def parser(module: str, description: str, *, count: int) -> argparse.ArgumentParser:
    """Return a parser with the shared options; `count` is the default number of messages."""
    made = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    made.add_argument(
        "--namesrv", metavar="ADDR", help="name server: host:port or unix:/path (default: find one)"
    )
    made.add_argument("--topic", default=TOPIC, help=f"topic (default {TOPIC})")
    made.add_argument("--count", type=int, default=count, help=f"messages (default {count})")
    return made
