"""Pretrained weights, recipes and data on which fine-tuning takes a second."""

from dataclasses import replace

import torch
from safetensors.torch import load_file, save_file

from convatlas.models.registry import create_model
from convatlas.records.run import Recipe, read_metrics
from convatlas.records.tuning import Tuning
from convatlas.training import loop
from convatlas.training.checkpoint import load_config, save_config
from convatlas.training.recipe import check_recipe
from convatlas.transfer.plan import DEFAULTS, prepared_for, recipe_for, start_from
from convatlas.transfer.tuning import method_of

from ..training.makers import small_data

TIMED = {"seconds", "images_per_second"}


def weights_file(path, model="resnet.pocket", *, seed=7, num_classes=10):
    """A file of random weights whose BatchNorms have statistics of their own; returns its path as text."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = create_model(model, num_classes=num_classes)
        tensors = {}
        for name, tensor in network.state_dict().items():
            moved = tensor + 0.1 * torch.rand_like(tensor) if tensor.is_floating_point() else tensor
            tensors[name] = moved.contiguous().clone()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(path))
    return str(path)


def photographs(*, n=48, size=32, val=24, test=12):
    """Images somewhat larger than the pixels that networks see."""
    data = small_data(n=n, size=size + 4)
    return replace(data, val=data.val.subset(range(val)), test=data.test.subset(range(test)), crop=size)


def prepared(strategy, weights, data=None, *, model="resnet.pocket", settings=None, **tuning):
    """The recipe of a strategy, and the data as it wants them."""
    data = photographs(size=16 if model == "resnet.pocket" else 32) if data is None else data
    start = start_from(model, weights, image_size=data.crop)
    data = prepared_for(data, start.preprocessing)
    given = {"epochs": 2, "batch_size": 16, "precision": "fp32", **(settings or {})}
    return recipe_for(strategy, model, start, data, settings=given, **tuning), data


def tune(recipe, folder, data, **more):
    return loop.train(recipe, folder, data=data, method=method_of(recipe, data), **more)


def go_on(recipe, folder, data, **more):
    return loop.resume(folder, data=data, method=method_of(recipe, data), **more)


def untempered(folder):
    """The folder, whose network's answers are now judged as its training did: without the temperature."""
    save_config(folder, replace(load_config(folder), temperature=1.0))
    return folder


def tensors(folder):
    return load_file(str(folder / "model.safetensors"))


def same(a, b):
    """Whether two dicts of tensors are equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def outcome(folder):
    """What a run measured, without what a clock decides."""
    return [{k: v for k, v in vars(m).items() if k not in TIMED} for m in read_metrics(folder / "metrics.jsonl")]


def bare_recipe(strategy, *, model="resnet.pocket", **changes):
    """A recipe without data and weights, for what depends on neither, and its tuning."""
    tuning = {name: changes.pop(name) for name in list(changes) if name in Tuning.__dataclass_fields__}
    made = Tuning(strategy=strategy, weights=None, weights_sha256=None, preprocessing=None, **tuning)
    recipe = Recipe(model=model, data="shapes", data_fingerprint="f" * 32, epochs=2, tuning=made, **(DEFAULTS | changes))
    check_recipe(recipe)
    return recipe, made
