"""RFC 7396 on bytes: its own examples, the bytes of what is not patched, and a plain implementation."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dc_platform.contracts.merge_patch import merge, read_patch
from dc_platform.errors import ConfigurationError


@pytest.mark.parametrize(
    ("document", "patch", "expected"),
    [
        # Those of RFC 7396, appendix A, whose target is an object.
        ('{"a":"b"}', '{"a":"c"}', {"a": "c"}),
        ('{"a":"b"}', '{"b":"c"}', {"a": "b", "b": "c"}),
        ('{"a":"b"}', '{"a":null}', {}),
        ('{"a":"b","b":"c"}', '{"a":null}', {"b": "c"}),
        ('{"a":["b"]}', '{"a":"c"}', {"a": "c"}),
        ('{"a":"c"}', '{"a":["b"]}', {"a": ["b"]}),
        ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', {"a": {"b": "d"}}),
        ('{"a":[{"b":"c"}]}', '{"a":[1]}', {"a": [1]}),
        ('{"e":null}', '{"a":1}', {"e": None, "a": 1}),
        ("{}", '{"a":{"bb":{"ccc":null}}}', {"a": {"bb": {}}}),
        ('{"a":"foo"}', '{"a":{"b":1}}', {"a": {"b": 1}}),
    ],
)
def test_the_examples_of_the_rfc(document: str, patch: str, expected: dict[str, Any]) -> None:
    assert json.loads(merge(document.encode(), read_patch(patch))) == expected


def test_what_is_not_patched_keeps_its_bytes() -> None:
    event = b'{ "payload" : {"price": 1.10, "n":1e5 , "t":"\\u00e9"} ,"eventType":7}'
    merged = merge(event, {"eventType": "order", "payload": {"n": None, "ok": True}})
    assert merged == b'{"payload":{"price":1.10,"t":"\\u00e9","ok":true},"eventType":"order"}'


@pytest.mark.parametrize("odd", [b"", b"{broken", b"[1]", b'"text"', b"7", b"\xff", b"[" * 5000])
def test_what_is_no_object_is_left_alone(odd: bytes) -> None:
    assert merge(odd, {"eventType": "x"}) == odd


@pytest.mark.parametrize("wrong", ["", "[1]", "7", "{", '{"a":' * 300 + "1" + "}" * 300])
def test_a_patch_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="patch"):
        read_patch(wrong)


def _plain(target: Any, patch: Any) -> Any:
    """The pseudo code of the RFC."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _plain(result.get(name), value)
    return result


names = st.sampled_from(["a", "b", "c", 'd"'])
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-99, 99), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(names, inner, max_size=3)),
    max_leaves=8,
)


@given(st.dictionaries(names, values, max_size=3), st.dictionaries(names, values, max_size=3))
def test_it_is_what_the_rfc_says(target: dict[str, Any], patch: dict[str, Any]) -> None:
    assert json.loads(merge(json.dumps(target).encode(), patch)) == _plain(target, patch)
