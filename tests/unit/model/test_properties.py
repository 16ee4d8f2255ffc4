"""Properties: the stored text form and the rules for user properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmq.base.errors import MessageIllegal
from shmq.model import properties as names
from shmq.model.properties import (
    check_user_property,
    decode_properties,
    encode_properties,
    join_keys,
    split_keys,
)

texts = st.text(
    st.characters(exclude_characters="\x01\x02", exclude_categories=["Cs"]), min_size=1, max_size=20
)


@given(st.dictionaries(texts, texts, max_size=8))
def test_what_is_encoded_is_read_back(properties):
    # a pair of one character each makes a piece of three characters: the shortest the reader keeps
    assert decode_properties(encode_properties(properties)) == properties


def test_the_stored_form_is_the_one_of_rocketmq():
    encoded = encode_properties({"KEYS": "k1", "TAGS": "TagA"})
    assert encoded == b"KEYS\x01k1\x02TAGS\x01TagA\x02"
    assert decode_properties(encoded[:-1]) == {"KEYS": "k1", "TAGS": "TagA"}


@pytest.mark.parametrize(
    "text,properties",
    [
        ("", {}),
        ("\x02\x02", {}),
        ("ab\x02c\x01d\x02", {"c": "d"}),
        ("novalue\x01\x02", {}),
        ("\x01noname\x02", {}),
        ("noseparator\x02", {}),
        ("a\x01b\x01c\x02", {"a": "b\x01c"}),
        ("a\x01first\x02a\x01last\x02", {"a": "last"}),
    ],
)
def test_the_reader_drops_what_rocketmqs_reader_drops(text, properties):
    assert decode_properties(text.encode()) == properties
    assert decode_properties(text) == properties


def test_bytes_that_are_no_utf8_do_not_stop_the_reader():
    assert decode_properties(b"a\x01\xff\xfe\x02TAGS\x01t\x02")["TAGS"] == "t"


def test_properties_over_32767_bytes_are_refused():
    assert len(encode_properties({"a": "x" * 32764})) == 32767
    with pytest.raises(MessageIllegal, match="32767"):
        encode_properties({"a": "x" * 32765})


@pytest.mark.parametrize("name", sorted(names.RESERVED_NAMES))
def test_a_reserved_name_may_not_be_a_user_property(name):
    with pytest.raises(MessageIllegal, match="reserved"):
        check_user_property(name, "value")


@pytest.mark.parametrize(
    "name",
    [
        names.CHECK_IMMUNITY_TIME,
        names.SHARDING_KEY,
        names.INNER_MULTI_DISPATCH,
        names.TRANSACTION_CHECK_TIMES,
        names.TRANSACTION_ID,
        "anything",
    ],
)
def test_names_that_users_may_set_are_accepted(name):
    check_user_property(name, "value")


@pytest.mark.parametrize(
    "name,value", [("", "v"), (" ", "v"), (None, "v"), ("n", ""), ("n", " "), ("n", None)]
)
def test_blank_names_and_values_are_refused(name, value):
    with pytest.raises(MessageIllegal, match="blank"):
        check_user_property(name, value)


@pytest.mark.parametrize("name,value", [("a\x01", "v"), ("a", "v\x02"), ("a\x02b", "v")])
def test_separators_inside_are_refused(name, value):
    with pytest.raises(MessageIllegal, match=r"U\+0001"):
        check_user_property(name, value)


def test_keys_are_split_and_joined_at_blanks():
    assert split_keys("k1 k2  k3 ") == ["k1", "k2", "k3"]
    assert split_keys(None) == split_keys("") == []
    assert join_keys(["k1", "k2"]) == join_keys("k1 k2") == "k1 k2"
    assert join_keys(None) == ""
