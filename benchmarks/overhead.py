"""What ConvAtlas's training loop costs beyond forward, backward and optimizer step, on networks so small that it would show.

    python benchmarks/overhead.py [MODEL ...] [--batch-size 128] [--threads N] [--rounds 15]
                                  [--processes 1]

Processes take turns at the same network, optimizer and number format: a bare loop, and `convatlas train` itself, once with
batches that are ready and once with its own augmentation (--processes: see train_step.py). Prints the ratios of their times with
their intervals.
"""

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from train_step import CLASSES, TurnTaking, check_counts, random_images, turns

EPOCH = 390
"""Batches: about as many as CIFAR-10 has at 128 images."""
LOOPS = ("bare", "loop", "loop and augmentation")


def bare(name: str, batch_size: int, steps: int) -> None:
    """Forward, backward and step, and nothing else."""
    import torch
    import torch.nn.functional as F

    from convatlas.training.engine import choose
    from convatlas.training.optim import make_optimizer
    from convatlas.training.precision import autocast

    recipe, data = _run(name, batch_size)
    model = _network(recipe, data)
    optimizer = make_optimizer(model, recipe)
    choices = choose(recipe, model)
    x, y = next(_ready(data, recipe, torch.bfloat16 if choices.precision == "bf16" else torch.float32))
    watch = TurnTaking(steps)
    while not watch.stopping():
        with autocast(choices):
            answers = model.training_logits(x)
        loss = torch.stack([weight * F.cross_entropy(logits.float(), y) for weight, logits in answers]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _run(name: str, batch_size: int) -> tuple[Any, Any]:
    """A recipe and random data for it."""
    import torch

    from convatlas.data.dataset import DataSet, ImageSet
    from convatlas.models.registry import find_variant
    from convatlas.records.run import Recipe

    images = random_images(EPOCH, batch_size, find_variant(name).in_chans)
    some = ImageSet(images, torch.arange(len(images)) % CLASSES)
    channels, none = images.shape[1], some.subset([])
    classes = tuple(str(i) for i in range(CLASSES))
    data = DataSet("shapes", "random", classes, some, none, none, (0.5,) * channels, (0.25,) * channels, "0" * 32)
    settings: dict[str, Any] = {"compile": "off", "convolutions": "stock", "clip_grad": 0.0, "label_smoothing": 0.0, "lr": 1e-4}
    recipe = Recipe(model=name, data="shapes", data_fingerprint="0" * 32, epochs=100_000, batch_size=batch_size, **settings)
    return recipe, data


def _network(recipe: Any, data: Any) -> Any:
    import torch

    from convatlas.training.prepare import network_for

    return network_for(recipe.model, data, size=data.image_size).to(memory_format=torch.channels_last).train()


def _ready(data: Any, recipe: Any, dtype: Any) -> Iterator[tuple[Any, Any]]:
    """One batch, over and over."""
    import torch

    from convatlas.data.augment import normalise

    size = recipe.batch_size
    x = normalise(data.train.images[:size], mean=data.mean, std=data.std, dtype=dtype, memory_format=torch.channels_last)
    while True:
        yield x, data.train.labels[:size]


def ours(name: str, batch_size: int, steps: int, *, ready: bool) -> None:
    """`convatlas train` on random images; with `ready` its batches are made beforehand."""
    import itertools

    import torch

    from convatlas.training import loop
    from convatlas.training.state import Run

    recipe, data = _run(name, batch_size)

    def made_before(run: Run, *, size: int | None) -> Iterator[tuple[Any, Any]]:
        dtype = torch.bfloat16 if run.choices.precision == "bf16" else torch.float32
        return itertools.islice(_ready(data, recipe, dtype), EPOCH)

    if ready:
        Run.batches = made_before  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(SystemExit):
        loop.train(recipe, Path(folder) / "run", data=data, watch=TurnTaking(steps))


def main() -> None:
    """Parse, measure, print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["lenet5", "resnet.pocket"])
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--work", choices=LOOPS, help=argparse.SUPPRESS)
    for option, default in (("--image-size", "32"), ("--device", "cpu")):  # `turns` names them
        parser.add_argument(option, default=default, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.loops, options.data, options.script = LOOPS, False, __file__
    if options.work:
        _work(options)
        return
    check_counts(parser, options)
    print("| network | bare, ms a step | loop | loop and augmentation |\n|---|---|---|---|")
    for name in options.models:
        print("| " + " | ".join(_row(name, options)) + " |", flush=True)


def _work(options: argparse.Namespace) -> None:
    from convatlas.training.allocator import keep_memory

    keep_memory()
    import torch

    torch.set_num_threads(options.threads)
    arguments = (options.models[0], options.batch_size, options.steps)
    if options.work == "bare":
        bare(*arguments)
    else:
        ours(*arguments, ready=options.work == "loop")


def _row(name: str, options: argparse.Namespace) -> list[str]:
    from convatlas.arith.order import median_interval

    seconds = turns(name, options)
    row = [name, f"{1e3 * median_interval(seconds['bare'])[1] / options.steps:.2f}"]
    for loop in LOOPS[1:]:
        low, middle, high = median_interval([a / b for a, b in zip(seconds[loop], seconds["bare"], strict=True)])
        row.append(f"{middle:.3f} ({low:.3f} to {high:.3f})")
    return row


if __name__ == "__main__":
    main()
