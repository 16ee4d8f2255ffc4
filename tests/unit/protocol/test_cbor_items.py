"""CBOR items are byte for byte what the general encoder writes."""

import struct

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmq.protocol.cbor_items import cbor_array, cbor_array_head, cbor_integer, cbor_text, cbor_text_map

EDGES = [0, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**63 - 1, 2**64 - 1]
texts = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize("value", [*EDGES, *(-1 - edge for edge in EDGES)])
def test_integers_take_their_shortest_form(value):
    assert cbor_integer(value) == cbor2.dumps(value)


@pytest.mark.parametrize("length", [0, 1, 23, 24, 255, 256, 300, 65535, 65536])
def test_texts_of_every_length_class(length):
    assert cbor_text("a" * length) == cbor2.dumps("a" * length)


@given(st.lists(st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | texts | st.binary()))
def test_arrays_of_plain_values(values):
    assert cbor_array(values) == cbor2.dumps(values)
    assert cbor2.dumps(values).startswith(cbor_array_head(len(values)))


@given(st.dictionaries(texts, texts))
def test_maps_of_texts(members):
    assert cbor_text_map(members) == cbor2.dumps(members)


def test_what_does_not_fit_is_refused():
    with pytest.raises(struct.error):
        cbor_integer(2**64)
    with pytest.raises(TypeError, match="cannot stand"):
        cbor_array([1.5])
