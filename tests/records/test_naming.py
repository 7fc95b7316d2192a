"""Names as folders and lists have them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convatlas.records.naming import LONGEST, short_name, split_names


@given(st.text(max_size=200))
def test_a_short_name_is_safe_for_any_file_system(name):
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", short_name(name))
    assert len(short_name(name)) <= LONGEST


@given(st.text(max_size=80), st.text(max_size=80))
def test_distinct_names_stay_distinct(first, second):
    assert (short_name(first) == short_name(second)) == (first == second)


@pytest.mark.parametrize("name", ["resnet20.plain", "efficientnet_b0", "lenet.pocket", "resnext50_32x4d"])
def test_variants_are_called_by_their_names(name):
    assert short_name(name) == name


def test_a_configuration_can_still_be_read():
    assert short_name('resnet{"act": "tanh", "depths": [3, 3, 3]}').startswith("resnet-act-tanh-depths-3-3-3-")
    assert short_name("../../etc/net.py:make").startswith("etc-net.py-make-")


def test_a_name_that_looks_like_a_short_one_is_another():
    long = 'resnet{"act": "tanh"}'
    assert short_name(short_name(long)) == short_name(long)  # only variants and short names themselves are kept as they are
    assert short_name("a" * 61) != "a" * 61


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a,b", ("a", "b")),
        (" a , ,b,", ("a", "b")),
        ("resnet{depths: [1, 2], act: tanh},vgg.pocket", ("resnet{depths: [1, 2], act: tanh}", "vgg.pocket")),
        ("net.py:make{norm: none}, net.py:make", ("net.py:make{norm: none}", "net.py:make")),
        ("", ()),
        ("}a,b", ("}a", "b")),
    ],
)
def test_commas_within_braces_belong_to_a_name(text, names):
    assert split_names(text) == names
