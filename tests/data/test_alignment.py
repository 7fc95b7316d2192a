"""Laying one picture over another: the shift and the scale that were made are found again."""

import pytest
import torch

from convatlas.data.alignment import align, blurred, likeness, unmoved
from convatlas.data.sketches import basis_of, grey, sketches

from .photographs import batch, brighter, cut, enlarged, original


def light(*pictures):
    return grey(batch(pictures))


def placed(first, second):
    start = align(first, second, unmoved(len(first)), steps=8, smooth=2.0)
    return align(first, second, start, steps=10, smooth=0.7)


def test_a_shift_is_found():
    first, second = light(cut(original(0), 4, 4)), light(cut(original(0), 2, 7))
    placing = placed(first, second)
    # The second begins 2 rows above and 3 columns to the right: what lies under a place is 2 below and 3 to the left.
    assert (placing.shift * 16).tolist()[0] == pytest.approx([2, -3], abs=0.1)
    assert placing.scale.tolist()[0] == pytest.approx([1, 1], abs=0.02)
    assert likeness(first, second, placing).item() > 0.95
    assert likeness(first, second, unmoved(1)).item() < 0.5


def test_a_scale_is_found():
    first, second = light(cut(original(1))), light(enlarged(cut(original(1), 2, 2, 36)))
    placing = placed(first, second)
    assert placing.scale.tolist()[0] == pytest.approx([32 / 36, 32 / 36], abs=0.02)
    assert likeness(first, second, placing).item() > 0.9


def test_brightness_and_contrast_cancel_out():
    first, second = light(cut(original(2))), light(brighter(cut(original(2))))
    assert likeness(first, second, unmoved(1)).item() > 0.99


def test_two_pictures_are_not_alike_and_flat_ones_not_either():
    first, second = light(cut(original(3))), light(cut(original(4)))
    assert abs(likeness(first, second, placed(first, second)).item()) < 0.6
    flat = torch.full((1, 32, 32), 0.5)
    assert abs(likeness(flat, first, placed(flat, first)).item()) < 0.1
    assert abs(likeness(flat, flat, placed(flat, flat)).item()) < 0.1


def test_hardly_overlapping_pictures_are_not_compared():
    picture = light(cut(original(5)))
    far = unmoved(1)
    assert likeness(picture, picture, far).item() == pytest.approx(1, abs=1e-4)
    far.shift[:] = 0.7
    assert likeness(picture, picture, far).item() == 0


def test_blur_keeps_the_mean_of_flat_and_lessens_detail():
    assert torch.allclose(blurred(torch.full((1, 8, 8), 0.3), 1.0), torch.full((1, 8, 8), 0.3))
    picture = light(cut(original(6)))
    assert blurred(picture, 2.0).std() < picture.std()


def test_sketches_have_length_one_and_those_of_copies_are_near():
    train = batch([cut(original(seed)) for seed in range(200)])
    basis = basis_of(train)
    short = sketches(train, basis)
    assert short.shape == (200, 64)
    assert torch.allclose(short.norm(dim=1), torch.ones(200), atol=1e-3)
    copies = sketches(batch([brighter(cut(original(seed), 3, 5)) for seed in range(20)]), basis)
    assert (copies @ short.T).argmax(1).tolist() == list(range(20))
    assert sketches(train[:2], None).shape == (2, 128 + 48)
    assert torch.equal(grey(train[:, :1])[0], train[0, 0] / 255)
