"""What ConvAtlas's training loop costs beyond forward, backward and optimizer step, on networks so small that it would show.

    python benchmarks/overhead.py [MODEL ...] [--batch-size 128] [--threads N] [--rounds 6] [--processes 1]
                                  [--steps 39] [--turns 10]

In one process, in turns of --steps, with the same network, optimizer, rate, number format and algorithms: a bare loop, and
`convatlas train` itself, once with batches that are ready and once with its own augmentation. A round has --turns of each, and is
an epoch of the run: its end, where metrics and now and then the state are kept, counts with it. Prints the ratios of their times
with their intervals: of the rounds, or with --processes 7 of so many processes, each with the median of its rounds. (Two
processes that do the same differ by more than what is looked for here. What they share is left out: memory that is kept serves
both loops.)
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from train_step import CLASSES, UNCOUNTED, TurnTaking, check, random_images

LOOPS = ("loop", "loop and augmentation")
COUNTS = ("batch_size", "threads", "rounds", "steps", "turns")


def bare(recipe: Any, data: Any, choices: Any, held: contextlib.ExitStack) -> Callable[[int], None]:
    """A function that takes so many steps of forward, backward and update, computed as chosen while `held`, and nothing else."""
    import torch
    import torch.nn.functional as F

    from convatlas.training.engine import applied
    from convatlas.training.optim import make_optimizer
    from convatlas.training.precision import autocast

    model = _network(recipe, data)
    optimizer = make_optimizer(model, recipe)
    answer = held.enter_context(applied(choices, model))
    x, y = next(_ready(data, recipe, torch.bfloat16 if choices.precision == "bf16" else torch.float32))

    def steps(count: int) -> None:
        for _ in range(count):
            with autocast(choices):
                answers = answer(x)
            loss = torch.stack([weight * F.cross_entropy(logits.float(), y) for weight, logits in answers]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return steps


class Beside(TurnTaking):
    """A watcher of a real run that takes turns with it: prints the seconds of each round, [the run's, the bare loop's].

    The first two rounds do not count; after `rounds` more the process ends.
    """

    def __init__(self, options: argparse.Namespace, make_bare: Callable[[Any], Callable[[int], None]]) -> None:
        super().__init__(options.steps)
        self.turns, self.rounds, self.make_bare = options.turns, options.rounds, make_bare
        self.taken, self.seconds = 0, [0.0, 0.0]
        self.left, self.begun = self.per_turn, time.perf_counter()

    def chosen(self, choices: Any) -> None:  # type: ignore[override]
        """Called by the loop once, before the first step: the bare loop computes its layers as the run does."""
        self.bare_steps = self.make_bare(choices)

    def stopping(self) -> bool:
        """Called by the loop after each step."""
        self.left -= 1
        if self.left == 0:
            ended = time.perf_counter()
            self.bare_steps(self.per_turn)
            self._count(ended - self.begun, time.perf_counter() - ended)
            self.left, self.begun = self.per_turn, time.perf_counter()
        return False

    def _count(self, of_run: float, alone: float) -> None:
        self.seconds = [self.seconds[0] + of_run, self.seconds[1] + alone]
        self.taken += 1
        rounds, within = divmod(self.taken, self.turns)
        if within:
            return
        if rounds > UNCOUNTED:
            print(json.dumps(self.seconds), flush=True)
        if rounds == UNCOUNTED + self.rounds:
            raise SystemExit
        self.seconds = [0.0, 0.0]


def _run(name: str, batch_size: int, batches: int) -> tuple[Any, Any]:
    """A recipe, and random data for it: so many batches."""
    import torch

    from convatlas.data.dataset import DataSet, ImageSet
    from convatlas.models.registry import find_variant
    from convatlas.records.run import Recipe

    images = random_images(batches, batch_size, find_variant(name).in_chans)
    some = ImageSet(images, torch.arange(len(images)) % CLASSES)
    channels, none = images.shape[1], some.subset([])
    classes = tuple(str(i) for i in range(CLASSES))
    data = DataSet("shapes", "random", classes, some, none, none, (0.5,) * channels, (0.25,) * channels, "0" * 32)
    settings: dict[str, Any] = {"compile": "off", "clip_grad": 0.0, "label_smoothing": 0.0}
    settings |= {"schedule": "constant", "warmup": 0.0, "lr": 1e-4}
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


def ours(name: str, options: argparse.Namespace, *, ready: bool) -> None:
    """`convatlas train` on random images beside the bare loop; with `ready` its batches are made beforehand."""
    import torch

    from convatlas.training import loop
    from convatlas.training.state import Run

    epoch = options.steps * options.turns
    recipe, data = _run(name, options.batch_size, epoch)

    def made_before(run: Run, *, size: int | None) -> Iterator[tuple[Any, Any]]:
        dtype = torch.bfloat16 if run.choices.precision == "bf16" else torch.float32
        return islice(_ready(data, recipe, dtype), epoch)

    if ready:
        Run.batches = made_before  # type: ignore[method-assign]
    with contextlib.ExitStack() as held, tempfile.TemporaryDirectory() as folder, contextlib.suppress(SystemExit):
        watch = Beside(options, lambda choices: bare(recipe, data, choices, held))
        loop.train(recipe, Path(folder) / "run", data=data, watch=watch)


def main() -> None:
    """Parse, measure, print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["lenet5", "resnet.pocket"])
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--steps", type=int, default=39)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--work", choices=LOOPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        _work(options)
        return
    check(parser, options)
    print("| network | bare, ms a step | loop | loop and augmentation |\n|---|---|---|---|")
    for name in options.models:
        print("| " + " | ".join(_row(name, options)) + " |", flush=True)


def _work(options: argparse.Namespace) -> None:
    from convatlas.training.allocator import keep_memory

    keep_memory()
    import torch

    torch.set_num_threads(options.threads)
    ours(options.models[0], options, ready=options.work == "loop")


def _row(name: str, options: argparse.Namespace) -> list[str]:
    """The network, milliseconds of a bare step, and the ratio of each loop."""
    from convatlas.arith.order import median_interval

    cells, seconds = [], []
    for loop in LOOPS:
        processes = [_pairs(name, loop, options) for _ in range(options.processes)]
        seconds += [alone for pairs in processes for _, alone in pairs]
        of_rounds = [[taken / alone for taken, alone in pairs] for pairs in processes]
        low, middle, high = median_interval(of_rounds[0] if options.processes == 1 else [median(ratios) for ratios in of_rounds])
        cells.append(f"{middle:.3f} ({low:.3f} to {high:.3f})")
    return [name, f"{1e3 * median(seconds) / options.steps / options.turns:.2f}", *cells]


def _pairs(name: str, loop: str, options: argparse.Namespace) -> list[list[float]]:
    """Seconds of each round of a process: the loop's, the bare loop's."""
    counts = [f"--{word.replace('_', '-')}={getattr(options, word)}" for word in COUNTS]
    done = subprocess.run([sys.executable, __file__, name, *counts, "--work", loop], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{name}, {loop}: ended with code {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines()]


if __name__ == "__main__":
    main()
