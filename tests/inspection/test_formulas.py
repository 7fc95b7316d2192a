"""Formulas of the ledger against the shapes that torch really gives, for random windows of every kind."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from convatlas.inspection.ledger import ledger

PAIR = st.tuples


def window(draw):
    kernel = draw(PAIR(st.integers(1, 5), st.integers(1, 5)))
    return {
        "kernel_size": kernel,
        "stride": draw(PAIR(st.integers(1, 4), st.integers(1, 4))),
        "dilation": draw(PAIR(st.integers(1, 3), st.integers(1, 3))),
    }


@st.composite
def layers(draw):
    """A convolution, a transposed one or a pooling, for two groups of two channels."""
    kind = draw(st.sampled_from(["conv", "conv", "transposed", "max", "average"]))
    options = window(draw)
    if kind in ("max", "average"):
        options["padding"] = tuple(draw(st.integers(0, kernel // 2)) for kernel in options["kernel_size"])
        options["ceil_mode"] = draw(st.booleans())
    else:
        options["padding"] = draw(PAIR(st.integers(0, 5), st.integers(0, 5)))
        options["groups"] = draw(st.sampled_from([1, 2, 4]))
    if kind == "average":
        del options["dilation"]
    if kind == "transposed":
        room = [max(stride, dilation) - 1 for stride, dilation in zip(options["stride"], options["dilation"], strict=True)]
        options["output_padding"] = tuple(draw(st.integers(0, most)) for most in room)
    layer = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}.get(kind)
    if layer is not None:
        return layer(**options)
    return {"conv": nn.Conv2d, "transposed": nn.ConvTranspose2d}[kind](4, 8, **options)


def worked_out(formula):
    """What the left side of a formula comes to."""
    left, _, right = formula.rpartition(" = ")
    names = {"floor": lambda x: x // 1, "ceil": lambda x: -(-x // 1), "__builtins__": {}}
    return int(eval(left, names)), int(right)


@pytest.mark.untraced  # long, and other tests reach its lines
@settings(max_examples=2500, deadline=None)
@given(layers(), st.integers(6, 40), st.integers(6, 40))
def test_formulas_against_real_shapes(layer, height, width):
    try:
        real = layer.to("meta")(torch.empty(1, 4, height, width, device="meta")).shape[2:]
    except RuntimeError:
        return  # the window does not fit
    (row,) = ledger(nn.Sequential(layer), (4, height, width)).rows
    assert row.output_shape[1:] == tuple(real)
    found = row.formulas * 2 if len(row.formulas) == 1 else row.formulas
    for formula, size in zip(found, real, strict=True):
        assert worked_out(formula) == (size, size), formula


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_padding_in_words(padding):
    """Torch pads an even kernel on one side more: on a map made larger before the window slides."""
    (row,) = ledger(nn.Sequential(nn.Conv2d(3, 2, (3, 4), padding=padding)), (3, 9, 9)).rows
    for formula, size in zip(row.formulas, row.output_shape[1:], strict=True):
        assert worked_out(formula) == (size, size)
