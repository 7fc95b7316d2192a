"""A run of fine-tuning: stopped anywhere it goes on to the same bits, and it ends, keeps and refuses what it should."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from convatlas.arith.schedules import factor_at
from convatlas.data.dataset import ImageSet
from convatlas.errors import UserError
from convatlas.models.registry import create_model
from convatlas.records import codec
from convatlas.records.run import ModelConfig, Recipe, RunSummary, read_metrics
from convatlas.training import closing
from convatlas.training.apply import evaluate_run
from convatlas.training.checkpoint import load_model, load_state
from convatlas.training.evaluate import predict_logits
from convatlas.training.loop import train
from convatlas.training.outcome import Stopped
from convatlas.transfer.calibration import fit_temperature
from convatlas.transfer.groups import groups_of
from convatlas.transfer.plan import start_from
from convatlas.transfer.tuning import RECEIPT, method_of

from ..training.makers import StopAfter
from .makers import bare_recipe, go_on, outcome, photographs, prepared, same, tensors, tune, untempered, weights_file


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    return {name: weights_file(folder / f"{name}.safetensors", name) for name in ("resnet.pocket", "vgg.pocket", "lenet.pocket")}


FIRST = "stem.0.conv.weight"
EARLY = {"settings": {"epochs": 4}}
CASES = {
    "full": ("full", {}),
    "gradual": ("gradual", {"settings": {"epochs": 6}}),
    "lp-ft": ("lp-ft", {"probe_share": 0.5, **EARLY}),
    "lp-ft within": ("lp-ft", {"probe_share": 0.3}),  # everything is opened after two of the three steps of the first epoch
    "gradual within": ("gradual", {"settings": {"epochs": 1}}),
    "l2-sp": ("l2-sp", {"l2_sp": 5.0}),
    "mixed": ("full", {"mixup": 0.4, "cutmix": 1.0}),
    "averaged": ("full", {"settings": {"epochs": 2, "ema": 0.9}}),
    "patience": ("full", {"settings": {"epochs": 12, "patience": 2, "lr": 0.01}}),
    "plateau": ("full", {"settings": {"epochs": 8, "schedule": "plateau", "lr": 0.01, "optimizer": "sgd", "warmup": 0.0}}),
    "dropout": ("layer-decay", {"model": "vgg.pocket", "policy": "trivial", "balance": "sampling"}),
}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, weights):
    """The folder of a case's run that nobody stopped, made once for all that are."""
    folder = tmp_path_factory.mktemp("unbroken")

    def made(case):
        strategy, more = CASES[case]
        if not (folder / case).exists():
            recipe, data = prepared(strategy, weights[more.get("model", "resnet.pocket")], **more)
            tune(recipe, folder / case, data)
        return folder / case

    return made


@pytest.mark.untraced  # long, and other tests reach its lines
@pytest.mark.parametrize(
    ("case", "steps"),
    [
        *[("full", n) for n in (1, 3, 5)],
        *[("gradual", n) for n in (1, 4, 8, 9, 15)],  # in each phase, and where one ends
        *[("lp-ft", n) for n in (2, 6, 11)],
        *[("lp-ft within", n) for n in (1, 2, 3, 6)],
        *[("gradual within", n) for n in (1, 2)],
        *[("l2-sp", n) for n in (1, 5)],
        *[("mixed", n) for n in (2, 4)],
        *[("averaged", n) for n in (2, 4)],
        *[("patience", n) for n in (3, 8)],
        *[("plateau", n) for n in (5, 18)],
        *[("dropout", n) for n in (2, 4)],
    ],
)
def test_stopped_anywhere_it_goes_on_to_the_same_bits(tmp_path, weights, unbroken, case, steps):
    strategy, more = CASES[case]
    recipe, data = prepared(strategy, weights[more.get("model", "resnet.pocket")], **more)
    unbroken_run = unbroken(case)
    with pytest.raises(Stopped):
        tune(recipe, tmp_path / "cut", data, watch=StopAfter(steps))
    summary = go_on(recipe, tmp_path / "cut", data)
    assert summary.status == "finished"
    assert same(tensors(unbroken_run), tensors(tmp_path / "cut"))
    assert outcome(unbroken_run) == outcome(tmp_path / "cut")
    for name in (RECEIPT, "config.json"):
        assert (unbroken_run / name).read_text() == (tmp_path / "cut" / name).read_text()
    whole = codec.read(RunSummary, unbroken_run / "summary.json")
    assert (summary.best_epoch, summary.val_accuracy) == (whole.best_epoch, whole.val_accuracy)


def test_what_moves_while_a_run_lies_is_found_when_it_has_gone_on(tmp_path, weights):
    """The receipt is of the whole phase, and not of what was trained since."""
    recipe, data = prepared("last-stages", weights["resnet.pocket"])
    with pytest.raises(Stopped):
        tune(recipe, tmp_path / "run", data, watch=StopAfter(2))
    state = load_state(tmp_path / "run", note=print)
    state["model"][FIRST][0, 0, 0, 0] += 1e-3
    for path in (*(tmp_path / "run").glob("state-*.pt"), tmp_path / "run" / "manifest.json"):
        path.unlink()
    torch.save(state, tmp_path / "run" / "state.pt")
    with pytest.raises(UserError, match=rf"1 of \d+ frozen tensors are not what they were: {FIRST}\."):
        go_on(recipe, tmp_path / "run", data)


def test_a_crash_within_the_probe_of_lp_ft_goes_back_to_the_last_state(tmp_path, weights, monkeypatch):
    recipe, data = prepared("lp-ft", weights["resnet.pocket"], probe_share=0.5, **EARLY)
    tune(recipe, tmp_path / "whole", data)
    monkeypatch.setattr(closing, "SECONDS_BETWEEN_STATES", 0.0)

    class Crash(StopAfter):
        def epoch(self, progress, metrics):
            if metrics.epoch == 2:
                raise SystemError("power cut")

    with pytest.raises(SystemError):
        tune(recipe, tmp_path / "cut", data, watch=Crash(10**9))
    go_on(recipe, tmp_path / "cut", data)
    assert same(tensors(tmp_path / "whole"), tensors(tmp_path / "cut"))
    assert (tmp_path / "whole" / RECEIPT).read_text() == (tmp_path / "cut" / RECEIPT).read_text()


def test_l2_sp_pulls_towards_the_first_weights(tmp_path, weights):
    first = load_file(weights["resnet.pocket"])
    distances = []
    for pull in (0.0, 10.0, 100.0):
        recipe, data = prepared("l2-sp", weights["resnet.pocket"], l2_sp=pull, settings={"lr": 0.005})
        tune(recipe, tmp_path / str(pull), data)
        own = tensors(tmp_path / str(pull))
        names = [name for name in own if name.startswith(("stem", "stages")) and name.endswith(("weight", "bias"))]
        distances.append(math.sqrt(sum((own[name] - first[name]).square().sum().item() for name in names)))
    assert distances[0] > distances[1] > 1.5 * distances[2] > 0


def test_l2_sp_is_a_decay_towards_the_first_weights_and_leaves_the_classifier():
    """One update with no gradient: each weight goes lr * l2_sp of the way."""
    recipe, _ = bare_recipe("l2-sp", l2_sp=2.0, optimizer="sgd", lr=0.1, momentum=0.0, weight_decay=0.0)
    model = create_model("resnet.pocket", num_classes=3)
    method = method_of(recipe, None)
    first = {name: each.detach().clone() for name, each in model.named_parameters()}
    optimizer = method.optimizer(model, recipe)
    for group in optimizer.param_groups:
        group["lr"] = 0.1 * group["lr_factor"]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1.0

    class Run:
        pass

    run = Run()
    run.optimizer = optimizer
    method.before_update(run)
    (classifier, *_) = groups_of(model)
    untouched = {id(each) for each in classifier.parameters}
    for name, parameter in model.named_parameters():
        wanted = first[name] + (1.0 if id(parameter) in untouched else 0.8)
        torch.testing.assert_close(parameter.detach(), wanted, rtol=0, atol=1e-6)


def test_other_weights_are_refused_when_going_on(tmp_path):
    path = weights_file(tmp_path / "weights.safetensors")
    recipe, data = prepared("full", path)
    with pytest.raises(Stopped):
        tune(recipe, tmp_path / "run", data, watch=StopAfter(2))
    own = load_file(path)
    own[FIRST] = own[FIRST] + 1e-6
    save_file(own, path)
    with pytest.raises(UserError, match="does not hold the weights with which the run began. Put the file back") as caught:
        go_on(recipe, tmp_path / "run", data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("num_classes", [6, 2, 10])
def test_weights_for_as_many_classes_as_the_images_have_begin_with_a_new_classifier(tmp_path, num_classes):
    """The file's classifier is for other classes, even if there happen to be as many."""
    path = weights_file(tmp_path / "weights.safetensors", num_classes=num_classes)
    recipe, data = prepared("probe", path, settings={"epochs": 1, "lr": 1e-12, "classifier_lr": 1.0})
    tune(recipe, tmp_path / "run", data)
    kept, begun = tensors(tmp_path / "run"), load_file(path)
    name = "head.classifier.weight"
    assert kept[name].shape[0] == data.num_classes
    assert kept[name].shape != begun[name].shape or not torch.allclose(kept[name], begun[name], atol=1e-3)


def test_grey_images_take_weights_for_colours(tmp_path, weights):
    data = photographs()
    grey = {name: ImageSet(getattr(data, name).images[:, :1], getattr(data, name).labels) for name in ("train", "val", "test")}
    recipe, data = prepared("full", weights["resnet.pocket"], replace(data, **grey), settings={"epochs": 1})
    assert len(data.mean) == len(data.std) == 1
    assert tune(recipe, tmp_path / "run", data).status == "finished"
    assert load_model(tmp_path / "run")[1].in_chans == 1


def test_the_seed_decides_the_run(tmp_path, weights):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        recipe, data = prepared("full", weights["resnet.pocket"], settings={"epochs": 1, "seed": seed})
        torch.rand(3)
        tune(recipe, tmp_path / name, data)
    assert same(tensors(tmp_path / "a"), tensors(tmp_path / "b"))
    assert not same(tensors(tmp_path / "a"), tensors(tmp_path / "c"))


def test_scratch_begins_with_nothing_of_the_weights(tmp_path, weights):
    recipe, data = prepared("scratch", weights["resnet.pocket"], settings={"epochs": 1, "lr": 1e-9})
    assert (recipe.tuning.weights, recipe.tuning.weights_sha256) == (None, None)
    tune(recipe, tmp_path / "run", data)
    own, begun = tensors(tmp_path / "run"), load_file(weights["resnet.pocket"])
    assert not torch.allclose(own[FIRST], begun[FIRST], atol=0.01)


def test_patience_ends_the_run_and_keeps_the_best_epochs_weights(tmp_path, weights):
    recipe, data = prepared("full", weights["resnet.pocket"], settings={"epochs": 40, "patience": 2, "lr": 0.02, "warmup": 0.0})
    summary = tune(recipe, tmp_path / "run", data)
    metrics = read_metrics(tmp_path / "run" / "metrics.jsonl")
    losses = [each.val_loss for each in metrics]
    best = min(range(len(losses)), key=losses.__getitem__)
    assert len(losses) == best + 1 + 2 < 40
    assert summary.best_epoch == best + 1
    judged = evaluate_run(untempered(tmp_path / "run"), data=data, split="val")
    assert judged.loss == pytest.approx(losses[best], abs=1e-6)
    assert judged.top1 == pytest.approx(metrics[best].val_accuracy)
    assert abs(judged.loss - losses[-1]) > 1e-4, "the last epoch's weights are others"
    assert summary.val_accuracy == metrics[best].val_accuracy, "the summary tells of the weights that were kept"
    assert codec.read(RunSummary, tmp_path / "run" / "summary.json").val_accuracy == metrics[best].val_accuracy


def test_without_validation_images_patience_and_plateau_are_refused(tmp_path, weights):
    for settings in ({"patience": 2}, {"schedule": "plateau"}):
        data = photographs()
        data = replace(data, val=ImageSet(data.val.images[:0], data.val.labels[:0]))
        recipe, data = prepared("full", weights["resnet.pocket"], data, settings=settings)
        with pytest.raises(UserError, match="there are no validation images"):
            tune(recipe, tmp_path / "run", data)


def test_plateau_takes_a_tenth_of_the_rate_after_three_epochs_without_gain(tmp_path, weights, monkeypatch):
    """The losses are told beforehand: no gain in epochs 2 to 4, in 6 to 8, and in 9 to 11."""
    recipe, data = prepared(
        "full", weights["lenet.pocket"], model="lenet.pocket", settings={"epochs": 13, "schedule": "plateau", "warmup": 0.0}
    )
    told = iter([2.0, 3, 3, 3, 1.0, 1.0, 2, 2, 2, 2, 2, 0.5, 0.4])
    monkeypatch.setattr(closing, "score", lambda logits, labels: (next(told), 0.5))
    tune(recipe, tmp_path / "run", data)
    rates = [each.lr for each in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert rates == pytest.approx([recipe.lr * f for f in (1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001, 0.001)])


def test_the_rate_in_the_metrics_is_the_recipes_and_not_the_classifiers(tmp_path, weights):
    recipe, data = prepared(
        "full",
        weights["lenet.pocket"],
        model="lenet.pocket",
        settings={"schedule": "constant", "warmup": 0.0, "classifier_lr": 10.0},
    )
    tune(recipe, tmp_path / "run", data)
    assert [each.lr for each in read_metrics(tmp_path / "run" / "metrics.jsonl")] == pytest.approx([recipe.lr] * 2)


def test_images_of_one_class_are_refused(weights):
    data = photographs()
    alone = data.train.subset([i for i, label in enumerate(data.train.labels.tolist()) if label == 2])
    with pytest.raises(UserError, match="the training images are of one class only") as caught:
        prepared("full", weights["resnet.pocket"], replace(data, train=alone))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"layer_decay": 0.0}, "layer_decay is 0.0"),
        ({"l2_sp": -1.0}, "l2_sp is -1.0"),
        ({"l2_sp": math.nan}, "l2_sp is nan"),
        ({"probe_share": 1.0}, "probe_share is 1.0"),
        ({"stages": 0}, "stages is 0"),
        ({"focal": 11}, "focal is 11"),
        ({"balance": "wieghts"}, "weights"),
        ({"policy": "lihgt"}, "light"),
        ({"settings": {"optimizer": "adamm"}}, "adamw"),
        ({"settings": {"optimizer": "muon"}}, "muon sets the norms of filters anew.*Fine-tune with --optimizer adamw"),
        ({"settings": {"optimizer": "muon", "lr": 0.01}}, "muon sets the norms of filters anew"),
        ({"settings": {"optimizer": "sgd"}}, "learning rates of the strategies are for adamw, and not for sgd. Give --lr"),
        ({"settings": {"epochs": 0}}, "epochs is 0"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(weights, more, said):
    with pytest.raises(UserError, match=said) as caught:
        prepared("full", weights["resnet.pocket"], **more)
    assert "\n" not in str(caught.value)


def test_an_unknown_strategy_and_missing_weights_are_refused(weights):
    with pytest.raises(UserError, match="gradual"):
        prepared("graduall", weights["resnet.pocket"])
    with pytest.raises(UserError, match="full needs pretrained weights. Name them with --weights"):
        prepared("full", None)
    assert start_from("resnet.pocket", None, image_size=32).weights is None


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle", "constant"])
def test_no_step_of_a_small_set_is_wasted_by_the_warm_up(tmp_path, weights, schedule):
    """One step an epoch: a warm-up that begins at 0 would make the first one void."""
    settings = {"epochs": 2, "batch_size": 32, "schedule": schedule, "warmup": 0.1}
    recipe, data = prepared("full", weights["lenet.pocket"], photographs(n=32), model="lenet.pocket", settings=settings)
    tune(recipe, tmp_path / "run", data)
    rates = [each.lr / recipe.lr for each in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert rates == pytest.approx([factor_at(schedule, middle, warmup=0.1) for middle in (0.25, 0.75)])
    assert min(rates) > 0.1


def test_the_temperature_is_fitted_on_validation_and_kept(tmp_path, weights):
    recipe, data = prepared("full", weights["resnet.pocket"], settings={"epochs": 3, "lr": 0.005})
    tune(recipe, tmp_path / "run", data)
    model, config = load_model(tmp_path / "run")
    logits = predict_logits(model, data.val, mean=config.mean, std=config.std, size=config.image_size)
    assert config.temperature == pytest.approx(fit_temperature(logits, data.val.labels), rel=1e-4)
    assert config.temperature != 1.0
    assert (config.resize, config.image_size) == (20, 16)


def test_a_temperature_that_is_given_is_kept_and_few_images_fit_none(tmp_path, weights):
    recipe, data = prepared("full", weights["resnet.pocket"], settings={"epochs": 1})
    train(recipe, tmp_path / "given", data=data, method=method_of(recipe, data, temperature=2.5))
    assert codec.read(ModelConfig, tmp_path / "given" / "config.json").temperature == 2.5
    few = replace(data, val=data.val.subset(range(9)))
    train(recipe, tmp_path / "few", data=few, method=method_of(recipe, few))
    assert codec.read(ModelConfig, tmp_path / "few" / "config.json").temperature == 1.0


def test_the_recipe_on_disk_makes_the_same_run(tmp_path, weights):
    recipe, data = prepared("gradual", weights["resnet.pocket"], mixup=0.2, balance="sampling")
    tune(recipe, tmp_path / "first", data)
    kept = codec.read(Recipe, tmp_path / "first" / "recipe.json")
    assert kept == recipe
    assert json.loads((tmp_path / "first" / "recipe.json").read_text())["tuning"]["strategy"] == "gradual"
    config = (tmp_path / "first" / "config.json").read_text()
    lay = Path(recipe.tuning.weights)
    assert lay.is_absolute() and str(lay.parent) not in config, "where the weights lay is nobody's business"
    shared = codec.from_text(ModelConfig, config, where="config.json").recipe
    assert shared == replace(recipe, tuning=replace(recipe.tuning, weights=lay.name))
    tune(kept, tmp_path / "second", data)
    assert same(tensors(tmp_path / "first"), tensors(tmp_path / "second"))


def test_a_small_last_batch_is_trained_on_and_an_image_alone_is_not(tmp_path, weights):
    for n, steps in ((34, 3), (33, 2)):
        data = photographs(n=n)
        recipe, data = prepared("full", weights["resnet.pocket"], data, settings={"epochs": 1})
        tune(recipe, tmp_path / str(n), data)
        (only,) = read_metrics(tmp_path / str(n) / "metrics.jsonl")
        assert only.step == steps


def test_minutes_end_and_open_by_the_clock(tmp_path, weights):
    recipe, data = prepared("gradual", weights["lenet.pocket"], model="lenet.pocket", settings={"epochs": None, "minutes": 0.03})
    summary = tune(recipe, tmp_path / "run", data)
    assert summary.train_seconds == pytest.approx(1.8, abs=0.6)
    phases = json.loads((tmp_path / "run" / RECEIPT).read_text())["phases"]
    assert len(phases) >= 3
    assert phases[-1]["frozen"] == 0


def test_it_is_said_if_a_run_ends_before_the_last_phase(tmp_path, weights, monkeypatch):
    settings = {"epochs": 20, "patience": 1}
    recipe, data = prepared("lp-ft", weights["lenet.pocket"], model="lenet.pocket", settings=settings, probe_share=0.9)
    told = iter([1.0, 2.0])
    monkeypatch.setattr(closing, "score", lambda logits, labels: (next(told), 0.5))
    watch = StopAfter(10**9)
    tune(recipe, tmp_path / "run", data, watch=watch)
    (said,) = [note for note in watch.notes if "lp-ft" in note]
    assert said.startswith("note: lp-ft ended before it had opened all that it opens (what learnt: classifier)")
