"""One catalogue entry as a Typer command: its own options, the common ones, and Java's option habits."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand
from typer.main import get_command

from shmq.admin import session
from shmq.admin.catalogue import Entry

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"]}


def common(
    namesrv: Annotated[
        str | None,
        typer.Option(
            "-n",
            "--namesrvAddr",
            "--namesrv",
            help="name servers, host:port separated by ;, or unix:/path [default: found on this host]",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document in place of the table")] = False,
    no_headers: Annotated[
        bool, typer.Option("--no-headers", help="tables without their header line")
    ] = False,
    timeout: Annotated[float, typer.Option("--timeout", help="seconds for each request")] = session.TIMEOUT_S,
    yes: Annotated[bool, typer.Option("--yes", help="ask no questions")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="errors with their stack trace")] = False,
) -> None:
    """Take the options that every command has, before or after the command's name, into the session."""
    now = session.current
    now.namesrv = namesrv or now.namesrv
    now.as_json |= as_json
    now.headers &= not no_headers
    now.timeout_s = timeout if timeout != session.TIMEOUT_S else now.timeout_s
    now.yes |= yes
    now.verbose |= verbose


class Leaf(TyperCommand):
    """A command that also takes long options with one dash, as Java's parser does (`-topic T`)."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Give such options their second dash, then parse as usual."""
        long_names = {name for option in self.params for name in option.opts if name.startswith("--")}
        return super().parse_args(ctx, [self._second_dash(arg, long_names) for arg in args])

    @staticmethod
    def _second_dash(arg: str, long_names: set[str]) -> str:
        return f"-{arg}" if f"-{arg}".partition("=")[0] in long_names else arg


def build(entry: Entry) -> TyperCommand:
    """The runnable command of an entry; imports its module."""
    function = getattr(importlib.import_module(f"shmq.admin.{entry.module}"), entry.function)
    return command_of(_with_common_options(function), entry.name)


def command_of(function: Callable[..., Any], name: str) -> TyperCommand:
    """A Typer command of one function."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name, cls=Leaf, context_settings=CONTEXT_SETTINGS)(function)
    command = get_command(app)
    assert isinstance(command, TyperCommand)
    return command


def _with_common_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with `common`'s parameters after its own; these are taken first when it is called."""
    own = inspect.signature(function, eval_str=True).parameters
    shared = inspect.signature(common, eval_str=True).parameters

    def run(**values: Any) -> Any:
        common(**{name: values.pop(name) for name in shared})
        return function(**values)

    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in (*own.values(), *shared.values())
    ]
    run.__doc__ = function.__doc__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run
