"""Flip, shifted crop and normalisation, and more: our batches beside torchvision's transforms of PIL images, and how long
training waits.

    python benchmarks/augment.py [--quick]

Two tables. The first: images a second of torchvision's usual transforms for CIFAR-10 (RandomCrop(32, padding=4),
RandomHorizontalFlip, ToTensor, Normalize, image by image, then stacked) and of our batches in fp32 and bf16, in channels_last,
by batch size and threads, in bf16 also with each thing that `convatlas train` does to images besides (TrivialAugment,
RandAugment, MixUp, CutMix); ratios are of times, against the first line of each group, round by round, with their 95 % interval.
Without torchvision its lines are left out. The second: for three networks how long making a batch takes beside the step that
trains on it, and whether one thread that makes the next batch meanwhile shortens the two together. All in turns, in one process.
"""

import argparse
import functools
import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from convatlas.data.batches import training_batches
from convatlas.data.dataset import ImageSet
from convatlas.data.mixing import Mixing
from convatlas.inspection.timing import compare_times
from convatlas.models.registry import create_model
from convatlas.training.precision import cpu_computes_bf16

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
NETWORKS = ("lenet5", "resnet.pocket", "resnet18")
SIZE, IMAGES, BATCH, CLASSES = 32, 10_000, 128, 10
BESIDES: dict[str, dict[str, Any]] = {
    "TrivialAugment": {"augment": "trivial"},
    "RandAugment": {"augment": "rand"},
    "MixUp": {"mixing": Mixing(mixup=1.0, cutmix=0.0, num_classes=CLASSES)},
    "CutMix": {"mixing": Mixing(mixup=0.0, cutmix=1.0, num_classes=CLASSES)},
}
"""What else is done to images, as `training_batches` takes it."""


@dataclass(frozen=True)
class Row:
    """One way of making batches: images a second (median of `n` batches), and its time as a share of that of `base`."""

    what: str
    batch_size: int
    threads: int
    n: int
    images_per_second: float
    base: str
    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Share:
    """Median seconds of a step and of making its batch; their ratio; and "the next batch made by a thread" over "in turn"."""

    model: str
    n: int
    step: float
    batch: float
    ratio: tuple[float, float, float]
    thread: tuple[float, float, float]


def random_images() -> ImageSet:
    """As many bytes as in CIFAR-10's images, of which the values do not matter for the time."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (IMAGES, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    return ImageSet(pixels, torch.arange(IMAGES) % CLASSES)


def endless(images: ImageSet, batch_size: int, dtype: torch.dtype, **besides: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Our batches, epoch after epoch."""
    epoch = 0
    while True:
        yield from training_batches(
            images,
            batch_size=batch_size,
            seed=0,
            epoch=epoch,
            flip=True,
            crop=4,
            cutout=0,
            mean=MEAN,
            std=STD,
            dtype=dtype,
            memory_format=torch.channels_last,
            device="cpu",
            **besides,
        )
        epoch += 1


@functools.cache
def torchvision_transforms() -> ModuleType | None:
    """torchvision's transforms; None where it is not installed."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return None
    try:
        for library in Path(spec.origin).parent.glob("_C.*"):
            torch.ops.load_library(library)
    except OSError:
        # A build for another torch: it describes two operators that it then lacks, and only detection needs them.
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision.transforms")


def torchvision_batch(images: ImageSet, batch_size: int, transforms: ModuleType) -> Callable[[], Tensor]:
    """A call that makes a batch by torchvision's transforms."""
    steps = [transforms.RandomCrop(SIZE, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    transform = transforms.Compose([*steps, transforms.Normalize(MEAN, STD)])
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images.images[:batch_size]]
    return lambda: torch.stack([transform(picture) for picture in pictures]).contiguous(memory_format=torch.channels_last)


def augmentation_rows(
    *, batch_sizes: tuple[int, ...] = (128, 512), threads: tuple[int, ...] = (1, 2), rounds: int = 60
) -> list[Row]:
    """All ways at all batch sizes and threads, `rounds` batches each. torch's threads are left as they were."""
    images, before = random_images(), torch.get_num_threads()
    rows = []
    try:
        for count in threads:
            torch.set_num_threads(count)
            for batch_size in batch_sizes:
                rows += _rows(images, batch_size, count, rounds)
    finally:
        torch.set_num_threads(before)
    return rows


def _rows(images: ImageSet, batch_size: int, threads: int, rounds: int) -> list[Row]:
    calls: dict[str, Callable[[], object]] = {}
    transforms = torchvision_transforms()
    if transforms is not None:
        calls["torchvision on PIL images, fp32"] = torchvision_batch(images, batch_size, transforms)
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        calls[f"ours, {name}"] = endless(images, batch_size, dtype).__next__
    for what, besides in BESIDES.items():
        calls[f"ours, bf16, {what}"] = endless(images, batch_size, torch.bfloat16, **besides).__next__
    found = compare_times(calls, seconds=0, least=rounds, most=rounds)
    ratios = {ratio.name: (ratio.median, ratio.low, ratio.high) for ratio in found.ratios}
    base = found.timings[0].name
    return [
        Row(t.name, batch_size, threads, t.n, batch_size / t.median, base, *ratios.get(t.name, (1.0, 1.0, 1.0)))
        for t in found.timings
    ]


def waiting_share(name: str, *, threads: int = 2, rounds: int = 20) -> Share:
    """How long the network waits for its batches of 128 images, in the precision in which it would be trained."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        step, batches = training_step(name), endless(random_images(), BATCH, torch.float32)
        given = next(batches)
        with ThreadPoolExecutor(max_workers=1) as pool:
            ahead = [pool.submit(next, batches)]

            def with_a_thread() -> None:
                x, y = ahead.pop().result()
                ahead.append(pool.submit(next, batches))
                step(x, y)

            parts = compare_times({"step": lambda: step(*given), "batch": batches.__next__}, seconds=0, least=rounds, most=rounds)
            ahead[0].result()
            together = compare_times(
                {"in turn": lambda: step(*next(batches)), "thread": with_a_thread}, seconds=0, least=rounds, most=rounds
            )
    finally:
        torch.set_num_threads(before)
    ratio, thread = ((found.ratios[0].median, found.ratios[0].low, found.ratios[0].high) for found in (parts, together))
    return Share(name, rounds, parts.timings[0].median, parts.timings[1].median, ratio, thread)


def training_step(name: str) -> Callable[[Tensor, Tensor], None]:
    """Forward, backward and SGD of the network for 10 classes, in bf16 where the processor has instructions for it."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=CLASSES, in_chans=3, image_size=SIZE).train()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step(x: Tensor, y: Tensor) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=cpu_computes_bf16()):
            logits = model(x)
        optimizer.zero_grad()
        F.cross_entropy(logits.float(), y).backward()
        optimizer.step()

    return step


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds and no resnet18: less than half a minute on an idle machine"
    )
    quick = parser.parse_args().quick
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores before"
    print(f"torch {torch.__version__}, {SIZE}x{SIZE} images of 3 channels, flip and crop by up to 4 pixels; {load}\n")
    if torchvision_transforms() is None:
        print("torchvision is not installed: its lines are left out\n")
    print("| batches | batch | threads | images/s | time against the first | 95 % interval | n |\n|---|---|---|---|---|---|---|")
    for row in augmentation_rows(rounds=11 if quick else 60):
        shown = f"{row.images_per_second:,.0f} | {row.ratio:.3f} | {row.low:.3f} to {row.high:.3f} | {row.n}"
        print(f"| {row.what} | {row.batch_size} | {row.threads} | {shown} |", flush=True)
    print(f"\nStep and batch of {BATCH} images, 2 threads, {'bf16' if cpu_computes_bf16() else 'fp32'}\n")
    print(
        "| network | step, ms | batch, ms | batch / step | next batch made by a thread / in turn | n |\n|---|---|---|---|---|---|"
    )
    for name in NETWORKS[:2] if quick else NETWORKS:
        share = waiting_share(name, rounds=6 if quick else 20)
        cells = [f"{middle:.3f} ({low:.3f} to {high:.3f})" for middle, low, high in (share.ratio, share.thread)]
        print(f"| {name} | {1e3 * share.step:.1f} | {1e3 * share.batch:.2f} | {' | '.join(cells)} | {share.n} |", flush=True)


if __name__ == "__main__":
    main()
