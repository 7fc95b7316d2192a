"""`convatlas memory`: predictions against a process that was measured, and against what must hold of them."""

import json
import platform
from dataclasses import replace

import pytest
import torch

from convatlas.arith.memory import training_bytes
from convatlas.errors import UserError
from convatlas.inspection.ledger import ledger
from convatlas.models.registry import create_model
from convatlas.records import codec
from convatlas.records.memory import MemoryRecord
from convatlas.study import peak
from convatlas.study.contestant import Contestant
from convatlas.study.step_memory import predict
from convatlas.training.recipes import completed

from .zygote import command

NET = """
import torch
from torch import nn

class Decides(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
    def forward(self, x):
        return self.conv(x) if x.sum() > 0 else x

def make(num_classes=5):
    print("HELLO")
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))
"""
POCKET = ("resnet.pocket", "--image-size", "32", "--num-classes", "10")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("memory") / "here"
    place.mkdir()
    (place / "net.py").write_text(NET)
    return place


def asked(*words, folder):
    done = command("memory", *words, "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    return codec.from_plain(MemoryRecord, json.loads(done.stdout), where="x")


def on_meta(name, image_size=32):
    with torch.device("meta"):
        return create_model(name, num_classes=10, image_size=image_size)


def predicted(name="resnet.pocket", *, optimizer="adamw", batch_size=16, precision="fp32", image_size=32, **how):
    recipe = replace(completed(name, "shapes", optimizer), batch_size=batch_size, precision=precision)
    return predict(lambda: on_meta(name, image_size), recipe, (3, 32, 32), **how)


@pytest.mark.slow
@pytest.mark.untraced  # processes of which tests/study/test_measuring.py reaches the lines
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what was asked for is told from what was kept by glibc's settings")
def test_a_prediction_is_what_a_process_takes(folder):
    """docs/LOG.md has the others: this is the least that is worth its processes."""
    record = asked(*POCKET, "--batch-size", "64", "--measure", folder=folder)
    exact, kept = record.measured
    assert (exact.blocks, kept.blocks) == ("exact", "kept")
    assert exact.training == pytest.approx(record.training.total, rel=0.15)
    assert exact.inference == pytest.approx(record.inference.total, rel=0.15)
    assert kept.training > 0.9 * exact.training, "no block is smaller for being kept"


@pytest.mark.parametrize("name", ["lenet.pocket", "resnet.pocket", "densenet.pocket", "convnext.pocket", "googlenet.pocket"])
def test_it_is_near_to_what_the_ledger_adds_up(name):
    memory = ledger(on_meta(name), (3, 32, 32)).memory
    parts = {"weights": memory.weights, "trained": memory.gradients, "peak": memory.peak, "kept_once": memory.kept_once}
    assert predicted(name)[1].total == pytest.approx(training_bytes(**parts, batch_size=16), rel=0.05)


def test_parts_are_what_they_are():
    inference, training = predicted()
    weights = 4 * sum(each.numel() for each in on_meta("resnet.pocket").parameters())
    for use in (inference, training):
        parts = (use.weights, use.gradients, use.optimizer, use.images, use.activations)
        assert sum(parts) == use.total and min(parts) >= 0
        assert weights < use.weights < 1.02 * weights, "and the buffers"
        assert use.images == 4 * 16 * 3 * 32 * 32
    assert (inference.gradients, inference.optimizer, inference.when) == (0, 0, "forward")
    assert (training.when, training.gradients <= weights) == ("backward", True)
    assert training.optimizer == pytest.approx(2 * weights, rel=0.01)


@pytest.mark.parametrize(("optimizer", "copies"), [("adamw", 2), ("adam", 2), ("sgd", 1), ("muon", 1)])
def test_every_optimizer_keeps_its_own(optimizer, copies):
    _, use = predicted("lenet.pocket", optimizer=optimizer)
    assert use.optimizer == pytest.approx(copies * use.weights, rel=0.01)


def test_what_saves_memory_saves_it():
    full = predicted()[1].total
    for how in ({"checkpointing": True}, {"precision": "bf16"}):
        assert predicted(**how)[1].total < 0.75 * full, how
    head = predicted(trains="head")[1]
    classifier = 4 * sum(each.numel() for each in on_meta("resnet.pocket").head.classifier.parameters())
    assert head.total < 0.5 * full
    assert head.gradients <= classifier
    assert head.optimizer == 2 * classifier + 2 * 4, "and a count of steps for each of two tensors"


def test_twice_the_batch_is_twice_the_activations():
    one, two = predicted(batch_size=32)[1], predicted(batch_size=64)[1]
    assert two.activations == pytest.approx(2 * one.activations, rel=0.02)


def test_the_table(folder):
    done = command("memory", *POCKET, "--checkpointing", "--trains", "head", folder=folder)
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first == "resnet.pocket, 64 images of 3x32x32 a step, adamw, fp32, checkpointing"
    assert rest[0] == "the classifier alone is trained"
    assert [line.split()[0] for line in rest[3:9]] == ["weights", "gradients", "optimizer", "images", "activations", "total"]
    assert any("--measure" in line for line in rest)


def test_a_network_of_ones_own(folder):
    record = asked("net.py:make", "--image-size", "16", "--batch-size", "4", folder=folder)
    assert (record.model, record.num_classes, record.input_shape) == ("net.py:make", 5, (3, 16, 16))
    assert record.training.weights == 4 * (8 * 27 + 8 + 8 + 8 + 8 + 8 + 8 * 5 + 5) + 8


def test_the_measuring_process_trains_the_head_alone():
    recipe = completed("resnet.pocket", "shapes", "adamw")
    order = peak.PeakOrder(recipe, 10, 3, 32, 2, 1, checkpointing=True, trains="head")
    contestant = peak._as_ordered(Contestant(recipe, torch.zeros(2, 3, 32, 32), num_classes=10), order)
    assert contestant.model.recomputes
    assert [name for name, each in contestant.model.named_parameters() if each.requires_grad] == [
        "head.classifier.weight",
        "head.classifier.bias",
    ]
    assert sum(len(group["params"]) for group in contestant.optimizer.param_groups) == 2


BAD = [
    (["resnet18", "--batch-size", "0"], "--batch-size"),
    (["resnet18", "--num-classes", "0"], "--num-classes"),
    (["resnt18"], "no model called 'resnt18'. Did you mean resnet18"),
    (["vgg16", "--image-size", "8"], "layer stages.4.6 (MaxPool2d) the map is 1x1"),
    (["resnet18", "--optimizer", "adamm"], "--optimizer is 'adamm'. Choose adamw, sgd, muon or adam."),
    (["resnet18", "--precision", "fp16"], "--precision is 'fp16'. Choose fp32 or bf16."),
    (["resnet18", "--trains", "stem"], "--trains is 'stem'. Choose full or head."),
    (["lenet5.paper", "--trains", "head"], "does not end in a linear classifier"),
    (["net.py:Decides", "--image-size", "16"], "may decide upon them"),
    (["resnet50", "--image-size", "65", "--batch-size", "1", "--measure", "--precision", "fp3"], "--precision is 'fp3'"),
]


@pytest.mark.parametrize(("words", "said"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input(folder, words, said):
    done = command("memory", *words, folder=folder)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("error: ")
    assert said in " ".join(done.stderr.split())
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_step_that_cannot_be_taken_is_said():
    """BatchNorm on a map of one pixel, of one image."""
    with pytest.raises(UserError, match="takes no step on 1 images that have no values: Expected more than 1 value per channel"):
        predicted("resnet18", image_size=224, batch_size=1)
