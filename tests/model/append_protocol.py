"""A model of the append protocol, small enough to be searched whole: lock, journal, repair, deaths anywhere.

One step is one store, one load, or one locked operation of one process. A store of a phase or of quiesce may
stay in the storing core's buffer while its process goes on (x86: a load may overtake it); every other store
empties the buffer first, which loses nothing, as repair treats WANTING and HOLDING alike. Each living
appender makes one claim of one record for one queue and then rests. A death drains the buffer. An appender
may also stop for good (SIGSTOP): then only a kill frees what it holds. `Rules` switches single rules of the
protocol off; each must then lead to a violation, or the model would prove nothing. `append_search.py` visits
the states.

The steps follow `shmq/shm/append_lock.py`, `append_journal.py` and `shmq/supervisor/crash_repair.py`: change
them together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

NOTHING = -1  # no store is in the buffer
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
    """A process that appends, and the slot it fills."""

    phase: int = IDLE  # of the slot, as other cores see it
    at: At = At.WANT
    alive: bool = True
    buffered: int = NOTHING  # a phase store that other cores do not see yet
    record: int = 0  # what it has described and will acknowledge
    stopped: bool = False  # it takes no step any more, and lives
    spared: bool = False  # the running repair takes it for alive


class Claim(NamedTuple):
    """What the journal's entries say; the words of an EMPTY journal are stale and never read."""

    start: int
    queue_offset: int
    record: int


class State(NamedTuple):
    """Everything at one moment: the processes, the page, the files, and what may still go wrong."""

    appenders: tuple[Appender, ...]
    sup: Sup
    quiesce_buffered: int
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
    stops: int  # so many more appenders may stop for good


class Violation(AssertionError):
    """The protocol broke a promise; the message holds the trace that leads there."""


def start_state(appenders: int, appender_deaths: int, sup_deaths: int, stops: int = 0) -> State:
    cells = appenders * (1 + sup_deaths) + appender_deaths + stops  # a claim each, and one for each death
    return State(
        appenders=(Appender(),) * appenders,
        sup=Sup.WATCH,
        quiesce_buffered=NOTHING,
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
        stops=stops,
    )


def _set(items: tuple, index: int, value: object) -> tuple:  # type: ignore[type-arg]
    return (*items[:index], value, *items[index + 1 :])


def _with(s: State, i: int, **fields: Any) -> State:
    """The state in which these fields of appender i are as given."""
    return s._replace(appenders=_set(s.appenders, i, s.appenders[i]._replace(**fields)))


def _drain(s: State, i: int) -> State:
    """The buffered store of appender i becomes visible."""
    buffered = s.appenders[i].buffered
    return s if buffered == NOTHING else _with(s, i, phase=buffered, buffered=NOTHING)


def _store_phase(s: State, i: int, phase: int, at: At) -> State:
    return _with(_drain(s, i), i, at=at, buffered=phase)


def appender_steps(s: State, i: int, rules: Rules) -> Iterator[State]:
    """Every next state by a step of appender i, deaths not included."""
    a = s.appenders[i]
    if a.stopped:
        return
    if a.buffered != NOTHING:
        yield _drain(s, i)
    d = _drain(s, i) if At.DESCRIBE <= a.at <= At.EMPTY_JOURNAL else s
    match a.at:
        case At.WANT:
            fence = At.FENCE if rules.fence_after_wanting else At.LOOK_AT_QUIESCE
            yield _store_phase(s, i, WANTING, fence)
        case At.FENCE:
            yield _with(_drain(s, i), i, at=At.LOOK_AT_QUIESCE)
        case At.LOOK_AT_QUIESCE:
            if s.quiesce:
                yield _store_phase(s, i, IDLE, At.STAND_STILL)
            else:
                yield _with(s, i, at=At.TRY)
        case At.STAND_STILL:
            if not s.quiesce:
                yield _with(s, i, at=At.WANT)
        case At.TRY:
            if s.semaphore:
                yield _with(_drain(s, i), i, at=At.HOLD)._replace(semaphore=s.semaphore - 1)
            if s.quiesce:  # a busy try goes back to the look; looking again in vain changes nothing
                yield _store_phase(s, i, IDLE, At.STAND_STILL)
        case At.HOLD:
            yield _store_phase(s, i, HOLDING, At.LOOK_AT_JOURNAL)
        case At.LOOK_AT_JOURNAL:
            if s.journal != EMPTY:
                raise Violation("the semaphore was free, but the journal is not EMPTY")
            yield _with(s, i, at=At.DESCRIBE)
        case At.DESCRIBE:
            record = 1 + max(*s.log, *s.acked, s.claim.record, *(b.record for b in s.appenders))
            described = Claim(s.position, s.queue_max, record)
            yield _with(d, i, at=At.PREPARE, record=record)._replace(claim=described)
        case At.PREPARE:
            yield _with(d, i, at=At.WRITE_RECORD)._replace(journal=PREPARED)
        case At.WRITE_RECORD:
            yield _with(d, i, at=At.WRITE_UNIT)._replace(log=_set(s.log, s.claim.start, s.claim.record))
        case At.WRITE_UNIT:
            units = _set(s.units, s.claim.queue_offset, s.claim.start + 1)
            at = At.COMMIT if rules.commit_before_position else At.STORE_POSITION
            yield _with(d, i, at=at)._replace(units=units)
        case At.COMMIT:
            at = At.STORE_POSITION if rules.commit_before_position else At.STORE_MAX
            yield _with(d, i, at=at)._replace(journal=COMMITTED)
        case At.STORE_POSITION:
            at = At.STORE_MAX if rules.commit_before_position else At.COMMIT
            yield _with(d, i, at=at)._replace(position=s.claim.start + 1)
        case At.STORE_MAX:
            yield _with(d, i, at=At.EMPTY_JOURNAL)._replace(queue_max=s.claim.queue_offset + 1)
        case At.EMPTY_JOURNAL:
            at = At.UNLOCK if rules.unlock_before_idle else At.LEAVE
            yield _with(d, i, at=at)._replace(journal=EMPTY)
        case At.UNLOCK:
            at = At.LEAVE if rules.unlock_before_idle else At.REST
            yield _with(_drain(s, i), i, at=at)._replace(semaphore=s.semaphore + 1)
        case At.LEAVE:
            at = At.REST if rules.unlock_before_idle else At.UNLOCK
            told = _with(s, i, record=0)._replace(acked=s.acked | {a.record})
            yield _store_phase(told, i, IDLE, at)


def supervisor_steps(s: State, rules: Rules) -> Iterator[State]:
    """Every next state by a step of the supervisor."""
    if s.quiesce_buffered != NOTHING:
        yield s._replace(quiesce=s.quiesce_buffered, quiesce_buffered=NOTHING)
    slots = range(len(s.appenders))
    match s.sup:
        case Sup.START:  # has LOCK_EX: no appender lives
            whole = rules.start_repairs_whole or any(a.phase for a in s.appenders)
            yield s._replace(sup=Sup.QUIESCE if whole else Sup.WATCH)
        case Sup.WATCH:
            for i, a in enumerate(s.appenders):
                if not a.alive and a.phase != IDLE and rules.repair_when_not_idle:
                    yield s._replace(sup=Sup.QUIESCE)
                elif not a.alive:
                    yield s._replace(appenders=_set(s.appenders, i, Appender()))
            if any(map(_is_stuck, s.appenders)):
                yield s._replace(sup=Sup.QUIESCE)
        case Sup.QUIESCE:
            yield s._replace(sup=Sup.WAIT, quiesce_buffered=1)
        case Sup.WAIT:
            if rules.wait_for_store_buffers:
                s = s._replace(quiesce=1, quiesce_buffered=NOTHING)
                for i in slots:
                    s = _drain(s, i)
            yield s._replace(sup=Sup.STAND_STILL)
        case Sup.STAND_STILL:
            for i, a in enumerate(s.appenders):
                if a.alive and a.stopped and a.phase != IDLE and rules.kill_who_does_not_leave:
                    yield _dead(s, i)
            if not rules.wait_until_idle or all(a.phase == IDLE for a in s.appenders if a.alive):
                for i in slots:
                    s = _with(s, i, spared=s.appenders[i].alive)
                yield s._replace(sup=Sup.JOURNAL)
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
            left = [i for i in slots if not s.appenders[i].spared and s.appenders[i].phase != IDLE]
            if left and rules.clear_dead_slots:
                for i in left:  # in any order
                    yield _with(s, i, phase=IDLE)
            else:
                yield _forget_spared(s)._replace(sup=Sup.DRAIN_SEMAPHORE)
        case Sup.DRAIN_SEMAPHORE:
            if s.semaphore and rules.drain_semaphore:
                yield s._replace(semaphore=s.semaphore - 1)
            else:
                yield s._replace(sup=Sup.FREE_SEMAPHORE)
        case Sup.FREE_SEMAPHORE:
            yield s._replace(sup=Sup.RESUME, semaphore=s.semaphore + rules.free_semaphore)
        case Sup.RESUME:
            yield s._replace(sup=Sup.WATCH, quiesce_buffered=0 if rules.resume else NOTHING)


def _is_stuck(a: Appender) -> bool:
    """What the looks at claim_seq and semaphore find out in the end."""
    return a.alive and a.stopped and (a.phase == HOLDING or a.at in INSIDE)


def _dead(s: State, i: int) -> State:
    """Appender i has died; its slot stays as it is."""
    return _with(_drain(s, i), i, alive=False, at=At.REST, record=0, stopped=False)


def _forget_spared(s: State) -> State:
    """Whom the repair spared is known to the supervisor alone, and only while it needs it."""
    return s._replace(appenders=tuple([a._replace(spared=False) for a in s.appenders]))


def deaths(s: State) -> Iterator[State]:
    """Every next state by a death or a stop."""
    orphans = s.sup == Sup.DEAD  # SIGKILLed by the next supervisor, which costs no budget
    for i, a in enumerate(s.appenders):
        if not a.alive:
            continue
        if orphans:
            yield _dead(s, i)
        elif s.appender_deaths and (a.at != At.REST or a.buffered != NOTHING):
            yield _dead(s, i)._replace(appender_deaths=s.appender_deaths - 1)
        if s.stops and not a.stopped and a.at != At.REST:
            yield _with(_drain(s, i), i, stopped=True, record=0)._replace(stops=s.stops - 1)
    if orphans:  # a supervisor follows once nobody appends any more
        if not any(a.alive for a in s.appenders):
            yield s._replace(sup=Sup.START)
    elif s.sup_deaths:
        quiesce = s.quiesce if s.quiesce_buffered == NOTHING else s.quiesce_buffered
        dead = s._replace(sup=Sup.DEAD, quiesce=quiesce, quiesce_buffered=NOTHING)
        yield _forget_spared(dead)._replace(sup_deaths=s.sup_deaths - 1)


def steps(s: State, rules: Rules) -> Iterator[State]:
    """Every next state."""
    for i, appender in enumerate(s.appenders):
        if appender.alive:
            yield from appender_steps(s, i, rules)
    yield from supervisor_steps(s, rules)
    yield from deaths(s)


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
        any(not a.stopped and (a.at != At.REST or a.phase != IDLE) for a in s.appenders)
        or s.quiesce
        or s.semaphore != 1
        or s.journal
    ):
        raise Violation("the world stands still for ever")
    if len(s.acked) > s.position or s.position != s.queue_max:
        raise Violation("positions and acknowledgements do not agree at the end")
