"""Random appends, reads, flushes, restarts and crashes against a plain dict; the check after each run."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from shmq.model.subscription import java_hash
from shmq.store.check import check_store
from tests.helpers.store import OpenStore, request
from tests.unit.store.reading import read_all


class Model:
    """What must be there: bodies and tags by queue."""

    def __init__(self) -> None:
        self.queues: dict[tuple[str, int], list[tuple[bytes, str]]] = {}


def append_some(store: OpenStore, model: Model, rng: random.Random) -> None:
    requests, expected = [], []
    for _ in range(rng.randint(1, 12)):
        key = (f"T{rng.randrange(4)}", rng.randrange(3))
        tag = rng.choice(["A", "B", "C"])
        count = rng.choice([1, 1, 1, 2, 17, 40])
        bodies = [rng.randbytes(rng.choice([0, 1, 30, 300])) + b"%d" % n for n in range(count)]
        requests.append(request(store.queue(*key), bodies, TAGS=tag, UNIQ_KEY=f"U{rng.random()}"))
        expected.append((key, bodies, tag))
    outcomes = store.append(*requests)
    for outcome, (key, bodies, tag) in zip(outcomes, expected, strict=True):
        assert outcome.error is None
        messages = model.queues.setdefault(key, [])
        assert outcome.queue_offset == len(messages)
        messages += [(body, tag) for body in bodies]


def read_some(store: OpenStore, model: Model, rng: random.Random) -> None:
    for key, messages in model.queues.items():
        queue = store.queue(*key)
        offset, count = rng.randrange(len(messages)), rng.randint(1, 100)
        tag = rng.choice([None, "A", "B"])
        hashes = None if tag is None else frozenset([java_hash(tag)])
        result = store.store.read(queue, offset, count, rng.choice([1, 2_000, 1 << 20]), hashes)
        passed = messages[offset : result.next_offset]
        assert result.count == sum(tag is None or t == tag for _, t in passed)
        assert result.count <= count


OPERATIONS = {
    append_some: 60,
    read_some: 20,
    (lambda store, model, rng: store.flush()): 6,
    (lambda store, model, rng: store.index.step(0)): 8,
    (lambda store, model, rng: store.reopen()): 2,
    (lambda store, model, rng: store.crash()): 2,
    (lambda store, model, rng: store.crash(keep_page=True)): 2,
}


@pytest.mark.parametrize("seed", range(3))
def test_the_store_is_a_dict_of_lists(tmp_path: Path, seed: int) -> None:
    rng, model = random.Random(seed), Model()
    with OpenStore(tmp_path / "store") as store:
        for _ in range(70):
            (operation,) = rng.choices(list(OPERATIONS), list(OPERATIONS.values()))
            operation(store, model, rng)
        assert read_all(store) == {key: [body for body, _ in m] for key, m in model.queues.items()}
        assert list(check_store(store.root, store.page)) == []
        store.close_cleanly()
        assert list(check_store(store.root)) == []
        store._open()
