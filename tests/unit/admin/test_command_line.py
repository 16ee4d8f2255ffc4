"""The command line itself: both spellings, letter case, common options, exit codes; no broker involved."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from shmq.admin import catalogue, leaf, main, session
from shmq.admin.exits import ExitCode, exit_code_of
from shmq.admin.options import moment_ms, truth
from shmq.base.errors import ConsumerNotOnline, InvalidParameter, NoPermission, TopicNotExist
from shmq.protocol.codes import ResponseCode, error_of


def test_help_lists_every_command_and_imports_none_of_their_modules() -> None:
    script = (
        "import sys; from shmq.admin import main; code = main.run(['--help']);"
        "print('LOADED', sorted(m for m in sys.modules if m.startswith('shmq.admin.')),"
        " 'numpy' in sys.modules, 'asyncio' in sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    for entry in catalogue.ENTRIES:
        assert entry.name in done.stdout
    loaded = done.stdout.partition("LOADED")[2]
    assert not any(f"shmq.admin.{entry.module}'" in loaded for entry in catalogue.ENTRIES)
    assert "False False" in loaded


@pytest.mark.parametrize("entry", catalogue.ENTRIES, ids=lambda entry: entry.name)
def test_every_command_prints_its_help_in_both_spellings(
    entry: catalogue.Entry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run([entry.name, "-h"]) == ExitCode.OK
    by_name = capsys.readouterr().out
    assert main.run([entry.group, entry.verb, "--help"]) == ExitCode.OK
    by_verb = capsys.readouterr().out
    assert "--json" in by_name and "--namesrvAddr" in by_name
    assert by_name.partition("\n")[2] == by_verb.partition("\n")[2]


def test_command_names_are_found_in_any_letter_case() -> None:
    assert catalogue.by_name("TOPICLIST") is catalogue.by_name("topicList")
    assert catalogue.by_name("nothing") is None


def test_verbs_have_aliases() -> None:
    assert catalogue.by_verb("group", "progress") is catalogue.by_verb("group", "list")
    assert catalogue.by_verb("topic", "create") is catalogue.by_verb("topic", "update")
    assert catalogue.by_verb("topic", "nothing") is None


@pytest.mark.parametrize(
    "args",
    [
        ["noSuchCommand"],
        ["topicRoute"],
        ["topicRoute", "--nope"],
        ["topic", "nope"],
        ["updateTopic", "-t", "T"],
    ],
)
def test_a_wrong_command_line_ends_with_64(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([*args, "-n", "127.0.0.1:1"]) == ExitCode.USAGE
    assert capsys.readouterr().err


def test_a_refused_connection_ends_with_69_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["topicList", "-n", "127.0.0.1:1"]) == ExitCode.UNAVAILABLE
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_errors_are_json_objects_on_stderr_with_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["topicList", "-n", "127.0.0.1:1", "--json"]) == ExitCode.UNAVAILABLE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["exitCode"] == ExitCode.UNAVAILABLE


def test_common_options_may_stand_before_and_after_the_command() -> None:
    main.run(["-n", "127.0.0.1:1", "--json", "topicList"])
    assert (session.current.namesrv, session.current.as_json) == ("127.0.0.1:1", True)
    main.run(["topicList", "-n127.0.0.1:1", "--timeout", "2"])
    assert (session.current.namesrv, session.current.timeout_s) == ("127.0.0.1:1", 2.0)


def test_long_options_work_with_one_dash_as_in_java() -> None:
    main.run(["topicList", "-namesrvAddr", "127.0.0.1:1"])
    assert session.current.namesrv == "127.0.0.1:1"
    main.run(["topicList", "-namesrvAddr=127.0.0.1:2"])
    assert session.current.namesrv == "127.0.0.1:2"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (error_of(ResponseCode.TOPIC_NOT_EXIST, "no"), ExitCode.NOT_FOUND),
        (error_of(ResponseCode.NO_PERMISSION, "no"), ExitCode.NO_PERMISSION),
        (error_of(ResponseCode.CONSUMER_NOT_ONLINE, "no"), ExitCode.UNAVAILABLE),
        (error_of(ResponseCode.CONSUME_MSG_TIMEOUT, "no"), ExitCode.TIMEOUT),
        (error_of(ResponseCode.SYSTEM_ERROR, "no"), ExitCode.FAILED),
        (TopicNotExist("no"), ExitCode.NOT_FOUND),
        (NoPermission("no"), ExitCode.NO_PERMISSION),
        (ConsumerNotOnline("no"), ExitCode.UNAVAILABLE),
        (InvalidParameter("no"), ExitCode.BAD_DATA),
        (TimeoutError(), ExitCode.TIMEOUT),
        (ConnectionRefusedError(), ExitCode.UNAVAILABLE),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
        (ZeroDivisionError(), ExitCode.INTERNAL),
    ],
)
def test_each_error_has_its_exit_code(error: BaseException, code: ExitCode) -> None:
    assert exit_code_of(error) is code


def test_every_option_letter_of_a_command_is_unique() -> None:
    for entry in catalogue.ENTRIES:
        names = [name for option in leaf.build(entry).params for name in option.opts]
        assert len(names) == len(set(names)), entry.name


def test_booleans_and_times_are_read_as_mqadmin_writes_them() -> None:
    assert truth("TRUE") is True
    assert truth("false") is False
    with pytest.raises(InvalidParameter):
        truth("yes")
    assert moment_ms("1741058553104") == 1_741_058_553_104
    assert moment_ms("2025-03-04#11:22:33:104") % 1000 == 104
    with pytest.raises(InvalidParameter):
        moment_ms("yesterday")
