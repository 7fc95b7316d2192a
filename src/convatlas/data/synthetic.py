"""`shapes`: ten classes of coloured shapes on textured backgrounds, 32x32 RGB, drawn on the spot.

The set is the same on every machine and in every run: it comes from seeds of its own, and per pixel it uses only
operations that IEEE 754 rounds exactly (no sines, no matrix products), so that no processor or library draws a grey level
differently. Each shape is a signed distance function of about the same area, drawn at a random place, angle, size and
stretch, over a textured background with stray fragments, half of the time crossed by a bar, with sensor noise.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from convatlas.data.catalog import CATALOG
from convatlas.data.dataset import ImageSet, Reading, fingerprint_of_arrays

# Always float32; numpy's own annotations lose that on the way.
Plane = NDArray[Any]

SIDE = 32
N_TRAIN = 8_000
N_TEST = 2_000
_SEED = 1998
_AT_ONCE = 100
# Pixel centres: x to the right and y upwards from the middle, in pixels, (1, 1, 32) and (1, 32, 1).
X = (np.arange(SIDE, dtype=np.float32) - np.float32((SIDE - 1) / 2))[None, None, :]
Y = -X.transpose(0, 2, 1)
# Shapes lean by up to 40 degrees either way.
_TILT = 80 / 360


def read_shapes() -> Reading:
    """8,000 training and 2,000 test images (N, 3, 32, 32), the classes equally often."""
    classes = tuple(SHAPES)
    train, test = draw_shapes(N_TRAIN, seed=_SEED), draw_shapes(N_TEST, seed=_SEED + 1)
    return Reading(
        description=f"{CATALOG['shapes'].title}, {CATALOG['shapes'].what}",
        classes=classes,
        train=train,
        val=None,
        test=test,
        fingerprint=fingerprint_of_arrays(classes, {"train": train, "test": test}),
    )


def draw_shapes(n: int, *, seed: int) -> ImageSet:
    """`n` images in random order, equally many of each class; a pure function of `n` and `seed`."""
    labels = np.arange(n) % len(SHAPES)
    jobs = [(label, part) for label in range(len(SHAPES)) for part in _parts(int((labels == label).sum()))]
    with ThreadPoolExecutor() as pool:
        drawn = list(pool.map(lambda job: _draw(job[0], job[1], seed=seed), jobs))
    order = np.random.default_rng((seed, len(SHAPES))).permutation(n)
    images = np.concatenate(drawn)[order]
    names = np.concatenate([np.full(part[1], label) for label, part in jobs])[order]
    return ImageSet(torch.from_numpy(images), torch.from_numpy(names.astype(np.int64)))


def _parts(n: int) -> list[tuple[int, int]]:
    """`n` images as (number of the part, images in it): parts small enough to stay in the processor's cache."""
    return [(i, min(_AT_ONCE, n - first)) for i, first in enumerate(range(0, n, _AT_ONCE))]


def _draw(label: int, part: tuple[int, int], *, seed: int) -> NDArray[np.uint8]:
    """One part of one class as uint8 (N, 3, 32, 32)."""
    number, n = part
    dice = _Dice(np.random.default_rng((seed, label, number)), n)
    back, fore = _colours(dice)
    canvas = back + dice.between(6, 30)[:, None] * _texture(dice)[:, None]
    for _ in range(2):
        canvas = _over(canvas, _fragment(dice), colour=dice.one_of(fore, _random_colours(dice)))
    fill = fore + dice.between(2, 14)[:, None] * _texture(dice)[:, None]
    canvas = _over(canvas, _shape(dice, SHAPES[list(SHAPES)[label]]), colour=fill)
    canvas = _over(canvas, _bar(dice), colour=dice.one_of(back, _random_colours(dice)))
    canvas += dice.between(0, 22)[:, None] * _slope(dice)[:, None]
    # The sum of two even distributions: nearly a bell, and exact.
    noise = dice.shares(3, SIDE, SIDE) + dice.shares(3, SIDE, SIDE) - np.float32(1)
    canvas += dice.between(5, 26)[:, None] * noise
    return np.clip(canvas + np.float32(0.5), 0, 255).astype(np.uint8)


# --- shapes: signed distance in units of the shape's radius, negative within; u to the right, v upwards ---


def _circle(u: Plane, v: Plane) -> Plane:
    distance: Plane = np.sqrt(u * u + v * v) - np.float32(0.8)
    return distance


def _square(u: Plane, v: Plane) -> Plane:
    return np.maximum(np.abs(u), np.abs(v)) - np.float32(0.71)


def _triangle(u: Plane, v: Plane) -> Plane:
    side = np.float32(0.8660254) * np.abs(u) + np.float32(0.5) * v
    return np.maximum(side, -v) - np.float32(0.58)


def _hourglass(u: Plane, v: Plane) -> Plane:
    side = (np.abs(u) - np.float32(0.8) * np.abs(v) - np.float32(0.12)) * np.float32(0.7809)
    distance: Plane = np.maximum(side, np.abs(v) - np.float32(0.92))
    return distance


# The outward normals of a pentagon that stands on its side.
_PENTAGON = ((0.0, -1.0), (0.9510565, -0.3090170), (0.5877853, 0.8090170), (-0.5877853, 0.8090170), (-0.9510565, -0.3090170))


def _star(u: Plane, v: Plane) -> Plane:
    """A pentagram is all that lies outside at most one of the five sides of its inner pentagon: the second largest distance."""
    first = np.full_like(u, -9)
    second = first
    for across, up in _PENTAGON:
        height = np.float32(across) * u + np.float32(up) * v
        second = np.maximum(second, np.minimum(first, height))
        first = np.maximum(first, height)
    return second - np.float32(0.36)


def _cross(u: Plane, v: Plane) -> Plane:
    long, wide = np.float32(0.95), np.float32(0.3)
    flat = np.maximum(np.abs(u) - long, np.abs(v) - wide)
    return np.minimum(flat, np.maximum(np.abs(u) - wide, np.abs(v) - long))


def _ring(u: Plane, v: Plane) -> Plane:
    distance: Plane = np.abs(np.sqrt(u * u + v * v) - np.float32(0.7)) - np.float32(0.22)
    return distance


def _crescent(u: Plane, v: Plane) -> Plane:
    u = u - np.float32(0.25)
    beside = u - np.float32(0.42)
    bite = np.float32(0.74) - np.sqrt(beside * beside + v * v)
    distance: Plane = np.maximum(np.sqrt(u * u + v * v) - np.float32(0.98), bite)
    return distance


def _heart(u: Plane, v: Plane) -> Plane:
    """A square on its corner with half a disc on each upper side."""
    v = v + np.float32(0.12)
    square = (np.abs(u) + np.abs(v) - np.float32(0.76)) * np.float32(0.7071068)
    across, up = np.abs(u) - np.float32(0.38), v - np.float32(0.38)
    distance: Plane = np.minimum(square, np.sqrt(across * across + up * up) - np.float32(0.5374))
    return distance


def _arrow(u: Plane, v: Plane) -> Plane:
    shaft = np.maximum(np.abs(v) - np.float32(0.23), np.abs(u + np.float32(0.4)) - np.float32(0.6))
    side = (np.float32(0.8) * (u - np.float32(1.05)) + np.float32(0.95) * np.abs(v)) * np.float32(0.8052)
    return np.minimum(shaft, np.maximum(side, np.float32(0.1) - u))


SHAPES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "hourglass": _hourglass,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
    "crescent": _crescent,
    "heart": _heart,
    "arrow": _arrow,
}


# --- how much of each pixel a thing covers, (N, 32, 32) in [0, 1] ---


def _shape(dice: "_Dice", distance: Callable[[Plane, Plane], Plane]) -> Plane:
    """The shape at a random place, angle, size (radius 7 to 12 pixels) and stretch (to 1.25 times its height)."""
    radius = dice.between(7, 12)
    free = np.float32(SIDE / 2) - radius
    cosine, sine = dice.directions(turns=_TILT)
    across = X - free * dice.between(-1, 1)
    up = Y - free * dice.between(-1, 1)
    stretch = dice.between(0.9, 1.12)
    u = (across * cosine + up * sine) / (radius * stretch)
    v = (up * cosine - across * sine) * stretch / radius
    return np.clip(np.float32(0.5) - distance(u, v) * radius, 0, 1)


def _fragment(dice: "_Dice") -> Plane:
    """A small disc or rectangle anywhere."""
    cosine, sine = dice.directions()
    across = X - dice.between(-16, 16)
    up = Y - dice.between(-16, 16)
    u, v = np.abs(across * cosine + up * sine), np.abs(up * cosine - across * sine)
    box = np.maximum(u - dice.between(1, 5), v - dice.between(0.8, 2.2))
    disc = np.sqrt(u * u + v * v) - dice.between(1, 3)
    cover: Plane = np.clip(np.float32(0.5) - np.where(dice.between(0, 1) < 0.6, box, disc), 0, 1)
    return cover


def _bar(dice: "_Dice") -> Plane:
    """A bar across the whole picture, in half of the pictures."""
    cosine, sine = dice.directions()
    away = np.abs(X * cosine + Y * sine - dice.between(-11, 11))
    width = dice.between(-2.2, 2.2)
    cover: Plane = np.clip(np.float32(0.5) + width - away, 0, 1) * (width > 0)
    return cover


# --- textures, (N, 32, 32) in about [-1, 1] ---


def _texture(dice: "_Dice") -> Plane:
    """A grating, a chequerboard, or cloudy noise; sometimes two at once."""
    cosine, sine = dice.directions()
    period = dice.between(3, 12)
    along = (X * cosine + Y * sine) / period + dice.between(0, 1)
    beside = (Y * cosine - X * sine) / period + dice.between(0, 1)
    first, second = _wave(along), _wave(beside)
    chequers = np.clip(first * second * np.float32(6), -1, 1)
    kind = dice.between(0, 1)
    made = np.where(kind < 0.35, first, np.where(kind < 0.6, chequers, np.float32(0)))
    level: Plane = made + np.where(kind < 0.5, np.float32(0.3), np.float32(1)) * _clouds(dice)
    return level


def _wave(turns: Plane) -> Plane:
    """A sine of period 1, made of parabolas."""
    phase = turns - np.floor(turns) - np.float32(0.5)
    return phase * (np.float32(8) - np.float32(16) * np.abs(phase))


def _clouds(dice: "_Dice") -> Plane:
    """Random levels on an 8x8 grid, linear in between."""
    grid = dice.shares(9, 9) * np.float32(2) - np.float32(1)
    step = np.arange(SIDE) // 4
    share = ((np.arange(SIDE) % 4 + 0.5) / 4).astype(np.float32)
    rows = grid[:, step] * (1 - share)[:, None] + grid[:, step + 1] * share[:, None]
    clouds: Plane = rows[:, :, step] * (1 - share) + rows[:, :, step + 1] * share
    return clouds


def _slope(dice: "_Dice") -> Plane:
    """Light that grows towards one side."""
    cosine, sine = dice.directions()
    level: Plane = (X * cosine + Y * sine) / np.float32(16)
    return level


# --- colours, (N, 3, 1, 1) in levels 0..255 ---


def _colours(dice: "_Dice") -> tuple[Plane, Plane]:
    """Background and shape: a dim colour, and one that is 35 to 120 levels brighter, each with a tint of its own."""
    dim = np.float32(50) + np.float32(65) * dice.between(0, 1)[:, None]
    gap = np.float32(35) + np.float32(85) * dice.between(0, 1)[:, None]
    return dim + _tint(dice), dim + gap + _tint(dice)


def _random_colours(dice: "_Dice") -> Plane:
    return np.float32(50) + np.float32(120) * dice.between(0, 1)[:, None] + _tint(dice)


def _tint(dice: "_Dice") -> Plane:
    return np.float32(90) * (dice.shares(3, 1, 1) - np.float32(0.5))


def _over(canvas: Plane, cover: Plane, *, colour: Plane) -> Plane:
    """`colour` painted over the canvas (N, 3, 32, 32) where `cover` says."""
    made: Plane = canvas + cover[:, None] * (colour - canvas)
    return made


class _Dice:
    """Random numbers for `n` images at once."""

    def __init__(self, rng: np.random.Generator, n: int) -> None:
        self._rng = rng
        self._n = n

    def shares(self, *shape: int) -> Plane:
        """Numbers in [0, 1), (N, *shape)."""
        return self._rng.random((self._n, *shape), dtype=np.float32)

    def between(self, low: float, high: float) -> Plane:
        """One number an image, evenly distributed, (N, 1, 1)."""
        return np.float32(low) + np.float32(high - low) * self.shares(1, 1)

    def one_of(self, first: Plane, second: Plane) -> Plane:
        """Image by image one of two colours (N, 3, 1, 1)."""
        return np.where(self.shares(1, 1, 1) < 0.5, first, second)

    def directions(self, *, turns: float = 1.0) -> tuple[Plane, Plane]:
        """Cosine and sine of an angle, (N, 1, 1) each; it spans `turns` turns and is centred on 0.

        Rounded, so that the last bits, in which libraries differ, cannot matter.
        """
        angle = (self._rng.random((self._n, 1, 1)) - 0.5) * (2 * np.pi * turns)
        return np.round(np.cos(angle), 6).astype(np.float32), np.round(np.sin(angle), 6).astype(np.float32)
