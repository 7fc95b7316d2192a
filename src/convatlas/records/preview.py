"""What an augmentation policy makes of a few images, in words; the pictures are files beside it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Copy:
    """What was done for one copy of an image, and the share of each class that it is then said to be (1 of one, unless mixed)."""

    drawn: str
    shares: dict[str, float]

    @property
    def mixture(self) -> str:
        """The classes and their shares in words, empty for one class alone."""
        parts = [f"{share:.0%} {label}" for label, share in sorted(self.shares.items(), key=lambda item: -item[1])]
        return ", ".join(parts) if len(parts) > 1 else ""


@dataclass(frozen=True)
class Previewed:
    """One image, its place in the training images, its class and file (None for data that come in arrays), and its copies."""

    index: int
    label: str
    file: str | None
    copies: tuple[Copy, ...]


@dataclass(frozen=True)
class Preview:
    """A contact sheet: with which settings it was made, and each image on it. `image_size` is the side in pixels, as a network
    sees it; `mixup` and `cutmix` are alphas (0: off).
    """

    data: str
    description: str
    policy: str
    what: str
    image_size: int
    flip: bool
    mixup: float
    cutmix: float
    seed: int
    images: tuple[Previewed, ...]
