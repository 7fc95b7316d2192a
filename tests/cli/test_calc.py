"""`convatlas calc`: formulas worked out."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convatlas.cli.calculating import _window_sum
from convatlas.errors import UserError
from convatlas.records import codec
from convatlas.records.calc import Separable, WindowSum

from .makers import convatlas


def calc(*words, folder):
    done = convatlas("calc", *words, folder=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_issues_examples(tmp_path):
    assert calc("conv", "--size", "32", "--kernel", "5", "--stride", "1", "--padding", "0", folder=tmp_path).splitlines() == [
        "floor((32 - 5 + 2*0) / 1) + 1 = 28",
        "output: 28x28",
        "padding 2 keeps the size at stride 1",
    ]
    text = calc("stack", "3", "3", "3", folder=tmp_path)
    assert "stacked: (3^2 + 3^2 + 3^2) * 64^2 = 110,592 parameters" in text
    assert "one 7x7: 7^2 * 64^2 = 200,704 parameters" in text


def test_rows_and_columns_costs_and_what_is_never_read(tmp_path):
    words = ["conv", "--size", "32x30", "--kernel", "3x1", "--stride", "2x3", "--in", "8", "--out", "16", "--groups", "2"]
    text = calc(*words, folder=tmp_path)
    assert "rows: floor((32 - 3 + 2*0) / 2) + 1 = 15" in text
    assert "columns: floor((30 - 1 + 2*0) / 3) + 1 = 10" in text
    assert "1 row and 2 columns at the far end no window reaches" in text
    assert "0 rows and 18 columns between windows are skipped" in text
    assert f"{16 * 4 * 3 + 16:,} parameters, {15 * 10 * 16 * 4 * 3:,} MACs" in text


def test_rounding_up(tmp_path):
    text = calc("pool", "--size", "112", "--kernel", "3", "--stride", "2", "--ceil", folder=tmp_path)
    assert text.startswith("ceil((112 - 3 + 2*0) / 2) + 1 = 56")


def test_depthwise_is_measured(tmp_path):
    words = ["depthwise", "--kernel", "3", "--in", "64", "--out", "128", "--size", "14"]
    found = codec.from_plain(Separable, json.loads(calc(*words, "--json", folder=tmp_path)), where="x")
    assert found.ratio == pytest.approx(found.by_formula) == pytest.approx(1 / 128 + 1 / 9)
    assert found.n >= 7
    assert found.measured[1] <= found.measured[0] <= found.measured[2]
    text = calc(*words, "--no-measure", folder=tmp_path)
    assert "ratio of MACs: 0.1189 = 1/128 + 1/3^2" in text
    assert "times" not in text


def test_receptive_fields(tmp_path):
    text = calc("rf", "conv7/2p3", "pool3/2p1", "conv3p1", "--size", "224", folder=tmp_path)
    assert [line.split() for line in text.splitlines()[1:4]] == [
        ["conv7/2p3", "112", "7", "2", "-3"],
        ["pool3/2p1", "56", "11", "4", "-5"],
        ["conv3p1", "56", "19", "4", "-9"],
    ]
    assert calc("rf", "vgg16", folder=tmp_path).splitlines()[18].split() == ["pool2/2", "212", "32", "-90"]


@st.composite
def windows(draw):
    def pair(low, high):
        return draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    return {"size": pair(1, 24), "kernel": pair(1, 5), "stride": pair(1, 6), "padding": pair(0, 3), "dilation": pair(1, 3)}


@settings(max_examples=400, deadline=None)
@given(windows())
def test_pixels_never_read_against_gradients(window):
    """A pixel that no window reads has no gradient."""
    try:
        found = _window_sum(window, ceil_mode=False, channels=None, groups=1, bias=False)
    except UserError:
        return
    image = torch.ones(1, 1, *window["size"], requires_grad=True)
    kernel = torch.ones(1, 1, *window["kernel"])
    output = torch.nn.functional.conv2d(
        image, kernel, stride=window["stride"], padding=window["padding"], dilation=window["dilation"]
    )
    assert tuple(output.shape[2:]) == found.output
    (gradient,) = torch.autograd.grad(output.sum(), image)
    read = gradient[0, 0].ne(0)
    for axis in (0, 1):
        never = (~read.any(dim=1 - axis)).sum().item()
        if read.any():
            assert never == found.unread[axis] + found.skipped[axis]


BAD = [
    (
        ["conv", "--size", "3", "--kernel", "5"],
        "does not fit into 3 with padding 0. It takes a size of 5 or more, or a padding of 1",
    ),
    (["conv", "--size", "0", "--kernel", "5"], "--size is 0. Give whole numbers from 1"),
    (["conv", "--size", "-4", "--kernel", "5"], "--size is '-4'"),
    (["conv", "--size", "99999", "--kernel", "5"], "--size is 99999"),
    (["conv", "--size", "8", "--kernel", "x"], "--kernel is 'x'"),
    (["conv", "--size", "8", "--kernel", "3", "--stride", "0"], "--stride is 0"),
    (["conv", "--size", "8", "--kernel", "3", "--in", "4"], "--out is missing"),
    (
        ["conv", "--size", "8", "--kernel", "3", "--in", "4", "--out", "6", "--groups", "4"],
        "6 channels (--out) cannot be dealt out to 4",
    ),
    (["conv", "--size", "8", "--kernel", "3", "--in", "4", "--out", "6", "--groups", "0"], "--groups is 0"),
    (["pool", "--size", "8", "--kernel", "2", "--padding", "2"], "padding 2 is more than half the kernel of 2"),
    (["depthwise", "--kernel", "4", "--in", "8", "--out", "8"], "--kernel is 4. Give an odd number"),
    (["depthwise", "--kernel", "3", "--in", "0", "--out", "8"], "--in is 0"),
    (["depthwise", "--kernel", "3", "--in", "60000", "--out", "8", "--size", "4096"], "too large to be measured"),
    (["stack", "3", "banana"], "'banana' is no window"),
    (["stack", "0"], "has a number that cannot be"),
    (["stack", "3", "--channels", "0"], "--channels is 0"),
    (["rf", "resnt18"], "no model called 'resnt18'. Did you mean resnet18"),
    (["rf", "resnet18"], "has branches, so that its windows are no list"),
    (["rf", "conv9", "--size", "4"], "at conv9 the window does not fit any more"),
    (["cnv"], "Did you mean 'conv'"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input(words, message, tmp_path):
    done = convatlas("calc", *words, folder=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_json_of_a_window(tmp_path):
    found = codec.from_plain(
        WindowSum, json.loads(calc("conv", "--size", "8", "--kernel", "2", "--json", folder=tmp_path)), where="x"
    )
    assert found.same_padding == (None, None)
    assert found.output == (7, 7)
