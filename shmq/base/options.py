"""Command lines of `shmq-broker` and `shmq-namesrv`: RocketMQ's options, and `key=value` settings."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for on the command line."""

    file: Path | None
    namesrv: str | None
    print_all: bool
    print_important: bool
    adopt: bool
    arguments: list[str]

    @property
    def settings_arguments(self) -> list[str]:
        """The `key=value` arguments, with `-n` as one of them."""
        return self.arguments + ([f"namesrvAddr={self.namesrv}"] if self.namesrv is not None else [])


def parse_options(program: str, description: str, version: str, arguments: Sequence[str] | None) -> Options:
    """Read a command line; argparse ends the process with status 2 on a wrong one, with 0 after `--help`."""
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("-c", "--configFile", metavar="FILE", type=Path, help="RocketMQ properties file")
    if program == "shmq-broker":
        parser.add_argument(
            "-n", "--namesrvAddr", metavar="HOST:PORT;...", help="name servers to register with"
        )
        parser.add_argument(
            "--adopt",
            action="store_true",
            help="open a store that another engine (Apache RocketMQ) wrote last",
        )
    parser.add_argument("-p", "--printConfigItem", action="store_true", help="print every setting and leave")
    parser.add_argument("-m", "--printImportantConfig", action="store_true", help="print the important ones")
    parser.add_argument("--version", action="version", version=f"{program} {version}")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings; they win over the file")
    given = parser.parse_args(arguments)
    return Options(
        file=given.configFile,
        namesrv=getattr(given, "namesrvAddr", None),
        print_all=given.printConfigItem,
        print_important=given.printImportantConfig,
        adopt=getattr(given, "adopt", False),
        arguments=given.settings,
    )
