"""Every fault point of the broker: a real process dies there; the others go on, nothing acknowledged is lost.

`tests/helpers/fault_table.py` says which points there are and in which scene each is reached. After each
death: others acknowledge again, every acknowledged message is at its queue offset once and in order, offsets
and topics are as they were told, and the store check finds nothing: while the broker runs, after it has
stopped, and after another start. Where a start or a repair died, the next one dies at the same point again.
"""

from __future__ import annotations

import importlib
import pkgutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import shmq
from shmq import Message, Producer, SendStatus
from shmq.base import faults
from shmq.base.runtime_dir import page_name
from shmq.model.settings import BrokerSettings
from shmq.shm.control_page import ControlPage
from shmq.store.check import check_store
from shmq.store.names import StoreLayout
from tests.helpers.fault_load import FaultLoad
from tests.helpers.fault_table import DEFECTS, ELSEWHERE, ROWS, USUAL, Row, Scene
from tests.helpers.store import OpenStore
from tests.helpers.supervised_broker import BrokerMaker, SupervisedBroker
from tests.helpers.waiting import wait_until
from tests.process.test_store_appends import check_all, end, repair_whole, start

PROJECT = Path(__file__).parents[2]
MANY = 6
SEGMENT_BYTES = 256 << 10
FAST = {
    "mappedFileSizeCommitLog": str(SEGMENT_BYTES),
    "flushCommitLogThoroughInterval": "200",
    "flushConsumerOffsetInterval": "100",
    "flushDelayOffsetInterval": "100",
}
"""Settings that make rare things happen often: segments, checkpoints, exports."""


def test_every_declared_point_is_in_the_table() -> None:
    """And every row is about a point that is declared: a renamed one would be armed in vain."""
    for module in pkgutil.walk_packages(shmq.__path__, "shmq."):
        if not module.name.startswith(("shmq.examples", "shmq.console")):
            importlib.import_module(module.name)
    declared = {name for name in faults.KNOWN if not name.startswith("world.")}
    listed = {row.point for row in ROWS} | DEFECTS | set(ELSEWHERE)
    assert declared - listed == set(), "add a row to tests/helpers/fault_table.py"
    assert listed - declared == set()


def test_a_point_with_a_scene_of_its_own_is_visited_there() -> None:
    for point, path in ELSEWHERE.items():
        text = (PROJECT / path).read_text()
        dies = "=kill" in text or "FaultReached" in text
        assert f'"{point}' in text and dies, f"{path} lets nobody die at {point}"


def rows(*scenes: Scene) -> list[Row]:
    return [row for row in ROWS if row.scene in scenes]


def named(row: object) -> str:
    if not isinstance(row, Row):
        return f"{row} queues"
    place = f"-{row.passing}" if row.passing > USUAL else ""
    return f"{row.scene.name.lower()}-{row.point}{place}"


# ---- the append path


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OpenStore]:
    with OpenStore(tmp_path / "store") as opened:
        opened.make_topic("T", MANY)
        opened.start_threads()
        yield opened


@pytest.mark.parametrize("queues", [MANY, pytest.param(1, marks=pytest.mark.long)], ids=named)
@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=pytest.mark.long) if row.passing > USUAL else row
        for row in rows(Scene.APPENDERS)
    ],
    ids=named,
)
def test_an_appender_dies(store: OpenStore, row: Row, queues: int) -> None:
    """The claims of both processes have messages for one queue, or for many at once."""
    survivor = start(store, 3, 300, queues)
    victim = start(store, 2, 10_000, queues, f"{row.point}=kill@{row.passing}")
    acknowledged = end(victim, -signal.SIGKILL)
    repair_whole(store, {3: survivor})
    acknowledged += end(survivor)
    check_all(store, acknowledged)
    store.send("T", b"9 0 0", 0)
    store.crash()
    check_all(store, acknowledged)


# ---- whole brokers


@pytest.fixture
def make() -> Iterator[BrokerMaker]:
    maker = BrokerMaker()
    yield maker
    maker.end_all()


class Deaths:
    """Arms a broker's processes; each arming fires once, in whatever process comes first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self.marks = folder

    def arm(self, broker: SupervisedBroker, *armed: str) -> None:
        """Every start of the broker from now on has these."""
        self._count += 1
        self.marks = self._folder / f"faults-{self._count}"
        self.marks.mkdir(parents=True)
        broker.environment |= {"SHMQ_FAULTS": ",".join(armed), "SHMQ_FAULTS_DIR": str(self.marks)}

    def disarm(self, broker: SupervisedBroker) -> None:
        broker.environment |= {"SHMQ_FAULTS": ""}

    def fired(self, point: str) -> Callable[[], bool]:
        return (self.marks / point).exists


def run_again_if_dead(broker: SupervisedBroker) -> bool:
    """Start a broker whose supervisor died, or cannot go on; tell whether that was so."""
    assert broker.process is not None
    if broker.process.poll() is None:
        return False
    broker.process.communicate()
    broker.start()
    return True


def die_at_start(broker: SupervisedBroker, deaths: Deaths, point: str) -> None:
    """Start a broker that dies on its way up, twice at the same point; a child is started again by itself."""
    for _ in range(2):
        deaths.arm(broker, f"{point}=kill")
        process = broker.launch()
        wait_until(deaths.fired(point), 20, f"{point} was reached")
        if point.startswith("child."):
            broker.wait_ready()
            broker.kill_all()
        else:
            process.communicate(timeout=20)
            assert process.returncode != 0
    deaths.disarm(broker)


def finish(broker: SupervisedBroker, load: FaultLoad) -> None:
    """The load ends; its notes hold, and the store is sound: running, stopped, and started again."""
    load.stop()
    load.verify()
    root = Path(broker.places["store"])
    page = ControlPage.attach(page_name(root), readonly=True)
    found = [str(finding) for finding in check_store(root, page)]
    page.close()
    assert found == []
    assert broker.stop() == 0
    assert [str(finding) for finding in check_store(root)] == []
    broker.start()
    load.verify()
    assert broker.stop() == 0


def broker_of(make: BrokerMaker, folder: Path, scene: Scene = Scene.LOAD) -> SupervisedBroker:
    extra = {"flushDiskType": "SYNC_FLUSH", "zeroAheadBytes": "1048576"} if scene is Scene.SYNC else {}
    return make(folder, environment={}, **FAST, **extra)


both = pytest.mark.parametrize("queues", [1, MANY], ids=named)


@pytest.mark.long
@both
@pytest.mark.parametrize("row", rows(Scene.LOAD, Scene.SYNC), ids=named)
def test_a_process_dies_under_load(make: BrokerMaker, tmp_path: Path, row: Row, queues: int) -> None:
    broker, deaths = broker_of(make, tmp_path, row.scene), Deaths(tmp_path)
    deaths.arm(broker, f"{row.point}=kill@{row.passing}")
    broker.start()
    load = FaultLoad(broker, queues)
    load.start()
    if row.point.startswith("producer."):
        sent_in_sequence(broker)
    load.until(deaths.fired(row.point), 60, f"{row.point} was reached")
    if row.point.startswith(("flush.", "checksums.", "checkpoint.", "segment.")):
        wait_until(lambda: run_again_if_dead(broker), 10, "the supervisor died")
    load.goes_on()
    finish(broker, load)


def sent_in_sequence(broker: SupervisedBroker) -> None:
    """What an idempotent producer sends is there once, whoever dies while it is introduced."""
    address = f"unix:{broker.places['namesrvUnix']}"
    with Producer("Sequence", namesrv_addr=address, enable_idempotence=True) as producer:
        for n in range(20):
            result = producer.send(Message("sequence", b"%d" % n), timeout_ms=20_000)
            assert result.send_status is SendStatus.SEND_OK
    with broker.connect() as client:
        found = [body for queue in range(4) for body in client.bodies("sequence", queue)]
    assert sorted(found, key=int) == [b"%d" % n for n in range(20)]


@pytest.mark.long
@pytest.mark.parametrize("row", rows(Scene.REPAIR_UNDOES, Scene.REPAIR_APPLIES), ids=named)
def test_a_repair_dies_and_the_next_one_too(make: BrokerMaker, tmp_path: Path, row: Row) -> None:
    broker, deaths = broker_of(make, tmp_path), Deaths(tmp_path)
    first = "claim.unit_written" if row.scene is Scene.REPAIR_UNDOES else "journal.max_stored"
    deaths.arm(broker, f"{first}=kill@40", f"{row.point}=kill")
    broker.start()
    load = FaultLoad(broker, MANY)
    load.start()
    load.until(deaths.fired(row.point), 60, f"{row.point} was reached")
    assert broker.process is not None
    assert broker.process.wait(10) == -signal.SIGKILL
    broker.process.communicate()
    die_at_start(broker, deaths, row.point)
    broker.start()
    load.goes_on()
    finish(broker, load)


@pytest.mark.long
@pytest.mark.parametrize("row", rows(Scene.FIRST_START), ids=named)
def test_a_first_start_dies(make: BrokerMaker, tmp_path: Path, row: Row) -> None:
    broker, deaths = broker_of(make, tmp_path), Deaths(tmp_path)
    die_at_start(broker, deaths, row.point)
    broker.start()
    load = FaultLoad(broker, MANY)
    load.start()
    load.goes_on()
    finish(broker, load)


@pytest.mark.long
@pytest.mark.parametrize("row", rows(Scene.KEPT_PAGE, Scene.LOST_PAGE), ids=named)
def test_a_start_after_the_death_of_all_dies_too(make: BrokerMaker, tmp_path: Path, row: Row) -> None:
    broker, deaths = broker_of(make, tmp_path), Deaths(tmp_path)
    broker.start()
    load = FaultLoad(broker, MANY)
    load.start()
    load.goes_on()
    broker.kill_all()
    root = Path(broker.places["store"])
    for _ in range(2):
        if row.scene is Scene.LOST_PAGE:
            lose_page(root)
            name_a_segment_ahead(root)
        deaths.arm(broker, f"{row.point}=kill")
        broker.launch()
        wait_until(deaths.fired(row.point), 20, f"{row.point} was reached")
        assert broker.process is not None
        broker.process.communicate(timeout=20)
        assert broker.process.returncode != 0
    deaths.disarm(broker)
    broker.start()
    load.goes_on()
    finish(broker, load)


def lose_page(root: Path) -> None:
    """Remove everything of this store that lies in shared memory."""
    for left in Path("/dev/shm").glob(f"*{page_name(root).lstrip('/')}*"):
        left.unlink()


def name_a_segment_ahead(root: Path) -> None:
    """Leave what an allocator leaves that died right after it had named the next segment."""
    layout = StoreLayout.of(root, BrokerSettings(mapped_file_size_commit_log=SEGMENT_BYTES))
    with layout.segment_path(layout.segments()[-1] + SEGMENT_BYTES).open("xb") as file:
        file.truncate(SEGMENT_BYTES)


@pytest.mark.long
@pytest.mark.parametrize("row", rows(Scene.STOP), ids=named)
def test_a_clean_stop_dies(make: BrokerMaker, tmp_path: Path, row: Row) -> None:
    broker, deaths = broker_of(make, tmp_path), Deaths(tmp_path)
    broker.start()
    load = FaultLoad(broker, MANY)
    load.start()
    load.goes_on()
    load.stop()
    broker.stop()
    deaths.arm(broker, f"{row.point}=kill")
    broker.start()
    if not deaths.fired(row.point)():
        assert broker.stop() == -signal.SIGKILL
    deaths.disarm(broker)
    broker.start()
    finish(broker, load)
