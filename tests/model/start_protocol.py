"""A model of starts: supervisors that die or stop anywhere, and children that outlive them.

One step is one thing a process does that others can see. A supervisor: take the store lock, kill whom the old
slots name, take LOCK_EX of the appenders' lock, repair, let go, and for a child: fork, fill the slot, "go". A
child: read "go", take LOCK_SH or leave, look at the supervisor's pipe, append. Everybody may be slow for as
long as he likes; a child may also stop for good at any place, a supervisor die at any. The steps follow
`shmq/supervisor/leftovers.py`, `shared_state.py`, `process_tree.py` and `child.py`: change them together.

With a supervisor's death the page may be lost too (somebody cleared /dev/shm), and with it who was recorded:
then a start may have to give up, but it must not go wrong.

The promise: nobody appends while a store is repaired, nor for a dead supervisor once another has begun to
repair; and as long as the page is there, a start always comes to its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple


class Sup(IntEnum):
    """The step a supervisor takes next."""

    STORE_LOCK = 0
    KILL = 1
    LOCK_EX = 2
    REPAIR = 3
    REPAIRED = 4
    FORK = 5
    FILL_SLOT = 6
    GO = 7
    SERVE = 8
    DEAD = 9


class Child(IntEnum):
    """The step a child takes next."""

    NONE = 0
    READ_GO = 1
    LOCK_SH = 2
    LOOK_AT_PIPE = 3
    APPEND = 4
    GONE = 5


class Process(NamedTuple):
    """A child of the supervisor with the same number."""

    at: Child = Child.NONE
    go: bool = False
    holds_sh: bool = False
    stopped: bool = False
    recorded: bool = False


@dataclass(frozen=True)
class Rules:
    """The rules of a start; False leaves one out."""

    store_lock: bool = True
    kills_recorded: bool = True
    takes_lock_ex: bool = True
    fills_slot_before_go: bool = True
    waits_for_go: bool = True
    child_takes_lock_sh: bool = True
    child_looks_after_lock: bool = True


class State(NamedTuple):
    sups: tuple[Sup, ...]
    children: tuple[Process, ...]
    stops: int
    page_lost: bool = False


class Violation(AssertionError):
    """A promise was broken; the message holds the trace that leads there."""


def _set(items: tuple, index: int, value: object) -> tuple:  # type: ignore[type-arg]
    return (*items[:index], value, *items[index + 1 :])


def _alive(s: State, i: int) -> bool:
    return s.sups[i] != Sup.DEAD


def _holds_ex(s: State, i: int, rules: Rules) -> bool:
    return rules.takes_lock_ex and Sup.REPAIR <= s.sups[i] <= Sup.REPAIRED


def _lives(child: Process) -> bool:
    return child.at not in (Child.NONE, Child.GONE)


def supervisor_steps(s: State, i: int, rules: Rules) -> Iterator[State]:
    """Every next state by a step of supervisor i; its successor is i + 1."""
    at = s.sups[i]
    if at == Sup.STORE_LOCK:
        free = all(s.sups[j] == Sup.DEAD for j in range(i)) or not rules.store_lock
        begun = all(s.sups[j] != Sup.STORE_LOCK for j in range(i))
        if free and begun:
            yield _at(s, i, Sup.KILL)
        return
    if at in (Sup.KILL, Sup.LOCK_EX):
        for j, child in enumerate(s.children):
            if rules.kills_recorded and j != i and child.recorded and _lives(child):
                yield s._replace(children=_set(s.children, j, Process(Child.GONE)))
                return
    if at == Sup.LOCK_EX:
        if not rules.takes_lock_ex or not any(child.holds_sh for child in s.children):
            yield _at(s, i, Sup.REPAIR)
        return
    if at == Sup.FORK:
        yield _at(s, i, Sup.FILL_SLOT if rules.fills_slot_before_go else Sup.GO)._replace(
            children=_set(s.children, i, Process(Child.READ_GO, go=not rules.waits_for_go))
        )
    elif at == Sup.FILL_SLOT:
        recorded = s.children[i]._replace(recorded=True)
        after = Sup.GO if rules.fills_slot_before_go else Sup.SERVE
        yield _at(s, i, after)._replace(children=_set(s.children, i, recorded))
    elif at == Sup.GO:
        told = s.children[i]._replace(go=True)
        after = Sup.SERVE if rules.fills_slot_before_go else Sup.FILL_SLOT
        yield _at(s, i, after)._replace(children=_set(s.children, i, told))
    elif at in (Sup.KILL, Sup.REPAIR, Sup.REPAIRED):
        yield _at(s, i, Sup(at + 1))


def _at(s: State, i: int, at: Sup) -> State:
    return s._replace(sups=_set(s.sups, i, at))


def child_steps(s: State, i: int, rules: Rules) -> Iterator[State]:
    """Every next state by a step of child i, stopping included."""
    child = s.children[i]
    if child.stopped or not _lives(child):
        return
    orphan = not _alive(s, i)

    def becomes(new: Process) -> State:
        return s._replace(children=_set(s.children, i, new))

    gone = becomes(Process(Child.GONE))
    if s.stops:
        yield becomes(child._replace(stopped=True))._replace(stops=s.stops - 1)
    if child.at == Child.READ_GO:
        if child.go:
            first = Child.LOCK_SH if rules.child_looks_after_lock else Child.LOOK_AT_PIPE
            yield becomes(child._replace(at=first))
        elif orphan:
            yield gone  # the end of the go pipe
    elif child.at == Child.LOCK_SH:
        after = Child.LOOK_AT_PIPE if rules.child_looks_after_lock else Child.APPEND
        if not rules.child_takes_lock_sh:
            yield becomes(child._replace(at=after))
        elif any(_holds_ex(s, j, rules) for j in range(len(s.sups))):
            yield gone
        else:
            yield becomes(child._replace(at=after, holds_sh=True))
    elif child.at == Child.LOOK_AT_PIPE:
        before = Child.APPEND if rules.child_looks_after_lock else Child.LOCK_SH
        yield gone if orphan else becomes(child._replace(at=before))
    elif child.at == Child.APPEND and orphan:
        yield gone  # it sees the end of the pipe between two claims


def deaths(s: State) -> Iterator[State]:
    """Every next state by the death of a supervisor that has a successor."""
    for i in range(len(s.sups) - 1):
        if s.sups[i] not in (Sup.DEAD, Sup.STORE_LOCK):
            yield _at(s, i, Sup.DEAD)
            forgotten = tuple(child._replace(recorded=False) for child in s.children)
            yield _at(s, i, Sup.DEAD)._replace(children=forgotten, page_lost=True)


def check(s: State) -> None:
    """What must hold in every state."""
    repairing = [i for i, at in enumerate(s.sups) if Sup.REPAIR <= at <= Sup.REPAIRED]
    begun = [i for i, at in enumerate(s.sups) if Sup.REPAIR <= at < Sup.DEAD]
    for i, child in enumerate(s.children):
        if child.at == Child.APPEND:
            if repairing:
                raise Violation(f"child {i} appends while supervisor {repairing[0]} repairs")
            if any(j > i for j in begun):
                raise Violation(f"child {i} appends though supervisor {begun[-1]} has taken over")


def search(supervisors: int = 3, stops: int = 1, rules: Rules | None = None) -> int:
    """Visit every state; return how many there are. Violation carries its trace."""
    rules = rules or Rules()
    first = State((Sup.STORE_LOCK,) * supervisors, (Process(),) * supervisors, stops)
    came_from: dict[State, State | None] = {first: None}
    todo = [first]
    s = first
    try:
        for s in todo:
            check(s)
            following = [n for i in range(supervisors) for n in supervisor_steps(s, i, rules)]
            following += [n for i in range(supervisors) for n in child_steps(s, i, rules)]
            if not following and Sup.SERVE not in s.sups and not s.page_lost:
                raise Violation("a start never comes to its end")
            for n in (*following, *deaths(s)):
                if n not in came_from:
                    came_from[n] = s
                    todo.append(n)
    except Violation as violation:
        trace = [s]
        while (before := came_from[trace[-1]]) is not None:
            trace.append(before)
        raise Violation("\n".join([str(violation), *map(str, reversed(trace))])) from None
    return len(came_from)
