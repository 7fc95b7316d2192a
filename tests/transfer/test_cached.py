"""Features computed once: the same training as with each image passed again, in a fraction of the time."""

import time
from dataclasses import replace

import pytest
import torch

from convatlas.data.dataset import ImageSet
from convatlas.errors import UserError
from convatlas.models.registry import create_model
from convatlas.records.run import read_metrics
from convatlas.training.apply import evaluate_run
from convatlas.training.outcome import Stopped
from convatlas.training.watch import Unwatched
from convatlas.transfer import tuning
from convatlas.transfer.cached import features_of
from convatlas.transfer.known import CACHED_EPOCHS
from convatlas.transfer.plan import prepared_for, start_from

from ..training.makers import StopAfter
from .makers import go_on, outcome, photographs, prepared, same, tensors, tune, untempered, weights_file


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    return {name: weights_file(folder / f"{name}.safetensors", name) for name in ("resnet.pocket", "vgg.pocket")}


def lopsided():
    """Images of which one class has most."""
    data = photographs(n=96)
    kept = [i for i, label in enumerate(data.train.labels.tolist()) if label < 2 or i % 4 == 0]
    return replace(data, train=data.train.subset(kept))


def close(a, b):
    assert [each["val_loss"] for each in a] == pytest.approx([each["val_loss"] for each in b], abs=1e-4)
    assert [each["train_loss"] for each in a] == pytest.approx([each["train_loss"] for each in b], abs=1e-4)
    assert [each["val_accuracy"] for each in a] == [each["val_accuracy"] for each in b]


@pytest.mark.parametrize("model", ["resnet.pocket", "vgg.pocket"])  # the second has dropout
@pytest.mark.parametrize(
    "more", [{}, {"balance": "sampling"}, {"balance": "weights", "focal": 1.0}], ids=["plain", "drawn", "weighed"]
)
def test_a_cached_probe_is_the_probe(tmp_path, weights, model, more):
    data = lopsided() if more else None
    for cached in (False, True):
        recipe, images = prepared(
            "probe", weights[model], data, model=model, policy="none", cached=cached, settings={"epochs": 3}, **more
        )
        tune(recipe, tmp_path / str(cached), images)
    slow, fast = tensors(tmp_path / "False"), tensors(tmp_path / "True")
    close(outcome(tmp_path / "False"), outcome(tmp_path / "True"))
    for name in ("head.classifier.weight", "head.classifier.bias"):
        torch.testing.assert_close(fast[name], slow[name], rtol=0, atol=1e-4)
    assert all(torch.equal(fast[name], slow[name]) for name in fast if not name.startswith("head.classifier"))


def test_the_kept_network_is_what_the_metrics_say(tmp_path, weights):
    """Validation is judged from the cache, and the slow way through the whole network gives the same."""
    recipe, data = prepared("probe", weights["resnet.pocket"], policy="light", copies=2, cached=True, settings={"epochs": 4})
    tune(recipe, tmp_path / "run", data)
    outcome = evaluate_run(untempered(tmp_path / "run"), data=data, split="val")
    last = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
    assert outcome.top1 == pytest.approx(last.val_accuracy)
    assert outcome.loss == pytest.approx(last.val_loss, abs=1e-4)


def features(weights, **changes):
    start = start_from("resnet.pocket", weights["resnet.pocket"], image_size=32)
    data = prepared_for(photographs(n=24), start.preprocessing)
    model = create_model("resnet.pocket", pretrained=weights["resnet.pocket"], num_classes=6, image_size=32)
    told = []
    given = {"policy": "light", "copies": 3, "flip": True, "seed": 5} | changes
    return features_of(model, data, told=lambda done, total: told.append((done, total)), **given), told, model, data


def test_each_copy_is_augmented_anew_and_the_same_seed_gives_the_same(weights):
    found, told, _, data = features(weights)
    again, *_ = features(weights)
    other, *_ = features(weights, seed=6)
    assert found.train.shape[:2] == (3, 24)
    assert torch.equal(found.train, again.train)
    assert not torch.allclose(found.train[0], found.train[1])
    assert not torch.allclose(found.train, other.train)
    assert torch.equal(found.val, other.val), "validation images are never augmented"
    assert told[-1] == (3 * 24 + 24, 3 * 24 + 24)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert len(found.val) == len(data.val)


def test_the_network_is_as_it_was(weights):
    model = create_model("resnet.pocket", pretrained=weights["resnet.pocket"], num_classes=6, image_size=32)
    model.train()
    model.stages.eval()
    classifier, before = model.head.classifier, {name: each.clone() for name, each in model.state_dict().items()}
    data = prepared_for(photographs(n=12), start_from("resnet.pocket", weights["resnet.pocket"], image_size=32).preprocessing)
    features_of(model, data, policy="none", copies=1, flip=True, seed=0, told=lambda *_: None)
    assert model.head.classifier is classifier
    assert same(before, model.state_dict())
    assert model.training and not model.stages.training


def test_without_validation_images_there_are_no_features_of_them(weights, tmp_path):
    data = photographs()
    data = replace(data, val=ImageSet(data.val.images[:0], data.val.labels[:0]))
    recipe, data = prepared("probe", weights["resnet.pocket"], data, policy="none", cached=True)
    assert tune(recipe, tmp_path / "run", data).val_accuracy is None


class Bodily(Unwatched):
    """Counts how many images' features are computed."""

    def __init__(self):
        self.last = None

    def computing(self, what, done, total):
        self.last = (what, done, total)


def test_copies_come_in_turn_and_each_image_passes_once_a_copy(tmp_path, weights):
    watch = Bodily()
    recipe, data = prepared("probe", weights["resnet.pocket"], policy="light", copies=2, cached=True, settings={"epochs": 4})
    tune(recipe, tmp_path / "run", data, watch=watch)
    assert watch.last == ("features of each image", 2 * 48 + 24, 2 * 48 + 24)


@pytest.mark.parametrize("steps", [2, 3, 7])
def test_a_cached_probe_goes_on_to_the_same_weights(tmp_path, weights, steps):
    recipe, data = prepared("probe", weights["resnet.pocket"], policy="light", copies=2, cached=True, settings={"epochs": 3})
    tune(recipe, tmp_path / "whole", data)
    with pytest.raises(Stopped):
        tune(recipe, tmp_path / "cut", data, watch=StopAfter(steps))
    go_on(recipe, tmp_path / "cut", data)
    assert same(tensors(tmp_path / "whole"), tensors(tmp_path / "cut"))
    assert outcome(tmp_path / "whole") == outcome(tmp_path / "cut")


@pytest.mark.parametrize(
    ("strategy", "more", "said"),
    [
        ("full", {"cached": True}, "features cannot be cached for full, which changes them"),
        ("probe", {"cached": True, "mixup": 0.2}, "cached features cannot be mixed"),
        ("probe", {"cached": True, "policy": "none", "copies": 2}, "without augmentation all copies are the same"),
        ("probe", {"copies": 0}, "copies is 0"),
    ],
)
def test_what_cannot_be_cached_is_refused(weights, strategy, more, said):
    with pytest.raises(UserError, match=said) as caught:
        prepared(strategy, weights["resnet.pocket"], **more)
    assert "\n" not in str(caught.value)


def test_a_loss_that_is_no_number_is_told_in_a_line(tmp_path, weights):
    recipe, data = prepared(
        "probe",
        weights["resnet.pocket"],
        policy="none",
        cached=True,
        settings={"lr": 1e6, "optimizer": "sgd", "clip_grad": 0.0, "epochs": 30},
    )
    with pytest.raises(UserError, match=r"the loss became \S+ at step \d+ .*Give a smaller --lr"):
        tune(recipe, tmp_path / "run", data)


@pytest.mark.parametrize("seed", [20261127120000, 2**63 - 1])
def test_a_large_seed_draws_the_copies_too(weights, seed):
    found, *_ = features(weights, seed=seed)
    again, *_ = features(weights, seed=seed)
    assert torch.equal(found.train, again.train)
    assert not torch.allclose(found.train[0], found.train[1])


def test_minutes_of_a_cached_probe_are_epochs_however_long_its_features_take(tmp_path, weights):
    """Features that take all of the minutes are no reason to keep a random classifier, nor to begin where the rate has fallen."""
    settings = {"epochs": None, "minutes": 0.001}
    recipe, data = prepared("probe", weights["resnet.pocket"], policy="none", cached=True, settings=settings)
    assert (recipe.epochs, recipe.minutes) == (CACHED_EPOCHS, None)
    assert tune(recipe, tmp_path / "run", data).epochs_done == CACHED_EPOCHS
    assert max(each.lr for each in read_metrics(tmp_path / "run" / "metrics.jsonl")) > 0.99 * recipe.lr
    slow, _ = prepared("probe", weights["resnet.pocket"], policy="none", cached=False, settings=settings)
    assert (slow.epochs, slow.minutes) == (None, 0.001)


def test_what_features_take_is_told_as_training(tmp_path, weights, monkeypatch):
    def slowly(*args, **more):
        time.sleep(0.5)
        return features_of(*args, **more)

    monkeypatch.setattr(tuning, "features_of", slowly)
    recipe, data = prepared("probe", weights["resnet.pocket"], policy="none", cached=True, settings={"epochs": 1})
    assert 0.5 < tune(recipe, tmp_path / "run", data).train_seconds < 5
