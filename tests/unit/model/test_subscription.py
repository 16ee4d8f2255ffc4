"""Subscriptions and the Java hash."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmq.base.errors import SubscriptionParseFailed
from shmq.model.subscription import build_subscription, java_hash, tags_code_of


@pytest.mark.parametrize(
    "text,value",
    [
        ("", 0),
        ("TagA", 2598919),
        ("中文", 646394),
        ("\U0001f600", 1772899),
        ("RECALL_MESSAGE_TAG", -1838339340),
        ("polygenelubricants", -2147483648),
        ("TopicTest#KEY0", -1656969517),
    ],
)
def test_the_hash_is_javas(text, value):
    assert java_hash(text) == value


@given(st.text())
def test_the_hash_is_always_a_signed_32_bit_number(text):
    assert -(2**31) <= java_hash(text) < 2**31


def test_a_message_without_tag_has_the_code_0():
    assert tags_code_of(None) == tags_code_of("") == 0
    assert tags_code_of("TagA") == 2598919


@pytest.mark.parametrize("expression", [None, "", " ", "*", " * "])
def test_nothing_or_a_star_matches_everything(expression):
    subscription = build_subscription("t", expression)
    assert subscription.matches_all and subscription.sub_string == "*"
    assert subscription.wants_tags(None) and subscription.wants_tags("x")


def test_a_list_of_tags_is_split_and_trimmed():
    subscription = build_subscription("t", " TagA|| TagB ||", 17)
    assert subscription.tags_set == {"TagA", "TagB"}
    assert subscription.code_set == {java_hash("TagA"), java_hash("TagB")}
    assert subscription.sub_version == 17
    assert subscription.wants_tags("TagA") and not subscription.wants_tags("taga")
    assert not subscription.wants_tags(None)


@pytest.mark.parametrize("expression", ["||", " || ", "||||"])
def test_delimiters_without_a_tag_are_refused(expression):
    with pytest.raises(SubscriptionParseFailed, match="names no tag"):
        build_subscription("t", expression)
