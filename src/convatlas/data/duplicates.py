"""Duplicates in a data set, exact and near, within a split and across two.

Exact ones have the same pixels. Near ones show the same photograph cut, scaled, mirrored, recoloured or compressed anew: each
picture's most alike are found by their sketches (see `sketches`), laid over it (see `alignment`), and their fine detail is
correlated. On CIFAR-10 these correlations fall into two heaps, chance and copies; `THRESHOLD` lies between, where fewest are.
docs/LOG.md has the counts, and how they compare with the list that Barz & Denzler made by hand (2020, "Do We Train on Test Data?
Purging CIFAR of Near-Duplicates", arXiv:1902.00423).
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from convatlas.data.alignment import SIDE, align, likeness, unmoved
from convatlas.data.batches import scaled
from convatlas.data.sketches import basis_of, grey, sketches
from convatlas.records.data_check import EXACT, NEAR

Progress = Callable[[str, int, int], None]

THRESHOLD = 0.8
"""From this correlation of fine detail on, two pictures count as near duplicates."""
NEIGHBOURS = 8
"""So many of the most alike are looked at closely, for each picture and its mirror image."""
SMALLEST = 16
"""Below so many pixels a side, pictures hold too little detail to tell a copy from chance."""
# Sketches less alike than this are not of copies; 1 in 100 of the copies in CIFAR-10 falls below.
_LEAST_SKETCH = 0.65
# With fewer pictures than this no basis is made from them: all their nearest are looked at.
_ENOUGH_FOR_BASIS = 1000
_BASIS_SAMPLE = 10_000
# At half the size copies reach this; most others do not, and are done with.
_LEAST_COARSE = 0.3
_QUERIES_AT_ONCE = 512
# Few enough for the processor's cache, which makes it twice as fast.
_PAIRS_AT_ONCE = 256


@dataclass(frozen=True)
class Twin:
    """Image `index` of `split` and image `twin` of `other` are duplicates of `kind`."""

    kind: str
    split: str
    index: int
    other: str
    twin: int
    likeness: float
    mirrored: bool


@dataclass(frozen=True)
class _Prepared:
    """The pictures of one split that are searched: their `indices`, at 32x32, with sketches, also of their mirror images.

    Only pictures whose sketches are alike by more than `least` are looked at closely.
    """

    least: float
    indices: Tensor
    light: Tensor
    sketches: Tensor
    mirrored: Tensor | None


def blank(images: Tensor) -> list[int]:
    """Which of uint8 `images` (N, C, H, W) have one colour everywhere."""
    flat = images.flatten(2)
    return (flat.amax(2) == flat.amin(2)).all(1).nonzero().flatten().tolist()


def digests(images: Tensor) -> list[bytes]:
    """What the pixels of each image hash to: equal only for equal images."""
    return [hashlib.blake2b(image.contiguous().numpy().data, digest_size=16).digest() for image in images]


def exact_twins(hashed: Mapping[str, Sequence[bytes]], left_out: Mapping[str, set[int]]) -> list[Twin]:
    """Images of equal digest: each paired with the first such of its own split, and with the first of each earlier split."""
    first: dict[str, dict[bytes, int]] = {}
    found = []
    for split, each in hashed.items():
        own = first.setdefault(split, {})
        for index, digest in enumerate(each):
            if index in left_out[split]:
                continue
            for other, known in first.items():
                if digest in known:
                    found.append(Twin(EXACT, split, index, other, known[digest], 1.0, False))
            own.setdefault(digest, index)
    return found


def near_twins(
    images: Mapping[str, Tensor],
    hashed: Mapping[str, Sequence[bytes]],
    left_out: Mapping[str, set[int]],
    *,
    mirrored: bool = True,
    progress: Progress | None = None,
) -> list[Twin]:
    """Near duplicates among uint8 images (N, C, H, W) of each split, those `left_out` aside; `mirrored` ones too unless False.

    Of exact duplicates within a split only the first is searched, and what is found of it holds for the others. The later
    split comes first in a pair. `progress("pictures compared", done, total)` counts searches.
    """
    prepared = _prepare(images, hashed, left_out, mirrored=mirrored)
    names = list(prepared)
    relations = [(split, other) for at, split in enumerate(names) for other in names[: at + 1]]
    total = sum(len(prepared[split].indices) for split, _ in relations) * (2 if mirrored else 1)
    done, found = 0, []
    for split, other in relations:
        candidates = []
        for part, searched in _candidates(prepared[split], prepared[other], same=split == other):
            candidates.append(part)
            done += searched
            if progress is not None:
                progress("pictures compared", done, total)
        for a, b, flipped, alike in _verified(prepared[split], prepared[other], torch.cat(candidates)):
            if hashed[split][a] != hashed[other][b]:
                found.append(Twin(NEAR, split, a, other, b, alike, flipped))
    return found + _of_copies(found, hashed, left_out)


def _prepare(
    images: Mapping[str, Tensor], hashed: Mapping[str, Sequence[bytes]], left_out: Mapping[str, set[int]], *, mirrored: bool
) -> dict[str, _Prepared]:
    """The splits that have pictures, ready to be searched."""
    chosen = {split: _first_of_each(hashed[split], left_out[split]) for split in images}
    small = {split: _common(images[split].index_select(0, rows)) for split, rows in chosen.items() if len(rows)}
    everything = sum(map(len, small.values()))
    basis, least = None, -1.0
    if everything >= _ENOUGH_FOR_BASIS:
        least = _LEAST_SKETCH
        every = -(-everything // _BASIS_SAMPLE)
        basis = basis_of(torch.cat([each[::every] for each in small.values()]))
    return {
        split: _Prepared(
            least=least,
            indices=chosen[split],
            light=_light(pictures),
            sketches=sketches(pictures, basis),
            mirrored=sketches(pictures.flip(-1), basis) if mirrored else None,
        )
        for split, pictures in small.items()
    }


def _first_of_each(hashed: Sequence[bytes], left_out: set[int]) -> Tensor:
    known: dict[bytes, int] = {}
    for index, digest in enumerate(hashed):
        if index not in left_out:
            known.setdefault(digest, index)
    return torch.tensor(sorted(known.values()), dtype=torch.int64)


def _common(images: Tensor) -> Tensor:
    return images if tuple(images.shape[2:]) == (SIDE, SIDE) else scaled(images, SIDE, mode="bilinear")


def _light(pictures: Tensor) -> Tensor:
    """Luminance as uint8: a quarter of the memory, and the steps are those of the pictures."""
    parts = [grey(pictures[first : first + 4096]).mul_(255).round_().to(torch.uint8) for first in range(0, len(pictures), 4096)]
    return torch.cat(parts)


def _candidates(split: _Prepared, other: _Prepared, *, same: bool) -> Iterator[tuple[Tensor, int]]:
    """Pairs worth a close look, block by block: int64 (pairs, 3) of row, row of `other`, and mirrored; and rows searched.

    Within a split the higher row comes first, and most pairs come twice.
    """
    table = other.sketches.T.contiguous()
    for flipped, queries in ((0, split.sketches), (1, split.mirrored)):
        for first in range(0, 0 if queries is None else len(queries), _QUERIES_AT_ONCE):
            assert queries is not None
            part = queries[first : first + _QUERIES_AT_ONCE]
            rows = torch.arange(first, first + len(part))
            alike = part @ table
            if same:
                alike[torch.arange(len(part)), rows] = -2
            values, columns = alike.topk(min(NEIGHBOURS, alike.shape[1]), dim=1)
            one, two = rows[:, None].expand_as(columns), columns
            if same:
                one, two = torch.maximum(one, two), torch.minimum(one, two)
            yield torch.stack([one, two, torch.full_like(one, flipped)], -1)[values > split.least], len(part)


def _verified(split: _Prepared, other: _Prepared, candidates: Tensor) -> Iterator[tuple[int, int, bool, float]]:
    """Of the candidates those that are near duplicates: index, index in `other`, mirrored, likeness; each pair once."""
    best: dict[tuple[int, int], tuple[float, bool]] = {}
    for pairs in torch.unique(candidates, dim=0).split(_PAIRS_AT_ONCE) if len(candidates) else ():
        first, second = split.light[pairs[:, 0]].float() / 255, other.light[pairs[:, 1]].float() / 255
        first = torch.where(pairs[:, 2, None, None] == 1, first.flip(-1), first)
        for (a, b, flipped), alike in zip(pairs.tolist(), _compared(first, second).tolist(), strict=True):
            if alike >= THRESHOLD:
                best[a, b] = max((alike, bool(flipped)), best.get((a, b), (0.0, False)))
    for (a, b), (alike, flipped) in best.items():
        yield int(split.indices[a]), int(other.indices[b]), flipped, min(alike, 1.0)


def _compared(first: Tensor, second: Tensor) -> Tensor:
    """The likeness (N,) of grey pictures (N, 32, 32), at half the size first, and at full size only where that says it may be."""
    small, small_second = (torch.nn.functional.avg_pool2d(each, 2) for each in (first, second))
    placing = align(small, small_second, unmoved(len(first)), steps=5, smooth=1.0)
    alike = torch.zeros(len(first))
    hopeful = (likeness(small, small_second, placing) >= _LEAST_COARSE).nonzero().flatten()
    if len(hopeful):
        first, second = first[hopeful], second[hopeful]
        placing = align(first, second, placing.part(hopeful), steps=6, smooth=0.7)
        alike[hopeful] = likeness(first, second, placing)
    return alike


def _of_copies(found: Sequence[Twin], hashed: Mapping[str, Sequence[bytes]], left_out: Mapping[str, set[int]]) -> list[Twin]:
    """What was found of the first of exact duplicates, for the others in its split: all have the same twins in another split."""
    copies: dict[tuple[str, bytes], list[int]] = {}
    for split, each in hashed.items():
        for index, digest in enumerate(each):
            if index not in left_out[split]:
                copies.setdefault((split, digest), []).append(index)
    more = []
    for twin in found:
        if twin.split == twin.other:
            continue
        ones, others = copies[twin.split, hashed[twin.split][twin.index]], copies[twin.other, hashed[twin.other][twin.twin]]
        every = [replace(twin, index=one, twin=other) for one in ones for other in others]
        more += every[1:]
    return more
