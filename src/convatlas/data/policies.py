"""Augmentation policies for photographs: whole batches of uint8 squares, somewhat larger than what the network sees.

As in `convatlas.data.augment`, what chance decides is drawn first, for a whole batch and on the CPU (`draw_policy`), and
`apply_policy` draws nothing, so that a batch is the same on every device (to within the rounding of one grey level).

The cut, the mirror and all operations that move pixels are one affine map, by which each image is sampled once, bilinear; then
the others follow in the order drawn. Departures from the papers, which sample once for each step: what an operation moves in is
the photograph beyond the cut, and beyond the photograph its mirror image (no black or grey wedges, which no test image has);
and an operation on colours comes after a rotation that was drawn after it. Values are rounded to uint8 after the sampling and
after each operation, as Pillow does: histograms and bits are defined on levels, and training and evaluation pass through the
same `normalise`. Sampling is not antialiased, which is why images may be at most twice as large as what is cut out.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from convatlas.data.augment import normalise, sent
from convatlas.data.batches import centre, generator_of, prepared
from convatlas.data.dataset import ImageSet
from convatlas.data.mixing import check_mixing, mixed
from convatlas.data.operating import Drawn, draw_operations, moved_by, recolour_, sampled
from convatlas.data.policy_names import POLICIES
from convatlas.data.policy_ops import OPERATIONS
from convatlas.errors import UserError, unknown_name

AREA = (0.35, 1.0)
"""The share of a photograph that is cut out, evenly drawn. Szegedy et al. 2015, section 6, begin at 0.08, for a million images
and a network that knows nothing. Objects then look larger than in the centre crop of the test (Touvron et al. 2019, "Fixing the
train-test resolution discrepancy", section 3), by 44 % on the average, and one cut of nine misses the middle, where photographs
have what they show. From 0.35 on it is 15 %, and the middle is in every cut, whatever its aspect."""
ASPECT = (3 / 4, 4 / 3)
"""Width by height of what is cut out, its logarithm evenly drawn (Szegedy et al. 2015, section 6)."""
CROP = 7 / 8
"""The side that a network sees, of the photograph's (224 of 256, as in Krizhevsky et al. 2012, section 4.1)."""
# With these areas and aspects one of five cuts sticks out, and one of ten million photographs has none that does not.
_TRIES = 10
_TWICE = 2


@dataclass(frozen=True)
class PolicyDraws:
    """What chance decided for N images; None where that is not done.

    `box` float64 (4, N) is what is cut out: left, top, width and height in shares of the side. `mirrored` is bool (N,).
    `operated` is what is done beyond that.
    """

    box: Tensor | None
    mirrored: Tensor | None
    operated: Drawn | None = None

    def part(self, first: int, last: int) -> "PolicyDraws":
        """What was drawn for images `first` up to but not including `last`."""
        box, mirrored = (None if each is None else each[..., first:last] for each in (self.box, self.mirrored))
        return PolicyDraws(box, mirrored, self.operated and self.operated.part(first, last))


def stored_side(size: int) -> int:
    """The side in pixels at which photographs are held for a network that sees `size`: 256 for 224, and so in proportion."""
    return round(size / CROP)


def draw_policy(n: int, *, policy: str, flip: bool, generator: Generator) -> PolicyDraws:
    """Draw for `n` images what `policy` does with each; `flip` allows it to mirror them, with probability 1/2.

    What is left out takes no numbers from the generator. Raises UserError for a policy that does not exist.
    """
    check_policy(policy)
    if policy == "none":
        return PolicyDraws(None, None)
    box = _boxes(n, generator)
    mirrored = torch.rand(n, generator=generator) < 0.5 if flip else None
    if policy == "light":
        return PolicyDraws(box, mirrored)
    return PolicyDraws(box, mirrored, draw_operations(n, augment=policy, generator=generator))


def apply_policy(images: Tensor, draws: PolicyDraws, *, size: int) -> Tensor:
    """What was drawn done to `images`, uint8 squares (N, C, side, side): uint8 (N, C, size, size) on their device.

    Where no box was drawn, that is their middle.
    """
    if draws.box is None:
        return centre(images, size)
    cut = sampled(images, _origins(draws), size)
    if draws.operated is not None:
        recolour_(cut, draws.operated)
    return cut


def words(draws: PolicyDraws, n: int) -> list[str]:
    """What was drawn for each of `n` images, in words."""
    return [_words(draws, i) for i in range(n)]


def policy_batches_in_epoch(n: int, batch_size: int) -> int:
    """How many batches `policy_batches` yields from n images: whole ones, and the rest if it is two images or all."""
    whole, rest = divmod(n, batch_size)
    return max(1, whole + (rest >= 2))


def policy_batches(
    images: ImageSet,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    policy: str,
    size: int,
    flip: bool,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    mixup: float,
    cutmix: float,
    num_classes: int,
    balanced: bool,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
    device: torch.device | str,
    start: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of augmented, normalised batches: images (batch, C, size, size) in `dtype`, labels int64 (batch,).

    With `mixup` or `cutmix` above 0 (see `mixed`) labels are the shares of the classes, float32 (batch, num_classes). Images come
    in a new order each epoch, each once; `balanced`, as many are drawn, but equally many of each class (see `balanced_order`).
    An incomplete last batch is yielded if it has two images or more (BatchNorm needs two), or is the only one: in a small set it
    may hold a good part of the images. Order, augmentation and mixing are pure functions of (seed, epoch, batch index), as in
    `training_batches`: beginning at batch `start` yields what an unbroken epoch would have yielded from there. On an
    accelerator the set is kept there as uint8 (if it has 8 GiB at most) and augmented there. Raises UserError for settings that
    do not fit the images or each other.
    """
    _check(images, policy=policy, size=size, batch_size=batch_size)
    check_mixing(mixup, cutmix)
    stored = prepared(images.images, size=None, device=torch.device(device), memory_format=torch.contiguous_format)
    order_generator = generator_of(seed, epoch, "order")
    order = balanced_order(images.labels, order_generator) if balanced else torch.randperm(len(images), generator=order_generator)
    for index in range(start, policy_batches_in_epoch(len(images), batch_size)):
        chosen = order[index * batch_size : (index + 1) * batch_size]
        draws = draw_policy(len(chosen), policy=policy, flip=flip, generator=generator_of(seed, epoch, f"batch {index}"))
        batch = apply_policy(sent(stored.index_select(0, sent(chosen, stored.device)), device), draws, size=size)
        batch = normalise(batch, mean=mean, std=std, dtype=dtype, memory_format=memory_format)
        labels = images.labels[chosen]
        if mixup or cutmix:
            mixing = generator_of(seed, epoch, f"mix {index}")
            batch, labels = mixed(batch, labels, num_classes=num_classes, mixup=mixup, cutmix=cutmix, generator=mixing)
        yield batch, sent(labels, device)


def balanced_order(labels: Tensor, generator: Generator) -> Tensor:
    """As many places in `labels` int64 (N,) as there are, int64 (N,), equally many of each class that occurs (or one more).

    Of a class with more images than that a part is drawn, without repetition; one with fewer comes round by round, so that its
    images are all shown equally often (or once more).
    """
    classes = torch.unique(labels)
    quotas = torch.full_like(classes, len(labels) // len(classes))
    quotas[torch.randperm(len(classes), generator=generator)[: len(labels) % len(classes)]] += 1
    places: list[Tensor] = []
    for label, quota in zip(classes, quotas.tolist(), strict=True):
        members = (labels == label).nonzero().flatten()
        rounds = -(-quota // len(members))
        shuffled = [members[torch.randperm(len(members), generator=generator)] for _ in range(rounds)]
        places.extend(each[: quota - i * len(members)] for i, each in enumerate(shuffled))
    drawn = torch.cat(places)
    return drawn[torch.randperm(len(drawn), generator=generator)]


def check_policy(policy: str) -> None:
    """Raise UserError for a policy that does not exist."""
    if policy not in POLICIES:
        raise unknown_name("augmentation policy", policy, POLICIES, where=f"Choose from {', '.join(POLICIES)}.")


def _check(images: ImageSet, *, policy: str, size: int, batch_size: int) -> None:
    check_policy(policy)
    height, width = images.images.shape[2:]
    if not len(images):
        raise UserError("there are no images to train on", fix="Give one or more of each class.")
    if batch_size < 1:
        raise UserError(f"a batch has {batch_size} images", fix="Choose 1 or more.")
    if height != width:
        raise UserError(f"the images have {height}x{width} pixels", fix="Load them as squares.")
    if not 1 <= size <= height <= _TWICE * size:
        fix = (
            f"Hold them at {size} to {_TWICE * size} pixels; {stored_side(size)} are usual." if size > 0 else "Choose 1 or more."
        )
        raise UserError(f"{size} pixels cannot be cut from images of {height}", fix=fix)


def _boxes(n: int, generator: Generator) -> Tensor:
    """What is cut out of each of `n` squares, float64 (4, n): the first of several draws that fits, at a place evenly drawn."""
    evenly = torch.rand(2, _TRIES, n, generator=generator, dtype=torch.float64)
    area = AREA[0] + (AREA[1] - AREA[0]) * evenly[0]
    least, most = map(math.log, ASPECT)
    aspect = torch.exp(least + (most - least) * evenly[1])
    sides = torch.stack([torch.sqrt(area * aspect), torch.sqrt(area / aspect)])
    fits = (sides <= 1).all(0)
    first = fits.to(torch.uint8).argmax(0)
    side = torch.where(fits.any(0), sides[:, first, torch.arange(n)], 1.0)
    corner = torch.rand(2, n, generator=generator, dtype=torch.float64) * (1 - side)
    return torch.cat([corner, side])


def _origins(draws: PolicyDraws) -> Tensor:
    """Where each point of an output comes from in its image, float64 (N, 3, 3), in shares of the sides from the corners."""
    assert draws.box is not None
    left, top, width, height = draws.box
    found = torch.zeros(len(left), 3, 3, dtype=torch.float64)
    found[:, 0, 0], found[:, 0, 2], found[:, 1, 1], found[:, 1, 2], found[:, 2, 2] = width, left, height, top, 1.0
    if draws.mirrored is not None:
        found[:, 0, 2] = torch.where(draws.mirrored, left + width, left)
        found[:, 0, 0] = torch.where(draws.mirrored, -width, width)
    return found if draws.operated is None else moved_by(draws.operated, found)


def _words(draws: PolicyDraws, i: int) -> str:
    if draws.box is None:
        return "the middle"
    said = [f"{float(draws.box[2, i] * draws.box[3, i]):.0%} of it"]
    if draws.mirrored is not None and draws.mirrored[i]:
        said.append("mirrored")
    if draws.operated is not None:
        pairs = zip(draws.operated.operations[:, i].tolist(), draws.operated.strengths[:, i].tolist(), strict=True)
        said += [f"{OPERATIONS[place]}{_measure(OPERATIONS[place], strength)}" for place, strength in pairs]
    return ", ".join(said)


def _measure(name: str, strength: float) -> str:
    """A strength as it reads after its operation's name."""
    if name in ("identity", "autocontrast", "equalize"):
        return ""
    if name == "rotate":
        return f" {strength:+.0f} degrees"
    if name == "posterize":
        return f" to {strength:.0f} bits"
    if name == "solarize":
        return f" from {strength:.0f}"
    if name.startswith("translate"):
        return f" by {strength:+.0%}"
    return f" {strength:+.2f}" if name.startswith("shear") else f" x{strength:.2f}"
