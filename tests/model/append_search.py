"""The search of the append protocol's states: all that can be reached, each looked at once.

Many states have the same future, so one of them, their `essence`, stands for all. That is exact, not a
guess: from a state and from its essence the same steps are possible, they lead to states of the same
essences, and `check` and `check_end` find the same in both. By induction over the steps, a state that must
not be is reached if and only if its essence is, and an end, or a circle that has none, likewise. The tests
compare this for every state of small worlds, those of every broken protocol too. Every step of every process,
every store buffer and every death is still taken in every order. Four things make no difference:

- Which slot is whose. The steps treat all appenders alike, and nothing calls one by its number.
- What an EMPTY journal says. The next claim stores its words anew before anybody loads them.
- Published records that nobody will acknowledge any more: they are acknowledged, or their appender is dead.
  Log and units are stored only where the open claim begins, and a claim begins where the last published
  record ends. So nobody stores into such a cell again, and the log may as well begin after it.
- What a record is called. Records are only compared.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable

import numpy as np

from tests.model.append_protocol import (
    EMPTY,
    At,
    Claim,
    Rules,
    State,
    Sup,
    Violation,
    check,
    check_end,
    start_state,
    steps,
)

NO_CLAIM = Claim(0, 0, 0)


def essence(s: State) -> State:
    """The one state that stands for all with the same future."""
    if not _claim_is_open(s):
        s = s._replace(claim=NO_CLAIM)
    s = _rename(_shift(s, _settled(s)))
    return s._replace(appenders=tuple(sorted(s.appenders)))


def _claim_is_open(s: State) -> bool:
    """Somebody may still load the claim's words before they are stored anew."""
    return (
        s.journal != EMPTY
        or s.sup == Sup.ZERO_UNIT  # which a broken rule puts after EMPTY
        or any(a.alive and At.PREPARE <= a.at <= At.EMPTY_JOURNAL for a in s.appenders)
    )


def _settled(s: State) -> int:
    """So many records at the log's beginning are whole, published, and not to be acknowledged any more."""
    end = min(s.position, s.queue_max)
    if s.claim != NO_CLAIM:
        end = min(end, s.claim.start, s.claim.queue_offset)
    owed = {a.record for a in s.appenders}
    for n in range(end):
        unit = n + 1
        if s.log[n] == 0 or s.log[n] in owed or s.units[n] != unit or s.units.count(unit) > 1:
            return n
    return end


def _shift(s: State, cells: int) -> State:
    """The log and its queue begin after these cells; as many zero ones are added behind."""
    if cells == 0:
        return s
    claim = s.claim
    if claim != NO_CLAIM:
        claim = claim._replace(start=claim.start - cells, queue_offset=claim.queue_offset - cells)
    return s._replace(
        claim=claim,
        position=s.position - cells,
        queue_max=s.queue_max - cells,
        log=s.log[cells:] + (0,) * cells,
        units=tuple([unit and unit - cells for unit in s.units[cells:]]) + (0,) * cells,
        acked=s.acked.difference(s.log[:cells]),
    )


def _rename(s: State) -> State:
    """Records are numbered in the order in which they lie in the log, or will."""
    owed = [a.record for a in s.appenders]
    found = dict.fromkeys((0, *s.log, s.claim.record, *sorted(s.acked), *owed))
    names = {record: number for number, record in enumerate(found)}
    if all(record == number for record, number in names.items()):
        return s
    return s._replace(
        appenders=tuple([a._replace(record=names[a.record]) for a in s.appenders]),
        claim=s.claim._replace(record=names[s.claim.record]),
        log=tuple([names[record] for record in s.log]),
        acked=frozenset([names[record] for record in s.acked]),
    )


def search(
    appenders: int,
    appender_deaths: int,
    sup_deaths: int,
    rules: Rules | None = None,
    stops: int = 0,
    *,
    form: Callable[[State], State] = essence,
) -> list[State]:
    """Visit every reachable state, breadth first, and return them. Violation carries its trace.

    A violation is a state that must not be, or one from which no end can be reached any more: the world
    hangs, or goes round in a circle. `form` gives the state that is visited for a state found; the states
    themselves are remembered, not hashes of them.
    """
    rules = rules or Rules()
    states = [form(start_state(appenders, appender_deaths, sup_deaths, stops))]
    numbers, parents = {states[0]: 0}, array("i", [-1])
    sources, targets, ends = array("i"), array("i"), []
    at = 0
    try:
        while at < len(states):
            s = states[at]
            check(s)
            following = {form(n) for n in steps(s, rules)}
            for n in following:
                number = numbers.setdefault(n, len(states))
                if number == len(states):
                    states.append(n)
                    parents.append(at)
                sources.append(at)
                targets.append(number)
            if not following:
                check_end(s)
                ends.append(at)
            at += 1
        stuck = _cannot_end(len(states), sources, targets, ends)
        if stuck is not None:
            at = stuck
            raise Violation("nothing leads to an end any more")
    except Violation as violation:
        trace = []
        while at >= 0:
            trace.append(str(states[at]))
            at = parents[at]
        raise Violation("\n".join([str(violation), *reversed(trace)])) from None
    return states


def _cannot_end(count: int, sources: array[int], targets: array[int], ends: list[int]) -> int | None:
    """The first state from which no end can be reached, or None."""
    source, target = np.frombuffer(sources, np.int32), np.frombuffer(targets, np.int32)
    good = np.zeros(count, bool)
    good[ends] = True
    known = 0
    while known < (known := int(good.sum())):
        good[source[good[target]]] = True
    return None if known == count else int(np.flatnonzero(~good)[0])
