import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convatlas.errors import UserError
from convatlas.records.yaml_file import from_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("-2.5E+2", -250.0),
        (".5", 0.5),
        ("010", 10),
        ("+3", 3),
        ("no", "no"),
        ("off", "off"),
        ("True", True),
        ("false", False),
        ("~", None),
        ("", None),
        ("12:30", "12:30"),
        ("2020-01-01", "2020-01-01"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ('"1"', "1"),
        ("a: {b: [1, x]} # c", {"a": {"b": [1, "x"]}}),
        ('{"a": [1.0, null]}', {"a": [1.0, None]}),
        ("1: a", {"1": "a"}),
        ("a: 1\r\nb: 2\r\n", {"a": 1, "b": 2}),
        ("<<: {a: 1}", {"<<": {"a": 1}}),
    ],
)
def test_yaml_is_read_as_people_mean_it(text, value):
    found = from_yaml(text, where="f")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2", "f, line 2: the key 'a' stands twice"),
        ("a: {b: 1, b: 2}", "the key 'b' stands twice"),
        ("a: &x [1]\nb: *x", "f, line 2: an alias (*) is not admitted here"),
        ("a: !!python/object/apply:os.system [ls]", "f, line 1: a tag (!) is not admitted here"),
        ("a: !!str 1", "a tag (!) is not admitted here"),
        ("- " * 40, "more than 32 levels"),
        ("[" * 100_000, "more than 32 levels"),
        ("a: [", "expected the node content"),
        ("a: b: c", "mapping values are not allowed"),
        ("\x00", "f is no YAML"),
        ("? [a]\n: 3", "a key is no text"),
        ("a: " + "9" * 400, "a number of more than 300 digits"),
        ("a: 1\n---\nb: 2", "expected a single document"),
        ("x" * 1_000_001, "f has 1,000,001 letters"),
    ],
)
def test_what_is_not_admitted_is_said_in_a_line(text, said):
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        from_yaml(text, where="f")
    assert "\n" not in str(caught.value)


def test_files_are_regular_utf8_with_or_without_a_mark(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: \xc3\xa9\n")
    assert read_yaml(path) == {"a": "é"}
    path.write_bytes(b"a: \xe9\n")
    for bad in (path, tmp_path, tmp_path / "none"):
        with pytest.raises(UserError):
            read_yaml(bad)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(UserError):
        from_yaml(text, where="f")


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.text(st.characters(codec="utf-8", categories=("L", "N")), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcxyz", min_size=1, max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(PLAIN)
def test_json_is_yaml(value):
    import json

    assert from_yaml(json.dumps(value, ensure_ascii=False), where="f") == value
