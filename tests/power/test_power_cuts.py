"""Power cuts of a real broker under load: what was acknowledged, and what anybody has seen, is there again.

The broker's syncs are recorded, its processes are stopped at any moment, and stores are built in which all
that was not synced is there, half there or not there (`shmq/store/power_cut.py`). Each is recovered as a
start does it, every third after a second cut during recovery.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from shmq import Durability, Message, MessageQueue, Producer, PullConsumer
from shmq.embedded import Broker
from shmq.prove.experiment import PREFIX, Experiment, Restart, Verdict
from shmq.prove.ledger import Entry, Place, body_crc, new_body
from shmq.store.check import check_store
from tests.helpers.waiting import wait_until

SMALL = {
    "mappedFileSizeCommitLog": 256 << 10,
    "mappedFileSizeConsumeQueue": 20 * 128,
    "maxIndexNum": 400,
    "maxHashSlotNum": 100,
    "zeroAheadBytes": 1 << 20,
    "flushCommitLogThoroughInterval": 100,
    "flushConsumerOffsetInterval": 100,
}
"""Segments, queue files and index files are rolled, checkpoints and offsets written all the time."""


def told(verdict: Verdict) -> str:
    """What failed, for the test's report."""
    return "\n".join(
        f"seed {failure.seed}: lost {failure.judgement.lost[:5]}, unseen {failure.judgement.unseen[:5]}, "
        f"torn {failure.judgement.torn[:5]}, findings {failure.judgement.findings[:5]}; kept {failure.folder}"
        for failure in verdict.failures
    )


def test_no_cut_takes_what_was_acknowledged_or_seen(tmp_path: Path) -> None:
    with Experiment(tmp_path, {**SMALL, "flushDiskType": "SYNC_FLUSH"}, seed=1) as experiment:
        verdict = experiment.run(30)
    assert not verdict.failures, told(verdict)
    assert verdict.cuts == 30 and verdict.cuts_in_recovery == 10
    assert verdict.pages_not_whole > 20 and verdict.names_lost, "the cuts took nothing: nothing was shown"


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(100, 110))
def test_three_hundred_cuts_take_nothing_that_was_acknowledged(tmp_path: Path, seed: int) -> None:
    with Experiment(tmp_path, {**SMALL, "flushDiskType": "SYNC_FLUSH"}, seed=seed) as experiment:
        verdict = experiment.run(30)
    assert not verdict.failures, told(verdict)


@pytest.mark.long
@pytest.mark.parametrize("mode", ["SYNC_FLUSH", "ASYNC_FLUSH"])
def test_a_cut_after_restarts_takes_nothing_either(tmp_path: Path, mode: str) -> None:
    """What a crash left in the page cache only must not count as durable for the next run."""
    with Experiment(tmp_path, {**SMALL, "flushDiskType": mode}, seed=6) as experiment:
        verdict = experiment.run(12, restarts=list(Restart))
    assert not verdict.failures, told(verdict)
    assert verdict.cuts == 12


@pytest.mark.long
def test_with_async_flush_a_cut_takes_only_what_was_not_flushed(tmp_path: Path) -> None:
    with Experiment(tmp_path, {**SMALL, "flushDiskType": "ASYNC_FLUSH"}, seed=2) as experiment:
        verdict = experiment.run(9)
    assert not verdict.failures, told(verdict)
    assert verdict.pages_not_whole


def test_a_broker_that_acknowledges_before_the_sync_is_caught(tmp_path: Path) -> None:
    """The defect is switched on, and the flusher stands still where it matters: acknowledged, not synced."""
    defect = {"SHMQ_FAULTS": "flush.acknowledge_early=on,flush.before_sync=stop"}
    settings = {**SMALL, "flushDiskType": "SYNC_FLUSH"}
    with Experiment(tmp_path, settings, seed=3, environment=defect) as experiment:
        load, message = experiment.new_load(), Message(f"{PREFIX}0", b"")
        message.body = new_body(experiment.rng, 100)
        with Producer("defect", namesrv_addr=experiment.broker.namesrv_addr) as producer:
            result = producer.send(message)
        queue, crc = result.message_queue, body_crc(message.body)
        assert crc is not None
        place = Place(queue.topic, queue.queue_id, result.queue_offset)
        load.ledger.acked.append(Entry(place, crc, 0))
        verdict = Verdict()
        experiment.cut([str(n) for n in range(6)], load, verdict)
    assert [failure.judgement.lost for failure in verdict.failures if failure.judgement.lost]


@pytest.mark.long
def test_a_real_broker_starts_on_a_cut_store_and_serves_everything(tmp_path: Path) -> None:
    settings = {**SMALL, "flushDiskType": "SYNC_FLUSH"}
    with Experiment(tmp_path, settings, seed=5) as experiment, experiment.new_load() as load:
        load.go()
        wait_until(lambda: len(load.ledger.acked) > 100 and len(load.ledger.seen) > 100)
        experiment.freeze()
        ledger = load.ledger.now()
        experiment.build("real")
        experiment.broker.kill()
    with Broker(experiment.target("real"), **settings) as broker:
        found = {}
        with PullConsumer("after", namesrv_addr=broker.namesrv_addr) as consumer:
            for topic, queue_id in {entry.place[:2] for entry in ledger.acked}:
                queue = MessageQueue(topic, broker.broker_name, queue_id)
                while (result := consumer.pull(queue, "*", found.get(queue, 0), 32)).messages:
                    found[queue] = result.next_begin_offset
                    for one in result.messages:
                        found[Place(one.topic, one.queue_id, one.queue_offset)] = body_crc(one.body)
            assert not [entry for entry in ledger.acked if found.get(entry.place) != entry.crc]
            assert not [entry for entry in ledger.seen if found.get(entry.place) != entry.crc]
        with Producer("after", namesrv_addr=broker.namesrv_addr) as producer:
            assert producer.send(Message(f"{PREFIX}0", b"goes on")).durability == Durability.FLUSHED
    assert not list(check_store(experiment.target("real")))


@pytest.mark.long
def test_the_load_alone_catches_a_broker_that_acknowledges_early(tmp_path: Path) -> None:
    defect = {"SHMQ_FAULTS": "flush.acknowledge_early=on"}
    settings = {**SMALL, "flushDiskType": "SYNC_FLUSH"}
    with Experiment(tmp_path, settings, seed=4, environment=defect) as experiment:
        verdict = experiment.run(300)
    assert any(failure.judgement.lost for failure in verdict.failures)
