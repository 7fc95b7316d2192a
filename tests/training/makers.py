"""Small data and recipes on which training takes a second."""

from dataclasses import replace

import torch

from convatlas.data.dataset import DataSet, ImageSet
from convatlas.records.run import Recipe
from convatlas.training.watch import Unwatched

CLASSES = ("red", "green", "blue", "grey", "white", "black")


def coloured(n, *, size=16, seed=0):
    """n noisy images of `size` pixels, each of a class that its mean colour gives away."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % len(CLASSES)
    colours = torch.tensor([[200, 60, 60], [60, 200, 60], [60, 60, 200], [128, 128, 128], [230, 230, 230], [20, 20, 20]])
    noise = torch.randint(-20, 20, (n, 3, size, size), generator=generator)
    images = (colours[labels][:, :, None, None] + noise).clamp(0, 255).to(torch.uint8)
    return ImageSet(images, labels)


def small_data(*, n=96, size=32, fingerprint="f" * 32):
    return DataSet(
        name="shapes",
        description="colours, made for tests",
        classes=CLASSES,
        train=coloured(n, size=size),
        val=coloured(24, size=size, seed=1),
        test=coloured(36, size=size, seed=2),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        fingerprint=fingerprint,
    )


def small_recipe(**changes):
    recipe = Recipe(model="resnet.pocket", data="shapes", data_fingerprint="f" * 32, epochs=3, batch_size=16, precision="fp32")
    if "minutes" in changes:
        changes = {"epochs": None, **changes}
    return replace(recipe, **changes)


class StopAfter(Unwatched):
    """Asks the run to stop once it has been asked `steps` times, and keeps what it heard."""

    def __init__(self, steps):
        self.left = steps
        self.epochs = []
        self.notes = []

    def stopping(self):
        self.left -= 1
        return self.left == 0

    def epoch(self, progress, metrics):
        self.epochs.append(metrics)

    def note(self, text):
        self.notes.append(text)
