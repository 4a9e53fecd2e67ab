import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visp.entity.payload import encode
from visp.entity.pretty import pretty

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(VALUES)
def test_it_stays_the_same_value(value):
    assert json.loads(pretty(encode(value))) == value


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"{}", b"{\n\n}"),
        (b'{"a":{}}', b'{\n  "a": {\n\n  }\n}'),
        (b'[1,"a,b",[],{"c":null}]', b'[1, "a,b", [], {\n  "c": null\n}]'),
        (b' {"n" : 1.50e3 ,\n"s":"\\"{\\u00fc"} ', b'{\n  "n": 1.50e3,\n  "s": "\\"{\\u00fc"\n}'),
        (b"1e400", b"1e400"),
    ],
)
def test_layout(raw, shown):
    assert pretty(raw) == shown


def test_depth_is_no_matter():
    deep = b'{"a":' * 500 + b"1" + b"}" * 500
    assert pretty(deep).count(b"\n") == 1000
