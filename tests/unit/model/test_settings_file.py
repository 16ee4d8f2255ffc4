"""Properties files: what java.util.Properties reads, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmq.model.settings_file import format_properties, parse_properties


@pytest.mark.parametrize(
    ("content", "entries"),
    [
        ("a=1", [("a", "1", 1)]),
        ("a = 1  \n b:2\nc 3", [("a", "1", 1), ("b", "2", 2), ("c", "3", 3)]),
        ("# no\n! no\n\n   \na=1", [("a", "1", 5)]),
        ("a=1\\\n  2\\\n3\nb=4", [("a", "123", 1), ("b", "4", 4)]),
        (r"path=C\:\\x\ty", [("path", "C:\\x\ty", 1)]),
        (r"a\=b=c\u0041", [("a=b", "cA", 1)]),
        ("empty=\nalone", [("empty", "", 1), ("alone", "", 2)]),
        ("a=b=c", [("a", "b=c", 1)]),
        ("\ufeffa=1\r\nb=2\rc=3", [("a", "1", 1), ("b", "2", 2), ("c", "3", 3)]),
        ("a=ends in two\\\\\nb=1", [("a", "ends in two\\", 1), ("b", "1", 2)]),
        ("a=cut\\", [("a", "cut", 1)]),
        ("=value", []),
        ("namesrvAddr=10.0.0.1:9876;10.0.0.2:9876", [("namesrvAddr", "10.0.0.1:9876;10.0.0.2:9876", 1)]),
    ],
)
def test_entries_of_a_properties_file(content: str, entries: list[tuple[str, str, int]]) -> None:
    assert [tuple(entry) for entry in parse_properties(content)] == entries


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z][A-Za-z0-9.]{0,20}", fullmatch=True),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=40).map(str.rstrip),
    )
)
def test_what_is_formatted_is_parsed_back(values: dict[str, str]) -> None:
    text = format_properties(values.items())
    assert {entry.key: entry.value for entry in parse_properties(text)} == values
