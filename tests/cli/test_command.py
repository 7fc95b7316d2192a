"""The command in the report asks for the same comparison again; and every command answers Ctrl-C."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from convatlas.cli import comparing
from convatlas.cli.main import app

from .makers import environment

WAYS = [
    [],
    ["--minutes", "0.5", "--no-flip"],
    ["--optimizer", "sgd", "--lr", "0.003", "--weight-decay", "0.05"],
    ["--optimizer", "sgd", "--lr", "0.0033333333"],
    ["--data", "digits", "--flip", "--image-size", "32", "--crop", "0"],
    ["--data", "folder", "--data-root", "x", "--skip-unreadable", "--validation", "0.25", "--seeds", "4,7"],
    ["--data", "folder", "--data-root", "x", "--validation", "0.1"],
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


INTERRUPTED = """
import sys
from typer.core import TyperGroup
def interrupted(self, ctx):
    raise KeyboardInterrupt
TyperGroup.invoke = interrupted
from convatlas.cli.main import main
sys.argv = ["convatlas", "list"]
main()
"""


@pytest.mark.parametrize(("rank", "said"), [(None, "stopped\n"), ("0", "stopped\n"), ("1", "")])
def test_ctrl_c_before_anything_is_done_is_answered_once(rank, said, tmp_path):
    given = environment(tmp_path) | ({} if rank is None else {"RANK": rank})
    ended = subprocess.run([sys.executable, "-c", INTERRUPTED], env=given, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", said)
