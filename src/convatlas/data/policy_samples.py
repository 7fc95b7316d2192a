"""A few images as a policy shows them to a network, to be looked at."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from convatlas.data.batches import centre, generator_of, scaled
from convatlas.data.dataset import ImageSet
from convatlas.data.mixing import mixed
from convatlas.data.policies import apply_policy, draw_policy, stored_side, words
from convatlas.errors import UserError


@dataclass(frozen=True)
class Sample:
    """One image and what was made of it: `original` uint8 (C, size, size), its middle; `copies` uint8 (n, C, size, size).

    `index` is its place in the set. `drawn` says in words what was done for each copy, and `shares` float32 (n, num_classes) have
    the classes that it is then said to be.
    """

    index: int
    label: int
    original: Tensor
    copies: Tensor
    drawn: tuple[str, ...]
    shares: Tensor


def samples(
    images: ImageSet,
    *,
    rows: int,
    copies: int,
    policy: str,
    size: int,
    flip: bool,
    mixup: float,
    cutmix: float,
    num_classes: int,
    seed: int,
) -> list[Sample]:
    """`rows` of the images, by class, each with so many `copies`, made and mixed as `policy_batches` does it.

    Images of any other size are scaled to `stored_side(size)` first. Raises UserError for settings that cannot be, and for more
    rows than there are images.
    """
    if rows > len(images):
        raise UserError(f"{rows} rows are asked for, and there are {len(images)} images", fix=f"Choose {len(images)} or fewer.")
    chosen = _chosen(images.labels, rows, generator_of(seed, 0, "preview"))
    labels, pixels = images.labels[chosen], images.images[chosen]
    if tuple(pixels.shape[2:]) != (stored_side(size),) * 2:
        pixels = scaled(pixels, stored_side(size), mode="bicubic")
    made = []
    for copy in range(copies):
        generator = generator_of(seed, copy, "preview copy")
        draws = draw_policy(rows, policy=policy, flip=flip, generator=generator)
        shown = apply_policy(pixels, draws, size=size).to(torch.float32)
        shown, shares = mixed(shown, labels, num_classes=num_classes, mixup=mixup, cutmix=cutmix, generator=generator)
        made.append((shown.round_().to(torch.uint8), words(draws, rows), shares))
    originals = centre(pixels, size)
    return [
        Sample(
            index=int(chosen[row]),
            label=int(labels[row]),
            original=originals[row],
            copies=torch.stack([shown[row] for shown, _, _ in made]),
            drawn=tuple(drawn[row] for _, drawn, _ in made),
            shares=torch.stack([shares[row] for _, _, shares in made]),
        )
        for row in range(rows)
    ]


def _chosen(labels: Tensor, rows: int, generator: Generator) -> Tensor:
    """The places of so many images: as many of each class as can be, any of them, in the order of the classes; int64 (rows,)."""
    order = torch.randperm(len(labels), generator=generator).tolist()
    seen: dict[int, int] = {}
    ranks = {}
    for place in order:
        label = int(labels[place])
        ranks[place] = seen[label] = seen.get(label, -1) + 1
    first = sorted(order, key=lambda place: ranks[place])[:rows]
    return torch.tensor(sorted(first, key=lambda place: (int(labels[place]), ranks[place])))
