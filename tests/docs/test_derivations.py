"""Tables whose second column is `counted as` derive a network's size layer by layer; here each row is held to the network.

A row names a layer, says in a formula how its count comes about, and gives the number. With a column `one tower` the formula is
that of one of two equal towers, and a layer without a number there belongs to neither.
"""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from convatlas import create_model
from convatlas.inspection.trace import trace
from convatlas.models.lenet import Subsampling
from convatlas.models.registry import MODELS

FAMILIES = Path(__file__).parents[2] / "docs/families"


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def number(cell):
    return int(cell.replace(",", ""))


def derivations():
    """(model, headings, rows) of every such table, in order; a heading or row is its cells."""
    for page in sorted(FAMILIES.glob("*.md")):
        for table in re.findall(r"^\|.*\n\|[-|]+\n(?:\|.*\n)+", page.read_text(encoding="utf-8"), flags=re.M):
            heading, _, *rows = map(cells, table.splitlines())
            if heading[1] == "counted as":
                yield re.match("`([^`]+)`", heading[0])[1], heading, rows


TABLES = list(derivations())
on_each_table = pytest.mark.parametrize(("model", "heading", "rows"), TABLES)


def on_meta(model):
    with torch.device("meta"):
        return create_model(model, in_chans=MODELS[model].in_chans).eval()


def layer_of(row):
    (name,) = re.findall("`([^`]+)`", row[0])
    return name


def connections(network, name):
    """The connections of a layer's units: their weights and biases, shared or not; four inputs and a bias where S2 and S4 add."""
    variant, layer = MODELS[network], on_meta(network).get_submodule(name)
    records = trace(on_meta(network), (variant.in_chans, variant.image_size, variant.image_size)).layers
    channels, height, width = (*next(r for r in reversed(records) if f"{r.name}.".startswith(f"{name}.")).output_shape, 1, 1)[:3]
    if isinstance(layer, Subsampling):
        return channels * height * width * 5
    return height * width * sum(tensor.numel() for tensor in layer.state_dict().values())


def counts(network, name, *, what):
    module = on_meta(network).get_submodule(name)
    return connections(network, name) if what == "connections" else sum(p.numel() for p in module.parameters())


def test_the_sizes_that_are_quoted_are_derived():
    ends = {(model, heading[-1]): number(rows[-1][-1]) for model, heading, rows in TABLES}
    assert ends == {
        ("lenet5", "parameters"): 61_706,
        ("lenet.pocket", "parameters"): 62_006,
        ("lenet5.paper", "parameters"): 60_000,
        ("lenet5.paper", "connections"): 340_908,
        ("alexnet.paper", "parameters"): 60_965_224,
    }


@on_each_table
def test_each_row_is_its_layers(model, heading, rows):
    for row in rows[:-1]:
        towers = 2 if heading[2] == "one tower" and row[2] != "-" else 1
        assert re.fullmatch(r"[\d+*() ]+", row[1]), row
        assert towers * eval(row[1]) == number(row[-1]) == counts(model, layer_of(row), what=heading[-1]), row
        assert towers == 1 or eval(row[1]) == number(row[2]), row


@on_each_table
def test_the_last_row_is_the_sum_of_the_others(model, heading, rows):
    assert rows[-1][:2] == ["all", "-"]
    for column in range(2, len(heading)):
        assert number(rows[-1][column]) == sum(number(row[column]) for row in rows[:-1] if row[column] != "-")


@on_each_table
def test_no_parameter_is_left_out_or_counted_twice(model, heading, rows):
    named = [f"{layer_of(row)}." for row in rows[:-1]]
    network = on_meta(model)
    holders = [name for name, module in network.named_modules() if any(True for _ in module.parameters(recurse=False))]
    assert all(sum(f"{holder}.".startswith(name) for name in named) == 1 for holder in holders)
    if heading[-1] == "parameters":
        assert number(rows[-1][-1]) == sum(p.numel() for p in network.parameters())


@on_each_table
def test_what_sees_both_towers_is_what_is_not_grouped(model, heading, rows):
    if heading[2] != "one tower":
        return
    modules = {layer_of(row): on_meta(model).get_submodule(layer_of(row)) for row in rows[:-1]}
    hidden = {name: module for name, module in modules.items() if not name.startswith("stem.")}
    grouped = {name for name, module in hidden.items() if isinstance(module, nn.Conv2d) and module.groups == 2}
    assert grouped == {layer_of(row) for row in rows[:-1] if layer_of(row) in hidden and "sees both" not in row[0]}
