"""`convatlas lr`: the test of learning rates as a person asks for it."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from convatlas.cli import finetuning, main
from convatlas.cli.lr import lr
from convatlas.errors import UserError
from convatlas.records import codec
from convatlas.records.lr_range import LrRange
from convatlas.transfer.known import STRATEGIES

from ..transfer.makers import bare_recipe

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(lr)
QUICK = ["lenet.pocket", "--data", "shapes", "--batch-size", "32", "--allocator", "system", "--steps", "12"]


def run(*words):
    return CliRunner().invoke(app, [*QUICK, *map(str, words)], catch_exceptions=True)


@pytest.mark.parametrize("kind", ["svg", "html"])
def test_a_plot_and_a_hint(tmp_path, kind):
    out = tmp_path / f"lr.{kind}"
    done = run("--out", out)
    assert done.exit_code == 0, done.output
    assert "Loss of lenet.pocket while the learning rate grows from 1e-05 to 1 in 12 steps" in done.stdout
    assert f"written: {out}" in done.stdout
    assert "aria-label" in out.read_text(encoding="utf-8")


def test_the_training_that_it_names_has_the_settings_of_the_test(monkeypatch):
    found = codec.from_plain(LrRange, json.loads(run("--json").stdout), where="x")
    monkeypatch.setattr("convatlas.cli.lr._measured", lambda *_, **__: replace(found, suggestion=0.02))
    words = [
        "--optimizer",
        "sgd",
        "--augment",
        "trivial",
        "--cutmix",
        "1",
        "--no-flip",
        "--skip-unreadable",
        "--to",
        "10",
        "--steps",
        "40",
    ]
    (line,) = [line for line in run(*words).stdout.splitlines() if line.startswith("next: ")]
    assert "--to" not in line and "--steps" not in line and line.count("--lr ") == 1
    command = typer.main.get_command(main.app).commands["train"]
    given = command.make_context("train", line.split()[3:]).params
    assert (given["model"], given["data"], given["batch_size"]) == ("lenet.pocket", "shapes", 32)
    assert (given["optimizer"], given["augment"], given["cutmix"], given["flip"]) == ("sgd", "trivial", 1.0, False)
    assert given["lr"] == 0.02 and given["allocator"] == "system" and given["skip_unreadable"]


def test_json_is_the_record(tmp_path):
    done = run("--json", "--from", 1e-4, "--to", 0.1, "--optimizer", "sgd", "--seed", 3)
    record = codec.from_plain(LrRange, json.loads(done.stdout), where="x")
    assert (record.low, record.high, record.asked, record.recipe.optimizer, record.recipe.seed) == (1e-4, 0.1, 12, "sgd", 3)
    assert len(record.steps) == 12


BAD = [
    (["--from", "1", "--to", "0.1"], "do not grow"),
    (["--steps", "3"], "steps are 3"),
    (["--to", "inf"], "the highest learning rate is inf"),
    (["--out", "lr.png"], "'lr.png' is neither .svg nor .html"),
    (["--out", "none/lr.svg"], "the folder none does not exist"),
    (["--optimizer", "sdg"], "no optimizer called 'sdg'. Did you mean sgd"),
    (["--data", "shaps"], "no data set called 'shaps'"),
    (["--batch-size", "1"], "batch_size is 1"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*words)
    assert isinstance(done.exception, UserError), done.output
    assert message in str(done.exception)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_stays(tmp_path):
    (tmp_path / "lr.svg").write_text("mine")
    done = run("--out", tmp_path / "lr.svg")
    assert isinstance(done.exception, UserError) and "exists already" in str(done.exception)
    assert (tmp_path / "lr.svg").read_text() == "mine"


def test_an_unknown_model_is_refused_with_a_guess():
    done = CliRunner().invoke(app, ["lenet.pokket", "--allocator", "system"])
    assert isinstance(done.exception, UserError) and "Did you mean lenet.pocket" in str(done.exception)


def test_ones_own_network(tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))\n"
    )
    done = CliRunner().invoke(app, [f"{tmp_path}/net.py:make", *QUICK[1:], "--json"])
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record["recipe"]["code_sha256"] and len(record["steps"]) == 12


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_fine_tuning_takes_the_rate_that_is_found_and_else_the_strategys_if_it_is_for_the_optimizer(monkeypatch, optimizer):
    recipe, _ = bare_recipe("full", optimizer=optimizer)
    found = SimpleNamespace(suggestion=0.0625, rule="by rule", steps=(1, 2))
    monkeypatch.setattr("convatlas.training.lr_range.lr_range", lambda *_, **__: found)
    assert finetuning._with_found_lr(recipe, None) == replace(recipe, lr=0.0625)
    found.suggestion = None
    if optimizer == "adamw":
        assert finetuning._with_found_lr(recipe, None) == recipe
        return
    with pytest.raises(UserError, match=r"the range test suggests no learning rate for sgd: by rule\. Give --lr\."):
        finetuning._with_found_lr(recipe, None)


def test_fine_tuning_with_sgd_needs_a_rate_or_a_range_test(monkeypatch):
    seen = []
    monkeypatch.setattr(finetuning, "_begin", lambda wanted, out, **more: seen.append(wanted.settings["lr"]))
    monkeypatch.setattr("convatlas.cli.options.use_allocator", lambda wanted: None)
    words = ["finetune", "pets", "--strategy", "full", "--optimizer"]
    assert CliRunner().invoke(main.app, [*words, "sgd", "--find-lr"]).exit_code == 0
    assert CliRunner().invoke(main.app, [*words, "sgd", "--lr", "0.01"]).exit_code == 0
    assert seen == [STRATEGIES["full"].lr, 0.01], "the first until another one is found"
    for name, more in (("sgd", []), ("muon", ["--lr", "0.01"])):
        done = CliRunner().invoke(main.app, [*words, name, *more])
        assert isinstance(done.exception, UserError) and name in str(done.exception)
    assert len(seen) == 2


@pytest.mark.parametrize(("words", "said"), [([], True), (["--no-cache"], False), (["--mixup", "0.2"], False)])
def test_it_is_said_that_a_cached_probe_does_not_go_by_the_clock(monkeypatch, words, said):
    monkeypatch.setattr(finetuning, "_begin", lambda *_, **__: None)
    monkeypatch.setattr("convatlas.cli.options.use_allocator", lambda wanted: None)
    done = CliRunner().invoke(main.app, ["finetune", "pets", "--strategy", "probe", "--minutes", "3", *words])
    assert done.exit_code == 0, done.output
    assert ("a probe on cached features has 30 epochs, and no minutes" in done.output) is said
