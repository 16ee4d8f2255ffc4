"""shmq-admin: RocketMQ's operator commands, and a few that only a host-local broker can have.

    shmq-admin topicStatus -t Orders          as with mqadmin, in any letter case
    shmq-admin topic stats -t Orders --json   the same, in the modern spelling

A client like any other: it asks the name server and the brokers, except for `storeCheck` and `ps`, which read
files and shared memory and so work beside a stopped or hung broker. Exit codes: `admin/exits.py`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import Abort, TyperException

from shmq.admin import catalogue, leaf, session
from shmq.admin.exits import ExitCode, exit_code_of
from shmq.admin.output import Report, Stream, show
from shmq.base.errors import ShmqError

PROGRAM = "shmq-admin"


class Verbs(TyperGroup):
    """One noun of the modern spelling: `shmq-admin topic ...`."""

    def __init__(self, group: str) -> None:
        """List the group's verbs; their modules are imported when they run."""
        super().__init__(
            name=group,
            help=catalogue.GROUPS[group],
            rich_markup_mode=None,
            no_args_is_help=True,
            context_settings=leaf.CONTEXT_SETTINGS,
        )
        self._entries = [entry for entry in catalogue.ENTRIES if entry.group == group]

    def list_commands(self, ctx: Any) -> list[str]:
        """The verbs, in the catalogue's order."""
        return [entry.verb for entry in self._entries]

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:
        """Build the verb's command."""
        entry = catalogue.by_verb(str(self.name), cmd_name.lower())
        session.current.grouped = True
        return leaf.build(entry) if entry else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Help lines straight from the catalogue, so that help imports no command."""
        with formatter.section("Verbs (also named)"):
            formatter.write_dl([(entry.verb, f"{entry.help} ({entry.name})") for entry in self._entries])


class Commands(TyperGroup):
    """The root: every command under its mqadmin name, and the nouns of the modern spelling."""

    def __init__(self) -> None:
        """Take the common options also before the command's name."""
        options = leaf.command_of(leaf.common, PROGRAM)
        super().__init__(
            name=PROGRAM,
            help="Look at and change a shmq (or Apache RocketMQ) installation.",
            epilog="Every command takes -h, -n NAMESRV and --json. -n is not needed on a broker's own host.",
            rich_markup_mode=None,
            no_args_is_help=True,
            params=options.params,
            callback=options.callback,
            context_settings=leaf.CONTEXT_SETTINGS,
        )
        # Only the names: resolve_command() suggests from them when one is misspelt.
        self.commands = dict.fromkeys(self.list_commands(None))  # type: ignore[assignment]

    def list_commands(self, ctx: Any) -> list[str]:
        """Every name that may come first."""
        return [*(entry.name for entry in catalogue.ENTRIES), *catalogue.GROUPS]

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | TyperGroup | None:
        """A command by its mqadmin name in any letter case, or a noun."""
        if entry := catalogue.by_name(cmd_name):
            return leaf.build(entry)
        return Verbs(cmd_name.lower()) if cmd_name.lower() in catalogue.GROUPS else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Help lines straight from the catalogue, so that help imports no command."""
        with formatter.section("Commands"):
            formatter.write_dl([(entry.name, entry.help) for entry in catalogue.ENTRIES])
        with formatter.section("The same by noun and verb"):
            nouns = {
                group: [e.verb for e in catalogue.ENTRIES if e.group == group] for group in catalogue.GROUPS
            }
            formatter.write_dl([(group, " | ".join(verbs)) for group, verbs in nouns.items()])


def main() -> None:
    """Entry point of `shmq-admin`."""
    args = sys.argv[1:]
    if args[:1] == ["help"]:  # mqadmin's way to ask: help, help COMMAND; and help all
        args = [*(name for name in args[1:] if name != "all"), "--help"]
    sys.exit(run(args))


def run(args: Sequence[str]) -> int:
    """Run one command line and return its exit code; prints results to stdout and errors to stderr."""
    session.reset()
    try:
        result = Commands().main(args=list(args), prog_name=PROGRAM, standalone_mode=False)
        if isinstance(result, Report | Stream):
            show(result, as_json=session.current.as_json, headers=session.current.headers)
            sys.stdout.flush()
            return ExitCode.PARTIAL if isinstance(result, Report) and result.errors else ExitCode.OK
        return result if isinstance(result, int) else ExitCode.OK
    except BrokenPipeError:
        # The reader (head, less) has what it wanted. Python would complain again while it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except TyperException as error:
        return _usage(error)
    except Abort:
        return ExitCode.INTERRUPTED
    except typer.Exit as ending:
        # The group's own main turns Ctrl-C into Exit(130).
        return ending.exit_code
    except (ShmqError, OSError, KeyboardInterrupt) as error:
        return _fail(error)
    except Exception as error:
        # The edge of the program: a bug of ours still ends in one line and its own exit code.
        return _fail(error)


def _usage(error: TyperException) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message())
        return ExitCode.OK
    if session.current.as_json:
        _print_error(error, ExitCode.USAGE)
    else:
        context = getattr(error, "ctx", None)
        hint = f" ({context.command_path} -h shows the options)" if context else ""
        print(f"{error.format_message()}{hint}", file=sys.stderr)
    return ExitCode.USAGE


def _fail(error: BaseException) -> int:
    code = exit_code_of(error)
    if session.current.verbose:
        import traceback

        traceback.print_exception(error)
    _print_error(error, code)
    return code


def _print_error(error: BaseException, code: ExitCode) -> None:
    text = str(error) or type(error).__name__
    if session.current.as_json:
        failure = {"error": type(error).__name__, "exitCode": int(code), "text": text}
        print(json.dumps(failure, ensure_ascii=False), file=sys.stderr)
    else:
        hint = " (a bug: --verbose shows where)" if code is ExitCode.INTERNAL else ""
        print(f"{PROGRAM}: {text}{hint}", file=sys.stderr)


if __name__ == "__main__":
    main()
