"""How fast ConvAtlas trains a network, beside the loops that people write: images a second, and ratios with their intervals.

    python benchmarks/train_step.py [MODEL ...] [--batch-size 128] [--image-size 32] [--threads N] [--rounds 9] [--data]
                                    [--processes 1] [--device cuda]

Each loop runs in a process of its own, since allocator settings hold for a whole process; the processes take turns, so that what
the machine does besides falls on all alike. Where a step takes milliseconds, processes of the same loop differ among themselves,
presumably by where their memory lies: with --processes 7 each loop has seven, one after the other, and counts as often, with the
mean of its rounds. All train the same network on 32x32 images:

    teaching     fp32, NCHW, eager, Adam, the loss read at every step: what courses teach
    expert       bf16 autocast where the processor has it, channels_last, fused AdamW: what somebody writes who knows PyTorch
    torchvision  as its reference script goes: fp32, SGD, accuracy and loss read at every step
    timm         as its script goes with --amp --channels-last: bf16 autocast, SGD, loss read now and then
    convatlas    `convatlas train` itself, augmentation included; an epoch, at whose end metrics and state are kept, has 390 steps

The others are given batches that are ready; with --data the teaching loop prepares its own by Pillow, image by image, and the
expert's a batch at a time, with tensors. The last column is ours as a share of the processor's peak: operations of a step (six
for each MAC of an image's answer: two forward, four backward) a second, over those of a product of two matrices in the faster
number format, which takes turns too.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median
from typing import Any

DEFAULT = ("lenet5", "vgg11", "resnet18")
LOOPS = ("teaching", "expert", "torchvision", "timm", "convatlas")
CLASSES = 10
EPOCH, LARGE_EPOCH = 390, 8
"""Batches: about as many as CIFAR-10 has at 128 images; and of images above 64 pixels, which would fill the memory."""
UNCOUNTED = 2
"""Rounds, at first."""
PEAK = "peak"
SIDE, PRODUCTS = {"cpu": 2048, "cuda": 8192}, 4
"""Of the matrices that show the device's peak, and how many products a turn has."""
STEP_OPERATIONS = 6
"""For each MAC of an image's answer."""


def _bf16(device: str) -> bool:
    from convatlas.training.precision import cpu_computes_bf16

    return device == "cuda" or cpu_computes_bf16()


def _finish(device: str) -> None:
    """Wait until the device has done what it was asked for."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def random_images(batches: int, batch_size: int, channels: int, size: int = 32) -> Any:
    """So many batches of uint8 images (N, channels, size, size)."""
    import torch

    shape = (batches * batch_size, channels, size, size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def products(device: str) -> Callable[[int], None]:
    """A function that multiplies matrices, however many steps it is asked for."""
    import torch

    dtype = torch.bfloat16 if _bf16(device) else torch.float32
    left, right = (torch.randn(SIDE[device], SIDE[device]).to(device, dtype) for _ in range(2))

    def multiply(_: int) -> None:
        for _ in range(PRODUCTS):
            left @ right

    return multiply


def hand_written(loop: str, name: str, options: argparse.Namespace) -> Callable[[int], None]:
    """A function that takes so many steps of one of the loops that people write."""
    import torch
    import torch.nn.functional as F

    from convatlas.models.registry import create_model, find_variant

    channels, batch_size = find_variant(name).in_chans, options.batch_size
    fast = loop in ("expert", "timm")
    model = create_model(name, num_classes=CLASSES, in_chans=channels, image_size=options.image_size).train()
    images = random_images(8, batch_size, channels, options.image_size)
    labels = (torch.arange(len(images)) % CLASSES).to(options.device)
    x = (images.float() / 255 - 0.5).to(options.device)
    model = model.to(options.device)
    torch.backends.cudnn.benchmark = loop != "teaching"
    if fast:
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    optimizer: torch.optim.Optimizer = {
        "teaching": lambda: torch.optim.Adam(model.parameters(), lr=1e-4),
        "expert": lambda: torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True),
        "torchvision": lambda: torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4),
        "timm": lambda: torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=2e-5, nesterov=True),
    }[loop]()
    pipelines = {"teaching": _by_pillow, "expert": _by_tensors}
    prepare = pipelines[loop](images) if options.data and loop in pipelines else None

    def steps(count: int) -> None:
        for i in range(count):
            at = i % 8 * batch_size
            batch, y = x[at : at + batch_size], labels[at : at + batch_size]
            if prepare is not None:
                batch = prepare(at, batch_size).to(options.device)
            optimizer.zero_grad()
            with torch.autocast(options.device, dtype=torch.bfloat16, enabled=fast and _bf16(options.device)):
                answers = model.training_logits(batch)
                loss = torch.stack([weight * F.cross_entropy(logits, y) for weight, logits in answers]).sum()
            loss.backward()
            optimizer.step()
            if loop == "teaching" or (loop == "timm" and i % 50 == 0):
                loss.item()
            if loop == "torchvision":
                five = answers[0][1].topk(5, 1)[1].eq(y[:, None])
                float(loss.item() + five[:, 0].float().mean().item() + five.float().mean().item())

    return steps


def _by_tensors(images: Any) -> Callable[[int, int], Any]:
    """A batch at a time, as one writes it who knows PyTorch: cropped at random from padded images, mirrored, by one indexing."""
    import torch
    import torch.nn.functional as F

    padded, pixels = F.pad(images, (4, 4, 4, 4)), torch.arange(images.shape[-1])

    def prepared(first: int, count: int) -> Any:
        down, across = torch.randint(0, 9, (2, count, 1))
        mirrored = torch.rand(count, 1) < 0.5
        rows, columns = pixels + down, torch.where(mirrored, pixels.flip(0), pixels) + across
        chosen = torch.arange(first, first + count)[:, None, None]
        # The channels come last, which is how autocast's convolutions want them.
        batch = padded[chosen, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        return batch.float().div_(255).sub_(0.5)

    return prepared


def _by_pillow(images: Any) -> Callable[[int, int], Any]:
    """One image at a time as courses do it: cropped at random from a padded picture, mirrored at random, to a tensor."""
    import random

    import numpy as np
    import torch
    from PIL import Image, ImageOps

    pictures = [Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()) for image in images]
    side = images.shape[-1]

    def image(i: int) -> Any:
        padded = ImageOps.expand(pictures[i], 4)
        left, top = random.randint(0, 8), random.randint(0, 8)
        picture = padded.crop((left, top, left + side, top + side))
        picture = ImageOps.mirror(picture) if random.random() < 0.5 else picture
        pixels = np.asarray(picture, dtype=np.uint8)
        tensor = torch.from_numpy(pixels.copy()).view(side, side, -1).permute(2, 0, 1).contiguous().float().div(255)
        return tensor.sub(0.5)

    return lambda first, count: torch.stack([image(i) for i in range(first, first + count)])


class TurnTaking:
    """A watcher of a real run that stops the clock after so many steps, and waits for its next turn."""

    def __init__(self, steps: int, device: str = "cpu") -> None:
        self.per_turn, self.left, self.begun, self.device = steps, 0, 0.0, device

    def stopping(self) -> bool:
        """Called by the loop after each step."""
        self.left -= 1
        if self.left <= 0:
            _finish(self.device)
            if self.begun:
                print(json.dumps(time.perf_counter() - self.begun), flush=True)
            if not sys.stdin.readline():
                raise SystemExit
            self.left, self.begun = self.per_turn, time.perf_counter()
        return False

    def step(self, *_: object) -> None:
        """Nothing."""

    epoch = note = trying = chosen = step


def ours(name: str, options: argparse.Namespace) -> None:
    """`convatlas train` on random images, turn by turn."""
    import torch

    from convatlas.data.dataset import DataSet, ImageSet
    from convatlas.models.registry import find_variant
    from convatlas.records.run import Recipe
    from convatlas.training.loop import train

    batch_size, size = options.batch_size, options.image_size
    images = random_images(EPOCH if size <= 64 else LARGE_EPOCH, batch_size, find_variant(name).in_chans, size)
    some = ImageSet(images, torch.arange(len(images)) % CLASSES)
    channels = images.shape[1]
    classes = tuple(str(i) for i in range(CLASSES))
    none = some.subset([])
    data = DataSet("shapes", "random", classes, some, none, none, (0.5,) * channels, (0.25,) * channels, "0" * 32)
    recipe = Recipe(
        model=name,
        data="shapes",
        data_fingerprint="0" * 32,
        epochs=100_000,
        batch_size=batch_size,
        clip_grad=0.0,
        label_smoothing=0.0,
        lr=1e-4,
        device=options.device,
    )
    with tempfile.TemporaryDirectory() as folder:
        train(recipe, Path(folder) / "run", data=data, watch=TurnTaking(options.steps, options.device))


def work(loop: str, name: str, options: argparse.Namespace) -> None:
    """One contestant: for every line on standard input it takes its steps, and prints how many seconds they took."""
    if loop == "convatlas":
        from convatlas.training.allocator import keep_memory

        keep_memory()
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if loop == "convatlas":
        ours(name, options)
        return
    steps = products(options.device) if loop == PEAK else hand_written(loop, name, options)
    steps(1)
    for _ in sys.stdin:
        _finish(options.device)
        begun = time.perf_counter()
        steps(options.steps)
        _finish(options.device)
        print(json.dumps(time.perf_counter() - begun), flush=True)


def turns(name: str, options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of each loop: a value for each round, or for each of its processes, the mean of its rounds, if it has several.

    The mean, since an epoch's end falls into few rounds.
    """
    if options.processes == 1:
        return _rounds(name, options, first=1)
    sets = [_rounds(name, options, first=1 if i % 2 == 0 else -1) for i in range(options.processes)]
    return {loop: [fmean(one[loop]) for one in sets] for loop in options.loops}


def check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse, before anything is begun, what cannot be measured or has no interval."""
    from convatlas.arith.order import FEWEST

    for name, value in vars(options).items():
        if type(value) is int and value < 1:  # not a flag
            parser.error(f"--{name.replace('_', '-')}: 1 or more")
    if options.processes == 1 and options.rounds < FEWEST:
        parser.error(f"--rounds: an interval needs {FEWEST} or more")
    if 1 < options.processes < FEWEST:
        parser.error(f"--processes: 1, or the {FEWEST} or more that an interval needs")
    from convatlas.errors import UserError
    from convatlas.models.registry import find_variant

    try:
        for name in options.models:
            find_variant(name)
    except UserError as error:
        parser.error(str(error))


def _rounds(name: str, options: argparse.Namespace, *, first: int) -> dict[str, list[float]]:
    """Seconds of each round of each loop; every second round in the opposite order (first: 1, or -1 to begin with that)."""
    command = [sys.executable, __file__, name, *(["--data"] if options.data else [])]
    for word in ("batch_size", "image_size", "threads", "device", "steps"):
        command += [f"--{word.replace('_', '-')}", str(getattr(options, word))]
    workers = {
        loop: subprocess.Popen([*command, "--work", loop], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for loop in options.loops
    }
    seconds: dict[str, list[float]] = {loop: [] for loop in workers}
    try:
        for i in range(UNCOUNTED + options.rounds):
            for loop in list(workers)[:: first if i % 2 == 0 else -first]:
                seconds[loop].append(_turn(loop, workers[loop]))
    finally:
        for worker in workers.values():
            worker.communicate()
    return {loop: values[UNCOUNTED:] for loop, values in seconds.items()}


def _turn(loop: str, worker: "subprocess.Popen[str]") -> float:
    """The seconds that a worker's turn takes; what it ended by, it has said itself."""
    assert worker.stdin is not None and worker.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        worker.stdin.write("go\n")
        worker.stdin.flush()
    line = worker.stdout.readline()
    if not line:
        sys.exit(f"{loop}: ended before its turn was over")
    return float(line)


def rows(names: list[str], options: argparse.Namespace) -> list[tuple[str, ...]]:
    """A row for each network: images a second of each loop, then ours against each other one with a 95 % interval."""
    from convatlas.arith.order import median_interval

    found = []
    for name in names:
        seconds = turns(name, options)
        peak = 2 * SIDE[options.device] ** 3 * PRODUCTS / median(seconds.pop(PEAK))
        images = options.batch_size * options.steps
        speeds = [f"{images / median(values):,.0f}" for values in seconds.values()]
        used = STEP_OPERATIONS * _macs(name, options.image_size) * images / median(seconds["convatlas"])
        ratios = []
        for loop, values in seconds.items():
            if loop != "convatlas":
                low, middle, high = median_interval([a / b for a, b in zip(values, seconds["convatlas"], strict=True)])
                ratios.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
        found.append((name, *speeds, *ratios, f"{100 * used / peak:.0f} % of {peak / 1e12:.2f} TFLOP/s"))
        print("| " + " | ".join(found[-1]) + " |", flush=True)
    return found


def _macs(name: str, size: int) -> int:
    """Of one image's answer."""
    from convatlas.inspection.trace import trace
    from convatlas.models.registry import create_model, find_variant

    channels = find_variant(name).in_chans
    return trace(create_model(name, num_classes=CLASSES, in_chans=channels, image_size=size), (channels, size, size)).macs


def main() -> None:
    """Parse, measure, print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(DEFAULT))
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--loops", nargs="*", default=list(LOOPS), choices=LOOPS)
    parser.add_argument("--data", action="store_true")
    parser.add_argument("--device", default="cpu", choices=tuple(SIDE))
    parser.add_argument("--work", choices=(*LOOPS, PEAK), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.models[0], options)
        return
    if "convatlas" not in options.loops:
        parser.error("--loops: convatlas is what the others are held against, and must be among them")
    check(parser, options)
    shown = list(options.loops)
    columns = ["network", *shown, *(f"against {loop}" for loop in shown if loop != "convatlas"), "of the peak"]
    options.loops = [*shown, PEAK]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    rows(options.models, options)


if __name__ == "__main__":
    main()
