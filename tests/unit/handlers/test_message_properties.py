"""What the broker reads of a send's properties, refuses, and adds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shmq.base.errors import MessageIllegal
from shmq.handlers import message_properties
from shmq.handlers.message_properties import broker_properties, prepare, prepare_element
from shmq.model.properties import decode_properties
from shmq.model.subscription import java_hash
from shmq.model.timer import TimerWish
from shmq.model.wait_for import AS_CONFIGURED, NOTHING, Wait

ADDED = broker_properties("C1")
TEXTS = st.text(st.characters(blacklist_characters="\x00\x01\x02", blacklist_categories=("Cs",)), min_size=1)


def test_the_brokers_properties_follow_the_senders() -> None:
    prepared = prepare("TAGS\x01A\x02UNIQ_KEY\x01U\x02", ADDED)
    assert decode_properties(prepared.stored) == {
        "TAGS": "A",
        "UNIQ_KEY": "U",
        "MSG_REGION": "DefaultRegion",
        "TRACE_ON": "true",
        "CLUSTER": "C1",
    }
    assert (prepared.tags_code, prepared.unique_key, prepared.wait) == (java_hash("A"), "U", AS_CONFIGURED)


def test_a_missing_final_separator_is_added() -> None:
    assert prepare("UNIQ_KEY\x01U", ADDED).stored.startswith(b"UNIQ_KEY\x01U\x02MSG_REGION")
    assert prepare_element(b"UNIQ_KEY\x01U").stored == b"UNIQ_KEY\x01U\x02"


def test_the_last_of_two_equal_names_counts() -> None:
    assert prepare("TAGS\x01A\x02TAGS\x01B\x02UNIQ_KEY\x01U\x02", ADDED).tags_code == java_hash("B")


@pytest.mark.parametrize(
    ("text", "wait"),
    [
        ("WAIT\x01false\x02", NOTHING),
        ("WAIT\x01true\x02", AS_CONFIGURED),
        ("", AS_CONFIGURED),
        ("SHMQ_WAIT_FOR\x01PAGE_CACHE\x02", NOTHING),
        ("SHMQ_WAIT_FOR\x01FLUSHED\x02", Wait(True)),
        ("WAIT\x01false\x02SHMQ_WAIT_FOR\x01FLUSHED/2\x02", Wait(True, 2)),
    ],
)
def test_what_a_sender_waits_for_is_in_its_properties(text: str, wait: Wait) -> None:
    assert prepare(text, ADDED).wait == wait
    assert prepare_element(text.encode()).wait == wait


def test_what_a_received_message_carried_is_replaced_not_repeated() -> None:
    first = prepare("UNIQ_KEY\x01U\x02", ADDED).stored.decode()
    again = prepare(first + "POP_CK\x01ck\x02", broker_properties("C2"))
    assert again.stored.count(b"CLUSTER\x01") == 1
    assert decode_properties(again.stored)["CLUSTER"] == "C2"
    assert b"POP_CK" not in again.stored


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("TIMER_DELAY_SEC\x013\x02TIMER_DELAY_MS\x015\x02", TimerWish(3000, 0)),
        ("TIMER_DELAY_MS\x015\x02TIMER_DELIVER_MS\x017\x02", TimerWish(5, 0)),
        ("TIMER_DELIVER_MS\x017\x02TIMER_DEL_UNIQKEY\x01T+U\x02", TimerWish(0, 7, "T+U")),
        ("TIMER_DELIVER_MS\x01-7\x02", TimerWish(0, 1)),
        ("TIMER_DELIVER_MS\x017\x02TIMER_OUT_MS\x017\x02", None),
        ("TIMER_DEL_UNIQKEY\x01T+U\x02", None),
    ],
)
def test_the_first_timer_property_counts_and_what_waited_does_not_wait_again(
    text: str, wish: TimerWish | None
) -> None:
    assert prepare(text, ADDED).timer == wish
    if wish is not None:
        with pytest.raises(MessageIllegal, match="batch"):
            prepare_element(text.encode())


@pytest.mark.parametrize("name", ["TIMER_DELAY_MS", "DELAY"])
@pytest.mark.parametrize("value", ["soon", "1.5", "1e3", "9" * 19, "\u0663", " 3"])
def test_a_moment_that_is_no_number_is_refused(name: str, value: str) -> None:
    with pytest.raises(MessageIllegal, match=f"property {name}"):
        prepare(f"{name}\x01{value}\x02", ADDED)


def test_a_delay_level_is_taken_alone_and_wins_over_timers() -> None:
    prepared = prepare("UNIQ_KEY\x01U\x02DELAY\x013\x02TIMER_DELAY_SEC\x015\x02", ADDED)
    assert prepared.delay_level == 3
    assert b"DELAY\x013\x02" in prepared.stored and b"TIMER_" not in prepared.stored
    for nothing in ("0", "-1", ""):
        assert prepare(f"UNIQ_KEY\x01U\x02DELAY\x01{nothing}\x02", ADDED).delay_level == 0
    with pytest.raises(MessageIllegal, match="batch"):
        prepare_element(b"DELAY\x013\x02")


def test_a_half_message_is_known_and_loses_what_only_copies_have() -> None:
    half = prepare(
        "TRAN_MSG\x01true\x02TRANSACTION_CHECK_TIMES\x0115\x02TRAN_PREPARED_QUEUE_OFFSET\x017\x02", ADDED
    )
    assert half.is_half and b"TIMES" not in half.stored and b"QUEUE_OFFSET" not in half.stored
    assert not prepare("TRAN_MSG\x01false\x02", ADDED).is_half
    with pytest.raises(MessageIllegal, match="SHMQ_HALF_BATCH"):
        prepare_element(b"TRAN_MSG\x01true\x02")


def test_the_limit_counts_what_is_stored() -> None:
    key = "UNIQ_KEY\x01U\x02"
    room = 32767 - len(ADDED) - len(key) - len("k\x01\x02")
    assert len(prepare(key + "k\x01" + "v" * room + "\x02", ADDED).stored) == 32767
    with pytest.raises(MessageIllegal, match="32767"):
        prepare(key + "k\x01" + "v" * (room + 1) + "\x02", ADDED)


def test_a_nul_is_refused_because_recovery_takes_it_for_unwritten_space() -> None:
    with pytest.raises(MessageIllegal, match="NUL"):
        prepare("k\x01a\0\x02", ADDED)


@settings(deadline=None)
@given(st.dictionaries(TEXTS, TEXTS, max_size=6))
def test_ordinary_properties_are_stored_as_they_came(properties: dict[str, str]) -> None:
    names = {"DELAY", "TRAN_MSG", "POP_CK", "CLUSTER", "MSG_REGION", "TRACE_ON"}
    text = "".join(
        f"{n}\x01{v}\x02" for n, v in properties.items() if n not in names and not n.startswith("TIMER_")
    )
    stored = decode_properties(prepare(text, ADDED).stored)
    for name, value in decode_properties(text).items():
        assert stored[name] == value


NAMES = st.sampled_from(
    ["TAGS", "UNIQ_KEY", "WAIT", "KEYS", "k", "CLUSTER", "XTAGS", "UNIQ_KEYS", "TRACE_ON", "POP_CK"]
)
PAIRS = st.tuples(NAMES, st.one_of(TEXTS, st.sampled_from(["true", "false", "TAGS", "UNIQ_KEY"])))


@settings(deadline=None)
@given(st.lists(PAIRS, max_size=6), st.booleans(), st.data())
def test_the_quick_look_and_the_thorough_one_agree(
    pairs: list[tuple[str, str]], ended: bool, data: st.DataObject
) -> None:
    pairs = data.draw(st.permutations([*pairs, ("UNIQ_KEY", "K")]))
    text = "\x02".join(f"{n}\x01{v}" for n, v in pairs) + ("\x02" if ended else "")
    whole = text if ended else text + "\x02"
    quick, thorough = prepare(text, ADDED), message_properties._prepare_any(whole, ADDED)
    assert decode_properties(quick.stored) == decode_properties(thorough.stored)
    assert (quick.tags_code, quick.wait) == (thorough.tags_code, thorough.wait)
    assert quick.unique_key == thorough.unique_key
    assert decode_properties(quick.stored)["UNIQ_KEY"] == thorough.unique_key
