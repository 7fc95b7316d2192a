"""A user's own network is trained, stopped, gone on with and judged like any other; its code must stay what it was."""

from dataclasses import replace

import pytest
import torch

from convatlas.errors import UserError
from convatlas.models import user_files
from convatlas.records import codec
from convatlas.records.run import Recipe
from convatlas.training.apply import evaluate_run
from convatlas.training.checkpoint import load_model
from convatlas.training.loop import resume, train
from convatlas.training.outcome import Stopped
from convatlas.training.prepare import examine, named
from tests.training.makers import StopAfter, small_data, small_recipe

NET = """
from torch import nn
import torch

class Net(nn.Module):
    def __init__(self, num_classes=10, in_chans=3):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(in_chans, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.last = nn.Linear(8, num_classes)
    def forward(self, x):
        return self.last(self.body(x).mean((2, 3)))

class Decides(Net):
    def forward(self, x):
        return super().forward(x * 2 if x.sum() > 1e9 else x)

class Drawn(Net):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.rates = torch.linspace(0, 1, 3).tolist()

class Tells(Net):
    def forward(self, x):
        return {"logits": super().forward(x)}

class Maps(Net):
    def forward(self, x):
        return self.body(x)

class InTraining(Net):
    def forward(self, x):
        out = super().forward(x)
        return (out, out) if self.training else out

class Small(Net):
    def forward(self, x):
        return super().forward(x[:, :, :4, :4].reshape(len(x), 3, 99))

def ten():
    return Net(10)
"""


@pytest.fixture
def net(tmp_path, monkeypatch):
    monkeypatch.setattr(user_files, "_TRUSTED", set())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    user_files.trust(tmp_path / "net.py")
    return tmp_path / "net.py"


def recipe_of(name, **changes):
    return named(small_recipe(model=name, **changes))


def weights(folder):
    return load_model(folder)[0].state_dict()


@pytest.mark.parametrize("name", ["net.py:Net", "net.py:Drawn", "net.py:Decides", "net.py:Net{norm: layer, act: tanh}"])
def test_it_is_trained_and_judged(net, name):
    data, recipe = small_data(), recipe_of(name, epochs=2, lr=0.02)
    summary = train(recipe, net.parent / "run", data=data)
    assert (summary.status, summary.family, summary.model) == ("finished", "your own", recipe.model)
    own = sum(p.numel() for p in load_model(net.parent / "run")[0].parameters())
    assert summary.params == own and summary.macs > 0
    outcome = evaluate_run(net.parent / "run", data=data, split="val")
    assert outcome.top1 == summary.val_accuracy
    assert codec.read(Recipe, net.parent / "run" / "recipe.json").code_sha256 == user_files.code_of(name)


def test_stopped_and_resumed_it_is_the_same_to_the_bit(net):
    data, recipe = small_data(), recipe_of("net.py:Net")
    train(recipe, net.parent / "whole", data=data)
    with pytest.raises(Stopped):
        train(recipe, net.parent / "run", data=data, watch=StopAfter(7))
    resume(net.parent / "run", data=data)
    whole, run = weights(net.parent / "whole"), weights(net.parent / "run")
    assert all(torch.equal(value, run[key]) for key, value in whole.items())


def test_code_that_has_changed_is_refused(net):
    data, recipe = small_data(), recipe_of("net.py:Net", epochs=1)
    train(recipe, net.parent / "done", data=data)
    with pytest.raises(Stopped):
        train(recipe, net.parent / "run", data=data, watch=StopAfter(2))
    net.write_text(NET + "\n# changed\n")
    for act in (lambda: resume(net.parent / "run", data=data), lambda: load_model(net.parent / "done")):
        with pytest.raises(UserError, match=r"net.py has changed since .* \(SHA-256 [0-9a-f]{12} then, [0-9a-f]{12} now\)"):
            act()
    net.write_text(NET)
    resume(net.parent / "run", data=data)


def test_a_run_of_a_file_that_was_not_named_is_not_opened(net, monkeypatch):
    data = small_data()
    train(recipe_of("net.py:Net", epochs=1), net.parent / "run", data=data)
    monkeypatch.setattr(user_files, "_TRUSTED", set())
    for act in (lambda: load_model(net.parent / "run"), lambda: evaluate_run(net.parent / "run", data=data, split="val")):
        with pytest.raises(UserError, match="name it with --code net.py"):
            act()
    (net.parent / "run" / "recipe.json").unlink()  # shared are config.json and the weights alone
    user_files.trust(net)
    load_model(net.parent / "run")


def test_a_recipe_that_does_not_say_which_code(net):
    with pytest.raises(UserError, match="does not say with which net.py it was made"):
        examine(replace(recipe_of("net.py:Net"), code_sha256=None), small_data())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "net.py:ten",
            "net.py:ten gives a tensor (2, 10) for two images, and not logits (2, 6). Let the factory take num_classes",
        ),
        ("net.py:Tells", "gives a dict for two images"),
        ("net.py:Maps", "gives a tensor (2, 8, 16, 16) for two images"),
        ("net.py:InTraining", "gives a tuple for two images"),
        ("net.py:Small", "net.py:Small fails in training on images of 3 x 32 x 32: "),
    ],
)
def test_what_gives_no_logits_is_refused_before_anything_is_written(net, name, said):
    with pytest.raises(UserError) as refused:
        train(recipe_of(name), net.parent / "run", data=small_data())
    assert said in str(refused.value)
    assert not (net.parent / "run").exists()


def test_a_recipe_keeps_the_canonical_name():
    recipe = named(small_recipe(model="resnet{depths: [1,1,1]}"))
    assert (recipe.model, recipe.code_sha256) == ('resnet{"depths": [1, 1, 1]}', None)
    facts = examine(recipe, small_data())[1]
    assert facts.family == "resnet"


def test_too_many_stages_for_the_images_are_not_promised_to_fit_larger_ones():
    name = "vgg{depths: [1,1,1,1,1,1,1,1], widths: [4,4,4,4,4,4,4,4]}"
    with pytest.raises(UserError, match=r"images of 32 pixels do not fit .* or the network fewer stages"):
        examine(named(small_recipe(model=name)), small_data())
