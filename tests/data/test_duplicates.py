"""Duplicates: every kind of copy is found among pictures that are none, and nothing else is."""

import pytest
import torch

from convatlas.data.duplicates import blank, digests, exact_twins, near_twins
from convatlas.records.data_check import EXACT, NEAR

from .photographs import COPIES, batch, cut, original, sky


def found(sets, **options):
    hashed = {split: digests(images) for split, images in sets.items()}
    left_out = {split: set(blank(images)) for split, images in sets.items()}
    return exact_twins(hashed, left_out) + near_twins(sets, hashed, left_out, **options)


def pairs(twins):
    return {(each.split, each.index, each.other, each.twin) for each in twins}


@pytest.fixture(scope="module")
def few():
    """60 training pictures, and 20 test pictures of which the first are copies of each kind; skies in both."""
    train = [cut(original(seed)) for seed in range(40)] + [cut(sky(seed)) for seed in range(20)]
    copies = [make(original(seed)) for seed, make in enumerate(COPIES.values())]
    test = copies + [cut(original(1000 + seed)) for seed in range(6)] + [cut(sky(1000 + seed)) for seed in range(6)]
    return {"train": batch(train), "test": batch(test)}


def test_every_kind_of_copy_is_found_and_nothing_else(few):
    twins = found(few)
    assert pairs(twins) == {("test", seed, "train", seed) for seed in range(len(COPIES))}
    kinds = dict(zip(COPIES, sorted(twins, key=lambda twin: twin.index), strict=True))
    assert kinds["exact"].kind == EXACT and kinds["exact"].likeness == 1
    assert all(twin.kind == NEAR and twin.likeness < 1.0001 for name, twin in kinds.items() if name != "exact")
    assert {name for name, twin in kinds.items() if twin.mirrored} == {"mirrored", "all of it"}


def test_mirrored_copies_are_no_duplicates_where_a_mirror_changes_the_class(few):
    twins = found(few, mirrored=False)
    assert len(twins) == len(COPIES) - 2
    assert not any(twin.mirrored for twin in twins)


def test_the_same_among_more_than_a_thousand_where_sketches_are_shortened(few):
    many = torch.cat([few["train"][:40], batch([cut(original(seed)) for seed in range(2000, 3000)])])
    asked = []
    twins = found({"train": many, "test": few["test"]}, progress=lambda *call: asked.append(call))
    assert pairs(twins) == {("test", seed, "train", seed) for seed in range(len(COPIES))}
    searched = 2 * (len(many) + 2 * (len(few["test"])))
    assert asked[-1] == ("pictures compared", searched, searched)


def test_grey_pictures_and_other_sizes(few):
    grey = {split: images.float().mean(1, keepdim=True).to(torch.uint8) for split, images in few.items()}
    large = {split: torch.nn.functional.interpolate(images.float(), size=48).to(torch.uint8) for split, images in grey.items()}
    for sets in (grey, large):
        assert pairs(found(sets)) == {("test", seed, "train", seed) for seed in range(len(COPIES))}


def test_of_exact_copies_each_is_paired_with_the_first_and_has_the_same_near_twins():
    first, second = original(0), original(1)
    copy = COPIES["brighter"](first)
    sets = {
        "train": batch([cut(first), cut(second), cut(first), cut(first)]),
        "test": batch([copy, cut(original(5)), copy]),
    }
    twins = found(sets)
    exact = pairs(twin for twin in twins if twin.kind == EXACT)
    assert exact == {("train", 2, "train", 0), ("train", 3, "train", 0), ("test", 2, "test", 0)}
    across = {(twin.index, twin.twin) for twin in twins if twin.kind == NEAR}
    assert across == {(test, train) for test in (0, 2) for train in (0, 2, 3)}


def test_pictures_of_one_colour_are_no_duplicates_of_each_other():
    plain = torch.full((4, 3, 32, 32), 7, dtype=torch.uint8)
    assert blank(plain) == [0, 1, 2, 3]
    assert found({"train": plain, "test": plain}) == []
    assert found({"train": plain[:1], "test": batch([cut(original(0))])}) == []
    assert blank(batch([cut(sky(0))])) == []


def test_a_picture_is_no_duplicate_of_its_own_mirror_image():
    half = cut(original(3))
    half[:, 16:] = half[:, 15::-1]
    assert found({"train": batch([half, cut(original(4))])}) == []


def test_no_pictures_at_all():
    assert found({}) == []
    assert found({"train": torch.zeros(0, 3, 32, 32, dtype=torch.uint8), "test": batch([cut(original(0))])}) == []
