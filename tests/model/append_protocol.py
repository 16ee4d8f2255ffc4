"""A model of the append protocol, small enough to be searched whole: lock, journal, repair, deaths anywhere.

One step is one store, one load, or one locked operation of one process. A store of a phase or of quiesce may
stay in the storing core's buffer while its process goes on (x86: a load may overtake it); every other store
empties the buffer first, which loses nothing, as repair treats WANTING and HOLDING alike. Each living
appender makes one claim of one record for one queue and then rests. A death drains the buffer. An appender
may also stop for good (SIGSTOP): then only a kill frees what it holds. Appenders are alike, so states that
differ only in their order are one. `Rules` switches single rules of the protocol off; each must then lead to
a violation, or the model would prove nothing.

The steps follow `shmq/shm/append_lock.py`, `append_journal.py` and `shmq/supervisor/crash_repair.py`: change
them together.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np

IDLE, WANTING, HOLDING = range(3)
EMPTY, PREPARED, COMMITTED = range(3)


class At(IntEnum):
    """Where an appender is: the step it takes next."""

    WANT = 0
    FENCE = 1
    LOOK_AT_QUIESCE = 2
    STAND_STILL = 3
    TRY = 4
    HOLD = 5
    LOOK_AT_JOURNAL = 6
    DESCRIBE = 7
    PREPARE = 8
    WRITE_RECORD = 9
    WRITE_UNIT = 10
    COMMIT = 11
    STORE_POSITION = 12
    STORE_MAX = 13
    EMPTY_JOURNAL = 14
    UNLOCK = 15
    LEAVE = 16
    REST = 17


INSIDE = range(At.HOLD, At.UNLOCK + 1)


class Sup(IntEnum):
    """Where the supervisor is: the step it takes next."""

    DEAD = 0
    START = 1
    WATCH = 2
    QUIESCE = 3
    WAIT = 4
    STAND_STILL = 5
    JOURNAL = 6
    ZERO_UNIT = 7
    EMPTY_UNDONE = 8
    STORE_MAX = 9
    EMPTY_DONE = 10
    CLEAR_SLOTS = 11
    DRAIN_SEMAPHORE = 12
    FREE_SEMAPHORE = 13
    RESUME = 14


@dataclass(frozen=True)
class Rules:
    """The rules of the protocol. False: the step is left out, or done in the wrong place."""

    fence_after_wanting: bool = True
    unlock_before_idle: bool = True
    wait_for_store_buffers: bool = True
    wait_until_idle: bool = True
    repair_when_not_idle: bool = True
    start_repairs_whole: bool = True
    undo_before_empty: bool = True
    undo_zeroes_units: bool = True
    drain_semaphore: bool = True
    commit_before_position: bool = True
    free_semaphore: bool = True
    resume: bool = True
    clear_dead_slots: bool = True
    store_position_again: bool = True
    kill_who_does_not_leave: bool = True


class Appender(NamedTuple):
    alive: bool
    at: At
    buffered: int | None = None  # a phase store that other cores do not see yet
    record: int = 0  # what it appends
    stopped: bool = False  # it takes no step any more, and lives


class Claim(NamedTuple):
    start: int
    queue_offset: int
    record: int


class State(NamedTuple):
    appenders: tuple[Appender, ...]
    sup: Sup
    quiesce_buffered: int | None
    living: frozenset[int]  # what the running repair takes for alive
    phases: tuple[int, ...]
    quiesce: int
    semaphore: int
    journal: int
    claim: Claim
    position: int
    queue_max: int
    log: tuple[int, ...]  # record number in each cell, 0: zero bytes
    units: tuple[int, ...]  # 1 + log cell of each queue offset, 0: zero bytes
    acked: frozenset[int]
    appender_deaths: int
    sup_deaths: int
    starts: int  # so many more appenders may be started
    stops: int  # so many more appenders may stop for good


class Violation(AssertionError):
    """The protocol broke a promise; the message holds the trace that leads there."""


def start_state(appenders: int, appender_deaths: int, sup_deaths: int, stops: int = 0) -> State:
    cells = appenders * (1 + sup_deaths) + appender_deaths + stops
    return State(
        appenders=(Appender(True, At.WANT),) * appenders,
        sup=Sup.WATCH,
        quiesce_buffered=None,
        living=frozenset(),
        phases=(IDLE,) * appenders,
        quiesce=0,
        semaphore=1,
        journal=EMPTY,
        claim=Claim(0, 0, 0),
        position=0,
        queue_max=0,
        log=(0,) * cells,
        units=(0,) * cells,
        acked=frozenset(),
        appender_deaths=appender_deaths,
        sup_deaths=sup_deaths,
        starts=cells - appenders,
        stops=stops,
    )


def _rank(s: State, i: int) -> tuple[object, ...]:
    a = s.appenders[i]
    buffered = -1 if a.buffered is None else a.buffered
    return (a.alive, a.at, buffered, a.record, a.stopped, s.phases[i], i in s.living)


def one_order(s: State) -> State:
    """The same state with its appenders in one order: which slot is whose makes no difference."""
    ranks = [_rank(s, i) for i in range(len(s.appenders))]
    order = sorted(range(len(ranks)), key=ranks.__getitem__)
    if all(i == n for n, i in enumerate(order)):
        return s
    return s._replace(
        appenders=tuple([s.appenders[i] for i in order]),
        phases=tuple([s.phases[i] for i in order]),
        living=frozenset([n for n, i in enumerate(order) if i in s.living]),
    )


def _set(items: tuple, index: int, value: object) -> tuple:  # type: ignore[type-arg]
    return (*items[:index], value, *items[index + 1 :])


def _drain(s: State, i: int) -> State:
    """The buffered store of appender i becomes visible."""
    a = s.appenders[i]
    if a.buffered is None:
        return s
    return s._replace(
        appenders=_set(s.appenders, i, a._replace(buffered=None)), phases=_set(s.phases, i, a.buffered)
    )


def _go(s: State, i: int, at: At) -> State:
    return s._replace(appenders=_set(s.appenders, i, s.appenders[i]._replace(at=at)))


def _store_phase(s: State, i: int, phase: int, at: At) -> State:
    s = _drain(s, i)
    mine = s.appenders[i]._replace(at=at, buffered=phase)
    return s._replace(appenders=_set(s.appenders, i, mine))


def appender_steps(s: State, i: int, rules: Rules) -> Iterator[State]:
    """Every next state by a step of appender i, deaths not included."""
    a = s.appenders[i]
    if a.stopped:
        return
    if a.buffered is not None:
        yield _drain(s, i)
    d = _drain(s, i) if At.DESCRIBE <= a.at <= At.EMPTY_JOURNAL else s
    match a.at:
        case At.WANT:
            fence = At.FENCE if rules.fence_after_wanting else At.LOOK_AT_QUIESCE
            yield _store_phase(s, i, WANTING, fence)
        case At.FENCE:
            yield _go(_drain(s, i), i, At.LOOK_AT_QUIESCE)
        case At.LOOK_AT_QUIESCE:
            if s.quiesce:
                yield _store_phase(s, i, IDLE, At.STAND_STILL)
            else:
                yield _go(s, i, At.TRY)
        case At.STAND_STILL:
            if not s.quiesce:
                yield _go(s, i, At.WANT)
        case At.TRY:
            if s.semaphore:
                yield _go(_drain(s, i), i, At.HOLD)._replace(semaphore=s.semaphore - 1)
            if s.quiesce:  # a busy try goes back to the look; looking again in vain changes nothing
                yield _store_phase(s, i, IDLE, At.STAND_STILL)
        case At.HOLD:
            yield _store_phase(s, i, HOLDING, At.LOOK_AT_JOURNAL)
        case At.LOOK_AT_JOURNAL:
            if s.journal != EMPTY:
                raise Violation("the semaphore was free, but the journal is not EMPTY")
            yield _go(s, i, At.DESCRIBE)
        case At.DESCRIBE:
            record = 1 + max(max(s.log), max(s.acked, default=0), s.claim.record)
            mine = _set(d.appenders, i, d.appenders[i]._replace(at=At.PREPARE, record=record))
            yield d._replace(appenders=mine, claim=Claim(s.position, s.queue_max, record))
        case At.PREPARE:
            yield _go(d, i, At.WRITE_RECORD)._replace(journal=PREPARED)
        case At.WRITE_RECORD:
            yield _go(d, i, At.WRITE_UNIT)._replace(log=_set(s.log, s.claim.start, s.claim.record))
        case At.WRITE_UNIT:
            units = _set(s.units, s.claim.queue_offset, s.claim.start + 1)
            at = At.COMMIT if rules.commit_before_position else At.STORE_POSITION
            yield _go(d, i, at)._replace(units=units)
        case At.COMMIT:
            at = At.STORE_POSITION if rules.commit_before_position else At.STORE_MAX
            yield _go(d, i, at)._replace(journal=COMMITTED)
        case At.STORE_POSITION:
            at = At.STORE_MAX if rules.commit_before_position else At.COMMIT
            yield _go(d, i, at)._replace(position=s.claim.start + 1)
        case At.STORE_MAX:
            yield _go(d, i, At.EMPTY_JOURNAL)._replace(queue_max=s.claim.queue_offset + 1)
        case At.EMPTY_JOURNAL:
            at = At.UNLOCK if rules.unlock_before_idle else At.LEAVE
            yield _go(d, i, at)._replace(journal=EMPTY)
        case At.UNLOCK:
            at = At.LEAVE if rules.unlock_before_idle else At.REST
            yield _go(_drain(s, i), i, at)._replace(semaphore=s.semaphore + 1)
        case At.LEAVE:
            at = At.REST if rules.unlock_before_idle else At.UNLOCK
            yield _store_phase(s, i, IDLE, at)._replace(acked=s.acked | {a.record})


def supervisor_steps(s: State, rules: Rules) -> Iterator[State]:
    """Every next state by a step of the supervisor."""
    if s.quiesce_buffered is not None:
        yield s._replace(quiesce=s.quiesce_buffered, quiesce_buffered=None)
    dead = [i for i, a in enumerate(s.appenders) if not a.alive]
    match s.sup:
        case Sup.START:  # has LOCK_EX: no appender lives
            whole = rules.start_repairs_whole or any(s.phases)
            yield s._replace(sup=Sup.QUIESCE if whole else Sup.WATCH)
        case Sup.WATCH:
            for i in dead:
                if s.phases[i] != IDLE and rules.repair_when_not_idle:
                    yield s._replace(sup=Sup.QUIESCE)
                elif s.starts:
                    phases = s.phases if rules.repair_when_not_idle else _set(s.phases, i, IDLE)
                    fresh = _set(s.appenders, i, Appender(True, At.WANT))
                    yield s._replace(appenders=fresh, starts=s.starts - 1, phases=phases)
            if any(_is_stuck(s, i) for i in range(len(s.appenders))):
                yield s._replace(sup=Sup.QUIESCE)
        case Sup.QUIESCE:
            yield s._replace(sup=Sup.WAIT, quiesce_buffered=1)
        case Sup.WAIT:
            if rules.wait_for_store_buffers:
                s = s._replace(quiesce=1, quiesce_buffered=None)
                for i in range(len(s.appenders)):
                    s = _drain(s, i)
            yield s._replace(sup=Sup.STAND_STILL, living=frozenset())
        case Sup.STAND_STILL:
            living = frozenset(i for i, a in enumerate(s.appenders) if a.alive)
            for i in living:
                if s.appenders[i].stopped and s.phases[i] != IDLE and rules.kill_who_does_not_leave:
                    killed = _set(s.appenders, i, Appender(False, At.REST))
                    yield s._replace(appenders=killed)
            if not rules.wait_until_idle or all(s.phases[i] == IDLE for i in living):
                yield s._replace(sup=Sup.JOURNAL, living=living)
        case Sup.JOURNAL:
            if s.journal == PREPARED:
                if rules.undo_before_empty:
                    log = _set(s.log, s.claim.start, 0)
                    yield s._replace(sup=Sup.ZERO_UNIT, log=log)
                else:
                    yield s._replace(sup=Sup.ZERO_UNIT, journal=EMPTY)
            elif s.journal == COMMITTED:
                position = s.claim.start + 1 if rules.store_position_again else s.position
                yield s._replace(sup=Sup.STORE_MAX, position=position)
            else:
                yield s._replace(sup=Sup.CLEAR_SLOTS)
        case Sup.ZERO_UNIT:
            if not rules.undo_before_empty:
                s = s._replace(log=_set(s.log, s.claim.start, 0))
            units = _set(s.units, s.claim.queue_offset, 0) if rules.undo_zeroes_units else s.units
            yield s._replace(sup=Sup.EMPTY_UNDONE, units=units)
        case Sup.STORE_MAX:
            yield s._replace(sup=Sup.EMPTY_DONE, queue_max=s.claim.queue_offset + 1)
        case Sup.EMPTY_UNDONE | Sup.EMPTY_DONE:
            yield s._replace(sup=Sup.CLEAR_SLOTS, journal=EMPTY)
        case Sup.CLEAR_SLOTS:
            left = [i for i in range(len(s.appenders)) if i not in s.living and s.phases[i] != IDLE]
            if not rules.clear_dead_slots:
                left = []
            for i in left[:1]:
                yield s._replace(phases=_set(s.phases, i, IDLE))
            if not left:
                yield s._replace(sup=Sup.DRAIN_SEMAPHORE)
        case Sup.DRAIN_SEMAPHORE:
            if s.semaphore and rules.drain_semaphore:
                yield s._replace(semaphore=s.semaphore - 1)
            else:
                yield s._replace(sup=Sup.FREE_SEMAPHORE)
        case Sup.FREE_SEMAPHORE:
            yield s._replace(sup=Sup.RESUME, semaphore=s.semaphore + rules.free_semaphore)
        case Sup.RESUME:
            yield s._replace(sup=Sup.WATCH, quiesce_buffered=0 if rules.resume else None)


def _is_stuck(s: State, i: int) -> bool:
    """What the looks at claim_seq and semaphore find out in the end."""
    a = s.appenders[i]
    return a.alive and a.stopped and (s.phases[i] == HOLDING or a.at in INSIDE)


def deaths(s: State) -> Iterator[State]:
    """Every next state by a death or a stop."""
    for i in range(len(s.appenders)):
        yield from _deaths_of(s, i)
    yield from _supervisor_deaths(s)


def _deaths_of(s: State, i: int) -> Iterator[State]:
    """Appender i dies or stops. When the supervisor is dead, its successor's SIGKILLs cost no budget."""
    a, orphan = s.appenders[i], s.sup == Sup.DEAD
    if a.alive and (orphan or (s.appender_deaths and (a.at != At.REST or a.buffered is not None))):
        d = _drain(s, i)
        left = s.appender_deaths - (not orphan)
        yield d._replace(appenders=_set(d.appenders, i, Appender(False, At.REST)), appender_deaths=left)
    if s.stops and a.alive and not a.stopped and a.at != At.REST:
        d = _drain(s, i)
        stopped = _set(d.appenders, i, d.appenders[i]._replace(stopped=True))
        yield d._replace(appenders=stopped, stops=d.stops - 1)


def _supervisor_deaths(s: State) -> Iterator[State]:
    """The supervisor dies; or, dead, is replaced once nobody appends any more."""
    if s.sup == Sup.DEAD:
        if not any(a.alive for a in s.appenders):
            yield s._replace(sup=Sup.START)
    elif s.sup_deaths:
        quiesce = s.quiesce if s.quiesce_buffered is None else s.quiesce_buffered
        yield s._replace(sup=Sup.DEAD, sup_deaths=s.sup_deaths - 1, quiesce=quiesce, quiesce_buffered=None)


def check(s: State) -> None:
    """What must hold in every state, as other processes see the memory."""
    inside = [i for i, a in enumerate(s.appenders) if a.alive and a.at in INSIDE]
    if len(inside) > 1:
        raise Violation(f"appenders {inside} hold the lock together")
    if inside and Sup.JOURNAL <= s.sup <= Sup.FREE_SEMAPHORE:
        raise Violation(f"appender {inside[0]} is inside while the world should stand still")
    if s.semaphore > 1:
        raise Violation("the semaphore would let two in")
    if 0 in s.log[: s.position]:
        raise Violation("a hole in the log below write_position")
    for queue_offset in range(s.queue_max):
        cell = s.units[queue_offset] - 1
        if not 0 <= cell < s.position:
            raise Violation(f"unit {queue_offset} is published, but its record is not")
    published = {s.log[s.units[q] - 1] for q in range(s.queue_max)}
    if not s.acked <= published:
        raise Violation(f"acknowledged records {set(s.acked - published)} cannot be read")
    if s.journal == EMPTY and not inside and (any(s.log[s.position :]) or any(s.units[s.queue_max :])):
        raise Violation("bytes or units are left behind the published positions")


def check_end(s: State) -> None:
    """What must hold where nothing more can happen."""
    if (
        any(a.at != At.REST and not a.stopped for a in s.appenders)
        or any(phase for phase, a in zip(s.phases, s.appenders, strict=True) if not a.stopped)
        or s.quiesce
        or s.semaphore != 1
        or s.journal
    ):
        raise Violation("the world stands still for ever")
    if len(s.acked) > s.position or s.position != s.queue_max:
        raise Violation("positions and acknowledgements do not agree at the end")


def search(
    appenders: int,
    appender_deaths: int,
    sup_deaths: int,
    rules: Rules | None = None,
    stops: int = 0,
    *,
    reduced: bool = False,
) -> int:
    """Visit every reachable state, breadth first; return how many there are. Violation carries its trace.

    A violation is a state that must not be, or one from which no end can be reached any more: the world
    hangs, or goes round in a circle. `reduced` looks at one order only of steps that do not touch each other:
    an appender describes, writes and publishes its claim in one go, as nobody else loads or stores what it
    touches before it has left or died; it may still die or stop after each of these steps. States that were
    visited are remembered by their 64-bit hashes alone: of ten million, two are taken for one with a chance
    of about one in a million.
    """
    rules = rules or Rules()
    first = start_state(appenders, appender_deaths, sup_deaths, stops)
    numbers, parents = {hash(first): 0}, array("i", [-1])
    sources, targets, ends = array("i"), array("i"), []
    todo = deque([first])
    at = 0
    try:
        while todo:
            s = todo.popleft()
            check(s)
            before = len(targets)
            for n in map(one_order, _steps(s, rules, reduced)):
                number = numbers.setdefault(hash(n), len(parents))
                if number == len(parents):
                    todo.append(n)
                    parents.append(at)
                sources.append(at)
                targets.append(number)
            if len(targets) == before:
                check_end(s)
                ends.append(at)
            at += 1
        stuck = _cannot_end(len(parents), sources, targets, ends)
        if stuck is not None:
            at = stuck
            raise Violation("nothing leads to an end any more")
    except Violation as violation:
        trace = _trace(first, at, parents, numbers, rules, reduced)
        raise Violation("\n".join([str(violation), *map(str, trace)])) from None
    return len(parents)


def _trace(
    first: State, at: int, parents: array[int], numbers: dict[int, int], rules: Rules, reduced: bool
) -> list[State]:
    """The states from the first to number `at`, found again step by step."""
    way = []
    while at >= 0:
        way.append(at)
        at = parents[at]
    trace = [first]
    for number in reversed(way[:-1]):
        following = map(one_order, _steps(trace[-1], rules, reduced))
        trace.append(next(n for n in following if numbers[hash(n)] == number))
    return trace


def _steps(s: State, rules: Rules, reduced: bool) -> Iterator[State]:
    if reduced:
        for i, appender in enumerate(s.appenders):
            if appender.alive and not appender.stopped and appender.at == At.DESCRIBE:
                yield from _claim_in_one_go(s, i, rules)
                yield from _supervisor_deaths(s)
                return
    for i, appender in enumerate(s.appenders):
        if appender.alive:
            yield from appender_steps(s, i, rules)
    yield from supervisor_steps(s, rules)
    yield from deaths(s)


def _claim_in_one_go(s: State, i: int, rules: Rules) -> Iterator[State]:
    """Appender i from DESCRIBE until the journal is EMPTY again, and its deaths on the way."""
    s = _drain(s, i)
    while At.DESCRIBE <= s.appenders[i].at <= At.EMPTY_JOURNAL:
        check(s)
        yield from _deaths_of(s, i)
        (s,) = appender_steps(s, i, rules)
    yield s


def _cannot_end(count: int, sources: array[int], targets: array[int], ends: list[int]) -> int | None:
    """The first state from which no end can be reached, or None."""
    source, target = np.frombuffer(sources, np.int32), np.frombuffer(targets, np.int32)
    good = np.zeros(count, bool)
    good[ends] = True
    known = 0
    while known < (known := int(good.sum())):
        good[source[good[target]]] = True
    return None if known == count else int(np.flatnonzero(~good)[0])
