"""What is seen when pictures pass through a network: numbers, and pictures as PNG data URLs."""

from dataclasses import dataclass

from convatlas.records.attribution import Attribution
from convatlas.records.run import Prediction


@dataclass(frozen=True)
class Maps:
    """The feature maps that one layer makes of one image: `shown` of its `channels`, those that vary most, on one sheet.

    `low` and `high` are the values of the darkest and the brightest colour, the same for all maps of the sheet.
    """

    layer: str
    channels: int
    side: tuple[int, int]
    shown: tuple[int, ...]
    low: float
    high: float
    picture: str


@dataclass(frozen=True)
class Filters:
    """The weights of the first convolution on one sheet, `shown` of `filters`; in colour where it looks at three channels."""

    layer: str
    filters: int
    kernel: tuple[int, int]
    shown: int
    coloured: bool
    picture: str


@dataclass(frozen=True)
class Activity:
    """What a layer gives on all images together. `zeros` is the share of values that are exactly 0; `dead` counts channels, of
    `channels`, that have the same value everywhere on every image.
    """

    layer: str
    operation: str
    mean: float
    std: float
    low: float
    high: float
    zeros: float
    channels: int
    dead: int


@dataclass(frozen=True)
class EffectiveField:
    """How strongly a unit in the middle of a layer's map depends on each pixel, on the average over images.

    `width` is the root of the number of pixels that count at least 4.55 % of the strongest one (Luo et al. 2016, section 4.1),
    `theoretical` the receptive field, None for the whole image, unless it is not `known`. `size` is the image's side.
    """

    layer: str
    width: float
    theoretical: int | None
    size: tuple[int, int]
    images: int
    picture: str
    known: bool = True


@dataclass(frozen=True)
class LookedAt:
    """One image: as the network saw it, what the network says of it, its feature maps, and what the answer rests on."""

    image: str
    picture: str
    prediction: Prediction
    maps: tuple[Maps, ...]
    attributions: tuple[Attribution, ...]


@dataclass(frozen=True)
class Look:
    """A network and what was seen in it. `weights` says in words where its weights come from; `trained` is false for random
    ones. `notes` say what was left out, and why.
    """

    model: str
    weights: str
    trained: bool
    input_shape: tuple[int, int, int]
    images: tuple[LookedAt, ...]
    filters: Filters | None
    activities: tuple[Activity, ...]
    fields: tuple[EffectiveField, ...]
    notes: tuple[str, ...]
