"""The wall clock is set forwards and back while processes die and wait: nobody waits longer for it."""

from __future__ import annotations

import ast
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import shmq
from shmq.model.message_ext import decode_messages
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.pull import PULL_SUBSCRIPTION, PULL_SUSPEND
from shmq.store.check import check_store
from tests.helpers.stepped_clock import StepClock
from tests.helpers.supervised_broker import BrokerMaker, RawClient, SupervisedBroker
from tests.helpers.waiting import wait_until
from tests.process.test_supervisor_crashes import fired, send_until_acknowledged

PACKAGE = Path(shmq.__file__).parent
HOUR_S = 3600
TOPIC = "t"


@pytest.fixture
def make() -> Iterator[BrokerMaker]:
    maker = BrokerMaker()
    yield maker
    maker.end_all()


@pytest.fixture
def clock(tmp_path: Path) -> StepClock:
    return StepClock(tmp_path / "clock")


def stepped(make: BrokerMaker, folder: Path, clock: StepClock, fault: str) -> SupervisedBroker:
    """A broker whose processes have the clock of the test, one of which dies or stops."""
    marks = folder / "faults"
    marks.mkdir(exist_ok=True)
    for mark in marks.iterdir():
        mark.unlink()
    environment = {**clock.environment, "SHMQ_FAULTS": fault, "SHMQ_FAULTS_DIR": str(marks)}
    return make(folder, environment=environment).start()


def pull(client: RawClient, offset: int, **more: Any) -> Command:
    fields = {
        "consumerGroup": "TOOLS_CONSUMER",
        "topic": TOPIC,
        "queueId": 0,
        "queueOffset": offset,
        "maxMsgNums": 32,
        "sysFlag": PULL_SUBSCRIPTION,
        "commitOffset": 0,
        "suspendTimeoutMillis": 0,
        "subVersion": 0,
        "subscription": "*",
        **more,
    }
    return client.ask(RequestCode.PULL_MESSAGE, fields)


def store_times(client: RawClient) -> list[int]:
    """The store time of every message, in the order of the queue."""
    times: list[int] = []
    while (answer := pull(client, len(times))).code == ResponseCode.SUCCESS:
        times += [message.store_timestamp for message in decode_messages(answer.body_bytes())]
    return times


@pytest.mark.long
@pytest.mark.parametrize(
    ("fault", "steps"),
    [
        ("claim.half_filled=kill@6", (HOUR_S, -HOUR_S)),
        pytest.param("claim.half_filled=kill@6", (-HOUR_S, HOUR_S), marks=pytest.mark.long),
        pytest.param("append.acquired=stop@6", (-HOUR_S, HOUR_S), marks=pytest.mark.long),
        pytest.param("append.acquired=stop@6", (HOUR_S, -HOUR_S), marks=pytest.mark.long),
    ],
)
def test_a_holder_dies_while_the_clock_is_set(
    make: BrokerMaker, tmp_path: Path, clock: StepClock, fault: str, steps: tuple[int, int]
) -> None:
    broker = stepped(make, tmp_path, clock, fault)
    for n in range(4):
        send_until_acknowledged(broker, TOPIC, b"%d" % n)
    clock.set(steps[0])
    for n in range(8):
        send_until_acknowledged(broker, TOPIC, b"%d" % n)
    wait_until(fired(tmp_path), 5, "the holder died")
    clock.set(steps[1])
    for n in range(4):
        send_until_acknowledged(broker, TOPIC, b"%d" % n)
    with broker.connect() as client:
        before = store_times(client)
    assert len(before) >= 16 and before == sorted(before)
    assert max(before) > time.time() * 1000 + 1000 * HOUR_S / 2, "the processes had the test's clock"
    broker.kill_all()
    broker.environment["SHMQ_FAULTS"] = ""
    broker.start()
    send_until_acknowledged(broker, TOPIC, b"after")
    with broker.connect() as client:
        after = store_times(client)
    assert after[: len(before)] == before and after == sorted(after)
    assert broker.stop() == 0
    assert list(check_store(Path(broker.places["store"]))) == []


@pytest.mark.long
@pytest.mark.parametrize("step", [HOUR_S, -HOUR_S])
def test_a_held_pull_is_answered_in_its_time(
    make: BrokerMaker, tmp_path: Path, clock: StepClock, step: int
) -> None:
    broker = stepped(make, tmp_path, clock, "")
    send_until_acknowledged(broker, TOPIC, b"first")
    with broker.connect() as holder, broker.connect() as sender:
        hold = {"sysFlag": PULL_SUBSCRIPTION | PULL_SUSPEND, "suspendTimeoutMillis": 2000}
        clock.set(step)
        began = time.monotonic()
        assert pull(holder, 1, **hold).code == ResponseCode.PULL_NOT_FOUND
        assert time.monotonic() - began > 1, "it was held, not refused"
        assert sender.send(TOPIC, b"second").code == ResponseCode.SUCCESS
        assert pull(holder, 1, **hold).code == ResponseCode.SUCCESS
    assert broker.stop() == 0


@cache
def method_calls() -> list[tuple[str, str, ast.Call]]:
    """Every call of a method or a module's function in the package: (file, name, call)."""
    return [
        (str(path.relative_to(PACKAGE)), node.func.attr, node)
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]


def calls(name: str) -> Iterator[tuple[str, ast.Call]]:
    """Those of something of that name."""
    return ((path, call) for path, called, call in method_calls() if called == name)


@pytest.mark.long
def test_no_wait_is_by_the_wall_clock() -> None:
    """What the tests above cannot step, as it is in C: sem_timedwait, which only knows the wall clock."""
    waits = [
        (path, call)
        for path, call in (*calls("acquire"), *calls("_try"))
        if "semaphore" in ast.unparse(call.func) or ast.unparse(call.func) == "self._try"
    ]
    assert len(waits) >= 2
    for path, call in waits:
        assert [ast.unparse(given) for given in call.args] == ["0"], f"{path}:{call.lineno} waits"
    told = {path for path, call in (*calls("time"), *calls("time_ns")) if _is_of_module_time(call)}
    own = ("admin/", "client/", "examples/")
    assert {path for path in told if not path.startswith(own)} == {"base/clock.py"}


def _is_of_module_time(call: ast.Call) -> bool:
    function = call.func
    return (
        isinstance(function, ast.Attribute)
        and isinstance(function.value, ast.Name)
        and function.value.id == "time"
    )
