"""Pictures with detail at every scale, as photographs have, and what happens to copies of them."""

import io

import numpy as np
import torch
from PIL import Image

SIDE = 40
"""Of an original; data sets hold 32 pixels of it."""


def original(seed):
    """An uint8 (40, 40, 3) picture of noise at five scales, the coarsest strongest."""
    generator = np.random.default_rng(seed)
    total = np.zeros((SIDE, SIDE, 3))
    for cells, strength in ((2, 60), (5, 45), (10, 30), (20, 20), (40, 8)):
        layer = generator.normal(0, strength, (cells, cells, 3)) * [1.0, 0.8, 0.9] + generator.normal(
            0, strength, (cells, cells, 1)
        )
        channels = [
            Image.fromarray(layer[..., c].astype("float32")).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for c in range(3)
        ]
        total += np.stack([np.asarray(each) for each in channels], -1)
    return (total / 1.6 + 128).clip(0, 255).astype("uint8")


def sky(seed):
    """A slope of blue with hardly any noise."""
    generator = np.random.default_rng(seed)
    slope = np.linspace(0, generator.uniform(10, 60), SIDE)[:, None, None] + generator.uniform(60, 160, 3)
    return (slope + generator.normal(0, 1.0, (SIDE, SIDE, 3))).clip(0, 255).astype("uint8")


def cut(picture, top=4, left=4, side=32):
    return picture[top : top + side, left : left + side]


def enlarged(picture):
    return np.asarray(Image.fromarray(picture).resize((32, 32), Image.Resampling.BICUBIC))


def compressed(picture, quality=60):
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def brighter(picture):
    return (picture * 0.7 + 50).clip(0, 255).astype("uint8")


COPIES = {
    "exact": lambda picture: cut(picture),
    "mirrored": lambda picture: cut(picture)[:, ::-1],
    "shifted": lambda picture: cut(picture, 2, 6),
    "brighter": lambda picture: brighter(cut(picture)),
    "compressed": lambda picture: compressed(cut(picture)),
    "scaled": lambda picture: enlarged(cut(picture, 2, 2, 36)),
    "grey": lambda picture: np.repeat(cut(picture).mean(-1, keepdims=True), 3, -1).astype("uint8"),
    "all of it": lambda picture: compressed(brighter(enlarged(cut(picture, 3, 2, 35))[:, ::-1]), 75),
}


def batch(pictures):
    """uint8 (N, 3, 32, 32)."""
    return torch.from_numpy(np.stack([np.ascontiguousarray(each) for each in pictures])).permute(0, 3, 1, 2).contiguous()
