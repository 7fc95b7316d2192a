"""The command in the report asks for the same comparison again."""

import pytest
from typer.testing import CliRunner

from convatlas.cli import comparing
from convatlas.cli.main import app

WAYS = [
    [],
    ["--minutes", "0.5", "--no-flip"],
    ["--optimizer", "sgd", "--lr", "0.003", "--weight-decay", "0.05"],
    ["--optimizer", "sgd", "--lr", "0.0033333333"],
    ["--data", "digits", "--flip", "--image-size", "32", "--crop", "0"],
    ["--data", "folder", "--data-root", "x", "--skip-unreadable", "--validation", "0.25", "--seeds", "4,7"],
    ["--models", "vgg11", "--seeds", "5,", "--batch-size", "32", "--schedule", "cosine", "--label-smoothing", "0"],
    ["--precision", "fp32", "--device", "cpu", "--epochs", "7"],
]


def asked(words, monkeypatch):
    """The recipe, models and seeds that a command line asks for, caught before anything is run."""
    caught = []
    monkeypatch.setattr(comparing, "_begin", lambda recipe, chosen, names, seeds, **rest: caught.append((recipe, names, seeds)))
    result = CliRunner().invoke(app, ["compare", *words])
    assert result.exit_code == 0, result.output
    return caught[0]


@pytest.mark.parametrize("words", WAYS, ids=" ".join)
def test_it_comes_to_the_same_recipe(words, monkeypatch):
    recipe, names, seeds = asked(words, monkeypatch)
    command = comparing._command(recipe, names, seeds)
    assert command.startswith("convatlas compare ")
    assert asked(command.split()[2:], monkeypatch) == (recipe, names, seeds)
