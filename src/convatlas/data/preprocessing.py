"""A picture as published weights want it: the same numbers as the publisher's own preprocessing gives."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from convatlas.data.pictures import printable, read_picture
from convatlas.errors import UserError
from convatlas.records.weights import Preprocessing

LONGEST = 16_384
"""Pixels of the longer side after resizing, beyond which a picture is refused: a line of pixels would grow without bound."""


def preprocess(path: Path | str, how: Preprocessing) -> Tensor:
    """The picture in `path` as the input of a network: float32 (C, crop, crop), for C = 3 or 1 means and deviations.

    Scaled, cut and rounded as torchvision and timm do it, in their order. Raises UserError that names the file.
    """
    _check(how)
    path = Path(path)
    pixels = read_picture(path, size=None, channels=len(how.mean))
    height, width = pixels.shape[1:]
    image = Image.fromarray(pixels.permute(1, 2, 0).squeeze(2).numpy())
    size = (how.crop, how.crop) if how.resize is None else _scaled(width, height, how.resize)
    if max(size) > LONGEST:
        raise UserError(f"{printable(path)} has {width}x{height} pixels, too narrow for its middle square", fix="Cut it first.")
    image = image.resize(size, Image.Resampling[how.interpolation.upper()])
    left, top = round((size[0] - how.crop) / 2), round((size[1] - how.crop) / 2)
    image = image.crop((left, top, left + how.crop, top + how.crop))
    x = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(how.crop, how.crop, -1).permute(2, 0, 1)
    mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in (how.mean, how.std))
    return (x.float() / 255 - mean) / std


def _check(how: Preprocessing) -> None:
    if not isinstance(how, Preprocessing):
        raise UserError(f"the preprocessing is {how!r}", fix="Give that of published weights, or a convatlas.Preprocessing.")
    if len(how.mean) not in (1, 3) or len(how.mean) != len(how.std) or how.interpolation not in ("bilinear", "bicubic"):
        raise UserError(
            f"{how} is no preprocessing of grey or RGB images", fix="Give 1 or 3 means and deviations, and bicubic or bilinear."
        )
    if how.crop < 1 or (how.resize is not None and how.resize < 1):
        raise UserError(f"the preprocessing makes {how.resize} and {how.crop} pixels", fix="Give 1 or more.")


def _scaled(width: int, height: int, shorter: int) -> tuple[int, int]:
    """Width and height with the shorter side brought to `shorter`, the longer one rounded down."""
    if width <= height:
        return shorter, int(shorter * height / width)
    return int(shorter * width / height), shorter
